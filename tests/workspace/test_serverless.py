"""The bundle on serverless compute of an imitated workspace, by hand and as the jobs of a deployed bundle."""

from pathlib import Path
from types import SimpleNamespace

import mlflow
import pyarrow.dataset as ds
import pytest
from nbclient.exceptions import CellExecutionError

from helpers.jobs.bundle import Bundle
from helpers.serving.local_endpoint import LocalEndpoint
from tests import spark_connect
from tests.scenarios.azureml import read_workspace
from tests.stand_ins.databricks_workspace import jobs_service
from tests.stand_ins.databricks_workspace.cluster import USER, WORKSPACE_URL
from tests.stand_ins.databricks_workspace.layouts import ROOT, changes, contents, deployed_bundle, git_folder
from tests.workspace.test_deployed_workspace import ENDPOINT, QUICK_TRAINING, are_below, printed, write

pytestmark = pytest.mark.skipif(not spark_connect.is_installed(), reason="the packages of a client are not installed")
TYPED = {"catalog": "spark_catalog", "schema": "ada", "model_name": "by_hand", "experiment_name": "by_hand"}


@pytest.fixture(scope="module")
def by_hand(serverless, azureml_parameters):
    """The notebooks of a Git folder, run without a job: the folder, its earlier content, and what the notebooks did."""
    root = git_folder(serverless.workspace, USER)
    before = contents(root)
    typed = azureml_parameters | QUICK_TRAINING | TYPED

    def run(name, missing=(), **more):
        return serverless.run(root / "notebooks" / f"{name}.ipynb", typed | more, missing=missing)

    runtime = jobs_service.NOT_IN_RUNTIME
    missing = {"01_setup": runtime, "02_train": runtime, "03_register": ["azureml-mlflow"], "04_batch_score": ["tqdm"]}
    executed = [run(name, missing[name], batch_id="monday") for name in missing]
    stream = {"mode": "stream", "prediction_table": "streamed", "scoring_engine": "udf"}
    stream["checkpoint"] = str(serverless.folder / "Volumes" / "checkpoint")
    executed.append(run("04_batch_score", **stream))
    executed.append(run("05_deploy_endpoint", **ENDPOINT))
    executed.append(run("06_monitor", window="batch"))
    return SimpleNamespace(root=root, before=before, executed=executed, run=run, stream=stream)


@pytest.fixture(scope="module")
def jobs(serverless, azureml_parameters, by_hand):
    """What the tasks of the deployed bundle's jobs did with a Spark ML model, which is scored as a stream; then clean-up.

    The model that is deployed is the one that was trained by hand, because a server of a Spark ML model starts Spark.
    """
    root = deployed_bundle(serverless.workspace, USER)
    given = azureml_parameters | {"model_name": "deployed", "schema": "deployed"}
    serverless.variables = {"MLFLOW_DFS_TMP": str(serverless.folder / "Volumes" / "models")}
    spark_ml = {"model_flavor": "spark", "validation_threshold": "0.5"}
    stream = {"mode": "stream", "checkpoint": str(serverless.folder / "Volumes" / "stream")}
    delete = {"dry_run": "false", "force": "true"}
    try:
        executed = jobs_service.run(serverless, root, "train_and_register", **given, **spark_ml)
        executed |= jobs_service.run(serverless, root, "batch_score", **given, **stream)
        predictions = rows_of(serverless, "deployed", "deployed_predictions")
        executed |= jobs_service.run(serverless, root, "clean_up", **given, **delete)
    finally:
        serverless.variables = {}
    other = {"schema": "ada", "model_name": "by_hand", "endpoint_name": "by-a-job"}
    executed |= jobs_service.run(serverless, root, "deploy_endpoint", **azureml_parameters, **ENDPOINT, **other)
    other = {"schema": "ada", "model_name": "by_hand", "experiment_name": "by_hand", "window": "batch"}
    executed |= jobs_service.run(serverless, root, "monitor", **azureml_parameters, **other)
    return SimpleNamespace(executed=executed, predictions=predictions)


def rows_of(cluster, schema, table):
    """Read a table without Spark."""
    return ds.dataset(cluster.folder / "warehouse" / f"{schema}.db" / table, partitioning="hive").to_table().to_pandas()


def test_somebody_runs_the_notebooks_of_a_git_folder_by_hand(serverless, by_hand):
    assert by_hand.before.keys() > {"databricks.yml", "README.md"}
    for executed in by_hand.executed:
        assert are_below(by_hand.root, executed.imported)
        # Only a job has task values.
        assert executed.task_values == {}
    rows = rows_of(serverless, "ada", "by_hand_predictions")
    assert sorted(rows["id"]) == list(range(442))
    assert set(rows["batch_id"]) == {"monday"} and set(rows["model_version"]) == {1}
    layout = "print([(c.isPartition, c.isCluster) for c in spark.catalog.listColumns('ada.by_hand_predictions')][-1])"
    commits = "from tests.stand_ins.databricks_workspace.delta_on_parquet import commits; print(commits)"
    cells = serverless.run(write(serverless, layout, commits)).notebook.cells
    assert printed(cells[0].outputs) == ["(False, True)"]
    # The table was created, and then had one batch.
    assert "'spark_catalog.ada.by_hand_predictions': 2" in printed(cells[1].outputs)[0]
    assert changes(by_hand.root, by_hand.before) == []


def test_a_notebook_that_is_run_by_hand_installs_once_what_the_jobs_have_if_any_of_it_is_missing(by_hand):
    packages = {library["pypi"]["package"] for library in Bundle(ROOT).variables["cluster_libraries"]}
    for executed in by_hand.executed[:4]:
        (line,) = executed.pip_lines
        assert set(line.split()) - {"install", "--quiet"} == packages
        assert executed.restarts == 1
    assert [(executed.pip_lines, executed.restarts) for executed in by_hand.executed[4:]] == [([], 0)] * 3


def test_a_stream_scores_each_row_once_as_the_batch_was_scored(serverless, by_hand):
    batch = rows_of(serverless, "ada", "by_hand_predictions").sort_values("id")
    stream = rows_of(serverless, "ada", "streamed").sort_values("id")
    assert stream["id"].tolist() == batch["id"].tolist()
    assert stream["prediction"].tolist() == batch["prediction"].tolist()
    (batch_id,) = set(stream["batch_id"])
    assert batch_id.startswith("stream-") and batch_id.endswith("-000000")
    assert f"batch {batch_id}: 442 rows scored, 0 in quarantine" in by_hand.executed[4].shown


def test_predictions_are_compared_with_the_training_rows(serverless, by_hand):
    assert "1 windows with 442 rows measured, 0 have not changed since" in by_hand.executed[6].shown
    measured = rows_of(serverless, "ada", "by_hand_monitoring")
    assert measured["feature"].nunique() == 11 and set(measured["window"]) == {"monday"}
    assert measured[measured["measure"] == "psi"]["value"].max() < 0.2


def test_an_interval_is_refused_in_one_line_before_anything_is_made(serverless, by_hand):
    with pytest.raises(CellExecutionError, match="trigger='1 minute': serverless compute takes available_now only"):
        by_hand.run("04_batch_score", mode="stream", trigger="1 minute", prediction_table="never")
    assert not (serverless.folder / "warehouse" / "ada.db" / "never").exists()


def test_the_spark_flavor_says_before_it_trains_what_is_missing(serverless, by_hand):
    with pytest.raises(CellExecutionError, match="model_flavor='spark': on this compute MLflow passes Spark ML models"):
        by_hand.run("02_train", model_flavor="spark")
    serverless.variables = {"DATABRICKS_ENV_VERSION": "4"}
    with pytest.raises(CellExecutionError, match="need environment version 5; this is version 4"):
        by_hand.run("02_train", model_flavor="spark")
    serverless.variables = {}


def test_with_the_registry_in_azure_ml_a_run_in_databricks_is_named_by_its_version(
    by_hand, databricks, azureml_process
):
    client = mlflow.MlflowClient(tracking_uri=databricks.url)
    experiment = client.get_experiment_by_name(f"/Users/{USER}/by_hand")
    (run,) = client.search_runs([experiment.experiment_id], "tags.azureml_mlflow = 'by_hand'")
    workspace = azureml_process.run(read_workspace.read, "by_hand", "by_hand")
    assert workspace["runs"] == []
    tags = workspace["versions"]["1"]["tags"]
    assert (tags["run_id"], tags["tracking_server"]) == (run.info.run_id, f"https://{WORKSPACE_URL}")
    assert tags["check_threshold"].startswith("passed") and "champion" in tags


def test_a_deployed_bundle_trains_a_spark_ml_model_and_scores_a_stream_with_it(jobs):
    assert list(jobs.executed) == ["setup", "train", "register", "score", "clean_up", "deploy_endpoint", "monitor"]
    assert jobs.executed["register"].task_values["promoted"] is True
    assert jobs.executed["score"].task_values["rows_scored"] == 442
    assert "engine: spark ml" in jobs.executed["score"].shown
    assert sorted(jobs.predictions["id"]) == list(range(442))
    assert jobs.executed["clean_up"].task_values["deleted"] > 4


def test_the_job_monitor_does_not_measure_again_what_has_not_changed(jobs):
    assert jobs.executed["monitor"].task_values["retrain"] == "false"
    assert "0 windows with 0 rows measured, 1 have not changed since" in jobs.executed["monitor"].shown


def test_the_job_deploys_a_model_to_an_endpoint_of_its_own(serverless, jobs):
    found = jobs.executed["deploy_endpoint"].task_values
    assert (found["endpoint_name"], found["deployment"], found["changed"]) == ("by-a-job", "by-hand-1", True)
    endpoints = serverless.folder / "tmp" / "azureml_mlflow" / "endpoints"
    assert LocalEndpoint("by-a-job", endpoints).state().traffic == {"by-hand-1": 100}


def test_set_up_makes_the_volume_where_there_is_unity_catalog_and_later_notebooks_use_it(serverless):
    root = deployed_bundle(serverless.workspace, "grace@example.com")
    cells = [
        f"import os, sys; sys.path.insert(0, {str(root)!r}); from helpers import volumes",
        f"volumes.ROOT = {str(serverless.folder / 'Volumes')!r}",
        "print(volumes.make_model_volume(spark, '', 'ada'))",
        "print(volumes.make_model_volume(spark, 'main', 'ada'))",
        "volumes.use_model_volume('main', 'ada'); print(os.environ['MLFLOW_DFS_TMP'])",
        "volumes.check_spark_ml('model_flavor', 'spark')",
    ]
    lines = [printed(cell.outputs) for cell in serverless.run(write(serverless, *cells)).notebook.cells]
    assert lines[2][0].startswith("model_flavor=spark cannot be used here: the volume `spark_catalog`.`ada`.mlflow_tmp")
    assert lines[3] == ["volume `main`.`ada`.mlflow_tmp: for models of model_flavor=spark on their way to MLflow"]
    assert lines[4] == [str(Path(serverless.folder, "Volumes", "main", "ada", "mlflow_tmp"))]


@pytest.mark.parametrize(
    ("code", "refusal"),
    [
        ("spark.range(1).cache()", "NOT_SUPPORTED_WITH_SERVERLESS"),
        ("spark.conf.get('spark.sql.warehouse.dir', 'x')", "CONFIG_NOT_AVAILABLE"),
        ("spark.conf.set('spark.sql.execution.arrow.maxRecordsPerBatch', '1')", "CONFIG_NOT_AVAILABLE"),
        ("spark.sparkContext", "JVM_ATTRIBUTE_NOT_SUPPORTED"),
        ("spark._jvm", "JVM_ATTRIBUTE_NOT_SUPPORTED"),
        ("spark.range(1).write.parquet('dbfs:/rows')", "dbfs"),
        ("spark.sql('CREATE VOLUME IF NOT EXISTS `spark_catalog`.`ada`.v')", "UC_NOT_ENABLED"),
    ],
)
def test_the_imitated_serverless_compute_refuses_what_the_platform_refuses(serverless, code, refusal):
    with pytest.raises(CellExecutionError, match=refusal):
        serverless.run(write(serverless, code))
