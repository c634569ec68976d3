"""A job whose sign-in is refused: what it says, and that it wrote nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.azureml.stand_in import ROOT, AzureMLStandIn


def test_a_job_with_a_wrong_secret_ends_before_any_table_with_one_line_that_says_why(tmp_path):
    with AzureMLStandIn.start(tmp_path / "aml") as aml:
        wrong = "wrong~Secret.in-a-job"
        environment = os.environ | aml.environment() | {"AZURE_CLIENT_SECRET": wrong}
        environment |= {"BUNDLE_LOCAL_DIR": str(tmp_path / "local")}
        environment |= {"PYSPARK_SUBMIT_ARGS": "--driver-java-options -XX:TieredStopAtLevel=1 pyspark-shell"}
        command = [sys.executable, "-m", "helpers.local_job", "train_and_register"]
        command += ["--output", str(tmp_path / "output")]
        for name in ("subscription_id", "resource_group", "workspace"):
            command += ["--param", f"azureml_{name}={getattr(aml, name)}"]
        command += ["--param", "tracking_mode=azureml"]
        job = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
        assert aml.requests("/mlflow/") == []
    assert job.returncode == 1
    told = [line for line in job.stdout.splitlines() if "AADSTS7000215" in line]
    # The first attempt, and the one that databricks.yml asks for.
    assert len(told) == 2 and all("AzureError: Azure: sign-in with" in line for line in told)
    assert "MLflow: tracking server" in told[0]
    executed = json.loads((tmp_path / "output" / "train_and_register" / "setup.ipynb").read_text())
    outputs = [output for cell in executed["cells"] for output in cell.get("outputs", [])]
    errors = [output for output in outputs if output["output_type"] == "error"]
    assert [error["ename"] for error in errors] == ["AzureError"] and "\n" not in errors[0]["evalue"]
    warehouse = tmp_path / "local" / "warehouse"
    assert [path for path in warehouse.rglob("*.parquet")] == [] and not (tmp_path / "local" / "mlflow.db").exists()
    left = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert [str(file) for file in left if wrong.encode() in file.read_bytes()] == []
    assert wrong not in job.stdout + job.stderr
