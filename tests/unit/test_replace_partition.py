"""A partition of a table is replaced atomically, at whatever step the process ends."""

import os
import signal
import sys

import pytest

from helpers import storage

# The file operations of Python; Spark's come before.
EVENTS = ("os.symlink", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


@pytest.fixture
def table(spark, schema):
    """A table with two partitions, the first of which was replaced once."""
    name = f"{schema}.predictions"
    storage.create_table(spark, name, spark.sql("SELECT 1L AS id, '' AS batch_id").schema, "batch_id")
    for batch_id, rows in (("mon:day", 2), ("tuesday", 5), ("mon:day", 3)):
        storage.replace_rows(spark.range(rows), name, "batch_id", batch_id)
    return name


def counts(spark, table):
    spark.catalog.refreshTable(table)
    return {row["batch_id"]: row["count"] for row in spark.table(table).groupBy("batch_id").count().collect()}


def killed_at(event_number, spark, table):
    """Replace the partition in a fork that is killed at the n-th such event; return whether it was killed."""
    pid = os.fork()
    if pid == 0:
        # The connections to the JVM belong to the parent; this process opens its own.
        spark.sparkContext._gateway._gateway_client.deque.clear()
        seen = 0

        def kill(event, _):
            nonlocal seen
            if event in EVENTS:
                seen += 1
                if seen > event_number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill)
        status = 1
        try:
            storage.replace_rows(spark.range(7), table, "batch_id", "mon:day")
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def test_one_partition_is_replaced_and_the_other_is_not_touched(spark, table):
    assert counts(spark, table) == {"mon:day": 3, "tuesday": 5}


@pytest.mark.slow
def test_a_process_killed_at_any_step_leaves_the_old_rows_or_the_new_ones_and_the_next_call_replaces_them(spark, table):
    number, seen = 0, []
    while killed_at(number, spark, table):
        present = counts(spark, table)
        assert present in ({"mon:day": 3, "tuesday": 5}, {"mon:day": 7, "tuesday": 5})
        seen.append(present["mon:day"])
        storage.replace_rows(spark.range(3), table, "batch_id", "mon:day")
        assert counts(spark, table) == {"mon:day": 3, "tuesday": 5}
        number += 1
    assert number >= 3 and set(seen) == {3, 7}


def test_a_job_that_fails_while_it_writes_leaves_the_old_rows(spark, table):
    failing = spark.range(100).selectExpr("CASE WHEN id = 99 THEN raise_error('no') ELSE id END AS id")
    with pytest.raises(Exception, match="no"):
        storage.replace_rows(failing, table, "batch_id", "mon:day")
    assert counts(spark, table) == {"mon:day": 3, "tuesday": 5}


def test_a_partition_that_spark_itself_wrote_is_replaced_too(spark, table):
    spark.sql(f"INSERT OVERWRITE {table} PARTITION (batch_id = 'own') VALUES (1), (2)")
    storage.replace_rows(spark.range(1), table, "batch_id", "own")
    assert counts(spark, table)["own"] == 1
