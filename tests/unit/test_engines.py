"""Which engine a model gets, and how to add one."""

import pandas as pd
import pytest
from mlflow.models import infer_signature
from pyspark.sql import functions as F
from sklearn.linear_model import LinearRegression

from helpers import kinds, parameters, scoring
from helpers.scoring.engines.base import Engine, NotSupported

FEATURES = pd.DataFrame({"size": [1.0, 2.0, 3.0]})


# A recipe: an engine is one class …
class ConstantEngine(Engine):
    """Predicts 42 for each row, and refuses those with a size of more than 2."""

    name = "constant"

    def apply(self, rows, keep, *, each_class=False):
        prediction = F.lit(42).cast(self.model.prediction_type).alias("prediction")
        probabilities = [F.lit(None).cast("double").alias("probability")]
        if each_class:
            probabilities.append(F.lit(None).cast("array<double>").alias("probabilities"))
        problem = F.when(F.col("size") > 2, F.lit("too large")).alias("problem")
        return rows.select(*keep, prediction, *probabilities, problem)


class PickyEngine(ConstantEngine):
    name = "picky"

    def check(self, rows):
        raise NotSupported(f"it knows no model of {len(self.model.inputs)} column")


@pytest.fixture
def version(register_estimator):
    fitted = LinearRegression().fit(FEATURES, [1.0, 2.0, 3.0])
    return register_estimator(fitted, infer_signature(FEATURES, pd.Series([1.0], name="prediction")))


@pytest.mark.slow
def test_an_engine_is_added_by_one_class_and_one_line_in_the_table(session, spark, schema, version, monkeypatch):
    # … and one line.
    monkeypatch.setitem(kinds.ENGINES, "constant", f"{__name__}:ConstantEngine")
    rows = spark.createDataFrame(FEATURES.assign(id=[7, 8, 9]))
    scorer = scoring.Scorer(session, version, "rows", f"{schema}.predictions", "id", scoring_engine="constant")
    batch = scorer.score_batch(rows, "b1")
    assert str(batch.engine) == "constant (as scoring_engine says)"
    assert (batch.rows_scored, batch.rows_quarantined) == (2, 1)
    predictions = spark.table(f"{schema}.predictions").collect()
    assert {(row["id"], row["prediction"], row["probability"]) for row in predictions} == {(7, 42, None), (8, 42, None)}
    (refused,) = spark.table(f"{schema}.predictions_quarantine").collect()
    assert (refused["id"], refused["problem"]) == (9, "too large")


def test_auto_takes_the_first_engine_of_the_table_that_supports_the_model(session, spark, version, monkeypatch):
    own = {"picky": f"{__name__}:PickyEngine", "constant": f"{__name__}:ConstantEngine"}
    monkeypatch.setattr(kinds, "ENGINES", own | kinds.ENGINES)
    predictor = scoring.load(session, f"models:/{version.name}/{version.version}")
    rows = spark.createDataFrame(FEATURES.head(2))
    scored = predictor.transform(rows, ["size"], each_class=True)
    assert scored.columns == ["size", "prediction", "probability", "probabilities"]
    assert [row["prediction"] for row in scored.collect()] == [42, 42]
    assert str(predictor.choose_engine(rows)) == "constant (not picky: it knows no model of 1 column)"
    with pytest.raises(parameters.ParameterError) as caught:
        predictor.choose_engine(rows, "picky")
    assert str(caught.value) == (
        f"scoring_engine='picky': cannot score models:/{version.name}/1: it knows no model of 1 column. "
        "Use auto or constant or sql or udf."
    )


def test_an_environment_of_the_models_own_is_for_python(session, spark, version):
    predictor = scoring.load(session, f"models:/{version.name}/{version.version}")
    choice = predictor.choose_engine(spark.createDataFrame(FEATURES), env_manager="uv")
    assert str(choice) == "udf (not sql: env_manager='uv' is for Python)" and choice.engine.env_manager == "uv"
