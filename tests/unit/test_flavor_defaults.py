"""With its defaults, each flavor reaches scikit-learn's counterpart on scikit-learn's small data sets."""

import mlflow
import numpy as np
import pytest
from sklearn import datasets
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers import parameters, training
from helpers.data import split

DATA = ["iris", "wine", "digits", "breast_cancer", "diabetes"]
COUNTERPARTS = {
    ("linear", "classifier"): lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    ("linear", "regressor"): LinearRegression,
    ("trees", "classifier"): lambda: HistGradientBoostingClassifier(random_state=0),
    ("trees", "regressor"): lambda: HistGradientBoostingRegressor(random_state=0),
}
# Splits of the rows; the mean over them is compared. Ten are what it takes to tell one point from chance for trees.
SEEDS = range(10)


@pytest.fixture(scope="module")
def tables(spark):
    """Make a table for each data set."""
    spark.sql("CREATE SCHEMA IF NOT EXISTS defaults_tests")
    for name in DATA:
        loaded = getattr(datasets, f"load_{name}")(as_frame=True)
        rows = loaded.data.assign(label=loaded.target, id=range(len(loaded.data)))
        spark.createDataFrame(rows).write.mode("overwrite").saveAsTable(f"defaults_tests.{name}")
    return "defaults_tests"


def scores(spark, table, flavor, seed):
    """Return the held-out scores of a flavor and of its counterpart, which learned from the same rows."""
    data = split.load_split(spark, table, label_column="label", id_column="id", test_fraction=0.2, seed=seed)
    with mlflow.start_run():
        trained = training.fit(data, parameters.parse(parameters.Fit, {"model_flavor": flavor, "seed": seed}))
    metric = "val_r2_score" if data.model_type == "regressor" else "val_accuracy_score"
    counterpart = COUNTERPARTS["trees" if flavor == "xgboost" else "linear", data.model_type]()
    train, held_out = data.train.toPandas(), data.held_out.toPandas()
    counterpart.fit(train[data.features], train["label"])
    return trained.metrics[metric], counterpart.score(held_out[data.features], held_out["label"])


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("flavor", ["sklearn", "xgboost", "spark"])
def test_the_defaults_of_a_flavor_are_within_a_point_of_its_counterpart(
    session, spark, tables, flavor, name, record_property
):
    # Spark ML's jobs take longer, and its solver has the same optimum for each seed.
    seeds = SEEDS[:2] if flavor == "spark" or name == "digits" else SEEDS
    ours, counterparts = np.mean([scores(spark, f"{tables}.{name}", flavor, seed) for seed in seeds], axis=0)
    record_property("scores", f"{flavor} {name}: {ours:.4f}, scikit-learn's counterpart {counterparts:.4f}")
    print(f"{flavor} {name}: {ours:.4f}, scikit-learn's counterpart {counterparts:.4f}")
    assert ours >= counterparts - 0.01
