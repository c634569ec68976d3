"""A laptop that is signed in to the Azure ML and Databricks stand-ins, and a plain reader of the first."""

import pytest

from tests.azureml.client import Client
from tests.notebooks.machine import Machine

# What any user of the AML workspace sees, without the bundle.
READ_AML = """
import mlflow

uri, experiment_name, model_name = (os.environ[name] for name in ("TRACKING_URI", "EXPERIMENT", "MODEL"))
mlflow.set_tracking_uri(uri)
# MLflow 3.0 looks for a model in its default registry otherwise.
mlflow.set_registry_uri(uri)
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
