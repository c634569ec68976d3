"""Streams: each row is scored once, wherever and however the job ends."""

import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.models import infer_signature
from pyspark.errors import StreamingQueryException
from sklearn.tree import DecisionTreeClassifier

from helpers import parameters, scoring, storage, tracking
from helpers.laptop import catalog
from helpers.parameters import ParameterError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# Python's own file operations when a micro-batch is written.
EVENTS = ("os.symlink", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


class Ended(Exception):
    """Raised where a test ends the job; nothing in the bundle catches it."""


@pytest.fixture
def version(register_estimator):
    features = pd.DataFrame({"size": [1.0, 2.0, 3.0, 4.0]})
    fitted = DecisionTreeClassifier().fit(features, ["small", "small", "large", "large"])
    return register_estimator(fitted, infer_signature(features, pd.Series(["small"], name="prediction")))


@pytest.fixture
def source(spark, schema):
    spark.sql(f"CREATE TABLE {schema}.scoring (id BIGINT, size DOUBLE)")
    return f"{schema}.scoring"


@pytest.fixture
def stream(spark, session, schema, source, version, tmp_path):
    """Score the new rows."""

    def score_new(scoring_filter="", trigger="available_now", on_batch=lambda batch: None, **changed):
        scorer = scoring.Scorer(session, version, source, f"{schema}.predictions", "id", **changed)
        rows = scoring.new_rows(spark, source, scoring_filter, "id")
        return scoring.score_new_rows(scorer, rows, str(tmp_path / "checkpoint"), trigger, on_batch)

    return score_new


def add(spark, source, first, last):
    spark.sql(f"INSERT INTO {source} SELECT id, 1 + id % 4 AS size FROM range({first}, {last})")


def predicted(spark, schema):
    spark.catalog.refreshTable(f"{schema}.predictions")
    return sorted((row["id"], row["prediction"]) for row in spark.table(f"{schema}.predictions").collect())


def expected(last):
    return [(number, "small" if number % 4 < 2 else "large") for number in range(last)]


def test_only_new_rows_are_scored_and_nothing_is_written_when_there_are_none(spark, schema, source, stream, version):
    add(spark, source, 0, 10)
    (first,) = stream()
    assert first.rows_scored == 10 and first.batch_id.endswith("-000000")
    add(spark, source, 10, 14)
    seen = []
    (second,) = stream(on_batch=seen.append, keep_inputs=True)
    assert second.rows_scored == 4 and seen == [second] and first.batch_id[:-6] == second.batch_id[:-6]
    assert predicted(spark, schema) == expected(14)
    inputs = {row["id"]: row["size"] for row in spark.table(f"{schema}.predictions").collect()}
    assert inputs == {id_: None if id_ < 10 else 1 + id_ % 4 for id_ in range(14)}
    assert {row["model_version"] for row in spark.table(f"{schema}.predictions").collect()} == {int(version.version)}
    before = spark.table(f"{schema}.predictions").inputFiles()
    assert stream() == []
    assert spark.table(f"{schema}.predictions").inputFiles() == before


def test_a_challenger_has_a_checkpoint_of_its_own_beside_the_streams(
    spark, session, schema, source, stream, version, tmp_path
):
    add(spark, source, 0, 10)
    stream()
    # Registered later, it also scores the rows that the champion has scored before.
    challenger = mlflow.register_model(f"models:/{version.name}/{version.version}", version.name)
    tracking.make_challenger(session, version.name, challenger.version)
    names = {
        "scoring_table": source,
        "prediction_table": f"{schema}.predictions",
        "checkpoint": str(tmp_path / "checkpoint"),
    }
    p = parameters.parse(parameters.Score, names | {"mode": "stream", "shadow": "challenger"})
    scorer = scoring.Scorer.of(session, version, p)
    assert "scored 10 rows" in scoring.score_shadow(spark, scorer, [], p).note
    add(spark, source, 10, 14)
    stream()
    assert "scored 4 rows" in scoring.score_shadow(spark, scorer, [], p).note
    assert predicted(spark, schema) == expected(14)
    spark.catalog.refreshTable(f"{schema}.predictions_shadow")
    shadow = spark.table(f"{schema}.predictions_shadow").collect()
    assert sorted((row["id"], row["prediction"]) for row in shadow) == expected(14)
    assert {row["model_version"] for row in shadow} == {int(challenger.version)}
    assert (tmp_path / "checkpoint_shadow").is_dir()


def test_a_filter_and_the_quarantine_are_those_of_batches(spark, schema, source, stream):
    add(spark, source, 0, 10)
    spark.sql(f"INSERT INTO {source} VALUES (100, NULL), (101, CAST('Infinity' AS DOUBLE))")
    assert stream("id < 0") == []
    spark.sql(f"INSERT INTO {source} VALUES (102, CAST('Infinity' AS DOUBLE)), (7, 1)")
    (batch,) = stream("id <> 101")
    # A tree accepts missing values, but not infinite ones.
    assert (batch.rows_scored, batch.rows_quarantined) == (1, 1)
    (refused,) = spark.table(f"{schema}.predictions_quarantine").collect()
    assert refused["id"] == 102 and "'size' missing or infinite: ValueError" in refused["problem"]


def test_a_bad_row_stops_a_stream_if_asked_to_and_is_told_as_in_a_batch(spark, schema, source, stream):
    add(spark, source, 0, 4)
    stream(on_bad_rows="fail")
    spark.sql(f"INSERT INTO {source} VALUES (9, CAST('Infinity' AS DOUBLE))")
    with pytest.raises(
        ParameterError, match="on_bad_rows='fail': .*scoring has rows that .*id=9: 'size' missing or infinite"
    ):
        stream(on_bad_rows="fail")
    assert predicted(spark, schema) == expected(4)
    (mended,) = stream()
    assert (mended.rows_scored, mended.rows_quarantined) == (0, 1)


def test_a_table_that_does_not_fit_the_model_is_refused_by_column(spark, session, schema, version, tmp_path):
    spark.sql(f"CREATE TABLE {schema}.odd AS SELECT 1L AS id, 'big' AS size")
    scorer = scoring.Scorer(session, version, f"{schema}.odd", f"{schema}.predictions", "id")
    rows = scoring.new_rows(spark, f"{schema}.odd", "", "id")
    with pytest.raises(ParameterError, match="scoring_table=.*'size' has type string where the model takes double"):
        scoring.score_new_rows(scorer, rows, str(tmp_path / "checkpoint"))
    assert not spark.catalog.tableExists(f"{schema}.predictions")


_stop_at = None


def _stop(event, _):
    global _stop_at
    if _stop_at is not None and event in EVENTS:
        _stop_at -= 1
        if _stop_at < 0:
            _stop_at = None
            raise Ended


def test_a_stream_that_ends_at_any_step_neither_loses_nor_doubles_a_row(spark, schema, source, stream):
    """End before each file operation of the second micro-batch, and after the last one, before the commit."""
    global _stop_at
    sys.addaudithook(_stop)
    last, steps = 4, 0
    add(spark, source, 0, last)
    stream()
    while True:
        add(spark, source, last, last + 3)
        last += 3
        _stop_at = steps
        try:
            stream()
        except StreamingQueryException:
            assert _stop_at is None
        stopped, _stop_at = _stop_at is None, None
        found = predicted(spark, schema)
        assert found in (expected(last - 3), expected(last))
        if not stopped:
            break
        steps += 1
        stream()
        assert predicted(spark, schema) == expected(last)
    assert steps >= 3

    def not_committed(batch):
        raise RuntimeError("the job ends here")

    add(spark, source, last, last + 3)
    with pytest.raises(StreamingQueryException, match="the job ends here"):
        stream(on_batch=not_committed)
    assert predicted(spark, schema) == expected(last + 3)
    (again,) = stream()
    assert (again.rows_scored, again.rows_replaced) == (3, 3)
    assert predicted(spark, schema) == expected(last + 3)
    assert stream() == []


def test_a_stream_with_an_interval_scores_rows_that_are_added_while_it_runs_and_ends_when_it_is_stopped(
    spark, schema, source, stream
):
    add(spark, source, 0, 4)
    numbers = []

    def stop():
        for query in spark.streams.active:
            query.stop()

    def add_then_stop(batch):
        numbers.append(batch.batch_id[-6:])
        if len(numbers) == 1:
            add(spark, source, 4, 10)
        else:
            # Spark's own thread, which calls this, would wait for itself.
            threading.Thread(target=stop).start()

    stream(trigger="1 second", on_batch=add_then_stop)
    assert numbers == ["000000", "000001"] and spark.streams.active == []
    assert predicted(spark, schema) == expected(10)
    # The second one may not have been committed.
    stream()
    assert predicted(spark, schema) == expected(10)


def test_each_batch_is_printed_by_the_thread_that_waits_so_that_the_second_stream_of_a_notebook_shows_its_rows(
    spark, source, stream, monkeypatch
):
    printed = []

    class Recorder(io.StringIO):
        def write(self, text):
            printed.append((threading.current_thread(), text))
            return len(text)

    monkeypatch.setattr(sys, "stdout", Recorder())
    for first in (0, 10):
        add(spark, source, first, first + 10)
        stream(on_batch=None)
    lines = [(thread, text) for thread, text in printed if "10 rows scored" in text]
    assert len(lines) == 2 and {thread for thread, _ in lines} == {threading.main_thread()}


def test_after_the_tables_were_moved_nothing_is_scored_again(spark, schema, source, stream, monkeypatch, tmp_path):
    add(spark, source, 0, 10)
    stream()
    monkeypatch.setenv("BUNDLE_LOCAL_DIR", str(tmp_path / "moved"))
    with pytest.raises(
        ParameterError, match="checkpoint=.*was made when the tables were in .*; now they are in .*moved"
    ):
        stream()
    assert predicted(spark, schema) == expected(10)


@pytest.mark.slow
def test_a_process_that_is_killed_with_its_spark_is_made_good_by_the_next(
    spark, schema, source, stream, version, local_dir, tmp_path
):
    spark.sql(f"DROP TABLE {source}")
    # A table that another process sees, too.
    storage.replace_table(spark.range(0).selectExpr("id", "CAST(id AS DOUBLE) AS size"), source)
    add(spark, source, 0, 6)
    names = [version.name, version.version, source, f"{schema}.predictions", str(tmp_path / "checkpoint")]
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{local_dir}/mlflow.db"}
    command = [sys.executable, "-m", "tests.scenarios.spark.die_while_streaming", *map(str, names)]
    killed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert not list((tmp_path / "checkpoint" / "commits").glob("0"))
    # Created by another session.
    catalog.register_tables(spark)
    assert predicted(spark, schema) == expected(6)
    (again,) = stream()
    assert (again.rows_scored, again.rows_replaced) == (6, 6) and again.batch_id.endswith("-000000")
    assert predicted(spark, schema) == expected(6)
