"""Which rows judge a model: those that its run recorded as held out, or a table that it has not seen."""

import json
import logging

import mlflow
import pandas as pd
import pytest
from mlflow.models import infer_signature
from pyspark.errors import AnalysisException
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression

from helpers import data, output, registration, serving, tracking
from helpers.data import split as splits
from helpers.parameters import ParameterError

pytestmark = pytest.mark.slow

CHOICES = {"label_column": "label", "id_column": "id", "test_fraction": 0.25, "seed": 7}
# What 02_train logged before it called `tracking.log_split`.
OLD_PARAMETERS = CHOICES | {"model_name": "m", "model_flavor": "sklearn", "epochs": 20}


@pytest.fixture
def write(spark, schema):
    """Write a table: an id, a feature, a label of two classes, and a date, which is not a feature."""

    def write_table(name="t", rows=400, first=0):
        table = f"{schema}.{name}"
        columns = "id", "id % 7 AS x", "IF(id % 2 = 0, 'yes', 'no') AS label", "current_date() AS day"
        spark.range(first, first + rows).selectExpr(*columns).write.mode("overwrite").saveAsTable(table)
        return table

    return write_table


@pytest.fixture
def log_run(session):
    """Log a finished run: with a split, parameters, tags, or whatever `log` does while it is active."""

    def log(split=None, parameters=None, tags=None, log=lambda: None):
        with mlflow.start_run(tags=tags) as run:
            mlflow.log_params(parameters or {})
            if split:
                tracking.log_split(split)
            log()
        return mlflow.get_run(run.info.run_id)

    return log


@pytest.fixture
def rows_for(spark):
    """The rows that judge the model of a run."""

    def find(run, evaluation_table=""):
        return data.evaluation_rows(spark, run, evaluation_table=evaluation_table, label_column="label", id_column="id")

    return find


def ids(rows):
    return {row["id"] for row in rows.select("id").collect()}


def test_the_rows_that_a_run_recorded_as_held_out_judge_it(spark, write, log_run, rows_for):
    table = write()
    split = data.load_split(spark, table, **CHOICES)
    rows = rows_for(log_run(split))
    assert ids(rows.rows) == ids(split.held_out) and rows.count == split.held_out.count()
    assert rows.description == f"held-out rows of {table} (log_split)"
    assert (rows.label_column, rows.id_column, rows.classes) == ("label", "id", ["no", "yes"])
    # Code of one's own may use columns that 02_train would not.
    assert "day" in rows.rows.columns


def test_the_table_may_be_written_again_in_another_order_and_with_another_type_of_id(spark, write, log_run, rows_for):
    table = write()
    run = log_run(data.load_split(spark, table, **CHOICES))
    before = ids(rows_for(run).rows)
    spark.table(table).selectExpr("CAST(id AS INT) AS id", "x", "label").orderBy("x").write.saveAsTable(f"{table}_copy")
    spark.sql(f"DROP TABLE {table}")
    spark.sql(f"ALTER TABLE {table}_copy RENAME TO {table}")
    assert ids(rows_for(run).rows) == before


@pytest.mark.parametrize(("rows", "first"), [(420, 0), (380, 0), (400, 1000)])
def test_a_table_in_which_other_rows_would_be_held_out_is_refused(spark, write, log_run, rows_for, rows, first):
    run = log_run(data.load_split(spark, write(), **CHOICES))
    write(rows=rows, first=first)
    with pytest.raises(ParameterError, match="run_id=.* has changed since this run split it: .* held out 9[0-9] rows"):
        rows_for(run)


def test_a_run_that_did_not_record_its_split_is_refused_with_the_three_ways(write, log_run, rows_for):
    with pytest.raises(ParameterError, match="run_id=.*does not record which rows it held out") as refused:
        rows_for(log_run())
    for way in ("tracking.log_split(split)", "evaluation_table", "02_train"):
        assert way in str(refused.value)


@pytest.mark.parametrize("tags", [{}, {tracking.MODEL_NAME_TAG: "m"}])
def test_parameters_of_a_split_that_was_made_in_another_way_are_not_a_record(write, log_run, rows_for, tags):
    """For instance of `train_test_split`: a hash of the id would hold out rows that the model has learned from."""
    run = log_run(parameters=CHOICES | {"training_table": write()}, tags=tags)
    with pytest.raises(ParameterError, match="does not record which rows it held out"):
        rows_for(run)


def test_a_run_of_02_train_from_before_there_was_the_record_is_judged_on_its_held_out_rows(
    spark, write, log_run, rows_for
):
    table = write()
    run = log_run(parameters=OLD_PARAMETERS | {"training_table": table}, tags={tracking.MODEL_NAME_TAG: "m"})
    rows = rows_for(run)
    assert ids(rows.rows) == ids(data.load_split(spark, table, **CHOICES).held_out)
    assert rows.description == f"held-out rows of {table} (parameters of 02_train)"


def test_all_labelled_rows_of_an_evaluation_table_judge_whatever_the_run_recorded(spark, write, log_run, rows_for):
    split = data.load_split(spark, write(), **CHOICES)
    other = write("other", rows=50, first=10_000)
    spark.sql(f"CREATE TABLE {other}_2 AS SELECT id, x, IF(id = 10001, NULL, label) AS label FROM {other}")
    for run in (log_run(), log_run(split)):
        rows = rows_for(run, f"{other}_2")
        assert ids(rows.rows) == set(range(10_000, 10_050)) - {10_001} and rows.count == 49
        assert rows.description == f"all rows of {other}_2 (evaluation_table)"


def test_after_a_split_is_logged_a_wrong_statement_has_sparks_own_error(spark, write, log_run, monkeypatch):
    # As in a process in which no statement has failed yet.
    monkeypatch.delitem(logging.root.manager.loggerDict, "SQLQueryContextLogger", raising=False)
    table = write()
    log_run(data.load_split(spark, table, **CHOICES))
    with pytest.raises(AnalysisException, match="no_such_column"):
        spark.sql(f"SELECT no_such_column FROM {table}")


def test_the_table_that_a_run_trained_on_is_refused_as_evaluation_table(spark, write, log_run, rows_for):
    table = write()
    split = data.load_split(spark, table, **CHOICES)
    with output.quiet_sql_errors():
        dataset = mlflow.data.from_spark(spark.table(table), table_name=f"spark_catalog.{table}")
    runs = [
        log_run(split),
        log_run(parameters={"training_table": table.split(".")[1]}),
        log_run(log=lambda: mlflow.log_input(dataset, context="train")),
        log_run(log=lambda: mlflow.log_input(dataset)),
    ]
    for run in runs:
        with pytest.raises(ParameterError, match=f"evaluation_table='{table}': run .* trained on this table"):
            rows_for(run, table)
    evaluated = log_run(log=lambda: mlflow.log_input(dataset, context="validation"))
    assert rows_for(evaluated, table).count == 400


def test_an_evaluation_table_that_cannot_be_used_is_named(write, log_run, rows_for, spark):
    with pytest.raises(ParameterError, match="evaluation_table='gone.t': no such table"):
        rows_for(log_run(), "gone.t")
    table = write()
    spark.sql(f"CREATE TABLE {table}_unlabelled AS SELECT id, x FROM {table}")
    with pytest.raises(ParameterError, match="label_column='label': no such column"):
        rows_for(log_run(), f"{table}_unlabelled")


def test_examples_are_rows_of_the_table_that_judged_the_version(spark, write, log_run):
    split = data.load_split(spark, write(), **CHOICES)
    other = write("other", rows=50, first=10_000)
    examples = data.example_rows(spark, log_run(split), {})
    # The model may need columns that 02_train does not use.
    assert ids(examples) == ids(split.held_out) and "day" in examples.columns
    assert ids(data.example_rows(spark, log_run(), {"evaluation_table": other})) == set(range(10_000, 10_050))


def test_the_record_of_a_run_is_one_tag_and_the_table_is_a_dataset_input(spark, write, log_run):
    table = write()
    split = data.load_split(spark, table, **CHOICES)
    run = log_run(split)
    assert splits.SplitRecord.of(run) == split.record()
    assert (split.record().test_fraction, split.record().held_out_rows) == (0.25, split.held_out.count())
    assert not run.data.params
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == table
    # Azure Machine Learning accepts 1,000 characters.
    assert len(run.data.tags[splits.SPLIT_TAG]) < 500


def test_integers_of_an_evaluation_table_can_be_examples_of_a_model_of_fractions(
    spark, write, session, register_estimator
):
    """As in batch scoring; MLflow itself refuses integers of 64 bits for a double."""
    features = pd.DataFrame({"x": [0.0, 1.0]})
    model = LinearRegression().fit(features, [0.0, 2.0])
    version = register_estimator(model, infer_signature(features, pd.Series([0.0], name="prediction")))
    rows = spark.table(write(rows=5)).select("id", "x").orderBy("id").toPandas()
    assert rows["x"].dtype == "int64"
    examples = serving.examples(session, version, rows)
    assert list(examples.rows) == ["x"] and examples.predictions == pytest.approx([0, 2, 4, 6, 8])


BY_DAY = CHOICES | {"split_by": "time", "split_column": "day"}


@pytest.fixture
def add_days(spark, schema):
    """Append days of 100 rows each to a table; their ids go on from the last one, unless another first one is given."""

    def add(first_day, days, label="IF(id % 2 = 0, 'yes', 'no')", **first):
        first_id = first.get("first_id", (first_day - 1) * 100)
        day = f"date_add(DATE'2026-01-01', CAST({first_day - 1} + (id - {first_id}) DIV 100 AS INT)) AS day"
        rows = spark.range(first_id, first_id + days * 100).selectExpr("id", "id % 7 AS x", f"{label} AS label", day)
        rows.write.mode("append").saveAsTable(f"{schema}.days")
        return f"{schema}.days"

    return add


def test_the_newest_rows_of_a_run_judge_it_although_newer_ones_have_arrived_since(spark, add_days, log_run, rows_for):
    table = add_days(1, 4)
    run = log_run(data.load_split(spark, table, **BY_DAY))
    # With a class that was not there, and rows without a time.
    add_days(5, 2, label="'maybe'")
    spark.sql(f"INSERT INTO {table} SELECT id + 10000, x, label, NULL FROM {table}")
    rows = rows_for(run)
    assert ids(rows.rows) == set(range(300, 400)) and rows.classes == ["no", "yes"]
    assert rows.description == f"held-out rows of {table} (log_split: newest by `day` from 2026-01-04 to 2026-01-04)"
    assert ids(data.example_rows(spark, run, {})) == set(range(300, 400))
    assert registration.version_tags(rows, {}, [])["judged_on"] == rows.description


def test_rows_that_arrive_late_in_the_time_of_held_out_ones_are_refused_and_older_ones_do_not_matter(
    spark, add_days, log_run, rows_for
):
    run = log_run(data.load_split(spark, add_days(1, 4), **BY_DAY))
    add_days(2, 1, first_id=1000)
    assert rows_for(run).count == 100
    add_days(4, 1, first_id=2000)
    with pytest.raises(ParameterError, match="has changed .* held out 100 rows, and the same split now holds out 200"):
        rows_for(run)


def test_a_run_whose_split_column_is_gone_or_has_other_values_is_refused(spark, add_days, log_run, rows_for):
    table = add_days(1, 4)
    run = log_run(data.load_split(spark, table, **BY_DAY))
    for select, problem in (
        ("id, x, label, 5 AS day", "now holds out 0"),
        ("id, x, label", "split_column='day': no suc"),
    ):
        spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW other AS SELECT {select} FROM {table}")
        spark.table("other").write.mode("overwrite").saveAsTable(f"{table}_other")
        spark.catalog.dropTempView("other")
        record = run.data.tags[splits.SPLIT_TAG].replace(table, f"{table}_other")
        with pytest.raises(ParameterError, match=problem):
            rows_for(log_run(tags={splits.SPLIT_TAG: record}))


def test_rows_for_test_judge_a_run_that_validated_on_others(spark, write, log_run, rows_for):
    table = write()
    parts = "element_at(array('train', 'test', 'validation'), CAST(id % 3 + 1 AS INT)) AS part"
    spark.sql(f"CREATE TABLE {table}_parts AS SELECT *, {parts} FROM {table}")
    split = data.load_split(spark, f"{table}_parts", **CHOICES, split_by="column", split_column="part")
    rows = rows_for(log_run(split))
    assert ids(rows.rows) == set(range(1, 400, 3))
    assert rows.description == f"held-out rows of {table}_parts (log_split: `part` is test)"


def test_a_record_from_before_there_were_other_splits_is_one_by_id(spark, write, log_run, rows_for):
    split = data.load_split(spark, write(), **CHOICES)
    record = json.loads(split.record().as_text())
    for name in ("split_by", "split_column", "split_values"):
        del record[name]
    assert ids(rows_for(log_run(tags={splits.SPLIT_TAG: json.dumps(record)})).rows) == ids(split.held_out)


def test_the_champion_is_measured_on_the_new_rows_and_the_note_says_how_many_it_may_know(
    spark, session, model_name, add_days, log_run, rows_for
):
    constant = DummyClassifier(strategy="constant", constant="yes").fit([[0.0], [1.0]], ["no", "yes"])
    signature = infer_signature(pd.DataFrame({"x": [0]}), pd.Series(["no"], name="prediction"))

    def promote(split):
        uris = []
        log_run(split, log=lambda: uris.append(tracking.log_model(constant, flavor="sklearn", signature=signature)))
        tracking.promote(session, model_name, mlflow.register_model(uris[0], model_name).version)

    table = add_days(1, 4)
    by_id = data.load_split(spark, table, **CHOICES)
    promote(data.load_split(spark, table, **BY_DAY))
    add_days(5, 4, label="IF(id % 4 = 0, 'yes', 'no')")
    rows = rows_for(log_run(data.load_split(spark, table, **BY_DAY)))
    assert ids(rows.rows) == set(range(600, 800))
    metrics, note = registration.evaluate_champion(session, model_name, rows)
    assert metrics["accuracy_score"] == 0.25 and note == "The champion is version 1."

    promote(by_id)
    known = ids(data.load_split(spark, table, **CHOICES).train) & ids(rows.rows)
    metrics, note = registration.evaluate_champion(session, model_name, rows)
    assert metrics["accuracy_score"] == 0.25
    assert f"may have learned from {len(known)} of these 200 rows: the comparison favours it" in note and known
