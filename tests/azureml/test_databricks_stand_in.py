"""The plain MLflow server that plays Databricks, against MLflow's own Databricks client."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.azureml.databricks_stand_in import DatabricksStandIn

SCRIPT = """
import mlflow
mlflow.set_tracking_uri("databricks")
mlflow.set_registry_uri("databricks")
mlflow.set_experiment("/Shared/experiment")
with mlflow.start_run() as run:
    mlflow.log_metric("loss", 0.5)
    mlflow.log_text("text", "a.txt")
run = mlflow.get_run(run.info.run_id)
print(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/a.txt"), run.data.metrics["loss"])
"""


def test_a_run_is_logged_to_databricks_and_read_back(tmp_path):
    with DatabricksStandIn.start(tmp_path / "databricks") as databricks:
        environment = os.environ | databricks.environment()
        command = [sys.executable, "-c", SCRIPT]
        client = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert client.returncode == 0, client.stderr
    assert client.stdout.splitlines()[-1] == "text 0.5"
