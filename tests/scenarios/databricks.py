"""MLflow's own client for Databricks, and `helpers.tracking` with Databricks."""

from __future__ import annotations

from typing import Any

import mlflow

from helpers import tracking
from tests.scenarios.errors import error_of
from tests.stand_ins import both_servers


def log_a_run_and_read_it_back() -> dict[str, Any]:
    """Log a metric and a text."""
    mlflow.set_tracking_uri("databricks")
    mlflow.set_registry_uri("databricks")
    mlflow.set_experiment("/Shared/experiment")
    with mlflow.start_run() as active:
        mlflow.log_metric("loss", 0.5)
        mlflow.log_text("text", "a.txt")
    run = mlflow.get_run(active.info.run_id)
    return {"text": mlflow.artifacts.load_text(f"{run.info.artifact_uri}/a.txt"), "loss": run.data.metrics["loss"]}


def use_an_experiment(name: str) -> str | None:
    """Return why an experiment of this name cannot be used, or None if it can."""
    p = both_servers.parameters(tracking_mode="databricks", experiment_name=name)
    return error_of(tracking.configure, p)
