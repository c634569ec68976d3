"""The notebooks against Azure Machine Learning and Databricks stand-ins, read back with plain clients."""

import re

import mlflow
import pytest

from tests.azureml.client import Client
from tests.notebooks.machine import Machine, artifacts

NOTEBOOKS = ("01_setup", "02_train", "03_register", "04_batch_score")
PLOTS = ["confusion_matrix", "feature_importance", "loss_curve", "roc_curve"]
# What any user of the AML workspace sees, without the bundle.
READ_AML = """
import mlflow

uri, experiment_name, model_name = (os.environ[name] for name in ("TRACKING_URI", "EXPERIMENT", "MODEL"))
mlflow.set_tracking_uri(uri)
client = mlflow.MlflowClient(uri, uri)
found = {"runs": [], "versions": {}}
experiment = client.get_experiment_by_name(experiment_name)
for run in client.search_runs([experiment.experiment_id], order_by=["start_time ASC"]) if experiment else []:
    run_id = run.info.run_id
    files = Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=""))
    # For runs:/ MLflow 3.0 insists on an answer about logged models, which AML does not give.
    root = run.info.artifact_uri if mlflow.__version__.startswith("3.0.") else f"runs:/{run_id}"
    model = mlflow.pyfunc.load_model(f"{root}/model")
    found["runs"].append({
        "run_id": run_id, "status": run.info.status, "params": run.data.params, "tags": run.data.tags,
        "history": {
            name: [[point.step, point.value] for point in client.get_metric_history(run_id, name)]
            for name in run.data.metrics
        },
        "files": {str(path.relative_to(files)): path.stat().st_size for path in files.rglob("*") if path.is_file()},
        "signature": model.metadata.signature.outputs.to_dict(), "flavors": sorted(model.metadata.flavors),
        "model_run_id": model.metadata.run_id,
    })
for version in client.search_model_versions(f"name = '{model_name}'"):
    loaded = mlflow.pyfunc.load_model(f"models:/{model_name}/{version.version}")
    found["versions"][str(version.version)] = {
        "run_id": version.run_id, "tags": version.tags, "inputs": len(loaded.metadata.signature.inputs.inputs),
    }
answer(**found)
"""


@pytest.fixture(scope="module")
def workspace(aml):
    """The parameters that name the AML workspace."""
    return {
        "azureml_subscription_id": aml.subscription_id,
        "azureml_resource_group": aml.resource_group,
        "azureml_workspace": aml.workspace,
    }


@pytest.fixture(scope="module")
def machine(tmp_path_factory, quick_jvm, aml, databricks):
    """A laptop that is signed in to both."""
    return Machine(tmp_path_factory.mktemp("machine"), quick_jvm, aml.environment() | databricks.environment())


@pytest.fixture(scope="module")
def read_aml(aml, tmp_path_factory):
    """Read the AML workspace with a plain client, in another process, since it has another cloud."""

    def read(experiment_name, model_name):
        client = Client(aml, tmp_path_factory.mktemp("read"))
        return client.run(READ_AML, EXPERIMENT=experiment_name, MODEL=model_name)

    return read


@pytest.fixture(scope="module")
def earlier_requests(aml):
    """How many requests the stand-in had got before the notebooks: one of its own tests sends a secret."""
    return len(aml.requests())


@pytest.fixture(scope="module")
def in_azureml(machine, workspace, earlier_requests, tmp_path_factory):
    """All notebooks with a scikit-learn model, then the two jobs with a Spark ML model; the jobs' output folder."""
    mode = {"tracking_mode": "azureml", "experiment_name": "/Shared/churn"} | workspace
    machine.nbmake(*NOTEBOOKS, **mode, batch_id="one")
    output = tmp_path_factory.mktemp("jobs")
    jobs = ["train_and_register", "batch_score", "--output", str(output), "--param", "batch_id=two"]
    printed = machine.run("-m", "helpers.local_job", *jobs, **mode, model_flavor="spark", validation_threshold=0.5)
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
    assert first["tags"]["check.threshold"].startswith("passed") and first["inputs"] == second["inputs"] == 30
    won = second["tags"]["check.champion"].startswith("passed")
    assert ["champion" in version["tags"] for version in (first, second)] == [not won, won]


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


def test_with_the_registry_in_azure_ml_a_run_in_databricks_is_named_by_its_version(
    machine, workspace, databricks, read_aml
):
    mode = {"tracking_mode": "databricks", "model_registry": "azureml", "experiment_name": "/Shared/both"} | workspace
    machine.nbmake(*NOTEBOOKS, **mode, model_name="both")
    run = databricks_run(databricks, "/Shared/both")
    found = read_aml("both", "both")
    assert found["runs"] == []
    version = found["versions"]["1"]
    assert version["tags"]["run_id"] == run.info.run_id and version["tags"]["tracking_server"] == databricks.url
    assert version["tags"]["check.threshold"].startswith("passed") and "champion" in version["tags"]
    predictions = machine.table("both_predictions")
    assert sorted(predictions["id"]) == list(range(569)) and set(predictions["model_version"]) == {1}


def test_in_dual_mode_the_run_in_databricks_has_a_copy_in_azure_ml_of_which_the_version_is_made(
    machine, workspace, databricks, read_aml
):
    mode = {"tracking_mode": "dual", "model_registry": "azureml", "experiment_name": "/Shared/mirrored"} | workspace
    machine.nbmake(*NOTEBOOKS, **mode, model_name="mirrored")
    run = databricks_run(databricks, "/Shared/mirrored")
    found = read_aml("mirrored", "mirrored")
    (copy,) = found["runs"]
    assert run.data.tags["mirrored_to_run_id"] == copy["run_id"]
    assert copy["tags"]["mirrored_from_run_id"] == copy["model_run_id"] == run.info.run_id
    assert copy["status"] == "FINISHED" and copy["params"] == run.data.params
    assert [step for step, _ in copy["history"]["epoch_loss"]] == list(range(1, 21))
    assert copy["files"].keys() > {"model/MLmodel", *(f"plots/{name}.png" for name in PLOTS)}
    version = found["versions"]["1"]
    assert version["run_id"] == copy["run_id"] and version["tags"]["run_id"] == run.info.run_id
    assert version["tags"]["tracking_server"] == databricks.url and "champion" in version["tags"]
    assert set(machine.table("mirrored_predictions")["model_version"]) == {1}


def test_runs_in_databricks_have_parameters_histories_plots_and_a_model_that_is_registered_and_scores(
    machine, databricks
):
    # The stand-in's own registry has no aliases and loads no registered model.
    mode = {"tracking_mode": "databricks", "model_registry": "local", "experiment_name": "/Shared/plain"}
    machine.nbmake(*NOTEBOOKS, **mode, model_name="plain")
    run = databricks_run(databricks, "/Shared/plain")
    client = mlflow.MlflowClient(tracking_uri=databricks.url)
    assert [point.step for point in client.get_metric_history(run.info.run_id, "epoch_loss")] == list(range(1, 21))
    assert artifacts(run, "plots") == {f"plots/{plot}.png" for plot in PLOTS}
    version = machine.client.get_model_version_by_alias("plain", "champion")
    assert version.tags["run_id"] == run.info.run_id and version.tags["tracking_server"] == databricks.url
    assert len(machine.table("plain_predictions")) == 569


def databricks_run(databricks, experiment_name):
    client = mlflow.MlflowClient(tracking_uri=databricks.url)
    experiment = client.get_experiment_by_name(experiment_name)
    (found,) = client.search_runs([experiment.experiment_id])
    # MLflow 3.0 does not find a run's models with it.
    run = client.get_run(found.info.run_id)
    assert run.info.status == "FINISHED" and run.data.params["training_table"] == "azureml_mlflow.training"
    if mlflow.__version__.startswith("2."):
        # Models are artifacts of their run, not entities of their own.
        assert "model/MLmodel" in artifacts(run, "model")
    else:
        (model,) = run.outputs.model_outputs
        assert client.get_logged_model(model.model_id).source_run_id == run.info.run_id
    return run
