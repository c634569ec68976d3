"""With its defaults, each flavor reaches scikit-learn's counterpart on scikit-learn's small data sets."""

import functools

import numpy as np
import pytest
from sklearn import datasets
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers import parameters, training
from helpers.data import metrics, split
from helpers.training import driver
from helpers.training.flavors import load_flavor

DATA = ["iris", "wine", "digits", "breast_cancer", "diabetes"]
COUNTERPARTS = {
    ("linear", "classifier"): lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    ("linear", "regressor"): LinearRegression,
    ("trees", "classifier"): lambda: HistGradientBoostingClassifier(random_state=0),
    ("trees", "regressor"): lambda: HistGradientBoostingRegressor(random_state=0),
}


@pytest.fixture(scope="module")
def parts(spark):
    """Split each data set once per seed, for all flavors."""

    @functools.cache
    def table(name):
        loaded = getattr(datasets, f"load_{name}")(as_frame=True)
        rows = loaded.data.assign(label=loaded.target, id=range(len(loaded.data)))
        spark.createDataFrame(rows).write.mode("overwrite").saveAsTable(f"flavor_defaults_{name}")
        return f"flavor_defaults_{name}"

    @functools.cache
    def split_data(name, seed):
        columns = {"label_column": "label", "id_column": "id"}
        on_cluster = split.load_split(spark, table(name), **columns, test_fraction=0.2, seed=seed)
        return on_cluster, driver.in_memory(on_cluster)

    return split_data


def score(data, name):
    """Return the score of a flavor with its defaults: the accuracy, or R² of a regressor."""
    p = training.with_flavor_defaults(parameters.parse(parameters.Fit, {"model_flavor": name}))
    flavor = load_flavor(name)
    model = flavor.fit(data, p, lambda epoch, metrics: None, {})
    labels, predictions, probabilities = flavor.predict(model, data)
    measured = metrics.measure(data.model_type, labels, predictions, probabilities, data.classes)
    return measured[metrics.DEFAULT_METRIC[data.model_type]]


def score_of_counterpart(data, name):
    counterpart = COUNTERPARTS["trees" if name == "xgboost" else "linear", data.model_type]()
    train, held_out = data.train.toPandas(), data.held_out.toPandas()
    return counterpart.fit(train[data.features], train["label"]).score(held_out[data.features], held_out["label"])


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("flavor", ["sklearn", "xgboost", "spark"])
def test_the_defaults_of_a_flavor_are_within_a_point_of_its_counterpart(parts, flavor, name):
    # The more rows are held out, the fewer splits tell a point from chance. Linear regressions have the same optimum.
    enough = {"digits": 1, "diabetes": 10 if flavor == "xgboost" else 2}
    if flavor == "spark":
        # Each of its fits takes seconds.
        enough |= {"iris": 2, "breast_cancer": 2}
    seeds = range(enough.get(name, 4))
    pairs = []
    for seed in seeds:
        on_cluster, in_memory = parts(name, seed)
        ours = score(on_cluster if flavor == "spark" else in_memory, flavor)
        pairs.append((ours, score_of_counterpart(in_memory, flavor)))
    ours, counterparts = np.mean(pairs, axis=0)
    print(f"{flavor} {name}: {ours:.4f}, scikit-learn's counterpart {counterparts:.4f}")
    assert ours >= counterparts - 0.01
