"""Metrics of two and of more classes."""

from pathlib import Path

import numpy as np
import pytest

from helpers import parameters
from helpers.data.metrics import METRICS, classification_metrics, measure, measure_each_class


def test_two_classes_are_measured_with_the_second_as_the_positive_one():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.6, 0.4]])
    metrics = classification_metrics(["a", "a", "b", "b"], ["a", "b", "b", "a"], probabilities, ["a", "b"])
    assert metrics["accuracy_score"] == metrics["balanced_accuracy_score"] == 0.5
    assert metrics["roc_auc"] == 0.75
    assert metrics["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.7, 0.4]).mean())


def test_a_class_that_does_not_occur_leaves_out_what_cannot_be_computed():
    probabilities = np.full((2, 3), 1 / 3)
    metrics = classification_metrics([0, 1], [0, 1], probabilities, [0, 1, 2])
    assert metrics.keys() == {
        "accuracy_score",
        "precision_score",
        "recall_score",
        "f1_score",
        "balanced_accuracy_score",
    }
    assert set(metrics.values()) == {1.0}


def test_each_class_has_the_same_weight_in_balanced_accuracy_only():
    labels = [0] * 90 + [1] * 10
    metrics = classification_metrics(labels, [0] * 95 + [1] * 5, None, [0, 1])
    assert metrics["accuracy_score"] == metrics["recall_score"] == pytest.approx(0.95)
    assert metrics["balanced_accuracy_score"] == 0.75


def test_a_regression_is_measured_in_the_labels_unit_and_against_the_mean():
    metrics = measure("regressor", [0.0, 2.0, 4.0], [1.0, 2.0, 3.0])
    assert metrics["mean_absolute_error"] == pytest.approx(2 / 3) and metrics["max_error"] == 1
    assert metrics["root_mean_squared_error"] == pytest.approx((2 / 3) ** 0.5) and metrics["r2_score"] == 0.75
    assert "mean_absolute_percentage_error" not in metrics
    assert measure("regressor", [1.0, 2.0], [1.1, 2.2])["mean_absolute_percentage_error"] == pytest.approx(0.1)
    assert "r2_score" not in measure("regressor", [1.0], [1.0])


def test_average_precision_is_that_of_the_positive_class_or_of_each_class_by_its_frequency():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.6, 0.4]])
    two = measure("classifier", ["a", "a", "b", "b"], ["a", "b", "b", "a"], probabilities, ["a", "b"])
    assert two["average_precision_score"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    three = measure("classifier", [0, 1, 2], [0, 1, 2], np.eye(3), [0, 1, 2])
    assert three["average_precision_score"] == three["roc_auc"] == 1


def test_each_metric_of_the_table_is_measured_and_accepted_as_the_metric_of_the_gate():
    measured = {
        "classifier": measure("classifier", [0, 1], [0, 1], np.eye(2), [0, 1]),
        "regressor": measure("regressor", [1.0, 2.0], [1.0, 2.0]),
    }
    for name, metric in METRICS.items():
        assert name in measured[metric.model_type]
    assert parameters.choices("validation_metric") == ("auto", *METRICS)


def test_each_class_has_its_precision_and_recall():
    table = measure_each_class(np.array(["a", "a", "b"]), np.array(["a", "b", "b"]), ["a", "b", "c"])
    assert table.loc["a"].tolist() == [1, 0.5, 2] and table.loc["b"].tolist() == [0.5, 1, 1]
    assert table.loc["c"].tolist() == [0, 0, 0]


def test_what_people_read_has_the_default_threshold_of_the_gate():
    (threshold,) = {metric.threshold for metric in METRICS.values()} - {None}
    assert f"Empty: {threshold} for " in parameters.FIELDS["validation_threshold"].description
    root = Path(__file__).parents[2]
    guide, notebook = root / "docs" / "guide" / "your-own-model.md", root / "notebooks" / "03_register.ipynb"
    assert f"`accuracy_score` of {threshold}." in guide.read_text(encoding="utf-8")
    assert f"have a default, {threshold}." in notebook.read_text(encoding="utf-8")
