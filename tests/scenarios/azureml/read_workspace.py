"""What any user of the Azure ML workspace sees, without this bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
from mlflow.deployments import get_deploy_client

from tests.scenarios.azureml import plain_mlflow
from tests.stand_ins.azureml_workspace import AzureMLStandIn


def read(experiment_name: str, model_name: str) -> dict[str, Any]:
    """Return the runs of an experiment, oldest first, those of watched windows apart, and a model's versions by number."""
    # MLflow 3.0 looks for a model in its default registry, so both have to be set.
    client = plain_mlflow.signed_in()
    experiment = client.get_experiment_by_name(experiment_name)
    runs = client.search_runs([experiment.experiment_id], order_by=["start_time ASC"]) if experiment else []
    versions = client.search_model_versions(f"name = '{model_name}'")
    watched = [run for run in runs if "window" in run.data.tags]
    return {
        "runs": [_read_run(client, run) for run in runs if run not in watched],
        "watched": [{"status": run.info.status, "tags": run.data.tags, "metrics": run.data.metrics} for run in watched],
        "versions": {str(version.version): _read_version(version) for version in versions},
    }


def _read_run(client: mlflow.MlflowClient, run: mlflow.entities.Run) -> dict[str, Any]:
    run_id = run.info.run_id
    files = Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=""))
    # For runs:/ MLflow 3.0 requires an answer about logged models, which Azure ML does not have.
    root = run.info.artifact_uri if mlflow.__version__.startswith("3.0.") else f"runs:/{run_id}"
    model = _read_model(f"{root}/model")
    return {
        "run_id": run_id,
        "status": run.info.status,
        "params": run.data.params,
        "tags": run.data.tags,
        "history": {
            name: [[point.step, point.value] for point in client.get_metric_history(run_id, name)]
            for name in run.data.metrics
        },
        "files": {str(path.relative_to(files)): path.stat().st_size for path in files.rglob("*") if path.is_file()},
        "flavors": sorted(model.flavors),
        "model_run_id": model.run_id,
    }


def _read_model(uri: str) -> mlflow.models.Model:
    """Return what a model's file says. The model is loaded, too, unless MLflow would start Spark for it."""
    model = mlflow.models.Model.load(uri)
    if "spark" not in model.flavors:
        mlflow.pyfunc.load_model(uri)
    return model


def _read_version(version: mlflow.entities.model_registry.ModelVersion) -> dict[str, Any]:
    model = _read_model(f"models:/{version.name}/{version.version}")
    inputs = len(model.signature.inputs.inputs)
    return {"run_id": version.run_id, "tags": version.tags, "inputs": inputs}


def read_endpoints(mark: str) -> list[dict[str, Any]]:
    """Return the online endpoints that this bundle made for a model, with their deployments."""
    plain_mlflow.signed_in()
    client = get_deploy_client(AzureMLStandIn.from_environment().tracking_uri)
    own = [endpoint for endpoint in client.list_endpoints() if endpoint["tags"].get("azureml_mlflow") == mark]
    return [endpoint | {"deployments": client.list_deployments(endpoint["name"])} for endpoint in own]
