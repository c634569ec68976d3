"""Training each flavor on labels and columns of every kind, tracked epoch by epoch."""

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import xgboost
from mlflow.types import DataType
from packaging.version import Version
from sklearn.compose import make_column_transformer
from sklearn.inspection import permutation_importance
from sklearn.metrics import log_loss
from sklearn.naive_bayes import BernoulliNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from helpers import kinds, parameters, training
from helpers.data import split
from helpers.parameters import ParameterError
from helpers.training import driver
from helpers.training.flavors import load_flavor
from helpers.training.flavors import xgboost as xgboost_flavor
from helpers.training.flavors.base import Flavor

ROOT = Path(__file__).parents[2]
# The rows decide about the loss of a regression as they do about the classes.
QUANTITY = "10 * k + noise"
LABELS = {"text": "element_at(array('low', 'mid', 'high'), k + 1)", "numbers": "k", "two classes": "k = 0"}


@pytest.fixture(scope="module")
def tables_by_label(spark):
    """One table for each kind of label, with two numeric features that determine the class, and two of text."""
    spark.sql("CREATE SCHEMA IF NOT EXISTS training_tests")
    for i, label in enumerate([*LABELS.values(), QUANTITY]):
        rows = spark.range(300).selectExpr("id", "int(id % 3) AS k", "(id * 7919) % 100 / 100 AS noise").selectExpr(
            "id",
            "IF(id % 11 = 0, NULL, k + noise / 4) AS `size.in cm`",
            "k * k - noise AS Weight",
            "IF(id % 7 = 0, NULL, concat('shop ', k)) AS `Shop Name`",
            "IF(id % 2 = 0, 'é, ü', 'plain') AS city",
            f"{label} AS `the label`",
        )  # fmt: skip
        rows.write.mode("overwrite").saveAsTable(f"training_tests.t{i}")
    return {kind: f"training_tests.t{i}" for i, kind in enumerate([*LABELS, "quantity"])}


def settings(flavor, **changes):
    return parameters.parse(parameters.Fit, {"model_flavor": flavor, "epochs": 1, "seed": 3} | changes)


@pytest.fixture
def load(spark, tables_by_label):
    """Split the table of a kind of label."""

    def load_split(kind):
        columns = {"label_column": "the label", "id_column": "id"}
        return split.load_split(spark, tables_by_label[kind], **columns, test_fraction=0.3, seed=1)

    return load_split


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flavor", "kind"),
    [*itertools.product(["sklearn", "xgboost"], LABELS), ("spark", "text"), ("spark", "two classes")],
)
def test_a_model_learns_and_logs_its_metrics_after_each_epoch(session, load, flavor, kind):
    data = load(kind)
    assert (len(data.numeric), len(data.categorical)) == (2, 2)
    with mlflow.start_run() as run:
        trained = training.fit(data, settings(flavor, epochs=8, learning_rate=0.5))

    assert trained.flavor == ("spark" if flavor == "spark" else "sklearn")
    assert trained.metrics["val_accuracy_score"] > 0.95
    assert trained.metrics["val_roc_auc"] > 0.95
    assert trained.classes == {"text": ["high", "low", "mid"], "numbers": [0, 1, 2], "two classes": [False, True]}[kind]
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "epoch_loss")
    assert [point.step for point in history] == list(range(1, len(history) + 1))
    assert len(history) == 8 or (flavor != "xgboost" and 1 < len(history) < 8)
    assert history[-1].value < history[0].value
    # XGBoost's own has single precision.
    assert mlflow.get_run(run.info.run_id).data.metrics["val_log_loss"] == pytest.approx(
        trained.metrics["val_log_loss"], rel=1e-5
    )

    assert set(trained.signature.inputs.input_names()) == {"size.in cm", "Weight", "Shop Name", "city"}
    assert trained.signature.outputs.input_names() == ["prediction"]
    importance = trained.figures["feature_importance"].axes[0]
    assert {label.get_text() for label in importance.get_yticklabels()} == set(data.features)
    assert len(trained.figures["roc_curve"].axes[0].lines) == (2 if kind == "two classes" else 4)
    counts = [int(text.get_text()) for text in trained.figures["confusion_matrix"].axes[0].texts]
    assert sum(counts) == data.held_out.count()
    assert trained.each_class["rows"].sum() == data.held_out.count()
    assert trained.each_class.index.tolist() == trained.classes


@pytest.mark.slow
@pytest.mark.parametrize("flavor", ["sklearn", "xgboost", "spark"])
def test_a_quantity_is_learned_by_a_regressor_with_its_own_metrics_and_pictures(session, load, flavor):
    data = load("quantity")
    assert (data.model_type, data.classes) == ("regressor", [])
    with mlflow.start_run() as run:
        trained = training.fit(data, settings(flavor, epochs=30, learning_rate=0.5))
    assert trained.metrics["val_r2_score"] > 0.95
    assert trained.metrics["val_root_mean_squared_error"] == pytest.approx(
        trained.metrics["val_mean_squared_error"] ** 0.5
    )
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "epoch_loss")
    # In the label's unit, whose values are between 0 and 21.
    assert history[0].value > history[-1].value and history[-1].value < 2
    assert trained.figures.keys() == {"loss_curve", "predicted_against_actual", "residuals", "feature_importance"}
    labels, predictions, probabilities = load_flavor(flavor).predict(trained.model, data)
    points = trained.figures["predicted_against_actual"].axes[0].collections[0].get_offsets()
    assert np.array_equal(np.asarray(points), np.column_stack([labels, predictions])) and probabilities is None
    assert trained.each_class is None and trained.signature.outputs.input_types()[0] in (
        DataType.double,
        DataType.float,
    )


@pytest.mark.slow
def test_the_last_loss_of_a_spark_ml_regression_is_the_root_mean_squared_error_of_the_training_rows(session, load):
    data = load("quantity")
    with mlflow.start_run() as run:
        model = training.fit(data, settings("spark", epochs=100)).model
    train = dataclasses.replace(data, validation=data.train)
    labels, predictions, _ = load_flavor("spark").predict(model, train)
    last = mlflow.get_run(run.info.run_id).data.metrics["epoch_loss"]
    assert last == pytest.approx(np.mean((labels - predictions) ** 2) ** 0.5, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("flavor", ["sklearn", "xgboost", "spark"])
def test_balanced_class_weights_find_more_of_a_rare_class(session, spark, schema, flavor):
    generator = np.random.default_rng(5)
    labels = generator.random(2000) < 0.06
    rows = pd.DataFrame({"id": range(2000), "x": generator.normal(size=2000) + 1.2 * labels, "y": labels})
    spark.createDataFrame(rows).write.saveAsTable(f"{schema}.rare")
    data = split.load_split(
        spark, f"{schema}.rare", label_column="y", id_column="id", test_fraction=0.5, seed=1
    )  # fmt: skip
    recall = {}
    for weight in ("none", "balanced"):
        with mlflow.start_run():
            trained = training.fit(data, settings(flavor, epochs=20, class_weight=weight))
        recall[weight] = trained.each_class.loc[True, "recall_score"]
    assert recall["none"] < 0.2 and recall["balanced"] > 0.5


@pytest.mark.slow
def test_xgboost_on_the_cluster_learns_what_it_learns_on_the_driver(session, load):
    data, predictions = load("text"), {}
    if Version(xgboost.__version__) < Version("3.0"):
        with pytest.raises(ParameterError, match="^training_on='cluster': .*17.3 LTS ML"), mlflow.start_run():
            training.fit(data, settings("xgboost", training_on="cluster"))
        return
    for place in ("driver", "cluster"):
        with mlflow.start_run() as run:
            trained = training.fit(data, settings("xgboost", epochs=8, learning_rate=0.5, training_on=place))
        assert len(mlflow.MlflowClient().get_metric_history(run.info.run_id, "val_log_loss")) == 8
        assert trained.metrics["val_accuracy_score"] > 0.95
        predictions[place] = load_flavor("xgboost").predict(trained.model, data)[1]
    assert np.mean(predictions["driver"] == predictions["cluster"]) > 0.95


@pytest.mark.slow
def test_xgboost_stops_early_and_keeps_each_class_among_the_rows_that_it_learns_from(
    session, spark, schema, monkeypatch
):
    monkeypatch.setattr(xgboost_flavor, "_ROWS_FOR_EARLY_STOPPING", 200)
    generator = np.random.default_rng(1)
    rows = pd.DataFrame({"id": range(400), "x": generator.normal(size=400)})
    labels = np.where(rows["x"] + generator.normal(size=400) > 0, "high", "low").astype(object)
    # Of the rare class there are three rows, one of them for training.
    rows = rows.assign(y=labels, note=None, part=np.where(rows["id"] % 4 == 0, "test", "train"))
    rows.loc[[0, 1, 4], "y"] = "rare"
    rows.loc[0, "note"] = "only for the test"
    spark.createDataFrame(rows, "id long, x double, y string, note string, part string").write.saveAsTable(
        f"{schema}.r"
    )
    data = split.load_split(
        spark, f"{schema}.r", label_column="y", id_column="id", test_fraction=0.3, seed=1, split_by="column",
        split_column="part",
    )  # fmt: skip
    for seed in range(8):
        with mlflow.start_run() as run:
            training.fit(data, settings("xgboost", epochs=400, learning_rate=1.0, seed=seed))
        assert 10 < len(mlflow.MlflowClient().get_metric_history(run.info.run_id, "epoch_loss")) < 400


def test_a_table_that_does_not_fit_into_the_drivers_memory_is_refused_before_it_is_read(session, load, monkeypatch):
    data = load("text")
    needed = driver.memory_needed(data)
    rows = data.train.count() + data.held_out.count()
    assert 3 * 8 * 4 * rows < needed < 3 * 8 * 100 * rows
    monkeypatch.setattr(driver, "memory_available", lambda: needed - 1)
    for flavor in ("sklearn", "xgboost"):
        with pytest.raises(ParameterError, match="memory .*training_on=cluster.* sample"), mlflow.start_run():
            training.fit(data, settings(flavor, training_on="driver"))
    monkeypatch.setattr(driver, "memory_available", lambda: needed)
    with mlflow.start_run():
        training.fit(data, settings("sklearn"))


def test_the_same_seed_gives_the_same_model(session, load):
    data = load("text")
    probabilities = []
    for seed in (3, 3, 4):
        with mlflow.start_run():
            model = training.fit(data, settings("xgboost", epochs=3, seed=seed)).model
        probabilities.append(load_flavor("xgboost").predict(model, data)[2])
    assert np.array_equal(probabilities[0], probabilities[1])
    assert not np.array_equal(probabilities[0], probabilities[2])


@pytest.mark.parametrize("flavor", ["sklearn", "spark"])
def test_rows_for_validation_measure_the_model_and_rows_for_test_do_not(session, spark, schema, flavor):
    parts = "element_at(array('train', 'validation', 'test'), CAST(id DIV 2 % 3 + 1 AS INT)) AS part"
    # The test rows have the other label.
    rows = spark.range(300).selectExpr("id", parts).selectExpr(
        "id", "part", "id % 2 AS x", "(id % 2 = 0) = (part = 'test') AS y"
    )  # fmt: skip
    rows.write.saveAsTable(f"{schema}.parts")
    data = split.load_split(
        spark, f"{schema}.parts", label_column="y", id_column="id", test_fraction=0.3, seed=1, split_by="column",
        split_column="part",
    )  # fmt: skip
    with mlflow.start_run() as run:
        trained = training.fit(data, settings(flavor, epochs=3))
    assert trained.metrics["val_accuracy_score"] == 1
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "val_accuracy_score")
    assert history[-1].value == 1


class BayesFlavor(Flavor):
    """Naive Bayes on the text features, which needs one pass over the rows."""

    mlflow_flavor = "sklearn"

    def fit(self, split, p, on_epoch, hyperparameters):
        train = split.train.toPandas()
        rows, labels = train[split.features], train[split.label_column]
        encoder = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), split.categorical))
        model = make_pipeline(encoder, BernoulliNB()).fit(rows, labels)
        on_epoch(1, {"epoch_loss": log_loss(labels, model.predict_proba(rows))})
        return model

    def predict(self, model, split):
        held_out = split.held_out.toPandas()
        rows = held_out[split.features]
        return held_out[split.label_column].to_numpy(), model.predict(rows), model.predict_proba(rows)

    def importance(self, model, split, seed):
        return pd.Series(1.0, split.categorical, name="is used")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["two classes", "text", "quantity"])
def test_importance_of_the_linear_flavor_is_scikit_learns_permutation_importance(load, kind):
    data = load(kind)
    flavor, p = load_flavor("sklearn"), training.with_flavor_defaults(settings("sklearn"))
    model = flavor.fit(data, p, lambda epoch, metrics: None, {})
    measured = np.mean([flavor.importance(model, data, seed) for seed in range(10)], axis=0)
    rows, labels = driver.to_pandas(data.validation, data)
    scoring = "neg_root_mean_squared_error" if kind == "quantity" else "neg_log_loss"
    expected = permutation_importance(model, rows, labels, scoring=scoring, n_repeats=50, random_state=0)
    # Both shuffle at random.
    tolerance = 4 * expected.importances_std / 50**0.5 + 0.01 * expected.importances_mean.max()
    assert (np.abs(measured - expected.importances_mean) < tolerance).all()


def test_a_flavor_added_to_the_table_is_trained_measured_and_drawn(session, load, monkeypatch):
    monkeypatch.setitem(kinds.FLAVORS, "bayes", f"{__name__}:BayesFlavor")
    data = load("text")
    with mlflow.start_run() as run:
        trained = training.fit(data, settings("bayes"))
    assert isinstance(trained.model[-1], BernoulliNB) and trained.flavor == "sklearn"
    assert trained.metrics["val_accuracy_score"] > 0.8
    assert trained.figures.keys() == {
        "loss_curve", "roc_curve", "precision_recall", "confusion_matrix", "feature_importance"
    }  # fmt: skip
    assert trained.signature.inputs.input_names() == data.features
    assert trained.signature.outputs.input_names() == ["prediction"]
    logged = mlflow.get_run(run.info.run_id).data.metrics
    assert logged["epoch_loss"] > 0 and logged["val_accuracy_score"] == trained.metrics["val_accuracy_score"]


def test_an_unknown_flavor_is_refused_with_those_that_exist(load):
    unknown = dataclasses.replace(settings("sklearn"), epochs=0)
    object.__setattr__(unknown, "model_flavor", "prophet")
    with pytest.raises(LookupError, match="there is no 'prophet'; there are: sklearn, xgboost, spark"):
        training.fit(load("text"), unknown)


def test_the_packages_of_a_flavor_are_imported_only_when_it_is_used():
    program = (
        "import sys\nfrom helpers import training\nfrom helpers.training import flavors\n"
        "packages = {'sklearn', 'pyspark'}\nprint(sorted(packages & sys.modules.keys()))\n"
        "flavors.load_flavor('sklearn')\nprint(sorted(packages & sys.modules.keys()))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert output.splitlines() == ["[]", "['sklearn']"]


def test_pictures_show_the_names_of_classes_and_columns_as_they_are(tmp_path):
    import matplotlib as mpl

    from helpers.training import plots

    classes, labels = ["$a$", "cost_$\\frac$"], np.array(["$a$", "cost_$\\frac$"] * 20)
    probabilities = np.array([[0.7, 0.3], [0.4, 0.6]] * 20)
    figures = [
        plots.roc_curve(labels, probabilities, classes),
        plots.confusion_matrix(labels, labels, classes),
        plots.precision_recall_by_threshold(labels, probabilities, classes),
        plots.feature_importance(pd.Series({"$a$": 1.0, "cost_$\\frac$": 2.0}, name="importance")),
        plots.residuals(np.arange(3.0), np.arange(3.0) + 1, "cost_$\\frac$"),
        plots.predicted_against_actual(np.arange(3.0), np.arange(3.0) + 1, "cost_$\\frac$"),
    ]
    with mpl.rc_context({"svg.fonttype": "none"}):
        for number, figure in enumerate(figures):
            figure.savefig(tmp_path / f"{number}.svg")
            assert "cost_$\\frac$" in (tmp_path / f"{number}.svg").read_text()
