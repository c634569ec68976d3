"""Batches: which rows are scored, what is written, and what is refused before anything is written."""

import importlib
import json
import re
import shutil
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from pyspark import SparkContext
from pyspark.ml import Pipeline
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.regression import LinearRegression as SparkRegression
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputRegressor
from sklearn.svm import LinearSVR
from sklearn.tree import DecisionTreeClassifier

from helpers import output, parameters, runtime, scoring, serving, tracking
from helpers.laptop import catalog
from helpers.ownership import MARK
from helpers.parameters import ParameterError

GONE_PACKAGE = Path(__file__).parents[1] / "scenarios" / "spark" / "gone_package.py"
GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "approval.md"
NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "04_batch_score.ipynb"
FEATURES = pd.DataFrame({"Size in cm": [1.0, 2.0, 3.0, 4.0], "weight.kg": [4, 3, 2, 1]})


@pytest.fixture
def register(register_estimator):
    """Register a model fitted to `FEATURES`, with the given answers, and return its version."""

    def register_model(estimator, answers, output=pd.Series):
        fitted = estimator.fit(FEATURES, answers)
        return register_estimator(
            fitted, infer_signature(FEATURES, output(fitted.predict(FEATURES), name="prediction"))
        )

    return register_model


@pytest.fixture
def tree(register):
    return register(DecisionTreeClassifier(), ["small", "small", "large", "large"])


@pytest.fixture
def to_score(spark, schema):
    """A table with the features under a key of text, and columns that the model does not know."""
    rows = FEATURES.assign(**{"Row Key": list("abcd"), "day": pd.Timestamp("2026-01-31"), "note": None})
    types = "`Size in cm` double, `weight.kg` long, `Row Key` string, day timestamp, note string"
    spark.createDataFrame(rows, types).write.saveAsTable(f"{schema}.scoring")
    return f"{schema}.scoring"


@pytest.fixture
def score(session, spark, schema, to_score):
    def score_rows(version, scoring_filter="", table=to_score, batch_id="b1", **changed):
        rows = scoring.rows_to_score(spark, table, scoring_filter, "Row Key")
        scorer = scoring.Scorer(session, version, table, f"{schema}.predictions", "Row Key", **changed)
        return scorer.score_batch(rows, batch_id)

    return score_rows


def linear(register):
    return register(LinearRegression(), [1.0, 2.0, 3.0, 4.0])


def local_warehouse(spark):
    return Path(spark.conf.get("spark.sql.warehouse.dir").removeprefix("file:"))


def predictions(spark, schema):
    return spark.table(f"{schema}.predictions").toPandas().set_index(["batch_id", "Row Key"]).sort_index()


def test_each_row_gets_its_prediction_probability_version_and_time(spark, schema, score, tree):
    before = spark.sql("SELECT current_timestamp()").first()[0]
    batch = score(tree)
    assert (batch.batch_id, batch.rows_scored, batch.rows_replaced, batch.rows_quarantined) == ("b1", 4, 0, 0)
    assert str(batch.engine).startswith("udf (not sql: ") and not spark.catalog.tableExists(
        f"{schema}.predictions_quarantine"
    )
    written = predictions(spark, schema)
    assert list(written.columns) == ["prediction", "probability", "model_name", "model_version", "scored_at"]
    assert written.loc["b1"]["prediction"].to_dict() == {"a": "small", "b": "small", "c": "large", "d": "large"}
    assert set(written["probability"]) == {1.0}
    assert set(written["model_version"]) == {1} and set(written["model_name"]) == {tree.name}
    assert (written["scored_at"] >= before).all()


@pytest.mark.slow
def test_a_challenger_scores_the_same_rows_into_a_table_of_its_own_and_none_of_its_errors_stops_the_champion(
    session, spark, schema, to_score, score, register, register_estimator, tree
):
    batch = score(tree)

    def in_the_shadow(**changed):
        names = {"scoring_table": to_score, "prediction_table": f"{schema}.predictions", "id_column": "Row Key"}
        p = parameters.parse(
            parameters.Score, names | {"batch_id": "b1", "shadow": "challenger", "keep_inputs": "false"} | changed
        )
        return scoring.score_shadow(spark, scoring.Scorer.of(session, tree, p), [batch], p)

    def shadow_rows():
        return spark.table(f"{schema}.predictions_shadow").toPandas().set_index("Row Key").sort_index()

    assert in_the_shadow(shadow="none").note == "shadow=none: only one version scores"
    assert in_the_shadow().note == f"shadow: no challenger of {tree.name} waits"
    tracking.make_challenger(session, tree.name, tree.version)
    assert in_the_shadow().note == "shadow: the challenger is version 1, which has scored already"
    assert not spark.catalog.tableExists(f"{schema}.predictions_shadow")

    other = register(DecisionTreeClassifier(), ["small", "large", "large", "large"])
    tracking.make_challenger(session, tree.name, other.version)
    shadow = in_the_shadow(scoring_filter="`Size in cm` < 4")
    assert (shadow.table, shadow.model_version, shadow.problem) == (f"{schema}.predictions_shadow", "2", "")
    assert shadow.note == f"shadow: version 2 scored 3 rows into {shadow.table}, 0 in quarantine"
    assert spark.table(shadow.table).dtypes == spark.table(f"{schema}.predictions").dtypes
    assert shadow_rows()["prediction"].to_dict() == {"a": "small", "b": "large", "c": "large"}
    assert set(shadow_rows()["model_version"]) == {2} and set(shadow_rows()["batch_id"]) == {"b1"}

    (compared,) = re.findall(r"^SELECT .*?GROUP BY ALL$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    compared = compared.replace("diabetes_predictions", f"{schema}.predictions").replace("(id,", "(`Row Key`,")
    counts = {tuple(row) for row in spark.sql(compared).collect()}
    assert counts == {("small", "small", 1), ("small", "large", 1), ("large", "large", 1)}

    signature = infer_signature(pd.DataFrame({"gone": [1.0]}), pd.Series(["a"], name="prediction"))
    misfit = register_estimator(DecisionTreeClassifier().fit([[0.0], [1.0]], ["a", "b"]), signature)
    tracking.make_challenger(session, tree.name, misfit.version)
    shadow = in_the_shadow()
    assert shadow.problem.startswith("ParameterError: scoring_table=") and "gone" in shadow.problem
    assert shadow.table == "" and shadow.note == f"shadow: version 3 could not score: {shadow.problem}"
    assert predictions(spark, schema).loc["b1"]["prediction"].tolist() == ["small", "small", "large", "large"]


def test_a_shadow_beside_a_stream_that_never_ends_is_refused():
    settings = {"mode": "stream", "shadow": "challenger"}
    scoring.check_shadow(parameters.parse(parameters.Score, settings))
    with pytest.raises(ParameterError, match="shadow='challenger': trigger=1 minute never ends"):
        scoring.check_shadow(parameters.parse(parameters.Score, settings | {"trigger": "1 minute"}))


@pytest.mark.slow
def test_a_table_gets_the_inputs_that_it_lacks_and_null_for_those_that_rows_lack(
    spark, schema, score, to_score, register
):
    version = linear(register)
    score(version)
    before = predictions(spark, schema)
    assert score(version, batch_id="b2", keep_inputs=True).rows_scored == 4
    score(version, batch_id="b3")
    after = predictions(spark, schema)
    pd.testing.assert_frame_equal(after.loc[["b1"], list(before.columns)], before)
    inputs = after[["Size in cm", "weight.kg"]]
    assert inputs.loc[["b1", "b3"]].isna().all(axis=None) and inputs.loc["b2"].eq(FEATURES.to_numpy()).all(axis=None)
    # Another session reads the table's statement.
    statement = (catalog.table_folder(local_warehouse(spark), f"{schema}.predictions") / catalog.STATEMENT).read_text()
    assert "`Size in cm` DOUBLE" in statement and "`weight.kg` BIGINT" in statement
    wider = "float(`Size in cm`) AS `Size in cm`, `weight.kg`, `Row Key`"
    spark.sql(f"CREATE TABLE {schema}.other AS SELECT {wider} FROM {to_score}")
    with pytest.raises(
        ParameterError,
        match="it has Size in cm double; they have Size in cm float. Name another table, or set keep_inputs=false.",
    ):
        score(version, table=f"{schema}.other", keep_inputs=True)
    assert score(version, table=f"{schema}.other", batch_id="b4").rows_scored == 4
    pd.testing.assert_frame_equal(predictions(spark, schema).drop("b4"), after)


def test_an_input_that_the_table_of_predictions_cannot_have_is_refused_before_anything_is_written(
    spark, schema, session, register_estimator
):
    numbers = pd.DataFrame({"Row": [1.0, 2.0], "size": [2.0, 1.0]})
    version = register_estimator(
        LinearRegression().fit(numbers, [1.0, 2.0]), infer_signature(numbers, pd.Series([1.0], name="prediction"))
    )
    spark.createDataFrame(numbers.assign(id=[1, 2])).write.saveAsTable(f"{schema}.rows")
    rows = spark.table(f"{schema}.rows")
    names = (session, version, f"{schema}.rows", f"{schema}.predictions")
    with pytest.raises(
        ParameterError, match="keep_inputs='true': the input 'Row' has the name of a column that scoring"
    ):
        scoring.Scorer(*names, "id", keep_inputs=True).score_batch(rows, "b1")
    assert not spark.catalog.tableExists(f"{schema}.predictions")
    assert scoring.Scorer(*names, "id").score_batch(rows, "b1").rows_scored == 2
    with runtime.spark_setting(spark, "spark.sql.caseSensitive", "true"):
        rows = rows.withColumnRenamed("id", "Size").drop("Row")
        with pytest.raises(
            ParameterError, match="the names 'Size' and 'size' differ only in case, so .* Set keep_inputs=false"
        ):
            scoring.Scorer(*names, "Size", keep_inputs=True).kept_inputs(rows)
    # An input that is the id is there once.
    assert scoring.Scorer(*names, "size", keep_inputs=True).kept_inputs(rows) == []


def test_workers_that_have_a_model_do_not_look_through_its_modules_after_each_task(spark, score, tree):
    score(tree)

    def look(batches):
        import gc
        import sys
        import zipimport

        import pyarrow as pa

        for _ in batches:
            in_zip_files = sum(isinstance(finder, zipimport.zipimporter) for finder in sys.path_importer_cache.values())
            yield pa.RecordBatch.from_pydict({"exempt": [gc.get_freeze_count()], "in_zip_files": [in_zip_files]})

    workers = spark.range(8).repartition(4).mapInArrow(look, "exempt long, in_zip_files long").toPandas()
    with_a_model = workers[workers["exempt"] > 0]
    assert with_a_model["exempt"].min() > 100_000 and with_a_model["in_zip_files"].max() < 5


def test_a_batch_scored_again_is_replaced_and_no_other_is_touched(spark, schema, score, tree):
    score(tree, "`Size in cm` < 3")
    score(tree, batch_id="2026-01-31")
    before = predictions(spark, schema)
    again = score(tree, "`Size in cm` > 1", batch_id="b1")
    assert (again.rows_scored, again.rows_replaced) == (3, 2)
    after = predictions(spark, schema)
    assert list(after.loc["b1"].index) == ["b", "c", "d"]
    pd.testing.assert_frame_equal(after.loc[["2026-01-31"]], before.loc[["2026-01-31"]])


def test_a_batch_without_a_name_is_named_after_the_day(score, tree):
    days = [pd.Timestamp.now("UTC").date().isoformat()]
    batch_id = score(tree, batch_id="").batch_id
    assert batch_id in [*days, pd.Timestamp.now("UTC").date().isoformat()]


def test_a_regression_has_predictions_and_no_probability(spark, schema, score, register):
    score(register(LinearRegression(), [1.0, 2.0, 3.0, 4.0]))
    written = predictions(spark, schema)
    assert written["prediction"].tolist() == pytest.approx([1, 2, 3, 4])
    assert written["probability"].isna().all()


def test_a_signature_inferred_from_an_array_gives_the_prediction_its_type(spark, schema, score, register):
    score(register(DecisionTreeClassifier(), [0, 0, 1, 1], output=lambda values, name: values))
    assert spark.table(f"{schema}.predictions").schema["prediction"].dataType.simpleString() == "bigint"
    assert predictions(spark, schema)["prediction"].tolist() == [0, 0, 1, 1]


def test_predictions_of_another_type_are_refused_and_the_table_stays_as_it_was(spark, schema, score, register, tree):
    score(tree)
    before = predictions(spark, schema)
    with pytest.raises(
        ParameterError, match="prediction_table=.*has other columns.*prediction string.*prediction bigint"
    ):
        score(register(DecisionTreeClassifier(), [0, 0, 1, 1]))
    pd.testing.assert_frame_equal(predictions(spark, schema), before)


@pytest.mark.parametrize(
    ("scoring_filter", "message"),
    [
        ("size <", "scoring_filter='size <': is not a condition on"),
        ("height > 3", "scoring_filter='height > 3': is not a condition on"),
        ("`weight.kg` + 1", "scoring_filter='`weight.kg` \\+ 1': is not a condition on"),
        ("`weight.kg` > 99", "scoring_filter='`weight.kg` > 99': no row of"),
    ],
)
def test_a_filter_that_is_not_a_condition_or_picks_no_row_is_refused_before_anything_is_written(
    spark, schema, score, tree, scoring_filter, message
):
    with pytest.raises(ParameterError, match=message) as caught:
        score(tree, scoring_filter)
    assert "\n" not in str(caught.value)
    assert not spark.catalog.tableExists(f"{schema}.predictions")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["`Size in cm`", "`Row Key`"], "'weight.kg' is missing"),
        (["`Size in cm`", "'heavy' AS `weight.kg`", "`Row Key`"], "'weight.kg' has type string where the model takes bigint"),
        (["`Size in cm`", "DATE'2026-01-31' AS `weight.kg`", "`Row Key`"], "'weight.kg' has type date where the model takes bigint"),
        (["`Size in cm`", "`weight.kg`"], "id_column='Row Key': no such column"),
        (["`Size in cm`", "`weight.kg`", "'a' AS `Row Key`"], "id_column='Row Key': has duplicates"),
        (["`Size in cm`", "`weight.kg`", "`Row Key` LIMIT 0"], "has no rows to score"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_the_model_are_refused_by_column(spark, schema, score, to_score, tree, columns, message):
    *selected, last = columns
    last, _, limit = last.partition(" LIMIT")
    spark.sql(f"CREATE TABLE {schema}.odd AS SELECT {', '.join([*selected, last])} FROM {to_score} LIMIT {limit or 4}")
    with pytest.raises(ParameterError, match=message):
        score(tree, table=f"{schema}.odd")
    assert not spark.catalog.tableExists(f"{schema}.predictions")


def test_columns_with_narrower_numbers_than_the_signature_are_scored(spark, schema, score, to_score, tree):
    narrow = "CAST(`Size in cm` AS FLOAT) AS `Size in cm`, CAST(`weight.kg` AS SMALLINT) AS `weight.kg`, `Row Key`"
    spark.sql(f"CREATE TABLE {schema}.narrow AS SELECT {narrow} FROM {to_score}")
    assert score(tree, table=f"{schema}.narrow").rows_scored == 4


def test_a_model_without_a_signature_is_not_scored(score, register_estimator):
    version = register_estimator(LinearRegression().fit(FEATURES, [1, 2, 3, 4]), None)
    with pytest.raises(ParameterError, match="has no signature with named columns"):
        score(version)


def test_the_table_of_another_model_is_refused_because_batches_would_replace_each_other(spark, schema, score, tree):
    score(tree)
    before = predictions(spark, schema)
    other = mlflow.MlflowClient().copy_model_version(f"models:/{tree.name}/{tree.version}", f"{tree.name}-other")
    with pytest.raises(
        ParameterError, match=f"prediction_table=.*was made for the model '{tree.name}', and a batch of"
    ):
        score(other)
    pd.testing.assert_frame_equal(predictions(spark, schema), before)


def test_the_default_table_is_named_after_the_model():
    assert scoring.default_prediction_table("wine_2") == "wine_2_predictions"
    others = ["wine-2", "wine 2", "main.ml.wine", "main.ml_wine", "größe", "w" * 250, "w" * 251]
    tables = {scoring.default_prediction_table(name) for name in others}
    assert len(tables) == len(others) and not any(
        re.search(r"\W", table, re.ASCII) or len(table) > 230 for table in tables
    )


@pytest.fixture
def with_bad_rows(spark, schema, to_score):
    """Three more rows: two without a size, one whose weight is no 64-bit number."""
    more = "(NULL, 4, 'e'), (CAST('NaN' AS DOUBLE), 3, 'f'), (1, 9223372036854775808, 'g') AS more(size, weight, key)"
    bad = f"SELECT size, CAST(weight AS DECIMAL(20, 0)), key FROM VALUES {more}"
    good = f"SELECT `Size in cm`, CAST(`weight.kg` AS DECIMAL(20, 0)) AS `weight.kg`, `Row Key` FROM {to_score}"
    spark.sql(f"CREATE TABLE {schema}.mixed AS {good} UNION ALL {bad}")
    return f"{schema}.mixed"


# The first is scored by SQL and by Python, the second by Python only, and both refuse a missing number.
REFUSING = {"sql": (LinearRegression(), "sql"), "udf": (LinearRegression(), "udf"), "svm": (LinearSVR(), "auto")}


@pytest.mark.slow
@pytest.mark.parametrize("model", REFUSING)
def test_rows_that_cannot_be_scored_go_to_quarantine_with_the_reason(
    spark, schema, score, register, with_bad_rows, model
):
    estimator, engine = REFUSING[model]
    version = register(estimator, [1.0, 2.0, 3.0, 4.0])
    batch = score(version, table=with_bad_rows, scoring_engine=engine, keep_inputs=True)
    assert (batch.rows_scored, batch.rows_quarantined) == (4, 3)
    table, inputs = spark.table(f"{schema}.predictions"), ["Size in cm", "weight.kg"]
    results = ["prediction", "probability", "model_name", "model_version", "scored_at", "batch_id"]
    assert table.columns == ["Row Key", *inputs, *results]
    # The model takes bigint, and the rows have more digits.
    assert table.schema["weight.kg"].dataType.simpleString() == "decimal(20,0)"
    assert predictions(spark, schema)[inputs].astype(float).to_numpy().tolist() == FEATURES.to_numpy().tolist()
    assert str(batch.engine).startswith("sql (" if engine == "sql" else "udf (")
    assert predictions(spark, schema)["prediction"].tolist() == pytest.approx(estimator.predict(FEATURES).tolist())
    refused = spark.table(f"{schema}.predictions_quarantine").toPandas().set_index("Row Key").sort_index()
    assert list(refused.columns) == ["problem", "row", "model_name", "model_version", "scored_at", "batch_id"]
    missing, nan, wide = refused["problem"]
    assert "missing or infinite" in missing and "'Size in cm'" in missing and nan == missing
    assert wide == "'weight.kg' is not of type bigint: 9223372036854775808"
    assert json.loads(refused["row"]["g"]) == {"Size in cm": 1.0, "weight.kg": 9223372036854775808, "Row Key": "g"}
    assert set(refused["batch_id"]) == {"b1"}
    spark.sql(
        f"CREATE TABLE {schema}.mended AS SELECT * FROM {with_bad_rows} WHERE `Row Key` < 'f' AND NOT isnull(`Size in cm`)"
    )
    assert score(version, table=f"{schema}.mended", scoring_engine=engine).rows_quarantined == 0
    assert spark.table(f"{schema}.predictions_quarantine").count() == 0


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sql", "udf"])
def test_one_bad_row_of_40_columns_does_not_keep_spark_planning_for_ever(
    spark, schema, session, register_estimator, engine
):
    """Spark's optimizer derived 2^40 variants of a constraint, and the JVM ended at its memory limit."""
    names = [f"c{number}" for number in range(40)]
    numbers = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 40)), columns=names)
    # Half of the inputs may not be null, so that the check of each of them is part of a condition.
    numbers[names[20:]] = numbers[names[20:]].round().astype(int)
    fitted = LogisticRegression().fit(numbers, numbers["c0"] > 0)
    version = register_estimator(fitted, infer_signature(numbers, pd.Series([True], name="prediction")))
    rows = numbers.astype(dict.fromkeys(names[20:], "Int64")).assign(id=range(50))
    rows.loc[0, "c30"], rows.loc[1, "c3"] = pd.NA, np.nan
    types = ", ".join(f"c{number} {'double' if number < 20 else 'bigint'}" for number in range(40))
    spark.createDataFrame(rows.astype(object).where(rows.notna(), None), f"{types}, id long").write.saveAsTable(
        f"{schema}.wide"
    )
    options = {"scoring_engine": engine, "keep_inputs": True}
    scorer = scoring.Scorer(session, version, f"{schema}.wide", f"{schema}.wide_{engine}", "id", **options)
    batch = scorer.score_batch(scoring.rows_to_score(spark, f"{schema}.wide", "", "id"), "b1")
    assert (batch.rows_scored, batch.rows_quarantined) == (48, 2)
    refused = {row["id"]: row["problem"] for row in spark.table(f"{schema}.wide_{engine}_quarantine").collect()}
    assert refused[0] == "'c30' is missing; the model requires type bigint" and "'c3'" in refused[1]


def test_a_row_for_which_the_model_returns_nan_goes_to_quarantine(spark, schema, score, register):
    # The line through exp(1) to exp(4) is negative at its start, where there is no logarithm.
    logarithm = TransformedTargetRegressor(LinearRegression(), func=np.exp, inverse_func=np.log, check_inverse=False)
    version = register(logarithm, [1.0, 2.0, 3.0, 4.0])
    batch = score(version)
    assert (batch.rows_scored, batch.rows_quarantined) == (3, 1)
    assert predictions(spark, schema)["prediction"].notna().all()
    (refused,) = spark.table(f"{schema}.predictions_quarantine").collect()
    assert (refused["Row Key"], refused["problem"]) == ("a", "the model's output is NaN or infinite")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sql", "udf"])
def test_with_on_bad_rows_fail_a_bad_row_is_named_and_nothing_is_written(
    spark, schema, score, register, with_bad_rows, engine
):
    version = register(LinearRegression(), [1.0, 2.0, 3.0, 4.0])
    options = {"scoring_engine": engine, "on_bad_rows": "fail"}
    assert score(version, "`Row Key` < 'e'", table=with_bad_rows, **options).rows_scored == 4
    before = predictions(spark, schema)
    with pytest.raises(ParameterError, match="on_bad_rows='fail': .*mixed has rows that .*Row Key='e': .*'Size in cm'"):
        score(version, table=with_bad_rows, **options)
    pd.testing.assert_frame_equal(predictions(spark, schema), before)
    assert not spark.catalog.tableExists(f"{schema}.predictions_quarantine")


@pytest.mark.slow
def test_rows_that_a_spark_ml_pipeline_refuses_go_to_quarantine_or_fail_the_batch(
    spark, schema, session, model_name, with_bad_rows
):
    # Forty columns, because Spark's optimizer derives constraints for each of those that are kept.
    more = {f"c{number}": range(4) for number in range(38)}
    features = FEATURES.rename(columns={"Size in cm": "size", "weight.kg": "weight"}).assign(**more)
    stages = [VectorAssembler(inputCols=list(features), outputCol="x"), SparkRegression(featuresCol="x")]
    pipeline = Pipeline(stages=stages).fit(spark.createDataFrame(features.assign(label=1.0)))
    signature = infer_signature(features, pd.Series([1.0], name="prediction"))
    with mlflow.start_run():
        version = mlflow.register_model(tracking.log_model(pipeline, flavor="spark", signature=signature), model_name)
    renamed = "`Size in cm` AS size, CAST(`weight.kg` AS DOUBLE) AS weight, `Row Key`"
    spark.sql(f"CREATE TABLE {schema}.renamed AS SELECT {renamed} FROM {with_bad_rows} WHERE `Row Key` <> 'g'")
    spark.sql(
        f"CREATE TABLE {schema}.spark_rows AS SELECT size, CAST(weight AS BIGINT) AS weight, `Row Key`, "
        f"{', '.join(f'1L AS {name}' for name in more)} FROM {schema}.renamed"
    )
    rows = scoring.rows_to_score(spark, f"{schema}.spark_rows", "", "Row Key")
    names = (session, version, f"{schema}.spark_rows", f"{schema}.predictions", "Row Key")
    with pytest.raises(ParameterError, match="Row Key='[ef]': 'size' is missing; the pipeline's VectorAss"):
        scoring.Scorer(*names, on_bad_rows="fail").score_batch(rows, "b1")
    assert spark.table(f"{schema}.predictions").count() == 0
    # Such a model has an engine of its own, whatever is requested.
    batch = scoring.Scorer(*names, scoring_engine="udf", keep_inputs=True).score_batch(rows, "b1")
    assert {*features} < {*spark.table(f"{schema}.predictions").columns}
    assert (batch.rows_scored, batch.rows_quarantined) == (4, 2)
    assert str(batch.engine) == "spark ml (a Spark ML model's own transform)"
    assert {row["Row Key"] for row in spark.table(f"{schema}.predictions_quarantine").collect()} == {"e", "f"}


@pytest.mark.slow
def test_named_outputs_become_a_struct_and_a_vector_becomes_an_array(spark, schema, score, register_estimator):
    several = MultiOutputRegressor(LinearRegression()).fit(FEATURES, np.array([[1, 2], [2, 4], [3, 6], [4, 8]]))
    named = pd.DataFrame({"first": [1.0], "second one": [2.0]})
    for outputs, kind in ((named, "struct<first:double,second one:double>"), (named.to_numpy(), "array<double>")):
        version = register_estimator(several, infer_signature(FEATURES, outputs))
        score(version)
        table = spark.table(f"{schema}.predictions")
        assert table.schema["prediction"].dataType.simpleString() == kind
        written = table.orderBy("`Row Key`").select("prediction.*" if outputs is named else "prediction").toPandas()
        values = written.to_numpy() if outputs is named else np.stack(written["prediction"])
        np.testing.assert_allclose(values, several.predict(FEATURES))
        spark.sql(f"DROP TABLE {schema}.predictions")


def test_a_model_with_a_timestamp_input_gets_each_row_and_one_without_a_prediction_goes_to_quarantine(
    spark, schema, score, to_score, session, model_name
):
    class Month(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return model_input["day"].dt.month

    days = pd.DataFrame({"day": [pd.Timestamp("2026-01-31")]})
    options = {"signature": infer_signature(days, pd.Series([1.0], name="prediction")), "pip_requirements": ["mlflow"]}
    with mlflow.start_run():
        model = mlflow.pyfunc.log_model("model", python_model=Month(), **options)
    version = mlflow.register_model(model.model_uri, model_name, tags={MARK: model_name})
    day = "make_timestamp(2026, int(nullif(`weight.kg`, 4)), 9, 0, 0, 0)"
    spark.sql(f"CREATE TABLE {schema}.days AS SELECT {day} AS day, `Row Key` FROM {to_score}")
    batch = score(version, table=f"{schema}.days")
    # The model returns NaN for the row without a time.
    assert (batch.rows_scored, batch.rows_quarantined) == (3, 1)
    assert predictions(spark, schema).loc["b1"]["prediction"].to_dict() == {"b": 3, "c": 2, "d": 1}


def test_a_package_that_the_driver_lacks_is_named_with_what_to_do(score, session, model_name, tmp_path, monkeypatch):
    module = Path(shutil.copy(GONE_PACKAGE, tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    estimator = importlib.import_module("gone_package").Gone().fit(FEATURES, [1.0, 2.0, 3.0, 4.0])
    signature = infer_signature(FEATURES, pd.Series([1.0], name="prediction"))
    with mlflow.start_run():
        options = {
            "signature": signature,
            "serialization_format": "cloudpickle",
            "pip_requirements": ["gone-package==3.2.1"],
        }
        uri = mlflow.sklearn.log_model(estimator, "model", **options).model_uri
        version = mlflow.register_model(uri, model_name, tags={MARK: model_name})
    monkeypatch.delitem(sys.modules, "gone_package")
    module.unlink()
    importlib.invalidate_caches()
    with pytest.raises(
        ParameterError, match="package 'gone_package', which is not installed here. Add gone-package==3.2.1 to"
    ):
        score(version)


class Planted(mlflow.pyfunc.PythonModel):
    """A model whose file creates another file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __setstate__(self, state):
        Path(state["path"]).touch()
        self.__dict__ = state

    def predict(self, context, model_input, params=None):
        return model_input["Size in cm"]


def test_a_model_whose_files_do_not_reach_the_workers_is_named_with_the_compute_to_use(score, tree, monkeypatch):
    monkeypatch.setattr(SparkContext, "addArchive", lambda self, path: None)
    with pytest.raises(
        ParameterError, match="model_name=.*did not pass its files .* cluster with access mode Dedicated"
    ):
        score(tree, scoring_engine="udf")


def test_a_version_that_brings_code_and_was_not_registered_by_the_bundle_is_not_loaded(
    score, session, model_name, tmp_path
):
    loaded = tmp_path / "loaded"
    signature = infer_signature(FEATURES, pd.Series([1.0], name="prediction"))
    with mlflow.start_run():
        options = {"signature": signature, "pip_requirements": ["mlflow"]}
        model = mlflow.pyfunc.log_model(name="model", python_model=Planted(str(loaded)), **options)
    loaded.unlink(missing_ok=True)
    version = mlflow.register_model(model.model_uri, model_name)
    refusal = (
        r"allow_pickle='false': .* version 1 was not registered by this bundle.*\(python_model.pkl\).*allow_pickle=true"
    )
    for refused in (score, lambda version: serving.examples(session, version, FEATURES)):
        with pytest.raises(ParameterError, match=refusal):
            refused(version)
    assert not loaded.exists()
    assert len(serving.examples(session, version, FEATURES, allow_pickle=True).predictions) == 4
    assert loaded.exists()


@pytest.mark.slow
def test_a_version_without_code_is_loaded_whoever_registered_it(session, score, model_name):
    pytest.importorskip("skops", reason="without it, MLflow pickles scikit-learn models")
    fitted = DecisionTreeClassifier().fit(FEATURES, ["small", "small", "large", "large"])
    signature = infer_signature(FEATURES, pd.Series(["small"], name="prediction"))
    with mlflow.start_run():
        uri = tracking.log_model(fitted, flavor="sklearn", signature=signature)
    assert score(mlflow.register_model(uri, model_name)).rows_scored == 4


def test_the_plain_call_that_notebook_04_shows_scores_the_table(spark, schema, register_estimator, monkeypatch):
    rows = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [0.5, 0.5, 0.5]})
    answers = pd.Series(["small", "large", "large"], name="prediction")
    fitted = DecisionTreeClassifier().fit(rows, answers)
    version = register_estimator(fitted, infer_signature(rows, answers))
    spark.createDataFrame(rows).write.saveAsTable(f"{schema}.plain")
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    (text,) = (source for cell in cells if (source := "".join(cell["source"])).startswith("## In plain MLflow"))
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    shown = []
    monkeypatch.setattr(output, "display", lambda thing, rows: shown.extend(thing.orderBy("a").collect()))
    p = parameters.parse(parameters.Score, {"schema": schema, "scoring_table": "plain"})
    exec(code, {"spark": spark, "p": p, "output": output, "model_name": version.name, "version": version})
    assert [row["prediction"] for row in shown] == ["small", "large", "large"]
