"""Batches and streams on a Spark Connect server that shares nothing with its client but the tables."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import spark_connect

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not spark_connect.is_installed(), reason="the packages of a client are not installed"),
]


@pytest.fixture(scope="module")
def steps(tmp_path_factory, quick_jvm):
    """What each step of the scenario gave."""
    folder = tmp_path_factory.mktemp("connect")
    local, scratch = folder / "local", folder / "scratch"
    scratch.mkdir()
    (scratch / "file").write_text("read")
    hidden = (ROOT / "helpers", ROOT / "tests", scratch, local / "mlartifacts", local / "mlflow.db")
    with spark_connect.server(local, quick_jvm, hidden) as address:
        command = [sys.executable, "-m", "tests.scenarios.spark.on_spark_connect"]
        variables = {"SPARK_REMOTE": address, "BUNDLE_LOCAL_DIR": str(local), "TMPDIR": str(scratch)}
        results = folder / "results.json"
        command += [str(results), str(scratch / "file")]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-6000:][:4000]
    return json.loads(results.read_text())


def test_the_servers_python_has_neither_the_bundle_nor_the_files_of_the_client(steps):
    assert steps["workers"] == [False, "on the disk of the client"]


def test_without_sparks_jvm_the_spark_flavor_is_refused_before_anything_is_read(steps):
    assert steps["spark flavor"].startswith("model_flavor='spark': MLflow's Spark flavor needs Spark's JVM")


@pytest.mark.parametrize(("step", "engine"), [("python", "udf"), ("sql", "sql"), ("large", "udf")])
def test_a_batch_is_scored_as_in_memory_wherever_the_model_has_to_travel(steps, step, engine):
    name, rows, equal, difference = steps[step]
    assert (name, rows, equal) == (engine, 300, True) and difference < 1e-12


@pytest.mark.parametrize("name", ["forest", "linear"])
def test_a_stream_scores_each_row_once_and_the_bad_row_goes_to_the_quarantine(steps, name):
    ((number, scored, refused, line),) = steps[f"{name} first"]
    assert (number, scored, refused) == ("000000", 300, 0)
    assert line.endswith(": 300 rows scored, 0 in quarantine")
    assert [batch[:3] for batch in steps[f"{name} added"]] == [["000001", 1, 1]]
    ((bad, problem),) = steps[f"{name} quarantine"]
    assert bad == 400 and "'b'" in problem
    assert steps[f"{name} rows"] is True


# The table of the forest had no columns for the inputs at first.
@pytest.mark.parametrize(("name", "rows"), [("forest", 1), ("linear", 301)])
def test_a_stream_writes_the_inputs_also_into_a_table_that_had_none(steps, name, rows):
    assert steps[f"{name} inputs"] == rows and steps[f"{name} last inputs"] == [1.0, 2.0, 1.0, 1.0]


def test_a_stream_finds_no_row_twice(steps):
    assert steps["nothing new"] == []


def test_a_bad_row_stops_a_stream_if_asked_to(steps):
    assert "on_bad_rows='fail': s.scoring has rows that linear version 1 cannot score" in steps["fail"]
    assert '"row.id":400' in steps["fail"]


def test_a_micro_batch_that_was_not_committed_is_replaced(steps):
    assert [batch[:3] for batch in steps["again"]] == [["000001", 1, 1]]
    assert steps["linear rows"] is True


def test_requests_that_an_endpoint_collected_are_read(steps):
    assert steps["collected"] == [[3, 0.0, 1.5, None], [3, 1.0, 1.0, "x"]]


def test_a_stream_with_an_interval_scores_rows_that_are_added_while_it_runs_and_ends_when_it_is_stopped(steps):
    ids, micro_batches, still_running = steps["interval"]
    assert (ids, micro_batches, still_running) == ([600, 700], 2, 0)
