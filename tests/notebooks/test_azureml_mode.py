"""The notebooks against an Azure Machine Learning stand-in, read back with plain clients."""

import re

import pytest

from tests.azureml.client import Client
from tests.notebooks.machine import NOTEBOOKS, PLOTS

LIST_ENDPOINTS = """
from mlflow.deployments import get_deploy_client

client = get_deploy_client(os.environ["TRACKING_URI"])
endpoints = client.list_endpoints()
"""


@pytest.fixture(scope="module")
def earlier_requests(aml):
    """How many requests the stand-in had got before the notebooks: one of its own tests sends a secret."""
    return len(aml.requests())


@pytest.fixture(scope="module")
def in_azureml(machine, workspace, earlier_requests, tmp_path_factory):
    """All notebooks with a scikit-learn model, then the two jobs with a Spark ML model; the jobs' output folder."""
    mode = {"tracking_mode": "azureml", "experiment_name": "/Shared/churn"} | workspace
    machine.nbmake(*NOTEBOOKS, "05_deploy_endpoint", **mode, batch_id="one", health_requests=5)
    output = tmp_path_factory.mktemp("jobs")
    jobs = ["train_and_register", "batch_score", "--output", str(output), "--param", "batch_id=two"]
    printed = machine.run("-m", "helpers.jobs", *jobs, **mode, model_flavor="spark", validation_threshold=0.5)
    (output / "printed.txt").write_text(printed)
    return output


@pytest.fixture(scope="module")
def found(in_azureml, read_aml):
    """What they left in Azure ML."""
    return read_aml("churn", "breast_cancer")


def test_runs_in_azure_ml_have_parameters_histories_plots_and_a_model_of_either_flavor(found):
    runs = found["runs"]
    assert [run["flavors"] for run in runs] == [["python_function", "sklearn"], ["python_function", "spark"]]
    for run in runs:
        assert run["status"] == "FINISHED"
        assert run["params"]["training_table"] == "azureml_mlflow.training" and run["params"]["epochs"] == "20"
        losses = run["history"]["epoch_loss"]
        assert [step for step, _ in losses] == list(range(1, 21)) and losses[-1][1] < losses[0][1]
        assert run["model_run_id"] == run["run_id"]
        assert run["files"].keys() > {"model/MLmodel", *(f"plots/{name}.png" for name in PLOTS)}
        assert all(run["files"][f"plots/{name}.png"] > 5_000 for name in PLOTS)
    assert len(runs[0]["history"]["val_roc_auc"]) == 20


def test_models_in_azure_ml_are_version_1_and_2_of_their_runs_with_one_champion(found):
    first, second = (found["versions"][number] for number in ("1", "2"))
    assert [first["run_id"], second["run_id"]] == [run["run_id"] for run in found["runs"]]
    assert first["tags"]["check_threshold"].startswith("passed") and first["inputs"] == second["inputs"] == 30
    won = second["tags"]["check_champion"].startswith("passed")
    assert ["champion" in version["tags"] for version in (first, second)] == [not won, won]


def test_the_champion_is_served_by_a_managed_endpoint_and_its_latencies_are_with_its_run(found, aml, tmp_path):
    script = """
    (endpoint,) = [one for one in endpoints if one["tags"].get("azureml_mlflow") == "breast_cancer"]
    answer(endpoint=endpoint, deployments=client.list_deployments(endpoint["name"]))
    """
    served = Client(aml, tmp_path).run(LIST_ENDPOINTS, script)
    assert served["endpoint"]["properties"]["traffic"] == {"breast-cancer-1": 100}
    (deployment,) = served["deployments"]
    assert deployment["properties"]["model"].endswith("/models/breast_cancer/versions/1")
    run = found["runs"][0]
    assert run["history"]["endpoint_p95_ms"][0][0] == 100 and run["history"]["endpoint_errors"] == [[100, 0]]
    (picture,) = [name for name in run["files"] if name.startswith("rollouts/")]
    assert run["files"][picture] > 5_000


def test_batches_are_scored_with_the_champion_of_azure_ml(found, machine):
    predictions = machine.table("breast_cancer_predictions")
    champion = next(int(number) for number, version in found["versions"].items() if "champion" in version["tags"])
    for batch, version in (("one", 1), ("two", champion)):
        rows = predictions[predictions["batch_id"] == batch]
        assert sorted(rows["id"]) == list(range(569)) and set(rows["model_version"]) == {version}
    right = predictions.merge(machine.table("training"), on="id").eval("prediction == diagnosis")
    assert right.mean() > 0.95


def test_nothing_that_a_run_leaves_behind_holds_a_secret(in_azureml, aml, machine, earlier_requests):
    secrets = re.compile(rb"|".join([re.escape(aml.client_secret.encode()), rb"eyJ[\w-]{10,}\.eyJ[\w-]{10,}"]))
    left = [path for folder in (machine.folder, in_azureml, aml.folder) for path in folder.rglob("*") if path.is_file()]
    assert {"summary.json", "train.html", "train.log", "printed.txt", "spark.log"} <= {path.name for path in left}
    assert [path for path in left if path.name != "requests.jsonl" and secrets.search(path.read_bytes())] == []
    sent = aml.requests()[earlier_requests:]
    assert any(request.path.endswith("/runs/create") for request in sent)
    assert [request.path for request in sent if secrets.search(f"{request.query}{request.body}".encode())] == []


def test_clean_up_takes_down_what_the_notebooks_made_there(in_azureml, machine, workspace, aml, read_aml, tmp_path):
    mode = {"tracking_mode": "azureml", "experiment_name": "/Shared/churn"} | workspace
    machine.nbmake("06_clean_up", **mode, dry_run="false", force="true")
    assert read_aml("churn", "breast_cancer") == {"runs": [], "versions": {}}
    left = Client(aml, tmp_path).run(
        LIST_ENDPOINTS, "answer(marks=[one['tags'].get('azureml_mlflow') for one in endpoints])"
    )
    assert "breast_cancer" not in left["marks"]
