"""Tables of the warehouse folder, which the next session finds and which several sessions use at once."""

import os
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.models import infer_signature
from pyspark.sql.types import ArrayType, DateType, DoubleType, StringType, StructType
from sklearn.linear_model import LinearRegression

from helpers import scoring, storage
from helpers.data import tables
from helpers.laptop import catalog
from tests.scenarios.process import ScenarioProcess
from tests.scenarios.spark import other_session

pytestmark = pytest.mark.slow


def warehouse(spark) -> Path:
    return Path(spark.conf.get("spark.sql.warehouse.dir").removeprefix("file:"))


@pytest.fixture
def next_session(spark, schema):
    """Drop the schema from this session's catalog but keep its files, and register the tables again, as a new session."""

    def forget_and_register():
        folder = warehouse(spark) / f"{schema}.db"
        aside = folder.rename(folder.with_suffix(".aside"))
        spark.sql(f"DROP SCHEMA {schema} CASCADE")
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
        catalog._registered.clear()
        catalog.register_tables(spark)

    return forget_and_register


def test_a_table_is_found_again_with_its_properties_partitions_and_names(spark, schema, next_session):
    rows = spark.sql("SELECT 1 AS `a b.c`, CAST(NULL AS DATE) AS day, '2026-01-31' AS batch_id")
    catalog.replace_table(rows, f"{schema}.t", {"made.by": "it's set-up"}, partitioned_by="batch_id")
    spark.range(3).write.saveAsTable(f"{schema}.saved_by_hand")
    next_session()
    assert spark.table(f"{schema}.t").collect() == rows.collect()
    assert spark.table(f"{schema}.t").dtypes == rows.dtypes
    assert tables.properties(spark, f"{schema}.t")["made.by"] == "it's set-up"
    spark.sql(f"INSERT OVERWRITE {schema}.t PARTITION (batch_id = 'b') VALUES (2, NULL)")
    assert spark.table(f"{schema}.t").count() == 2
    assert spark.table(f"{schema}.saved_by_hand").count() == 3


def test_an_unfinished_table_is_not_registered_and_can_be_made_again(spark, schema, next_session):
    failing = spark.range(100).selectExpr("CASE WHEN id = 99 THEN raise_error('no') ELSE id END AS id")
    with pytest.raises(Exception, match="no"):
        storage.replace_table(failing, f"{schema}.t")
    next_session()
    assert not tables.exists(spark, f"{schema}.t")
    storage.replace_table(spark.range(7), f"{schema}.t")
    assert spark.table(f"{schema}.t").count() == 7
    # The files of the attempt that failed are gone.
    assert len(list(catalog.table_folder(warehouse(spark), f"{schema}.t").glob("version-*"))) == 1


def test_a_table_that_cannot_be_replaced_stays_as_it_was_and_one_that_is_read_meanwhile_ends_with_its_old_rows(
    spark, schema
):
    storage.replace_table(spark.range(5), f"{schema}.t", {"key": "old"})
    failing = spark.range(100).selectExpr("CASE WHEN id = 99 THEN raise_error('no') ELSE id END AS id")
    with pytest.raises(Exception, match="no"):
        storage.replace_table(failing, f"{schema}.t", {"key": "new"})
    old = spark.table(f"{schema}.t")
    assert old.count() == 5 and tables.properties(spark, f"{schema}.t")["key"] == "old"
    storage.replace_table(old.selectExpr("id + 1 AS other"), f"{schema}.t", {"key": "new"})
    assert old.count() == 5
    assert sorted(row.other for row in spark.table(f"{schema}.t").collect()) == [1, 2, 3, 4, 5]
    assert tables.properties(spark, f"{schema}.t")["key"] == "new"


def test_columns_are_added_for_the_next_session_or_not_at_all(spark, schema, next_session):
    name = f"{schema}.t"
    storage.create_table(spark, name, spark.sql("SELECT 1L AS id, '' AS batch_id").schema, "batch_id", {"key": "old"})
    storage.replace_rows(spark.range(3), name, "batch_id", "one")
    added = {"a b.c": StructType().add("d e", ArrayType(DoubleType())), "day": DateType()}
    in_the_way = catalog.table_folder(warehouse(spark), name) / f"{catalog.STATEMENT}.new"
    in_the_way.mkdir()
    with pytest.raises(IsADirectoryError):
        storage.add_columns(spark, name, added)
    assert tables.exists(spark, name) and spark.table(name).columns == ["id", "batch_id"]
    in_the_way.rmdir()
    storage.add_columns(spark, name, added)
    for _ in range(2):
        assert spark.table(name).columns == ["id", *added, "batch_id"]
        assert {field.name: field.dataType for field in spark.table(name).schema if field.name in added} == added
        assert spark.table(name).count() == 3 and tables.properties(spark, name)["key"] == "old"
        next_session()


def test_a_table_of_an_older_version_of_this_bundle_is_found_and_replaced(spark, schema):
    folder = warehouse(spark) / f"{schema}.db" / "t"
    spark.range(3).write.parquet(str(folder))
    (folder / catalog.STATEMENT).write_text(f"CREATE TABLE spark_catalog.{schema}.t (\n  id BIGINT)\nUSING parquet\n")
    assert tables.exists(spark, f"{schema}.t") and spark.table(f"{schema}.t").count() == 3
    storage.add_columns(spark, f"{schema}.t", {"x": DateType()})
    assert spark.table(f"{schema}.t").where("x IS NULL").count() == 3
    storage.replace_table(spark.range(4), f"{schema}.t")
    assert spark.table(f"{schema}.t").count() == 4 and not folder.exists()


def test_a_table_that_somebody_drops_or_overwrites_and_saves_by_hand_is_theirs(spark, schema, next_session):
    for name, drop in (("dropped", True), ("overwritten", False)):
        storage.replace_table(spark.range(3), f"{schema}.{name}", {"made.by": "set-up"})
        if drop:
            spark.sql(f"DROP TABLE {schema}.{name}")
        spark.range(5).write.mode("overwrite").saveAsTable(f"{schema}.{name}")
        assert tables.exists(spark, f"{schema}.{name}") and spark.table(f"{schema}.{name}").count() == 5
        next_session()
        assert spark.table(f"{schema}.{name}").count() == 5
        assert "made.by" not in tables.properties(spark, f"{schema}.{name}")


def tasks(spark, action):
    """Return what an action returns, and how many tasks Spark ran for it."""
    context, tracker = spark.sparkContext, spark.sparkContext.statusTracker()
    group = uuid.uuid4().hex
    context.setJobGroup(group, group)
    result = action()
    context.setLocalProperty("spark.jobGroup.id", None)
    # Another thread tells the tracker about jobs and stages. It may not have told it about the last ones yet.
    context._jsc.sc().listenerBus().waitUntilEmpty()
    jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
    return result, sum(tracker.getStageInfo(stage).numTasks for job in jobs for stage in job.stageIds)


def test_a_batch_takes_no_more_tasks_when_there_are_more_batches_and_listing_them_few(
    spark, schema, session, register_estimator
):
    features = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
    signature = infer_signature(features, pd.Series([1.0], name="prediction"))
    model = register_estimator(LinearRegression().fit(features, [1.0, 2.0, 3.0]), signature)
    storage.replace_table(spark.range(4).selectExpr("id", "id / 7 AS x"), f"{schema}.rows")
    scorer = scoring.Scorer(session, model, f"{schema}.rows", f"{schema}.predictions", "id")

    def score(batch_id):
        return tasks(spark, lambda: scorer.score_batch(spark.table(f"{schema}.rows"), batch_id).rows_scored)

    score("template")
    few = score("first")
    template = spark.table(f"{schema}.predictions").where("batch_id = 'template'").drop("batch_id")
    many = template.crossJoin(spark.range(100).selectExpr("concat('batch-', id) AS batch_id")).coalesce(1)
    many.write.insertInto(f"{schema}.predictions")
    assert score("second") == few and few[0] == 4
    table, listing = tasks(spark, lambda: spark.table(f"{schema}.predictions"))
    assert listing <= 8 and table.count() == 103 * 4
    table.coalesce(1).write.saveAsTable(f"{schema}.all_predictions")
    assert tasks(spark, spark.table(f"{schema}.all_predictions").where("batch_id = 'second'").count)[0] == 4


@pytest.fixture(scope="module")
def other(local_dir, tmp_path_factory):
    """Another Spark session, in a process of its own, that began when the warehouse had none of a test's tables."""
    with ScenarioProcess.start(tmp_path_factory.mktemp("other"), os.environ) as process:
        process.run(other_session.begin)
        yield process


@pytest.mark.slow
def test_a_session_sees_what_another_has_created_replaced_and_dropped_since_it_began(spark, schema, other):
    name = f"{schema}.t"
    assert other.run(other_session.rows_of, name) is None
    storage.replace_table(spark.range(3), name)
    assert other.run(other_session.rows_of, name) == [[0], [1], [2]]
    storage.replace_table(spark.sql("SELECT 'x' AS text"), name)
    assert other.run(other_session.rows_of, name) == [["x"]]
    storage.add_columns(spark, name, {"more text": StringType()})
    assert other.run(other_session.rows_of, name) == [["x", None]]
    storage.drop_table(spark, name)
    assert other.run(other_session.rows_of, name) is None
    other.run(other_session.replace_table, name, 2)
    assert tables.exists(spark, name) and spark.table(name).count() == 2


@pytest.mark.slow
def test_a_session_reads_a_batch_again_that_another_has_replaced(spark, schema, other):
    name = f"{schema}.t"
    storage.create_table(spark, name, spark.sql("SELECT 1L AS id, '' AS batch_id").schema, "batch_id")
    for rows in (3, 5, 4):
        storage.replace_rows(spark.range(rows), name, "batch_id", "one")
        assert len(other.run(other_session.rows_of, name)) == rows


@pytest.fixture
def at_once(other):
    """Return what a function returns here and in the other session, which call it at the same time."""

    def call(function, mine, others):
        with ThreadPoolExecutor(1) as pool:
            there = pool.submit(other.run, function, *others)
            return function(*mine), there.result()

    return call


@pytest.mark.slow
@pytest.mark.parametrize("batches", [("mine", "other"), ("same", "same")])
def test_two_jobs_that_make_one_table_or_add_the_inputs_to_it_lose_no_row(
    spark, schema, session, register_estimator, at_once, batches
):
    features = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
    model = register_estimator(
        LinearRegression().fit(features, [1.0, 2.0, 3.0]),
        infer_signature(features, pd.Series([1.0], name="prediction")),
    )
    storage.replace_table(spark.range(1000).selectExpr("id", "id / 7 AS x"), f"{schema}.rows")
    name = mlflow.get_experiment(session.experiment_id).name
    for round_number in range(4):
        table, keep_inputs = f"{schema}.predictions_{round_number % 2}", round_number >= 2
        arguments = ((name, model.name, f"{schema}.rows", table, batch_id, keep_inputs) for batch_id in batches)
        scored = at_once(other_session.score, *arguments)
        assert scored == ([1000, 0], [1000, 0])
        assert tables.exists(spark, table)
        counts = {row["batch_id"]: row["count"] for row in spark.table(table).groupBy("batch_id").count().collect()}
        assert counts == dict.fromkeys(batches, 1000)
        assert ("x" in spark.table(table).columns) == keep_inputs
        assert not keep_inputs or spark.table(table).where("x = id / 7").count() == 1000 * len(counts)


@pytest.mark.slow
def test_of_two_set_ups_at_once_one_makes_the_table_and_the_other_finds_it(spark, schema, at_once):
    for round_number in range(3):
        arguments = (f"{schema}.t{round_number}", 10)
        assert sorted(at_once(other_session.make_table, arguments, arguments)) == ["created", "unchanged"]
        assert spark.table(arguments[0]).count() == 10
