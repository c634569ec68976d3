"""Classification metrics, with the names that MLflow's own evaluator uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# For all other metrics, a higher value is better.
LOWER_IS_BETTER = frozenset({"log_loss"})


def classification_metrics(
    labels: Sequence | np.ndarray,
    predictions: Sequence | np.ndarray,
    probabilities: np.ndarray | None,
    classes: Sequence[Any],
) -> dict[str, float]:
    """Compare predictions with labels.

    ``mlflow.models.evaluate`` is not used, because it only finds the probabilities of scikit-learn models, and all
    flavors must be evaluated in the same way.

    Parameters
    ----------
    labels, predictions : sequence or numpy.ndarray, shape (n_rows,)
    probabilities : numpy.ndarray of float, shape (n_rows, n_classes), or None
        Probability of each class, in the order of `classes`. None if the model has no probabilities.
    classes : sequence, shape (n_classes,)
        Sorted. With two classes, the second is the positive one in ``roc_auc``.

    Returns
    -------
    dict of str to float
        ``accuracy_score``; ``precision_score``, ``recall_score`` and ``f1_score``, averaged over the classes by their
        frequency; ``balanced_accuracy_score``, the recall averaged over the classes with equal weights. If there are
        probabilities and every class occurs among the labels, also ``log_loss`` (in nats) and ``roc_auc`` (for more
        than two classes: one class against the rest, averaged by frequency).
    """
    import numpy as np
    from sklearn.metrics import accuracy_score, log_loss, precision_recall_fscore_support, recall_score, roc_auc_score

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
    return {name: float(value) for name, value in metrics.items()}
