"""06_clean_up on a laptop, after a short training: a dry run, then in earnest, read back with other tools."""

import sqlite3

import mlflow
import pytest

from tests.notebooks.machine import ROOT, Machine

# What the notebooks 01 to 04 do, with less data and a stream; a run of somebody else's is in the same experiment.
TRAIN = """
import mlflow
import pandas as pd
from sklearn.linear_model import LogisticRegression
from helpers import parameters, registration, runtime, scoring, tracking
from helpers.data import tables
from helpers.training import TrainedModel

p = runtime.parameters(*parameters.TRACKING)
spark = runtime.spark()
tables.make_tables(
    spark, training_table="training", scoring_table="scoring", catalog="", schema="azureml_mlflow",
    source_path=SOURCE, label_column="kind", id_column="id",
)
servers = tracking.configure(p)
rows = pd.read_csv(SOURCE)
model = LogisticRegression().fit(rows[["size"]], rows["kind"])
signature = mlflow.models.infer_signature(rows[["size"]], pd.Series(rows["kind"], name="prediction"))
with mlflow.start_run(run_name="small", tags={tracking.MODEL_NAME_TAG: "small"}) as run:
    uri = tracking.log_model(TrainedModel(model, "sklearn", ["large", "small"], signature, rows[["size"]], {}, {}))
with mlflow.start_run(run_name="somebody's"):
    mlflow.log_param("x", 1)
version, _ = registration.register(mlflow.get_run(run.info.run_id), uri, "small", {})
tracking.promote("small", version.version)
spark.sql("INSERT INTO azureml_mlflow.scoring VALUES (99, CAST('Infinity' AS DOUBLE))")
scorer = scoring.Scorer(version, "azureml_mlflow.scoring", "azureml_mlflow.small_predictions", "id")
rows = scoring.new_rows(spark, "azureml_mlflow.scoring", "", "id")
scoring.score_new_rows(scorer, rows, runtime.checkpoint_folder(spark, "azureml_mlflow.small_predictions"))
spark.range(3).write.saveAsTable("azureml_mlflow.somebodys_own")
"""
TABLES = {"training", "scoring", "small_predictions", "small_predictions_quarantine"}


@pytest.fixture(scope="module")
def machine(tmp_path_factory, quick_jvm):
    """A laptop on which a model was trained, promoted and used."""
    machine = Machine(tmp_path_factory.mktemp("machine"), quick_jvm)
    source = machine.folder.parent / "source.csv"
    lines = [f"{i},{i % 4}.5,{'large' if i % 4 > 1 else 'small'}" for i in range(20)]
    source.write_text("\n".join(["id,size,kind", *lines, ""]))
    machine.run("-c", f"SOURCE = {str(source)!r}\n{TRAIN}")
    return machine


def tables(machine):
    return {folder.name for folder in (machine.folder / "warehouse" / "azureml_mlflow.db").iterdir()}


def database(machine):
    with sqlite3.connect(machine.folder / "mlflow.db") as store:
        return list(store.iterdump())


def files(machine):
    folders = [machine.folder / name for name in ("warehouse", "checkpoints", "mlartifacts")]
    return sorted(path for folder in folders for path in folder.rglob("*"))


def test_a_dry_run_changes_nothing_and_then_all_goes_that_the_bundle_made_and_nothing_else(machine):
    checkpoint = machine.folder / "checkpoints" / "azureml_mlflow.small_predictions"
    assert tables(machine) == TABLES | {"somebodys_own"} and checkpoint.is_dir()
    before = database(machine), files(machine)
    machine.nbmake("06_clean_up", model_name="small")
    assert (database(machine), files(machine)) == before

    machine.nbmake("06_clean_up", model_name="small", dry_run="false", force="true")
    assert tables(machine) == {"somebodys_own"} and not checkpoint.exists()
    experiment = machine.client.get_experiment_by_name("azureml_mlflow")
    assert [run.info.run_name for run in machine.client.search_runs([experiment.experiment_id])] == ["somebody's"]
    assert experiment.lifecycle_stage == "active" and not machine.client.search_registered_models()
    if not mlflow.__version__.startswith("2."):
        # Before, the model was among the run's artifacts.
        assert not machine.client.search_logged_models([experiment.experiment_id])


def test_the_commands_that_delete_the_workspaces_are_in_the_notebook_for_somebody_to_type():
    text = (ROOT / "notebooks" / "06_clean_up.ipynb").read_text()
    for command in ("databricks bundle destroy", "az ml workspace delete", "az group delete"):
        assert f"{command} " in text
