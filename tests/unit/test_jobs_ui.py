"""``make ui``: MLflow's UI on the local store."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from mlflow import MlflowClient

from tests.stand_ins.azureml_workspace import plain_environment

pytestmark = pytest.mark.slow

# A limit for a server that hangs; long enough for a slow machine.
SECONDS_TO_START = 600


def start(folder, *options):
    environment = plain_environment() | {"BUNDLE_LOCAL_DIR": str(folder), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "helpers.jobs.ui", *options]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def experiments(port):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=9")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=5) as answer:
        return [experiment["name"] for experiment in json.load(answer)["experiments"]]


def test_the_ui_shows_the_experiments_of_the_local_store_and_names_the_page_of_the_newest_run(tmp_path):
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    seen = client.create_experiment("seen in the UI")
    client.create_run(seen)
    client.create_experiment("newer, without a run")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = start(tmp_path, "--port", str(port), "--workers", "1")
    try:
        end, names = time.monotonic() + SECONDS_TO_START, None
        while names is None and server.poll() is None and time.monotonic() < end:
            try:
                names = experiments(port)
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        assert names is not None and "seen in the UI" in names
        assert server.poll() is None
        lines = iter(server.stdout.readline, "")
        page = next(line for line in lines if "page of your runs" in line).split()[-1]
        assert page == f"http://127.0.0.1:{port}/#/experiments/{seen}"
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()
    with pytest.raises(urllib.error.URLError):
        experiments(port)


def test_without_a_store_it_says_which_command_makes_one(tmp_path):
    server = start(tmp_path)
    printed, _ = server.communicate(timeout=SECONDS_TO_START)
    assert server.returncode == 1 and "`make run` creates it" in printed and not list(tmp_path.iterdir())
