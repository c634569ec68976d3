"""A run in Databricks and its copy in Azure ML, compared field by field through plain clients."""

from pathlib import Path

import pytest

from tests.azureml.client import Client
from tests.azureml.databricks_stand_in import DatabricksStandIn
from tests.azureml.stand_in import AzureMLStandIn

ROOT = Path(__file__).parents[2]
SCRIPT = f"""
sys.path.insert(0, {str(ROOT)!r})
import mlflow
from helpers import parameters
from helpers.tracking import dual, mirror
from tests.azureml import mirrored_runs

source = mlflow.MlflowClient(tracking_uri="databricks")
target = mlflow.MlflowClient(tracking_uri=os.environ["TRACKING_URI"])

def p(**changes):
    names = ("azureml_subscription_id", "azureml_resource_group", "azureml_workspace")
    workspace = {{name: os.environ[name.upper()] for name in names}}
    defaults = {{name: parameters.FIELDS[name].default for name in parameters.TRACKING}}
    return parameters.parse(defaults | workspace | changes)
"""


@pytest.fixture(scope="module")
def aml(tmp_path_factory):
    with AzureMLStandIn.start(tmp_path_factory.mktemp("aml")) as stand_in:
        yield stand_in


@pytest.fixture(scope="module")
def databricks(tmp_path_factory):
    with DatabricksStandIn.start(tmp_path_factory.mktemp("databricks")) as stand_in:
        yield stand_in


@pytest.fixture
def run(aml, databricks, tmp_path):
    """Run a script that mirrors, in a process of its own, signed in to both."""
    variables = databricks.environment() | {
        "AZUREML_SUBSCRIPTION_ID": aml.subscription_id,
        "AZUREML_RESOURCE_GROUP": aml.resource_group,
        "AZUREML_WORKSPACE": aml.workspace,
        "BUNDLE_LOCAL_DIR": str(tmp_path / "local"),
    }
    yield lambda *code, **more: Client(aml, tmp_path).run(SCRIPT, *code, **variables, **more)
    aml.faults.clear()


def test_random_runs_have_copies_that_are_equal_in_every_field(run):
    found = run(
        """
        experiment_id = source.create_experiment("/Shared/random")
        runs = [mirrored_runs.log_random(source, experiment_id, seed) for seed in range(12)]
        pair = dual.experiments(p(experiment_name="/Shared/random"))
        outcomes = list(mirror.mirror_runs(pair, mirror.runs(pair)))
        before = [mirrored_runs.differences(source, target, run_id) for run_id in runs]
        requests = mirror.pending(pair)
        # Running ones go on and end; then all are mirrored again.
        for run_id in runs:
            if source.get_run(run_id).info.status == "RUNNING":
                mirrored_runs.go_on_and_end(source, run_id)
        again = list(mirror.mirror_runs(pair, mirror.runs(pair)))
        once_more = list(mirror.mirror_runs(pair, mirror.runs(pair)))
        answer(
            failures=[o.reason for o in outcomes + again + once_more if isinstance(o, mirror.Failure)],
            before=before, pending=len(requests),
            statuses=sorted({source.get_run(run_id).info.status for run_id in runs}),
            after=[mirrored_runs.differences(source, target, run_id) for run_id in runs],
            copies=len(target.search_runs([pair.target_id])),
            sent=[[o.points, o.files] for o in once_more],
            left_out=sorted({str(item) for o in once_more for item in o.left_out}),
        )
        """
    )
    assert found["failures"] == []
    assert found["before"] == [[]] * 12 and found["pending"] == 0
    assert found["after"] == [[]] * 12 and found["copies"] == 12
    assert found["statuses"] == ["FAILED", "FINISHED", "KILLED"]
    assert found["sent"] == [[0, 0]] * 12
    assert found["left_out"] == []
