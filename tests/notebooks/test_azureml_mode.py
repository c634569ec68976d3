"""The notebooks with runs, models and an endpoint in an Azure ML stand-in, read back with plain clients."""

import re
from types import SimpleNamespace

import pytest

from tests.notebooks.machine import NO_LIMIT_MS, PLOTS
from tests.scenarios.azureml import read_workspace
from tests.stand_ins.azureml_workspace import AzureMLStandIn

MODE = {"tracking_mode": "azureml", "experiment_name": "/Shared/churn"} | AzureMLStandIn.workspace_parameters


@pytest.fixture(scope="module")
def earlier_requests(aml):
    """The number of requests before the notebooks ran: a test of the stand-in itself sends a secret."""
    return len(aml.requests())


@pytest.fixture(scope="module")
def output(machine, own_spark, earlier_requests, tmp_path_factory):
    """The output folder of the jobs, which trained, deployed and used a scikit-learn model.

    After that, the notebooks trained a Spark ML model, and scored with the champion, whichever model that is.
    """
    folder = tmp_path_factory.mktemp("jobs")
    jobs = ["train_and_register", "batch_score", "--output", str(folder), "--param", "batch_id=one"]
    endpoint = {"deploy": "true", "collect_data": "true", "health_requests": 5, "latency_limit_ms": NO_LIMIT_MS}
    printed = machine.run("-m", "helpers.jobs", *jobs, **MODE, **endpoint)
    (folder / "printed.txt").write_text(printed)
    spark_ml = {"model_flavor": "spark", "validation_threshold": 0.5, "batch_id": "two"}
    own_spark.nbmake("02_train", "03_register", "04_batch_score", **MODE, **spark_ml)
    return folder


@pytest.fixture(scope="module")
def results(output, machine, read_aml, azureml_process):
    """What the jobs left in Azure ML and in the tables."""
    workspace = read_aml("churn", "diabetes")
    (endpoint,) = azureml_process.run(read_workspace.read_endpoints, "diabetes")
    return SimpleNamespace(
        runs=workspace["runs"],
        versions=workspace["versions"],
        endpoint=endpoint,
        training=machine.table("training"),
        predictions=machine.table("diabetes_predictions"),
    )


@pytest.fixture(scope="module")
def watched(results, machine, read_aml):
    """The runs of the windows that 06_monitor measured."""
    machine.nbmake("06_monitor", **MODE, window="batch", azureml_monitor="true")
    return read_aml("churn", "diabetes")["watched"]


@pytest.fixture(scope="module")
def after_clean_up(watched, machine, read_aml, azureml_process):
    """The state after 07_clean_up."""
    machine.nbmake("07_clean_up", **MODE, dry_run="false", force="true")
    endpoints = azureml_process.run(read_workspace.read_endpoints, "diabetes")
    return read_aml("churn", "diabetes") | {"endpoints": endpoints}


def test_runs_in_azure_ml_have_parameters_histories_plots_and_a_model_of_either_flavor(results):
    assert [run["flavors"] for run in results.runs] == [["python_function", "sklearn"], ["python_function", "spark"]]
    for run, epochs in zip(results.runs, (20, 50), strict=True):
        assert run["status"] == "FINISHED"
        assert run["params"]["training_table"] == "azureml_mlflow.training" and run["params"]["epochs"] == str(epochs)
        losses = run["history"]["epoch_loss"]
        assert [step for step, _ in losses] == list(range(1, len(losses) + 1)) and 3 < len(losses) <= epochs
        assert losses[-1][1] < losses[0][1]
        assert run["model_run_id"] == run["run_id"]
        assert run["files"].keys() > {"model/MLmodel", *(f"plots/{name}.png" for name in PLOTS)}
        assert all(run["files"][f"plots/{name}.png"] > 5_000 for name in PLOTS)
    histories = results.runs[0]["history"]
    assert len(histories["val_roc_auc"]) == len(histories["epoch_loss"])


def test_the_windows_of_predictions_are_compared_and_are_runs_in_azure_ml(watched, results, machine):
    predictions = results.predictions.groupby("batch_id")["model_version"].first()
    names = {f"version {version}, {batch}" for batch, version in predictions.items()}
    assert {run["tags"]["window"] for run in watched} == names and len(watched) == len(names) == 2
    for run in watched:
        assert (
            run["status"] == "FINISHED" and run["metrics"]["rows"] == 442 and run["metrics"]["psi.blood_pressure"] < 0.2
        )
        assert run["tags"]["off"] == "nothing"
    measured = machine.table("diabetes_monitoring")
    assert measured.groupby("window")["feature"].nunique().tolist() == [11, 11]


def test_models_in_azure_ml_are_version_1_and_2_of_their_runs_with_one_champion(results):
    first, second = (results.versions[number] for number in ("1", "2"))
    assert [first["run_id"], second["run_id"]] == [run["run_id"] for run in results.runs]
    assert first["tags"]["check_threshold"].startswith("passed") and first["inputs"] == second["inputs"] == 10
    second_is_champion = second["tags"]["check_champion"].startswith("passed")
    champions = ["champion" in version["tags"] for version in (first, second)]
    assert champions == [not second_is_champion, second_is_champion]


def test_the_champion_is_served_by_a_managed_endpoint_and_its_latencies_are_with_its_run(results):
    assert results.endpoint["properties"]["traffic"] == {"diabetes-1": 100}
    (deployment,) = results.endpoint["deployments"]
    assert deployment["properties"]["model"].endswith("/models/diabetes/versions/1")
    run = results.runs[0]
    assert run["history"]["endpoint_p95_ms"][0][0] == 100 and run["history"]["endpoint_errors"] == [[100, 0]]
    (picture,) = [name for name in run["files"] if name.startswith("rollouts/")]
    assert run["files"][picture] > 5_000


def test_batches_are_scored_with_the_champion_of_azure_ml(results):
    champion = next(int(number) for number, version in results.versions.items() if "champion" in version["tags"])
    for batch, version in (("one", 1), ("two", champion)):
        rows = results.predictions[results.predictions["batch_id"] == batch]
        assert sorted(rows["id"]) == list(range(442)) and set(rows["model_version"]) == {version}
    right = results.predictions.merge(results.training, on="id").eval("prediction == outcome")
    assert right.mean() > 0.7


def test_nothing_that_a_run_leaves_behind_holds_a_secret(
    results, output, aml, machine, connect_server, earlier_requests
):
    secrets = re.compile(rb"|".join([re.escape(aml.client_secret.encode()), rb"eyJ[\w-]{10,}\.eyJ[\w-]{10,}"]))
    folders = (machine.folder, connect_server.folder, output, aml.folder)
    left = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert {"summary.json", "train.html", "train.log", "printed.txt", "spark.log"} <= {path.name for path in left}
    assert [path for path in left if path.name != "requests.jsonl" and secrets.search(path.read_bytes())] == []
    sent = aml.requests()[earlier_requests:]
    assert any(request.path.endswith("/runs/create") for request in sent)
    assert [request.path for request in sent if secrets.search(f"{request.query}{request.body}".encode())] == []


def test_clean_up_takes_down_what_the_notebooks_made_there(after_clean_up):
    assert after_clean_up == {"runs": [], "watched": [], "versions": {}, "endpoints": []}
