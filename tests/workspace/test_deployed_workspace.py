"""The bundle in a workspace, in each way to get there; run on the branch of `helpers.runtime` that is Databricks'."""

from pathlib import Path

import mlflow
import nbformat
import pyarrow.dataset as ds
import pytest
from nbclient.exceptions import CellExecutionError

from helpers.jobs.bundle import Bundle
from tests.stand_ins.databricks_workspace.cluster import REDACTED, USER, WORKSPACE_URL
from tests.stand_ins.databricks_workspace.layouts import (
    ROOT,
    changes,
    contents,
    deployed_bundle,
    git_folder,
    imported_folder,
)
from tests.workspace import deployed_job

EPOCHS = {"epochs": "3", "validation_threshold": "0.5"}


@pytest.fixture(scope="module")
def deployed(cluster):
    root = deployed_bundle(cluster.workspace, USER)
    return root, contents(root)


@pytest.fixture(scope="module")
def jobs(cluster, deployed, azureml_parameters):
    """All jobs of the bundle, one after the other; what their tasks did."""
    root, _ = deployed
    # Other tests register breast_cancer in the same stand-in.
    azureml_parameters = azureml_parameters | {"model_name": "tumour"}
    endpoint = {"endpoint_target": "local", "health_requests": "3", "rollout_steps": "100"}
    executed = deployed_job.run(cluster, root, "train_and_register", **azureml_parameters, **EPOCHS)
    executed |= deployed_job.run(cluster, root, "batch_score", **azureml_parameters)
    executed |= deployed_job.run(cluster, root, "deploy_endpoint", **azureml_parameters, **endpoint)
    delete = {"dry_run": "false", "force": "true"}
    return executed | deployed_job.run(cluster, root, "clean_up", **azureml_parameters, **delete)


def test_the_jobs_of_a_deployed_bundle_hand_over_what_one_task_found_to_the_next(jobs, databricks):
    assert list(jobs) == ["setup", "train", "register", "score", "deploy_endpoint", "clean_up"]
    run_id = jobs["train"].task_values["run_id"]
    assert f"run {run_id}" in jobs["register"].shown
    assert jobs["register"].task_values == {"model_name": "tumour", "model_version": "1", "promoted": True}
    scored = jobs["score"].task_values
    assert (scored["batch_id"], scored["rows_scored"], scored["model_version"]) == (deployed_job.RUN_ID, 569, "1")
    assert jobs["deploy_endpoint"].task_values["deployment"] == "tumour-1"
    assert jobs["clean_up"].task_values == {"deleted": 8}
    run = mlflow.MlflowClient(tracking_uri=databricks.url).get_run(run_id)
    assert run.data.params["epochs"] == "3" and run.info.lifecycle_stage == "deleted"


def test_plain_names_are_completed_with_what_the_workspace_says(jobs, databricks):
    run = mlflow.MlflowClient(tracking_uri=databricks.url).get_run(jobs["train"].task_values["run_id"])
    experiment = mlflow.MlflowClient(tracking_uri=databricks.url).get_experiment(run.info.experiment_id)
    # Clean-up has renamed it.
    assert experiment.name.startswith(f"/Users/{USER}/azureml_mlflow")
    assert f"https://{WORKSPACE_URL}/ml/experiments/{run.info.experiment_id}/runs/" in jobs["train"].shown


def test_each_notebook_installs_what_the_jobs_have(jobs):
    libraries = Bundle(ROOT).settings["resources"]["jobs"]["batch_score"]["tasks"][0]["libraries"]
    packages = {library["pypi"]["package"] for library in libraries}
    for executed in jobs.values():
        (line,) = executed.pip_lines
        assert set(line.split()) - {"install", "--quiet"} == packages


def test_a_secret_is_not_even_shown_redacted(jobs, aml):
    for executed in jobs.values():
        assert REDACTED not in executed.shown and aml.client_secret not in executed.shown


def test_a_secret_that_a_notebook_prints_is_redacted(cluster):
    notebook = write(cluster, "print(dbutils.secrets.get('azureml', 'azure-client-secret'))")
    assert printed(cluster.run(notebook).notebook.cells[0].outputs) == [REDACTED]


def test_deployed_files_are_as_they_were(jobs, deployed):
    assert changes(*deployed) == []
    assert "notebooks/01_setup.ipynb" in deployed[1] and "databricks.yml" not in deployed[1]


def test_somebody_runs_the_notebooks_of_a_git_folder_by_hand(cluster, azureml_parameters, databricks):
    root = git_folder(cluster.workspace, USER)
    before = contents(root)
    assert before.keys() > {"databricks.yml", "README.md"}
    typed = azureml_parameters | EPOCHS | {"catalog": "spark_catalog", "schema": "ada", "model_name": "by_hand"}
    for name in ("01_setup", "02_train", "03_register", "04_batch_score"):
        executed = cluster.run(root / "notebooks" / f"{name}.ipynb", typed | {"batch_id": "monday"})
        assert are_below(root, executed.imported)
        # They are a job's.
        assert executed.task_values == {}
    predictions = ds.dataset(cluster.folder / "warehouse" / "ada.db" / "by_hand_predictions", partitioning="hive")
    rows = predictions.to_table().to_pandas()
    assert len(rows) == 569 and set(rows["batch_id"]) == {"monday"} and set(rows["model_version"]) == {1}
    assert changes(root, before) == []


def test_somebody_imports_the_two_folders_and_tracks_on_the_driver_for_a_try(cluster):
    root = imported_folder(cluster.workspace, USER)
    before = contents(root)
    assert {name.split("/")[0] for name in before} == {"notebooks", "helpers"}
    typed = EPOCHS | {"schema": "imported", "tracking_mode": "local"}
    for name in ("01_setup", "02_train"):
        cluster.run(root / "notebooks" / f"{name}.ipynb", typed)
    client = mlflow.MlflowClient(f"sqlite:///{cluster.folder / 'tmp' / 'azureml_mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("azureml_mlflow")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["training_table"] == "imported.training"
    for notebook in sorted((root / "notebooks").glob("0[3-6]*.ipynb")):
        executed = cluster.run(notebook, typed, until="runtime.parameters(")
        assert are_below(root, executed.imported)
    assert changes(root, before) == []


def test_tables_are_written_as_in_delta_and_the_rest_of_the_platform_is_asked(cluster, deployed):
    root, _ = deployed
    code = f"""
import sys
sys.path.append({str(root)!r})
from helpers import runtime
from helpers.data import tables
print(runtime.BUNDLE_ROOT, runtime.default_tracking_mode(), runtime.in_job(), runtime.workspace_user())
empty = spark.range(0).selectExpr("id", "CAST(NULL AS string) AS batch")
runtime.replace_table(empty, "default.scored", {{"mark": "x"}}, partitioned_by="batch")
for batch, first, end in (("a", 1, 3), ("b", 3, 4), ("a", 4, 5)):
    runtime.replace_partition(spark.range(first, end), "default.scored", "batch", batch)
print(sorted(map(tuple, spark.table("default.scored").collect())), tables.properties(spark, "default.scored")["mark"])
runtime.replace_table(spark.table("default.scored").where("id > 3"), "default.scored")
runtime.display(spark.table("default.scored"))
runtime.drop_table(spark, "default.scored")
print(tables.exists(spark, "default.scored"))
"""
    shown = cluster.run(write(cluster, code)).notebook.cells[0].outputs
    assert printed(shown) == [f"{root} databricks False {USER}", "[(3, 'b'), (4, 'a')] x", "False"]
    (table,) = [output for output in shown if output.output_type == "display_data"]
    assert "<td>4</td>" in table.data["text/html"] and "<td>3</td>" not in table.data["text/html"]


def test_a_job_is_known_by_its_context(cluster, deployed):
    code = f"import sys; sys.path.append({str(deployed[0])!r}); from helpers import runtime; print(runtime.in_job())"
    for task in (None, "train"):
        shown = cluster.run(write(cluster, code), task=task).notebook.cells[0].outputs
        assert printed(shown) == [str(task is not None)]


def test_rows_of_another_partition_are_refused(cluster):
    code = """
from pyspark.sql import functions as F
rows = spark.range(1, 3).selectExpr("id", "IF(id = 1, 'a', 'b') AS batch")
rows.writeTo("default.strict").createOrReplace()
"""
    for change, refused in (("", "REPLACE_WHERE_MISMATCH.* 1 rows"), (".drop('id')", "METADATA_MISMATCH")):
        write_again = f"rows{change}.writeTo('default.strict').overwrite(F.col('batch') == 'a')"
        with pytest.raises(CellExecutionError, match=refused):
            cluster.run(write(cluster, code + write_again))


def test_a_notebook_that_asks_for_a_widget_that_it_did_not_declare_fails(cluster):
    with pytest.raises(CellExecutionError, match="No input widget named epochs is defined"):
        cluster.run(write(cluster, "dbutils.widgets.get('epochs')"), {"epochs": "3"})


def test_nothing_can_be_written_next_to_a_notebook(cluster):
    for statement in (
        "open('mlruns', 'w')",
        "import os; os.mkdir('../.local')",
        "import os; os.remove('scratch.ipynb')",
    ):
        with pytest.raises(CellExecutionError, match="Read-only file system"):
            cluster.run(write(cluster, statement))


def test_the_helpers_are_found_from_the_notebook_only(cluster):
    with pytest.raises(CellExecutionError, match="No module named 'helpers'"):
        cluster.run(write(cluster, "import helpers"))


def write(cluster, code):
    """Write a notebook of one cell into the workspace, from outside."""
    path = cluster.workspace / "Users" / USER / "scratch.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), path)
    return path


def printed(outputs):
    """Return the lines that a cell printed."""
    return "".join(output.text for output in outputs if output.output_type == "stream").splitlines()


def are_below(root, files):
    return bool(files) and all(Path(file).resolve().is_relative_to(root.resolve()) for file in files)
