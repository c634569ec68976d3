"""Training each flavor on labels and columns of every kind, tracked epoch by epoch."""

import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.metrics import log_loss
from sklearn.naive_bayes import BernoulliNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from helpers import kinds, training
from helpers.data import split
from helpers.training.flavors.base import Flavor

ROOT = Path(__file__).parents[2]
LABELS = {"text": "element_at(array('low', 'mid', 'high'), k + 1)", "numbers": "k", "two classes": "k = 0"}


@pytest.fixture(scope="module")
def tables_by_label(spark):
    """One table for each kind of label, with two numeric features that determine the class, and two of text."""
    spark.sql("CREATE SCHEMA IF NOT EXISTS training_tests")
    for i, label in enumerate(LABELS.values()):
        rows = spark.range(300).selectExpr("id", "int(id % 3) AS k", "(id * 7919) % 100 / 100 AS noise").selectExpr(
            "id",
            "IF(id % 11 = 0, NULL, k + noise / 4) AS `size.in cm`",
            "k * k - noise AS Weight",
            "IF(id % 7 = 0, NULL, concat('shop ', k)) AS `Shop Name`",
            "IF(id % 2 = 0, 'é, ü', 'plain') AS city",
            f"{label} AS `the label`",
        )  # fmt: skip
        rows.write.mode("overwrite").saveAsTable(f"training_tests.t{i}")
    return {kind: f"training_tests.t{i}" for i, kind in enumerate(LABELS)}


@pytest.fixture
def load(spark, tables_by_label):
    """Split the table of a kind of label."""

    def load_split(kind):
        columns = {"label_column": "the label", "id_column": "id"}
        return split.load_split(spark, tables_by_label[kind], **columns, test_fraction=0.3, seed=1)

    return load_split


@pytest.mark.parametrize("flavor", ["sklearn", "spark"])
@pytest.mark.parametrize("kind", LABELS)
def test_a_model_learns_and_logs_its_metrics_after_each_epoch(session, load, flavor, kind):
    data = load(kind)
    assert (len(data.numeric), len(data.categorical)) == (2, 2)
    with mlflow.start_run() as run:
        trained = training.fit(data, model_flavor=flavor, epochs=8, learning_rate=0.05, seed=3)

    assert trained.flavor == flavor
    assert trained.metrics["val_accuracy_score"] > 0.95
    assert trained.metrics["val_roc_auc"] > 0.95
    assert trained.classes == {"text": ["high", "low", "mid"], "numbers": [0, 1, 2], "two classes": [False, True]}[kind]
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "epoch_loss")
    assert [point.step for point in history] == list(range(1, len(history) + 1))
    assert len(history) == 8 or flavor == "spark"
    assert history[-1].value < history[0].value
    assert mlflow.get_run(run.info.run_id).data.metrics["val_log_loss"] == pytest.approx(
        trained.metrics["val_log_loss"]
    )

    assert set(trained.signature.inputs.input_names()) == {"size.in cm", "Weight", "Shop Name", "city"}
    assert trained.signature.outputs.input_names() == ["prediction"]
    importance = trained.figures["feature_importance"].axes[0]
    assert {label.get_text() for label in importance.get_yticklabels()} == set(data.features)
    assert len(trained.figures["roc_curve"].axes[0].lines) == (2 if kind == "two classes" else 4)
    counts = [int(text.get_text()) for text in trained.figures["confusion_matrix"].axes[0].texts]
    assert sum(counts) == data.held_out.count()


def test_the_same_seed_gives_the_same_model(session, load):
    data = load("text")
    coefficients = []
    for seed in (3, 3, 4):
        with mlflow.start_run():
            model = training.fit(data, model_flavor="sklearn", epochs=2, learning_rate=0.05, seed=seed).model
        coefficients.append(model.named_steps["classifier"].coef_)
    assert np.array_equal(coefficients[0], coefficients[1])
    assert not np.array_equal(coefficients[0], coefficients[2])


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
        trained = training.fit(data, model_flavor=flavor, epochs=3, learning_rate=0.1, seed=1)
    assert trained.metrics["val_accuracy_score"] == 1
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "val_accuracy_score")
    assert history[-1].value == 1


class BayesFlavor(Flavor):
    """Naive Bayes on the text features, which needs one pass over the rows."""

    mlflow_flavor = "sklearn"

    def fit(self, split, *, epochs, learning_rate, seed, on_epoch):
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


def test_a_flavor_added_to_the_table_is_trained_measured_and_drawn(session, load, monkeypatch):
    monkeypatch.setitem(kinds.FLAVORS, "bayes", f"{__name__}:BayesFlavor")
    data = load("text")
    with mlflow.start_run() as run:
        trained = training.fit(data, model_flavor="bayes", epochs=1, learning_rate=0.1, seed=1)
    assert isinstance(trained.model[-1], BernoulliNB) and trained.flavor == "sklearn"
    assert trained.metrics["val_accuracy_score"] > 0.8
    assert trained.figures.keys() == {"loss_curve", "roc_curve", "confusion_matrix", "feature_importance"}
    assert trained.signature.inputs.input_names() == data.features
    assert trained.signature.outputs.input_names() == ["prediction"]
    logged = mlflow.get_run(run.info.run_id).data.metrics
    assert logged["epoch_loss"] > 0 and logged["val_accuracy_score"] == trained.metrics["val_accuracy_score"]


def test_an_unknown_flavor_is_refused_with_those_that_exist(load):
    with pytest.raises(LookupError, match="there is no 'xgboost'; there are: sklearn, spark"):
        training.fit(load("text"), model_flavor="xgboost", epochs=1, learning_rate=0.1, seed=1)


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
