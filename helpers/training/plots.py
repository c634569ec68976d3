"""Pictures of a trained model, as Matplotlib figures.

To add one, write a function here and add a line to the figures in `helpers.training.fit`. The figures are not
registered with ``matplotlib.pyplot``, so nobody has to close them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _axes(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    return figure, axes


def loss_curve(history: pd.DataFrame) -> Figure:
    """Draw the losses by epoch.

    Parameters
    ----------
    history : pandas.DataFrame
        Index: the epoch. Columns: ``epoch_loss`` and, if it was measured after each epoch, ``val_log_loss`` (both in
        nats).
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = _axes(7, 4, "Loss by epoch")
    for column, label in {"epoch_loss": "training rows", "val_log_loss": "held-out rows"}.items():
        if column in history:
            axes.plot(history.index, history[column], marker=".", label=label)
    axes.set(xlabel="epoch", ylabel="log loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def roc_curve(labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[Any]) -> Figure:
    """Draw the ROC curve of the second of two classes, or of each class against the rest, for ten classes at most.

    Parameters
    ----------
    labels : numpy.ndarray, shape (n_rows,)
    probabilities : numpy.ndarray of float, shape (n_rows, n_classes)
    classes : sequence, shape (n_classes,)
    """
    from sklearn.metrics import RocCurveDisplay

    figure, axes = _axes(6, 5.2, "ROC curve on held-out rows")
    shown = list(enumerate(classes))[1:] if len(classes) == 2 else list(enumerate(classes))[:10]
    for index, name in shown:
        RocCurveDisplay.from_predictions(labels == name, probabilities[:, index], name=str(name), ax=axes)
    axes.plot([0, 1], [0, 1], linestyle=":", color="grey")
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", title="class" if len(classes) == 2 else "class against the rest")
    return figure


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, classes: Sequence[Any]) -> Figure:
    """Draw how many rows of each class were predicted as each class.

    Parameters
    ----------
    labels, predictions : numpy.ndarray, shape (n_rows,)
    classes : sequence, shape (n_classes,)
    """
    from sklearn.metrics import ConfusionMatrixDisplay

    size = min(4 + 0.6 * len(classes), 14)
    figure, axes = _axes(size, size * 0.85, "Confusion matrix on held-out rows")
    ConfusionMatrixDisplay.from_predictions(
        labels,
        predictions,
        labels=list(classes),
        ax=axes,
        cmap="Blues",
        colorbar=False,
        include_values=len(classes) <= 20,
        xticks_rotation=45 if len(classes) > 3 else "horizontal",
    )
    axes.set(xlabel="predicted", ylabel="true")
    return figure


def feature_importance(importance: pd.Series, max_features: int = 20) -> Figure:
    """Draw the most important features.

    Parameters
    ----------
    importance : pandas.Series
        Importance by feature. The name of the Series says what was measured.
    max_features : int, default 20
        Number of features to draw.
    """
    shown = importance.sort_values().tail(max_features)
    figure, axes = _axes(7, 1.2 + 0.28 * len(shown), f"Feature importance ({len(shown)} of {len(importance)})")
    axes.barh([name if len(name) <= 40 else name[:39] + "…" for name in map(str, shown.index)], shown.to_numpy())
    axes.set(xlabel=importance.name)
    axes.grid(axis="x", alpha=0.3)
    return figure


@dataclass(frozen=True)
class Fit:
    """What is known of a trained model, for its pictures.

    Attributes
    ----------
    history : pandas.DataFrame
        Metrics by epoch.
    labels, predictions : numpy.ndarray, shape (n_rows,)
        Of the held-out rows.
    probabilities : numpy.ndarray of float, shape (n_rows, n_classes)
    classes : sequence, shape (n_classes,)
    importance : pandas.Series
        Importance by feature.
    """

    history: pd.DataFrame
    labels: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray
    classes: Sequence[Any]
    importance: pd.Series


FIGURES: dict[str, Callable[[Fit], Figure]] = {
    "loss_curve": lambda fit: loss_curve(fit.history),
    "roc_curve": lambda fit: roc_curve(fit.labels, fit.probabilities, fit.classes),
    "confusion_matrix": lambda fit: confusion_matrix(fit.labels, fit.predictions, fit.classes),
    "feature_importance": lambda fit: feature_importance(fit.importance),
}
"""The pictures of a fit, by the name of the file that a run gets. To add one, write a function and add a line."""
