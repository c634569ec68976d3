"""The guide "Your own model", followed: its code trains, the job `register` registers, and the other jobs continue."""

import json
import re

import mlflow
import pytest

from tests import guide_examples
from tests.notebooks.machine import Machine

PLAIN = """
import mlflow
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers import parameters, runtime, tracking

tracking.configure(runtime.read_parameters(parameters.Tracking))
spark = runtime.spark()
rows = spark.table("azureml_mlflow.training")
rows.where("id % 2 = 1").write.saveAsTable("azureml_mlflow.unseen")
seen = rows.where("id % 2 = 0").toPandas()
features = seen[["bmi", "blood_pressure", "log_triglycerides"]]
with mlflow.start_run() as run:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, seen["outcome"])
    signature = mlflow.models.infer_signature(features, pd.Series(model.predict(features), name="prediction"))
    options = {"signature": signature, "pip_requirements": ["scikit-learn"]}
    logged = mlflow.sklearn.log_model(model, name="classifier", **options)
print(f"run_id={run.info.run_id}")
print(f"model_uri={logged.model_uri}")
print(f"unseen={spark.table('azureml_mlflow.unseen').count()}")
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory, quick_jvm, connect_server):
    """A laptop with the tables of 01_setup."""
    with Machine(tmp_path_factory.mktemp("machine"), quick_jvm).on_spark_connect(connect_server) as machine:
        machine.nbmake("01_setup")
        yield machine
        machine.end_endpoints()


@pytest.fixture(scope="module")
def own(machine, tmp_path_factory):
    """What the guide's code printed: the run's id and the model's URI."""
    script = tmp_path_factory.mktemp("script") / "own.py"
    script.write_text(guide_examples.example())
    printed = machine.run("-c", f"import runpy, sys; sys.path.insert(0, '.'); runpy.run_path({str(script)!r})")
    return dict(re.findall(r"^(run_id|model_uri)=(\S+)$", printed, re.M))


@pytest.fixture(scope="module")
def plain(machine):
    """A run that logs a model with only MLflow, fitted to half of the rows; the other half is the table ``unseen``."""
    return dict(re.findall(r"^(run_id|model_uri|unseen)=(\S+)$", machine.run("-c", PLAIN), re.M))


@pytest.fixture(scope="module")
def jobs(machine, tmp_path_factory):
    """Run jobs; return what they printed, and their tasks by key."""

    def run(*keys, **parameters):
        output = tmp_path_factory.mktemp("output")
        given = [f"--param={name}={value}" for name, value in parameters.items()]
        printed = machine.run("-m", "helpers.jobs", *keys, "--output", str(output), *given)
        summary = json.loads((output / "summary.json").read_text())
        return printed, {key: task for job in summary["jobs"].values() for key, task in job["tasks"].items()}

    return run


def test_the_code_of_the_guide_is_registered_judged_on_its_held_out_rows_approved_and_scored(machine, own, jobs):
    approved = {"promote": "challenger", "decision": "approve", "approved_by": "Ada", "reason": "is simple"}
    keys = ("register", "approve", "batch_score")
    printed, tasks = jobs(*keys, run_id=own["run_id"], model_name="my_tree", **approved)
    registered = tasks["register"]["task_values"]
    assert (registered["promoted"], registered["challenger"]) == (False, True)
    assert "waits for approval" in registered["not_promoted_because"] and "Not promoted" not in printed
    assert tasks["approval"]["task_values"] == {
        "model_name": "my_tree", "model_version": "1", "approved": True, "champion_version": "1"
    }  # fmt: skip
    version = machine.client.get_model_version_by_alias("my_tree", "champion")
    assert version.run_id == own["run_id"] and version.tags["model_uri"] == own["model_uri"]
    assert version.tags["judged_on"] == "held-out rows of azureml_mlflow.training (log_split)"
    held_out = json.loads(machine.client.get_run(own["run_id"]).data.tags["azureml_mlflow_split"])["held_out_rows"]
    assert (version.tags["approval"], version.tags["approved_by"]) == ("approved", "Ada")
    assert version.tags["held_out_rows"] == str(held_out) and 60 < held_out < 120
    assert {name for name in version.tags if name.startswith("check_")} == {"check_threshold", "check_baseline"}
    assert tasks["score"]["task_values"]["rows_scored"] == 442


def test_a_run_of_plain_mlflow_is_judged_on_an_evaluation_table_and_its_model_deployed(machine, plain, jobs):
    printed, tasks = jobs(
        "register", model_uri=plain["model_uri"], model_name="plain", evaluation_table="unseen", validation_threshold=1
    )
    version = machine.client.get_model_version("plain", "1")
    assert version.tags["judged_on"] == "all rows of azureml_mlflow.unseen (evaluation_table)"
    assert (version.run_id, version.tags["held_out_rows"]) == (plain["run_id"], plain["unseen"])
    because = tasks["register"]["task_values"]["not_promoted_because"]
    assert because.startswith("check 'threshold' failed: accuracy_score 0.7")
    assert printed.rstrip().splitlines()[-1] == f"Not promoted:       version 1, because {because}"
    machine.nbmake("05_deploy_endpoint", model_name="plain", model_version=1, health_requests=3, rollout_steps="100")


def test_a_run_of_plain_mlflow_without_an_evaluation_table_is_refused_with_the_three_ways(machine, plain):
    done = machine.process("-m", "helpers.jobs", "register", "--param", f"run_id={plain['run_id']}")
    assert done.returncode == 1
    assert "tracking.log_split(split)" in done.stdout and "evaluation_table" in done.stdout
    with pytest.raises(mlflow.MlflowException):
        machine.client.get_registered_model("diabetes")
