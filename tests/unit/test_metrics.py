"""Metrics of two and of more classes."""

import numpy as np
import pytest

from helpers.data.metrics import classification_metrics


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
