"""The metrics of classifiers and regressors, with the names that MLflow's own evaluator uses.

``mlflow.models.evaluate`` is not used, because it finds the probabilities of scikit-learn models only. All flavors have to
be measured in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

CLASSIFIER, REGRESSOR = "classifier", "regressor"


@dataclass(frozen=True)
class Metric:
    """What is known of a metric.

    Attributes
    ----------
    model_type : str
        `CLASSIFIER` or `REGRESSOR`.
    greater_is_better : bool, default True
    threshold : float or None, default None
        The value that a model has to reach unless ``validation_threshold`` says otherwise. None where no value suits
        most data sets: an error is in the label's unit, for instance.
    """

    model_type: str
    greater_is_better: bool = True
    threshold: float | None = None


METRICS = {
    "accuracy_score": Metric(CLASSIFIER, threshold=0.6),
    "balanced_accuracy_score": Metric(CLASSIFIER, threshold=0.6),
    "precision_score": Metric(CLASSIFIER, threshold=0.6),
    "recall_score": Metric(CLASSIFIER, threshold=0.6),
    "f1_score": Metric(CLASSIFIER, threshold=0.6),
    "roc_auc": Metric(CLASSIFIER, threshold=0.6),
    "average_precision_score": Metric(CLASSIFIER),
    "log_loss": Metric(CLASSIFIER, greater_is_better=False),
    "r2_score": Metric(REGRESSOR),
    "root_mean_squared_error": Metric(REGRESSOR, greater_is_better=False),
    "mean_squared_error": Metric(REGRESSOR, greater_is_better=False),
    "mean_absolute_error": Metric(REGRESSOR, greater_is_better=False),
    "mean_absolute_percentage_error": Metric(REGRESSOR, greater_is_better=False),
    "max_error": Metric(REGRESSOR, greater_is_better=False),
}
"""The metrics that can decide about a model; the parameter ``validation_metric`` accepts their names."""

DEFAULT_METRIC = {CLASSIFIER: "accuracy_score", REGRESSOR: "r2_score"}
"""The metric that decides unless ``validation_metric`` names another one."""

LOSS = {CLASSIFIER: "log_loss", REGRESSOR: "root_mean_squared_error"}
"""The metric that training lowers: in nats, or in the label's unit."""


def measure(
    model_type: str,
    labels: Sequence | np.ndarray,
    predictions: Sequence | np.ndarray,
    probabilities: np.ndarray | None = None,
    classes: Sequence[Any] = (),
) -> dict[str, float]:
    """Compare predictions with labels.

    Parameters
    ----------
    model_type : str
        `CLASSIFIER` or `REGRESSOR`.
    labels, predictions : sequence or numpy.ndarray, shape (n_rows,)
    probabilities : numpy.ndarray of float, shape (n_rows, n_classes), optional
        Of a classifier: the probability of each class, in the order of `classes`. None if it has no probabilities.
    classes : sequence, shape (n_classes,), optional
        Of a classifier. Sorted; of two classes, the second is the positive one.

    Returns
    -------
    dict of str to float
        See `classification_metrics` and `regression_metrics`.
    """
    if model_type == REGRESSOR:
        return regression_metrics(labels, predictions)
    return classification_metrics(labels, predictions, probabilities, classes)


def loss(
    model_type: str,
    labels: np.ndarray,
    predictions: np.ndarray,
    probabilities: np.ndarray | None,
    classes: Sequence[Any],
) -> float:
    """Return the metric that training lowers, `LOSS`; parameters as those of `measure`."""
    from sklearn.metrics import log_loss, mean_squared_error

    if model_type == REGRESSOR:
        return float(mean_squared_error(labels, predictions) ** 0.5)
    return float(log_loss(labels, probabilities, labels=list(classes)))


def classification_metrics(
    labels: Sequence | np.ndarray,
    predictions: Sequence | np.ndarray,
    probabilities: np.ndarray | None,
    classes: Sequence[Any],
) -> dict[str, float]:
    """Compare predicted classes and their probabilities with labels; parameters as those of `measure`.

    Returns
    -------
    dict of str to float
        ``accuracy_score``; ``precision_score``, ``recall_score`` and ``f1_score``, averaged over the classes by their
        frequency; ``balanced_accuracy_score``, the recall averaged over the classes as equals. If there are
        probabilities and every class occurs among the labels, also ``log_loss`` (in nats), and ``roc_auc`` and
        ``average_precision_score`` (of the positive class, or for more than two classes: one class against the rest,
        averaged by frequency).
    """
    import numpy as np
    from sklearn.metrics import (
        accuracy_score,
        average_precision_score,
        log_loss,
        precision_recall_fscore_support,
        recall_score,
        roc_auc_score,
    )

    actual, predicted = np.asarray(labels), np.asarray(predictions)
    precision, recall, f1, _ = precision_recall_fscore_support(actual, predicted, average="weighted", zero_division=0)
    metrics = {
        "accuracy_score": accuracy_score(actual, predicted),
        "precision_score": precision,
        "recall_score": recall,
        "f1_score": f1,
        # scikit-learn's function of this name warns about classes that are predicted and do not occur.
        "balanced_accuracy_score": recall_score(
            actual, predicted, labels=np.unique(actual), average="macro", zero_division=0
        ),
    }
    if probabilities is not None and set(actual.tolist()) == set(classes):
        metrics["log_loss"] = log_loss(actual, probabilities, labels=list(classes))
        scores = probabilities[:, 1] if len(classes) == 2 else probabilities
        metrics["roc_auc"] = roc_auc_score(actual, scores, multi_class="ovr", average="weighted", labels=list(classes))
        is_class = np.column_stack([actual == name for name in classes])
        if len(classes) == 2:
            is_class = is_class[:, 1]
        metrics["average_precision_score"] = average_precision_score(is_class, scores, average="weighted")
    return {name: float(value) for name, value in metrics.items()}


def regression_metrics(labels: Sequence | np.ndarray, predictions: Sequence | np.ndarray) -> dict[str, float]:
    """Compare predicted numbers with labels.

    Parameters
    ----------
    labels, predictions : sequence or numpy.ndarray of float, shape (n_rows,)

    Returns
    -------
    dict of str to float
        ``mean_absolute_error``, ``root_mean_squared_error`` and ``max_error`` (in the label's unit),
        ``mean_squared_error``, ``mean_absolute_percentage_error`` (as a fraction; left out if a label is 0), and with at
        least two rows ``r2_score``: 1 for a perfect model, 0 for one that always predicts the mean.
    """
    import numpy as np
    from sklearn.metrics import (
        max_error,
        mean_absolute_error,
        mean_absolute_percentage_error,
        mean_squared_error,
        r2_score,
    )

    actual, predicted = np.asarray(labels, dtype=float), np.asarray(predictions, dtype=float)
    squared = mean_squared_error(actual, predicted)
    metrics = {
        "mean_absolute_error": mean_absolute_error(actual, predicted),
        "mean_squared_error": squared,
        "root_mean_squared_error": np.sqrt(squared),
        "max_error": max_error(actual, predicted),
    }
    if (actual != 0).all():
        metrics["mean_absolute_percentage_error"] = mean_absolute_percentage_error(actual, predicted)
    if len(actual) > 1:
        metrics["r2_score"] = r2_score(actual, predicted)
    return {name: float(value) for name, value in metrics.items()}


def measure_each_class(labels: np.ndarray, predictions: np.ndarray, classes: Sequence[Any]) -> pd.DataFrame:
    """Return the precision, the recall and the number of rows of each class.

    Parameters
    ----------
    labels, predictions : numpy.ndarray, shape (n_rows,)
    classes : sequence, shape (n_classes,)

    Returns
    -------
    pandas.DataFrame
        Index ``class``; columns ``precision_score``, ``recall_score`` and ``rows``.
    """
    import pandas as pd
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, _, rows = precision_recall_fscore_support(
        labels, predictions, labels=list(classes), zero_division=0
    )
    columns = {"precision_score": precision, "recall_score": recall, "rows": rows}
    return pd.DataFrame(columns, index=pd.Index(classes, name="class"))
