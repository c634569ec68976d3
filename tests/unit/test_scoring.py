"""Batches: which rows are scored, what is written, and what is refused before anything is."""

import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeClassifier

from helpers import scoring
from helpers.parameters import ParameterError

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
def score(spark, schema, to_score):
    def score_rows(version, scoring_filter="", table=to_score, batch_id="b1", **changed):
        rows = scoring.rows_to_score(spark, table, scoring_filter, "Row Key")
        scorer = scoring.Scorer(version, table, f"{schema}.predictions", "Row Key", **changed)
        return scorer.score_batch(rows, batch_id)

    return score_rows


def predictions(spark, schema):
    return spark.table(f"{schema}.predictions").toPandas().set_index(["batch_id", "Row Key"]).sort_index()


def test_each_row_gets_its_prediction_probability_version_and_time(spark, schema, score, tree):
    before = spark.sql("SELECT current_timestamp()").first()[0]
    batch = score(tree)
    assert (batch.batch_id, batch.rows_scored, batch.rows_replaced, batch.rows_quarantined) == ("b1", 4, 0, 0)
    assert batch.engine.name == "udf" and not spark.catalog.tableExists(f"{schema}.predictions_quarantine")
    written = predictions(spark, schema)
    assert list(written.columns) == ["prediction", "probability", "model_name", "model_version", "scored_at"]
    assert written.loc["b1"]["prediction"].to_dict() == {"a": "small", "b": "small", "c": "large", "d": "large"}
    assert set(written["probability"]) == {1.0}
    assert set(written["model_version"]) == {1} and set(written["model_name"]) == {tree.name}
    assert (written["scored_at"] >= before).all()


def test_a_batch_scored_again_is_replaced_and_no_other_is_touched(spark, schema, score, tree):
    score(tree, "`Size in cm` < 3")
    score(tree, batch_id="2026-01-31")
    before = predictions(spark, schema)
    again = score(tree, "`Size in cm` > 1", batch_id="b1")
    assert (again.rows_scored, again.rows_replaced) == (3, 2)
    after = predictions(spark, schema)
    assert list(after.loc["b1"].index) == ["b", "c", "d"]
    pd.testing.assert_frame_equal(after.loc[["2026-01-31"]], before.loc[["2026-01-31"]])


def test_a_batch_without_a_name_is_that_of_the_day(score, tree):
    days = [pd.Timestamp.now("UTC").date().isoformat()]
    named = score(tree, batch_id="").batch_id
    assert named in [*days, pd.Timestamp.now("UTC").date().isoformat()]


def test_a_model_without_probabilities_leaves_them_empty(spark, schema, score, register):
    score(register(LinearRegression(), [1.0, 2.0, 3.0, 4.0]))
    written = predictions(spark, schema)
    assert written["prediction"].tolist() == pytest.approx([1, 2, 3, 4])
    assert written["probability"].isna().all()


def test_a_signature_inferred_from_an_array_is_understood(spark, schema, score, register):
    score(register(DecisionTreeClassifier(), [0, 0, 1, 1], output=lambda values, name: values))
    assert spark.table(f"{schema}.predictions").schema["prediction"].dataType.simpleString() == "bigint"
    assert predictions(spark, schema)["prediction"].tolist() == [0, 0, 1, 1]


def test_predictions_of_another_type_do_not_fit_the_table_and_leave_it_as_it_was(spark, schema, score, register, tree):
    score(tree)
    before = predictions(spark, schema)
    with pytest.raises(ParameterError, match="prediction_table=.*has other columns.*prediction string.*prediction bigint"):
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
def test_a_filter_that_cannot_be_used_is_refused(spark, schema, score, tree, scoring_filter, message):
    with pytest.raises(ParameterError, match=message) as caught:
        score(tree, scoring_filter)
    assert "\n" not in str(caught.value)
    assert not spark.catalog.tableExists(f"{schema}.predictions")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["`Size in cm`", "`Row Key`"], "'weight.kg' is missing"),
        (["`Size in cm`", "'heavy' AS `weight.kg`", "`Row Key`"], "'weight.kg' has type string where the model takes bigint"),
        (["`Size in cm`", "2.5D AS `weight.kg`", "`Row Key`"], "'weight.kg' has type double where the model takes bigint"),
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


def test_a_narrower_number_fits(spark, schema, score, to_score, tree):
    narrow = "CAST(`Size in cm` AS FLOAT) AS `Size in cm`, CAST(`weight.kg` AS SMALLINT) AS `weight.kg`, `Row Key`"
    spark.sql(f"CREATE TABLE {schema}.narrow AS SELECT {narrow} FROM {to_score}")
    assert score(tree, table=f"{schema}.narrow").rows_scored == 4


def test_a_model_without_a_signature_is_refused(score, register_estimator):
    version = register_estimator(LinearRegression().fit(FEATURES, [1, 2, 3, 4]), None)
    with pytest.raises(ParameterError, match="has no signature with named columns"):
        score(version)


def test_each_model_has_a_table_of_its_own():
    assert scoring.default_prediction_table("main.ml.wine quality") == "main_ml_wine_quality_predictions"
