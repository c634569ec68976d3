"""The bundle in an imitated Databricks workspace: deployed, in a Git folder, and imported."""

from pathlib import Path

import mlflow
import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from tests.stand_ins.databricks_workspace import jobs_service
from tests.stand_ins.databricks_workspace.cluster import REDACTED, USER, WORKSPACE_URL
from tests.stand_ins.databricks_workspace.layouts import (
    ROOT,
    changes,
    contents,
    deployed_bundle,
    git_folder,
    imported_folder,
)

QUICK_TRAINING = {"epochs": "3", "validation_threshold": "0.5"}
# No check of the rollout should fail because this machine is slow.
ENDPOINT = {"endpoint_target": "local", "health_requests": "3", "rollout_steps": "100", "latency_limit_ms": "600000"}
WRITE_TABLES, WRITE_AT_ONCE = (
    ROOT / "tests" / "scenarios" / "workspace" / f"{name}.py" for name in ("write_tables", "write_at_once")
)
MANY_FIELDS = ", ".join(f"'x{number}', {number}" for number in range(31))


@pytest.fixture(scope="module")
def deployed(cluster):
    root = deployed_bundle(cluster.workspace, USER)
    return root, contents(root)


@pytest.fixture(scope="module")
def jobs(cluster, deployed, azureml_parameters):
    """What the tasks of all jobs of the bundle did, one after the other."""
    root, _ = deployed
    # Other tests register diabetes in the same stand-in.
    azureml_parameters = azureml_parameters | {"model_name": "tumour"}
    waiting = QUICK_TRAINING | {"sample_data": "breast_cancer", "promote": "challenger"}
    executed = jobs_service.run(cluster, root, "train_and_register", **azureml_parameters, **waiting)
    executed |= jobs_service.run(cluster, root, "approve", **azureml_parameters, decision="approve")
    executed |= jobs_service.run(cluster, root, "batch_score", **azureml_parameters)
    executed |= jobs_service.run(cluster, root, "deploy_endpoint", **azureml_parameters, **ENDPOINT)
    delete = {"dry_run": "false", "force": "true"}
    return executed | jobs_service.run(cluster, root, "clean_up", **azureml_parameters, **delete)


def test_the_jobs_of_a_deployed_bundle_hand_over_what_one_task_found_to_the_next(jobs, databricks):
    assert list(jobs) == ["setup", "train", "register", "approval", "score", "deploy_endpoint", "clean_up"]
    run_id = jobs["train"].task_values["run_id"]
    assert f"run {run_id}" in jobs["register"].shown
    assert jobs["register"].task_values == {
        "model_name": "tumour",
        "model_version": "1",
        "promoted": False,
        "challenger": True,
        "not_promoted_because": "it is the challenger and waits for approval: run 08_approve",
        "deploy": "false",
    }
    assert f"tumour version 1 was approved by {USER} at 20" in jobs["approval"].shown
    assert jobs["approval"].task_values["champion_version"] == "1"
    scored = jobs["score"].task_values
    assert (scored["batch_id"], scored["rows_scored"], scored["model_version"]) == (jobs_service.RUN_ID, 569, "1")
    assert jobs["deploy_endpoint"].task_values["deployment"] == "tumour-1"
    assert jobs["clean_up"].task_values == {"deleted": 9}
    run = mlflow.MlflowClient(tracking_uri=databricks.url).get_run(run_id)
    assert run.data.params["epochs"] == "3" and run.info.lifecycle_stage == "deleted"


def test_plain_names_are_completed_with_what_the_workspace_says(jobs, databricks):
    run = mlflow.MlflowClient(tracking_uri=databricks.url).get_run(jobs["train"].task_values["run_id"])
    experiment = mlflow.MlflowClient(tracking_uri=databricks.url).get_experiment(run.info.experiment_id)
    # Clean-up has renamed the experiment.
    assert experiment.name.startswith(f"/Users/{USER}/azureml_mlflow")
    assert f"https://{WORKSPACE_URL}/ml/experiments/{run.info.experiment_id}/runs/" in jobs["train"].shown


def test_a_job_installs_nothing_since_its_libraries_are_what_the_notebooks_need(jobs):
    assert [(executed.pip_lines, executed.restarts) for executed in jobs.values()] == [([], 0)] * len(jobs)


def test_a_secret_is_not_even_shown_redacted(jobs, aml):
    for executed in jobs.values():
        assert REDACTED not in executed.shown and aml.client_secret not in executed.shown


def test_a_secret_that_a_notebook_prints_is_redacted(cluster):
    notebook = write(cluster, "print(dbutils.secrets.get('azureml', 'azure-client-secret'))")
    assert printed(cluster.run(notebook).notebook.cells[0].outputs) == [REDACTED]


def test_deployed_files_are_as_they_were(jobs, deployed):
    assert changes(*deployed) == []
    assert "notebooks/01_setup.ipynb" in deployed[1] and "databricks.yml" not in deployed[1]


def test_somebody_imports_the_two_folders_and_tracks_on_the_driver_for_a_try(cluster):
    root = imported_folder(cluster.workspace, USER)
    before = contents(root)
    assert {name.split("/")[0] for name in before} == {"notebooks", "helpers"}
    typed = QUICK_TRAINING | {"schema": "imported", "tracking_mode": "local"}
    for name in ("01_setup", "02_train"):
        executed = cluster.run(root / "notebooks" / f"{name}.ipynb", typed)
        # Nothing is missing: the cluster has the libraries.
        assert (executed.pip_lines, executed.restarts) == ([], 0)
    client = mlflow.MlflowClient(f"sqlite:///{cluster.folder / 'tmp' / 'azureml_mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("azureml_mlflow")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["training_table"] == "imported.training"
    for notebook in sorted((root / "notebooks").glob("0[3-6]*.ipynb")):
        executed = cluster.run(notebook, typed, until="runtime.read_parameters(")
        assert are_below(root, executed.imported)
        assert (executed.pip_lines, executed.restarts) == ([], 0)
    assert changes(root, before) == []


@pytest.mark.parametrize("layout", [deployed_bundle, git_folder, imported_folder])
def test_a_notebook_finds_its_helpers_from_any_working_directory(cluster, layout):
    root = layout(cluster.workspace, "grace@example.com")
    for folder in (cluster.elsewhere, cluster.elsewhere.parent):
        (folder / "helpers.py").write_text("raise ImportError('older helpers')")
    notebook = root / "notebooks" / "04_batch_score.ipynb"
    for task in (None, "score"):
        executed = cluster.run(notebook, task=task, until="from helpers import", working_directory=cluster.elsewhere)
        assert are_below(root, executed.imported)


def test_tables_are_written_as_in_delta_and_the_helpers_know_the_platform(cluster, deployed):
    root, _ = deployed
    notebook = write(cluster, f"import sys\n\nsys.path.append({str(root)!r})", WRITE_TABLES.read_text())
    outputs = cluster.run(notebook).notebook.cells[1].outputs
    assert printed(outputs) == [f"{root} databricks False {USER}", "[(3, 'b'), (4, 'a')] x", "False"]
    (table,) = [output for output in outputs if output.output_type == "display_data"]
    assert "<td>4</td>" in table.data["text/html"] and "<td>3</td>" not in table.data["text/html"]


def test_a_new_table_is_clustered_an_older_one_stays_partitioned_and_jobs_that_write_at_once_lose_nothing(
    cluster, deployed
):
    notebook = write(cluster, f"import sys\n\nsys.path.append({str(deployed[0])!r})", WRITE_AT_ONCE.read_text())
    conflict = "default.newer: another job wrote into it during attempt {} of 2 (DELTA_CONCURRENT_APPEND)."
    refused = (
        "prediction_table='default.newer': other jobs wrote into it during each of 2 attempts (DELTA_CONCURRENT_APPEND), "
        "and nothing of batch monday was written into it. Run it again, run the jobs one after the other, or name a table "
        "of its own for each job"
    )
    assert printed(cluster.run(notebook).notebook.cells[1].outputs) == [
        *(conflict.format(attempt) for attempt in (1, 1, 2)),
        refused,
        "{'batch_id': 'clusters'} {'monday': 3, 'of another job': 1}",
        "{'batch_id': 'partitions'} {'monday': 4, 'of another job': 1}",
        conflict.format(1),
        "[('monday', None, 3), ('of another job', None, 1), ('with input', 7, 1)]",
    ]


def test_a_job_is_known_by_its_context(cluster, deployed):
    code = f"import sys; sys.path.append({str(deployed[0])!r}); from helpers import runtime; print(runtime.in_job())"
    for task in (None, "train"):
        outputs = cluster.run(write(cluster, code), task=task).notebook.cells[0].outputs
        assert printed(outputs) == [str(task is not None)]


@pytest.mark.parametrize(
    ("change", "refusal"), [("", "REPLACE_WHERE_MISMATCH.* 1 rows"), (".drop('id')", "METADATA_MISMATCH")]
)
def test_rows_of_another_batch_or_with_other_columns_are_refused(cluster, change, refusal):
    rows = """rows = spark.range(1, 3).selectExpr("id", "IF(id = 1, 'a', 'b') AS batch")"""
    create = "rows.writeTo('default.strict').createOrReplace()"
    overwrite = f"rows{change}.writeTo('default.strict').overwrite(F.col('batch') == 'a')"
    notebook = write(cluster, "from pyspark.sql import functions as F", rows, create, overwrite)
    with pytest.raises(CellExecutionError, match=refusal):
        cluster.run(notebook)


@pytest.mark.parametrize(
    ("column", "layout", "refusal"),
    [
        ("1 AS `no.`, 1 AS `a b`", "clusterBy('id')", "INVALID_CHARACTERS"),
        ("1 AS batch", "partitionedBy('id').clusterBy('id')", "CLUSTER_BY"),
        (f"named_struct({MANY_FIELDS}) AS many, 1 AS z", "clusterBy('z')", "MISSING_STATS"),
    ],
)
def test_a_layout_that_delta_does_not_have_is_refused(cluster, column, layout, refusal):
    create = f"spark.sql({f'SELECT 1 AS id, {column}'!r}).writeTo('default.strict').{layout}.create()"
    with pytest.raises(CellExecutionError, match=refusal):
        cluster.run(write(cluster, create))


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


def write(cluster, *cells):
    """Write a notebook with code cells into the workspace."""
    path = cluster.workspace / "Users" / USER / "scratch.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, path)
    return path


def printed(outputs):
    """Return the lines that a cell wrote to standard output."""
    texts = [output.text for output in outputs if output.output_type == "stream" and output.name == "stdout"]
    return "".join(texts).splitlines()


def are_below(root, files):
    return bool(files) and all(Path(file).resolve().is_relative_to(root.resolve()) for file in files)
