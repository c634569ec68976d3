"""A job whose sign-in is refused: the error is clear, and nothing is written."""

from __future__ import annotations

import json

from tests.notebooks.machine import Machine


def test_a_job_with_a_wrong_secret_ends_before_any_table_with_one_line_that_says_why(tmp_path, quick_jvm, aml):
    wrong = "wrong~Secret.in-a-job"
    machine = Machine(tmp_path / "local", quick_jvm, aml.environment() | {"AZURE_CLIENT_SECRET": wrong})
    command = ["-m", "helpers.jobs", "train_and_register", "--output", str(tmp_path / "output")]
    earlier = len(aml.requests("/mlflow/"))
    job = machine.process(*command, tracking_mode="azureml", **aml.workspace_parameters)
    assert len(aml.requests("/mlflow/")) == earlier
    assert job.returncode == 1
    lines = [line for line in job.stdout.splitlines() if "AADSTS7000215" in line]
    # The first attempt, and the retry that databricks.yml sets.
    assert len(lines) == 2 and all("AzureError: Azure: sign-in with" in line for line in lines)
    assert "Point MLflow there" in lines[0]
    executed = json.loads((tmp_path / "output" / "train_and_register" / "setup.ipynb").read_text())
    outputs = [output for cell in executed["cells"] for output in cell.get("outputs", [])]
    errors = [output for output in outputs if output["output_type"] == "error"]
    assert [error["ename"] for error in errors] == ["AzureError"] and "\n" not in errors[0]["evalue"]
    warehouse = tmp_path / "local" / "warehouse"
    assert not list(warehouse.rglob("*.parquet")) and not (tmp_path / "local" / "mlflow.db").exists()
    left = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert [str(file) for file in left if wrong.encode() in file.read_bytes()] == []
    assert wrong not in job.stdout + job.stderr
