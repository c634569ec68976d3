"""The plain MLflow server that plays Databricks, against MLflow's own Databricks client."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.azureml.stand_in import ROOT

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


PLAIN_NAME = """
import sys
sys.path.insert(0, sys.argv[1])
from helpers import parameters, tracking
defaults = {name: parameters.FIELDS[name].default for name in parameters.TRACKING}
try:
    tracking.configure(parameters.parse(defaults | {"tracking_mode": "databricks", "experiment_name": "churn"}))
except parameters.ParameterError as error:
    print(error)
"""


def test_a_run_is_logged_to_databricks_and_read_back(databricks, tmp_path):
    assert last_line(SCRIPT, databricks.environment(), tmp_path) == "text 0.5"


def test_a_plain_experiment_name_is_refused_where_the_workspace_does_not_say_who_asks(databricks, tmp_path):
    error = last_line(PLAIN_NAME, databricks.environment(), tmp_path)
    assert error.startswith(f"experiment_name='churn': {databricks.url} does not say who you are (404 Not Found); ")
    assert "Databricks takes an absolute path such as /Users/<you>/churn or /Shared/churn" in error


def last_line(script: str, environment: dict[str, str], folder: Path) -> str:
    """Run a script as a client, and return the last line that it printed."""
    command = [sys.executable, "-c", script, str(ROOT)]
    client = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=90
    )
    assert client.returncode == 0, client.stderr
    return client.stdout.splitlines()[-1]
