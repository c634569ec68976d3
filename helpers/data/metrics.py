"""Classification metrics, under the names that MLflow's own evaluator gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

LOWER_IS_BETTER = frozenset({"log_loss"})


def classification_metrics(
    labels: Sequence, predictions: Sequence, probabilities: np.ndarray | None, classes: Sequence[Any]
) -> dict[str, float]:
    """Compare predictions with labels.

    ``mlflow.models.evaluate`` is not used for these numbers: it finds the probabilities of
    scikit-learn models only, and the gate must treat both flavors alike.

    Parameters
    ----------
    labels, predictions : sequence, shape (n_rows,)
    probabilities : numpy.ndarray of float, shape (n_rows, n_classes), or None
        Probability of each class, in the order of `classes`.
    classes : sequence, shape (n_classes,)
        Sorted. With two of them the second is the positive one in ``roc_auc``.

    Returns
    -------
    dict of str to float
        ``accuracy_score``; ``precision_score``, ``recall_score`` and ``f1_score``, averaged over
        the classes by their frequency; and, where there are probabilities and every class occurs
        among the labels, ``log_loss`` (in nats) and ``roc_auc`` (one class against the rest,
        averaged by frequency).
    """
    import numpy as np
    from sklearn.metrics import accuracy_score, log_loss, precision_recall_fscore_support, roc_auc_score

    actual, predicted = np.asarray(labels), np.asarray(predictions)
    precision, recall, f1, _ = precision_recall_fscore_support(actual, predicted, average="weighted", zero_division=0)
    metrics = {
        "accuracy_score": accuracy_score(actual, predicted),
        "precision_score": precision,
        "recall_score": recall,
        "f1_score": f1,
    }
    if probabilities is not None and set(actual.tolist()) == set(classes):
        metrics["log_loss"] = log_loss(actual, probabilities, labels=list(classes))
        scores = probabilities[:, 1] if len(classes) == 2 else probabilities
        metrics["roc_auc"] = roc_auc_score(actual, scores, multi_class="ovr", average="weighted", labels=list(classes))
    return {name: float(value) for name, value in metrics.items()}
