"""The first use of MLflow's store on a laptop, by two processes at once and by one that is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

ROOT = Path(__file__).parents[2]
FIRST_USE = """
from helpers import parameters, tracking
import mlflow
tracking.configure(parameters.Tracking(experiment_name="first"))
with mlflow.start_run():
    mlflow.log_metric("x", 1)
"""
pytestmark = pytest.mark.slow


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


def test_processes_that_use_it_at_once_for_the_first_time_all_log_their_run(tmp_path, start):
    processes = [start() for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(runs(tmp_path)) == 3


def test_after_a_process_was_killed_while_it_made_the_store_the_next_one_makes_it(tmp_path, start):
    process, unfinished = start(), tmp_path / "mlflow.db.unfinished"
    while process.poll() is None and not (unfinished.exists() and unfinished.stat().st_size):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and unfinished.exists()
    assert not (tmp_path / "mlflow.db").exists()
    assert start().wait() == 0
    assert len(runs(tmp_path)) == 1 and not unfinished.exists()
