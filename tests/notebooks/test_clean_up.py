"""07_clean_up on a laptop, after a short training: first a dry run, then with deletions, read back with other tools."""

import sqlite3
from types import SimpleNamespace

import mlflow
import pytest

from tests.notebooks.machine import ROOT, Machine

TABLES = {"training", "scoring", "small_predictions", "small_predictions_quarantine"}


@pytest.fixture(scope="module")
def machine(tmp_path_factory, quick_jvm):
    """A laptop on which a model was trained, promoted and used."""
    machine = Machine(tmp_path_factory.mktemp("machine"), quick_jvm)
    source = machine.folder.parent / "source.csv"
    lines = [f"{i},{i % 4}.5,{'large' if i % 4 > 1 else 'small'}" for i in range(20)]
    source.write_text("\n".join(["id,size,kind", *lines, ""]))
    machine.run("-m", "tests.scenarios.notebooks.score_and_leave_everything", str(source))
    return machine


def state(machine):
    """Everything on disk: tables, checkpoints, artifacts and the rows of the database."""
    schema = machine.folder / "warehouse" / "azureml_mlflow.db"
    folders = [machine.folder / name for name in ("warehouse", "checkpoints", "mlartifacts")]
    with sqlite3.connect(machine.folder / "mlflow.db") as store:
        rows = list(store.iterdump())
    return SimpleNamespace(
        tables={path.name for path in [*schema.glob("*"), *schema.glob("bundle.tables/*")]} - {"bundle.tables"},
        checkpoints={folder.name for folder in (machine.folder / "checkpoints").glob("*")},
        files=sorted(path for folder in folders for path in folder.rglob("*")),
        database=rows,
    )


@pytest.fixture(scope="module")
def dry_run(machine, connected):
    """The state before and after a dry run."""
    before = state(machine)
    connected.nbmake("07_clean_up", model_name="small")
    return SimpleNamespace(before=before, after=state(machine))


@pytest.fixture(scope="module")
def cleaned(dry_run, machine, connected):
    """The state after a clean-up that deletes."""
    connected.nbmake("07_clean_up", model_name="small", dry_run="false", force="true")
    return state(machine)


def test_a_dry_run_changes_nothing(dry_run):
    assert dry_run.before.tables == TABLES | {"somebodys_own"}
    assert dry_run.before.checkpoints == {"azureml_mlflow.small_predictions"}
    assert dry_run.after == dry_run.before


def test_clean_up_deletes_all_that_the_bundle_made_and_nothing_else(cleaned, machine):
    assert cleaned.tables == {"somebodys_own"} and cleaned.checkpoints == set()
    experiment = machine.client.get_experiment_by_name("azureml_mlflow")
    assert [run.info.run_name for run in machine.client.search_runs([experiment.experiment_id])] == ["somebody's"]
    assert experiment.lifecycle_stage == "active" and not machine.client.search_registered_models()
    if not mlflow.__version__.startswith("2."):
        # In MLflow 2, the model is one of the run's artifacts.
        assert not machine.client.search_logged_models([experiment.experiment_id])


def test_the_commands_that_delete_the_workspaces_are_in_the_notebook_for_somebody_to_type():
    text = (ROOT / "notebooks" / "07_clean_up.ipynb").read_text()
    for command in ("databricks bundle destroy", "az ml workspace delete", "az group delete"):
        assert f"{command} " in text
