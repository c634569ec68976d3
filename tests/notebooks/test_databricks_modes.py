"""The notebooks with their runs in a Databricks stand-in, alone and with Azure ML, read back with plain clients.

tests/workspace tests runs in Databricks whose models are registered in Azure ML without a mirror.
"""

import mlflow
import pytest

from tests.notebooks.machine import NOTEBOOKS, PLOTS, artifacts
from tests.stand_ins.azureml_workspace import AzureMLStandIn


@pytest.fixture(scope="module")
def with_tables(machine):
    """The laptop after 01_setup, which does the same in every mode."""
    machine.nbmake("01_setup", tracking_mode="databricks", model_registry="local", experiment_name="/Shared/plain")
    return machine


def test_runs_in_databricks_have_parameters_histories_plots_and_a_model_that_is_registered(with_tables, databricks):
    # The stand-in's own registry does not support aliases or loading registered models.
    mode = {"tracking_mode": "databricks", "model_registry": "local", "experiment_name": "/Shared/plain"}
    with_tables.nbmake("02_train", "03_register", **mode, model_name="plain")
    run = only_run(databricks, "/Shared/plain")
    client = mlflow.MlflowClient(tracking_uri=databricks.url)
    history = client.get_metric_history(run.info.run_id, "epoch_loss")
    assert [point.step for point in history] == list(range(1, len(history) + 1)) and len(history) > 3
    assert artifacts(run, "plots") == {f"plots/{plot}.png" for plot in PLOTS}
    version = with_tables.client.get_model_version_by_alias("plain", "champion")
    assert version.tags["run_id"] == run.info.run_id and version.tags["tracking_server"] == databricks.url


def test_in_dual_mode_the_run_in_databricks_has_a_copy_in_azure_ml_of_which_the_version_is_made(
    with_tables, databricks, read_aml
):
    mode = {"tracking_mode": "dual", "model_registry": "azureml", "experiment_name": "/Shared/mirrored"}
    with_tables.nbmake(*NOTEBOOKS[1:], **mode, **AzureMLStandIn.workspace_parameters, model_name="mirrored")
    run = only_run(databricks, "/Shared/mirrored")
    workspace = read_aml("mirrored", "mirrored")
    (copy,) = workspace["runs"]
    assert run.data.tags["mirrored_to_run_id"] == copy["run_id"]
    assert copy["tags"]["mirrored_from_run_id"] == copy["model_run_id"] == run.info.run_id
    assert copy["status"] == "FINISHED" and copy["params"] == run.data.params
    history = mlflow.MlflowClient(tracking_uri=databricks.url).get_metric_history(run.info.run_id, "epoch_loss")
    assert copy["history"]["epoch_loss"] == [[point.step, point.value] for point in history] and len(history) > 3
    assert copy["files"].keys() > {"model/MLmodel", *(f"plots/{name}.png" for name in PLOTS)}
    version = workspace["versions"]["1"]
    assert version["run_id"] == copy["run_id"] and version["tags"]["run_id"] == run.info.run_id
    assert version["tags"]["tracking_server"] == databricks.url and "champion" in version["tags"]
    predictions = with_tables.table("mirrored_predictions")
    assert len(predictions) == 442 and set(predictions["model_version"]) == {1}
    with_tables.nbmake(
        "06_monitor", **mode, **AzureMLStandIn.workspace_parameters, model_name="mirrored", window="batch"
    )
    (watched,) = read_aml("mirrored", "mirrored")["watched"]
    assert watched["tags"]["azureml_mlflow_monitoring_of"] == "mirrored" and watched["metrics"]["rows"] == 442
    assert {name for name in watched["metrics"] if name.startswith("psi.")} >= {"psi.bmi", "psi.blood_pressure"}


def only_run(databricks, experiment_name):
    """Return the only run of an experiment, which must be complete and have a model."""
    client = mlflow.MlflowClient(tracking_uri=databricks.url)
    experiment = client.get_experiment_by_name(experiment_name)
    (listed,) = client.search_runs([experiment.experiment_id])
    # MLflow 3.0 does not return the models of runs in a list.
    run = client.get_run(listed.info.run_id)
    assert run.info.status == "FINISHED" and run.data.params["training_table"] == "azureml_mlflow.training"
    if mlflow.__version__.startswith("2."):
        # Models are artifacts of their run, not separate entities.
        assert "model/MLmodel" in artifacts(run, "model")
    else:
        (model,) = run.outputs.model_outputs
        assert client.get_logged_model(model.model_id).source_run_id == run.info.run_id
    return run
