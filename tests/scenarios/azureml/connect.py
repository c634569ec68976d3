"""Connecting to the Azure ML workspace as a notebook does, and logging a run there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from helpers import azureml, output, runtime
from tests.scenarios.errors import error_of
from tests.stand_ins import both_servers
from tests.stand_ins.databricks_workspace.strict_dbutils import NotebookRun, StrictDbutils


def connect(**parameters: str) -> dict[str, str]:
    """Connect with the default parameters, except for the given ones."""
    workspace = azureml.connect(both_servers.parameters(**{"tracking_mode": "azureml"} | parameters))
    return {"name": workspace.name, "uri": workspace.tracking_uri, "page": workspace.studio_url("home")}


def refusal(**parameters: str) -> str | None:
    """Return why connecting fails, or None if it succeeds."""
    return error_of(connect, **parameters)


def log_a_metric(**parameters: str) -> None:
    """Log a metric to a run of the workspace."""
    import mlflow

    from helpers import tracking

    tracking.configure(both_servers.parameters(**{"tracking_mode": "azureml"} | parameters))
    with mlflow.start_run():
        mlflow.log_metric("loss", 0.5)


def be_a_job_on_databricks(secrets: dict[str, dict[str, str]]) -> None:
    """Make this process look like a Databricks job with secret scopes."""
    run = NotebookRun("/Workspace/one", "train", secrets=secrets)
    InteractiveShell.instance().user_ns["dbutils"] = StrictDbutils(run, lambda: None)


def log_and_register_a_run(**parameters: str) -> dict[str, Any]:
    """Log a run with an artifact, register it, and read all of it back."""
    import mlflow

    from helpers import tracking

    session = tracking.configure(both_servers.parameters(**{"tracking_mode": "azureml"} | parameters))
    output.display(session.table())
    Path("model").mkdir()
    Path("model/MLmodel").write_text("flavors: {}")
    with mlflow.start_run() as run:
        mlflow.log_metric("loss", 0.5)
        mlflow.log_artifacts("model", "model")
    version = tracking.create_version(session, run, f"runs:/{run.info.run_id}/model", "from-a-scope", {})
    return {
        "in_job": runtime.in_job(),
        "metric": mlflow.get_run(run.info.run_id).data.metrics["loss"],
        "artifact": mlflow.artifacts.load_text(f"{run.info.artifact_uri}/model/MLmodel"),
        "version": [str(version.version), version.run_id == run.info.run_id],
    }
