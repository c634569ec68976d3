"""MLflow's store on a laptop: its first use by several processes at once, and a folder that is moved, copied or damaged."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression

from helpers import scoring, tracking

ROOT = Path(__file__).parents[2]
FIRST_USE = """
from helpers import parameters, tracking
import mlflow
tracking.configure(parameters.Tracking(experiment_name="first"))
with mlflow.start_run():
    mlflow.log_metric("x", 1)
"""


@pytest.fixture
def start(tmp_path):
    """Start a process that uses the store for the first time."""
    started = []

    def start_process():
        environment = os.environ | {"BUNDLE_LOCAL_DIR": str(tmp_path)}
        started.append(subprocess.Popen([sys.executable, "-c", FIRST_USE], env=environment, cwd=ROOT))
        return started[-1]

    yield start_process
    for process in started:
        process.kill()
        process.wait()


def runs(folder):
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return client.search_runs([client.get_experiment_by_name("first").experiment_id])


@pytest.mark.slow
def test_processes_that_use_it_at_once_for_the_first_time_all_log_their_run(tmp_path, start):
    processes = [start() for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(runs(tmp_path)) == 3


@pytest.mark.slow
def test_after_a_process_was_killed_while_it_made_the_store_the_next_one_makes_it(tmp_path, start):
    process, unfinished = start(), tmp_path / "mlflow.db.unfinished"
    while process.poll() is None and not (unfinished.exists() and unfinished.stat().st_size):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and unfinished.exists()
    assert not (tmp_path / "mlflow.db").exists()
    assert start().wait() == 0
    assert len(runs(tmp_path)) == 1 and not unfinished.exists()


@pytest.fixture
def use(monkeypatch, tracking_parameters):
    """Use a folder as the one of all local state; return the session."""

    def configure(folder):
        monkeypatch.setenv("BUNDLE_LOCAL_DIR", str(folder))
        return tracking.configure(tracking_parameters(experiment_name="wine"))

    return configure


@pytest.fixture
def first(tmp_path, use):
    """A folder with a model."""
    folder = tmp_path / "it's 100% %41"
    use(folder)
    rows = pd.DataFrame({"x": [1.0, 2.0]})
    with mlflow.start_run():
        signature = infer_signature(rows, pd.Series([1.0], name="prediction"))
        uri = tracking.log_model(LinearRegression().fit(rows, [1.0, 2.0]), flavor="sklearn", signature=signature)
        mlflow.register_model(uri, "wine")
    return folder


def prediction(session):
    return scoring.load(session, "models:/wine/1").model.estimator.predict(pd.DataFrame({"x": [3.0]}))[0]


@pytest.mark.slow
def test_a_folder_that_was_moved_has_its_models_and_gets_new_runs(tmp_path, use, first):
    session = use(first.rename(tmp_path / "there"))
    assert prediction(session) == pytest.approx(3)
    with mlflow.start_run() as run:
        mlflow.log_text("new", "note.txt")
    assert next((tmp_path / "there" / "mlartifacts" / "wine" / run.info.run_id).rglob("note.txt")).read_text() == "new"
    assert not first.exists()


def test_a_copy_of_a_folder_does_not_touch_the_original(tmp_path, use, first):
    copy = shutil.copytree(first, tmp_path / "copy")
    before = sorted(first.rglob("*"))
    session = use(copy)
    with mlflow.start_run():
        mlflow.log_text("new", "note.txt")
    assert sorted(first.rglob("*")) == before
    shutil.rmtree(first / "mlartifacts")
    assert prediction(session) == pytest.approx(3)


@pytest.mark.parametrize("place", [0, 40_960])
def test_a_damaged_store_is_named_with_the_ways_out_and_not_touched(use, first, place):
    store = first / "mlflow.db"
    with store.open("r+b") as file:
        file.seek(place)
        file.write(os.urandom(60_000))
    damaged = store.read_bytes()
    with pytest.raises(OSError, match=r"mlflow\.db cannot be read: .*Restore a copy of it, or move it away"):
        use(first)
    assert store.read_bytes() == damaged


@pytest.mark.slow
def test_deleted_files_of_a_model_are_named_as_that(use, first):
    shutil.rmtree(first / "mlartifacts" / "wine" / "models")
    with pytest.raises(
        FileNotFoundError, match=r"models:/wine/1 is in sqlite.*its files are gone from .*train and register"
    ):
        prediction(use(first))
