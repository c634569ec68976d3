"""Training both flavors on labels and columns of every kind, tracked epoch by epoch."""

import mlflow
import numpy as np
import pytest

from helpers import training
from helpers.data import split

LABELS = {"text": "element_at(array('low', 'mid', 'high'), k + 1)", "numbers": "k", "two classes": "k = 0"}


@pytest.fixture(scope="module")
def tables_by_label(spark):
    """One table for each kind of label: two numbers that tell the class, with nulls, and two texts."""
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


@pytest.mark.parametrize("flavor", ["sklearn", "spark"])
@pytest.mark.parametrize("kind", LABELS)
def test_a_model_learns_and_tells_each_epoch_how_it_does(spark, tracking_servers, tables_by_label, flavor, kind):
    data = split.load_split(
        spark, tables_by_label[kind], label_column="the label", id_column="id", test_fraction=0.3, seed=1
    )
    assert (len(data.numeric), len(data.categorical)) == (2, 2)
    with mlflow.start_run() as run:
        trained = training.fit(data, model_flavor=flavor, epochs=8, learning_rate=0.05, seed=3)

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
    counted = [int(text.get_text()) for text in trained.figures["confusion_matrix"].axes[0].texts]
    assert sum(counted) == data.held_out.count()


def test_the_same_seed_gives_the_same_model(spark, tracking_servers, tables_by_label):
    data = split.load_split(
        spark, tables_by_label["text"], label_column="the label", id_column="id", test_fraction=0.3, seed=1
    )
    coefficients = []
    for seed in (3, 3, 4):
        with mlflow.start_run():
            model = training.fit(data, model_flavor="sklearn", epochs=2, learning_rate=0.05, seed=seed).model
        coefficients.append(model.named_steps["classifier"].coef_)
    assert np.array_equal(coefficients[0], coefficients[1])
    assert not np.array_equal(coefficients[0], coefficients[2])
