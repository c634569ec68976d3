"""The notebooks with their runs in a Databricks stand-in, alone and with Azure Machine Learning, read back plainly."""

import mlflow
import pytest

from tests.notebooks.machine import NOTEBOOKS, PLOTS, artifacts


@pytest.fixture(scope="module")
def run_in_databricks(machine, databricks):
    """The run of all notebooks, with its model in the local registry.

    The stand-in's own registry has no aliases and loads no registered model.
    """
    mode = {"tracking_mode": "databricks", "model_registry": "local", "experiment_name": "/Shared/plain"}
    machine.nbmake(*NOTEBOOKS, **mode, model_name="plain")
    return databricks_run(databricks, "/Shared/plain")


def test_runs_in_databricks_have_parameters_histories_plots_and_a_model_that_is_registered_and_scores(
    run_in_databricks, machine, databricks
):
    client, run_id = mlflow.MlflowClient(tracking_uri=databricks.url), run_in_databricks.info.run_id
    assert [point.step for point in client.get_metric_history(run_id, "epoch_loss")] == list(range(1, 21))
    assert artifacts(run_in_databricks, "plots") == {f"plots/{plot}.png" for plot in PLOTS}
    version = machine.client.get_model_version_by_alias("plain", "champion")
    assert version.tags["run_id"] == run_id and version.tags["tracking_server"] == databricks.url
    assert len(machine.table("plain_predictions")) == 569


def test_with_the_registry_in_azure_ml_a_run_in_databricks_is_named_by_its_version(
    run_in_databricks, machine, workspace, databricks, read_aml
):
    mode = {"tracking_mode": "databricks", "model_registry": "azureml", "experiment_name": "/Shared/plain"} | workspace
    machine.nbmake("03_register", "04_batch_score", **mode, model_name="both", run_id=run_in_databricks.info.run_id)
    found = read_aml("plain", "both")
    assert found["runs"] == []
    version = found["versions"]["1"]
    assert version["tags"]["run_id"] == run_in_databricks.info.run_id
    assert version["tags"]["tracking_server"] == databricks.url
    assert version["tags"]["check_threshold"].startswith("passed") and "champion" in version["tags"]
    predictions = machine.table("both_predictions")
    assert sorted(predictions["id"]) == list(range(569)) and set(predictions["model_version"]) == {1}


def test_in_dual_mode_the_run_in_databricks_has_a_copy_in_azure_ml_of_which_the_version_is_made(
    run_in_databricks, machine, workspace, databricks, read_aml
):
    mode = {"tracking_mode": "dual", "model_registry": "azureml", "experiment_name": "/Shared/mirrored"} | workspace
    # The tables are there.
    machine.nbmake(*NOTEBOOKS[1:], **mode, model_name="mirrored")
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
