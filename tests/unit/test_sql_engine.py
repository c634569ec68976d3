"""Linear models as Spark SQL expressions: which models are supported, and that predictions are the model's."""

import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, Schema
from pyspark.sql import functions as F
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

from helpers import scoring
from helpers.parameters import ParameterError
from helpers.scoring.engines.base import NotSupported
from helpers.scoring.engines.sql import SqlEngine

NUMBERS = ["size", "weight.kg", "`{odd}` name", "count"]
LABELS = {"two": ["be'n", "mal"], "three": ["a", "b", "c"], "numbers": [0, 1, 7]}


@pytest.fixture(scope="module")
def data():
    """Rows with missing numbers and text, and rare categories."""
    chance = np.random.default_rng(0)
    rows = pd.DataFrame(chance.normal(size=(400, 3)), columns=NUMBERS[:3])
    rows["count"] = chance.integers(0, 9, 400)
    rows["city"] = chance.choice(["x", "y'z", "rare", "rarer", None], 400, p=[0.4, 0.4, 0.02, 0.01, 0.17])
    rows.loc[3:9, "size"] = np.nan
    return rows


@pytest.fixture(scope="module")
def table(spark, data):
    types = ", ".join(f"`{name.replace('`', '``')}` double" for name in NUMBERS[:3])
    filled = data.astype(object).where(data.notna(), None).astype({"count": "int64"})
    return spark.createDataFrame(filled, f"{types}, count long, city string").cache()


def preparation():
    categories = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=3)
    numeric = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    return ColumnTransformer([("numeric", numeric, NUMBERS), ("text", categories, ["city"]), ("none", categories, [])])


def labels(data, names):
    score = data["weight.kg"] + 0.3 * data["count"]
    return pd.qcut(score, len(names), labels=False).map(dict(enumerate(names)))


@pytest.fixture
def load(session, register_estimator, data):
    """Register a fitted estimator and load it for scoring."""

    def fit_and_load(estimator, answers):
        fitted = estimator.fit(data, answers)
        outputs = pd.Series(fitted.predict(data), name="prediction")
        version = register_estimator(fitted, infer_signature(data, outputs))
        return scoring.load(session, f"models:/{version.name}/{version.version}")

    return fit_and_load


@pytest.mark.parametrize("classes", LABELS)
@pytest.mark.parametrize("model", [LogisticRegression(), SGDClassifier(loss="log_loss", random_state=0)], ids=str)
def test_a_classifier_predicts_the_same_classes_and_probabilities_in_every_row(load, table, data, model, classes):
    predictor = load(make_pipeline(preparation(), model), labels(data, LABELS[classes]))
    choice = predictor.choose_engine(table)
    assert str(choice).startswith("sql (checked against the model: ")
    scored, each = (
        predictor.transform(table, NUMBERS[1:2], choice.engine, each_class=each_class)
        .toPandas().set_index(NUMBERS[1]).loc[data[NUMBERS[1]]]
        for each_class in (False, True)
    )  # fmt: skip
    estimator = predictor.model.estimator
    assert scored["prediction"].tolist() == each["prediction"].tolist() == estimator.predict(data).tolist()
    probabilities = estimator.predict_proba(data)
    np.testing.assert_allclose(np.stack(each["probabilities"]), probabilities, rtol=1e-12, atol=1e-15)
    for frame in (scored, each):
        np.testing.assert_allclose(frame["probability"], probabilities.max(axis=1), rtol=1e-12)


@pytest.mark.slow
def test_both_engines_give_the_same_columns_with_the_same_values(load, table, data):
    predictor = load(make_pipeline(preparation(), LogisticRegression()), labels(data, LABELS["two"]))
    sql, udf = (
        predictor.transform(table, NUMBERS[1:2], predictor.choose_engine(table, name).engine, each_class=True).orderBy(
            "`weight.kg`"
        )
        for name in ("sql", "udf")
    )
    assert sql.dtypes == udf.dtypes
    one, other = sql.toPandas(), udf.toPandas()
    assert one["prediction"].tolist() == other["prediction"].tolist()
    np.testing.assert_allclose(one["probability"], other["probability"], rtol=1e-12)
    np.testing.assert_allclose(np.stack(one["probabilities"]), np.stack(other["probabilities"]), rtol=1e-12)


def test_a_regression_predicts_the_same_numbers_and_has_no_probability(load, table, data):
    predictor = load(make_pipeline(preparation(), Ridge()), data["weight.kg"] * 1e6)
    assert str(predictor.choose_engine(table)).startswith("sql (")
    scored = predictor.transform(table, NUMBERS[1:2]).toPandas().set_index(NUMBERS[1]).loc[data[NUMBERS[1]]]
    np.testing.assert_allclose(scored["prediction"], predictor.model.estimator.predict(data), rtol=1e-12)
    assert scored["probability"].isna().all()


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (HistGradientBoostingClassifier(max_iter=2), "HistGradientBoostingClassifier is not one of"),
        (make_pipeline(MinMaxScaler(), LogisticRegression()), "MinMaxScaler is not one of"),
    ],
    ids=["trees", "another transformer"],
)
def test_a_model_without_a_translation_gets_python_with_the_reason_and_sql_is_refused(
    session, register_estimator, table, data, estimator, reason
):
    fitted = estimator.fit(data[["weight.kg"]], labels(data, LABELS["two"]))
    signature = infer_signature(data[["weight.kg"]], pd.Series(fitted.predict(data[["weight.kg"]]), name="prediction"))
    version = register_estimator(fitted, signature)
    predictor = scoring.load(session, f"models:/{version.name}/{version.version}")
    assert str(predictor.choose_engine(table)).startswith(f"udf (not sql: {reason}")
    with pytest.raises(ParameterError, match="scoring_engine='sql': cannot score .*is not one of.*auto or udf"):
        predictor.choose_engine(table, "sql")


def test_a_translation_that_differs_from_the_model_is_refused(load, table, data):
    predictor = load(make_pipeline(preparation(), LogisticRegression()), labels(data, LABELS["two"]))
    engine = SqlEngine(predictor.model)
    assert engine.check(table).startswith("checked against the model")
    model = predictor.model.estimator.named_steps["logisticregression"]
    model.intercept_ = model.intercept_ + 1e-6
    with pytest.raises(NotSupported, match="numbers would differ|other classes"):
        engine.check(table)


def test_an_optional_column_may_be_missing_from_the_rows(session, register_estimator, spark, data):
    numbers = data[["weight.kg", "size"]]
    fitted = make_pipeline(SimpleImputer(), Ridge()).fit(numbers, data["weight.kg"] + 1)
    columns = [ColSpec("double", "weight.kg"), ColSpec("double", "size", required=False)]
    signature = ModelSignature(Schema(columns), Schema([ColSpec("double", "prediction")]))
    version = register_estimator(fitted, signature)
    predictor = scoring.load(session, f"models:/{version.name}/{version.version}")
    rows = spark.createDataFrame(numbers[["weight.kg"]])
    predictor.check_columns(rows, "scoring_table", "rows")
    expected = fitted.predict(numbers.assign(size=np.nan))
    for name in ("sql", "udf"):
        engine = predictor.choose_engine(rows, name).engine
        scored = predictor.transform(rows, ["weight.kg"], engine).toPandas().set_index("weight.kg")
        np.testing.assert_allclose(scored.loc[numbers["weight.kg"], "prediction"], expected, rtol=1e-12)


def test_a_row_that_the_model_refuses_is_refused_with_the_column_that_lacks_a_value(
    session, register_estimator, table, data
):
    bare = ColumnTransformer([("numeric", StandardScaler(), NUMBERS)])
    fitted = make_pipeline(bare, LogisticRegression()).fit(data.fillna({"size": 0.0}), labels(data, LABELS["two"]))
    version = register_estimator(fitted, infer_signature(data, pd.Series(["mal"], name="prediction")))
    predictor = scoring.load(session, f"models:/{version.name}/{version.version}")
    engine = predictor.choose_engine(table, "sql").engine
    complete = table.where("size IS NOT NULL").count()
    assert predictor.accepted(table, ["count"], engine).count() == complete < table.count()
    reasons = predictor.refused(table, ["count"], engine).toPandas()["problem"]
    assert len(reasons) == table.count() - complete
    assert set(reasons) == {"a value is missing or infinite: 'size'"}
    with pytest.raises(Exception, match='refuses the row {"count":.*a value is missing or infinite'):
        predictor.transform(table, ["count"], engine).collect()


def test_a_row_without_an_integer_that_the_model_requires_is_refused_by_both_engines(load, table, data):
    predictor = load(make_pipeline(preparation(), LogisticRegression()), labels(data, LABELS["two"]))
    rows = table.withColumn("count", F.when(F.col("`weight.kg`") < 1, F.col("count")))
    for name in ("sql", "udf"):
        engine = predictor.choose_engine(rows, name).engine
        refused = predictor.refused(rows, ["weight.kg"], engine).toPandas()
        assert set(refused["problem"]) == {"'count' is missing; the model requires type bigint"}
        assert (refused["weight.kg"] >= 1).all() and len(refused) == (data["weight.kg"] >= 1).sum()
