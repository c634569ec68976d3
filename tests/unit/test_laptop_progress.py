"""The progress bar that is shown while Spark works on a laptop."""

import re

import pytest
from pyspark.sql import functions as F

from helpers.laptop import progress

ROWS, PARTS = 400_000, 8


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(progress, "_DELAY", 0.0)
    monkeypatch.setattr(progress, "_INTERVAL", 0.01)


@pytest.fixture
def stored(spark, tmp_path):
    folder = str(tmp_path / "rows")
    spark.range(0, ROWS, numPartitions=PARTS).write.parquet(folder)
    return spark.read.parquet(folder)


def work(stored):
    stored.withColumn("hash", F.sha2(F.col("id").cast("string"), 512)).write.format("noop").mode("append").save()


def test_the_bar_counts_tasks_and_rows_until_all_are_done(spark, stored, at_once, capsys):
    with progress.of_spark(spark, "a table"):
        work(stored)
    updates = re.findall(r"a table: .*? (\d+)/(\d+) \[.*?, ([\d,]+) rows read\]", capsys.readouterr().out)
    done, total, rows = ([int(update[i].replace(",", "")) for update in updates] for i in range(3))
    assert len(updates) > 1 and done[-1] == total[-1] > 0
    assert rows == sorted(rows) and 0 < rows[-1] <= ROWS


def test_failed_work_is_not_shown_as_done(spark, at_once, capsys):
    with pytest.raises(ZeroDivisionError), progress.of_spark(spark, "a table"):
        raise ZeroDivisionError
    assert "100%" not in capsys.readouterr().out


def test_short_work_shows_no_bar(spark, stored, capsys):
    with progress.of_spark(spark, "a table"):
        spark.range(1).count()
    assert capsys.readouterr().out == ""
