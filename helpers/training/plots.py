"""Pictures of a trained model, as Matplotlib figures.

To add one, write a function here and add a line to `FIGURES`. The figures are not registered with
``matplotlib.pyplot``, so nobody has to close them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers.data.metrics import CLASSIFIER, LOSS, REGRESSOR

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


def loss_curve(history: pd.DataFrame, loss: str) -> Figure:
    """Draw the losses by epoch.

    Parameters
    ----------
    history : pandas.DataFrame
        Index: the epoch. Columns: ``epoch_loss`` and, if it was measured after each epoch, ``val_<loss>``.
    loss : str
        Name of the metric, one of `helpers.data.metrics.LOSS`.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = _axes(7, 4, "Loss by epoch")
    for column, label in {"epoch_loss": "training rows", f"val_{loss}": "held-out rows"}.items():
        if column in history:
            axes.plot(history.index, history[column], marker=".", label=label)
    axes.set(xlabel="epoch", ylabel=loss.replace("_", " "))
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
        RocCurveDisplay.from_predictions(labels == name, probabilities[:, index], name=_plain(name), ax=axes)
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
        display_labels=[_plain(name) for name in classes],
        ax=axes,
        cmap="Blues",
        colorbar=False,
        include_values=len(classes) <= 20,
        xticks_rotation=45 if len(classes) > 3 else "horizontal",
    )
    axes.set(xlabel="predicted", ylabel="true")
    return figure


def precision_recall_by_threshold(labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[Any]) -> Figure:
    """Draw the precision and the recall of a class over the probability from which a row is taken for it.

    Of two classes it is the second, of more the rarest.

    Parameters
    ----------
    labels : numpy.ndarray, shape (n_rows,)
    probabilities : numpy.ndarray of float, shape (n_rows, n_classes)
    classes : sequence, shape (n_classes,)
    """
    from sklearn.metrics import precision_recall_curve

    shown = 1 if len(classes) == 2 else min(range(len(classes)), key=lambda number: (labels == classes[number]).sum())
    is_class = labels == classes[shown]
    precision, recall, thresholds = precision_recall_curve(is_class, probabilities[:, shown])
    figure, axes = _axes(7, 4, f"Precision and recall of class {_plain(classes[shown])} on held-out rows")
    # Each threshold is a step: the values hold up to the next one.
    axes.plot(thresholds, precision[:-1], drawstyle="steps-pre", label="precision")
    axes.plot(thresholds, recall[:-1], drawstyle="steps-pre", label="recall")
    axes.set(xlabel="threshold of the probability", xlim=(0, 1), ylim=(-0.02, 1.02))
    axes.axhline(is_class.mean(), linestyle=":", color="grey", label="share of the class")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def predicted_against_actual(labels: np.ndarray, predictions: np.ndarray, label_column: str) -> Figure:
    """Draw the predictions of a regressor over the labels; on the line, they are equal.

    Parameters
    ----------
    labels, predictions : numpy.ndarray of float, shape (n_rows,)
    label_column : str
        The name of the label, for the axes.
    """
    figure, axes = _axes(6, 5.6, "Predicted against actual, held-out rows")
    _points(axes, labels, predictions)
    ends = [min(labels.min(), predictions.min()), max(labels.max(), predictions.max())]
    axes.plot(ends, ends, linestyle=":", color="grey", label="predicted = actual")
    axes.set(xlabel=f"actual {_plain(label_column)}", ylabel=f"predicted {_plain(label_column)}")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    return figure


def residuals(labels: np.ndarray, predictions: np.ndarray, label_column: str) -> Figure:
    """Draw the errors of a regressor over its predictions, and how often each size of error occurs.

    Parameters
    ----------
    labels, predictions : numpy.ndarray of float, shape (n_rows,)
    label_column : str
        The name of the label, for the axes.
    """
    from matplotlib.figure import Figure

    errors = labels - predictions
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    over, beside = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    figure.suptitle("Residuals on held-out rows")
    _points(over, predictions, errors)
    over.axhline(0, linestyle=":", color="grey")
    over.set(xlabel=f"predicted {_plain(label_column)}", ylabel="actual - predicted")
    beside.hist(errors, bins="auto" if len(errors) < 10_000 else 100, orientation="horizontal")
    beside.set(xlabel="rows")
    for axes in (over, beside):
        axes.grid(alpha=0.3)
    return figure


def _points(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Draw points, and where they are too many to be told apart, how many there are in each place."""
    if len(x) <= _MAX_POINTS:
        axes.scatter(x, y, s=14, alpha=0.6)
    else:
        axes.hexbin(x, y, gridsize=60, bins="log", mincnt=1, cmap="Blues")


def _plain(name: Any) -> str:
    """Return a name as text that Matplotlib does not read as mathematics."""
    return str(name).replace("$", r"\$")


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
    names = [name if len(name) <= 40 else name[:39] + "…" for name in map(str, shown.index)]
    axes.barh([_plain(name) for name in names], shown.to_numpy())
    axes.set(xlabel=importance.name)
    axes.grid(axis="x", alpha=0.3)
    return figure


def optimization_history(trials: pd.DataFrame, loss: str) -> Figure:
    """Draw the loss of each trial of a study, and the best one so far.

    Parameters
    ----------
    trials : pandas.DataFrame
        Index: the number of the trial. Columns: ``outcome`` (``complete`` or another) and ``tuning_loss``.
    loss : str
        Name of the loss, for the axis.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = _axes(7, 4, "Loss of each trial, on rows put aside")
    losses = trials.sort_index()["tuning_loss"]
    is_complete = trials.sort_index()["outcome"] == "complete"
    axes.plot(losses[is_complete], "o", label="trial")
    if not is_complete.all():
        axes.plot(losses[~is_complete], "x", label="pruned")
    axes.step(
        losses.index, losses[is_complete].cummin().reindex(losses.index).ffill(), "grey", where="post", label="best"
    )
    axes.set(xlabel="trial", ylabel=loss.replace("_", " "))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def hyperparameter_importance(importance: Mapping[str, float]) -> Figure:
    """Draw how much of the difference between the trials is due to each hyperparameter.

    Parameters
    ----------
    importance : mapping of str to float
        Share by hyperparameter.
    """
    shown = sorted(importance.items(), key=lambda item: item[1])
    figure, axes = _axes(7, 1.2 + 0.35 * len(shown), "Importance of the hyperparameters")
    axes.barh([name for name, _ in shown], [share for _, share in shown])
    axes.set(xlabel="share of the variance of the trials' losses", xlim=(0, 1))
    axes.grid(axis="x", alpha=0.3)
    return figure


_MAX_POINTS = 3_000


@dataclass(frozen=True)
class Fit:
    """What is known of a trained model, for its pictures.

    Attributes
    ----------
    model_type : str
        ``classifier`` or ``regressor``.
    label_column : str
    history : pandas.DataFrame
        Metrics by epoch.
    labels, predictions : numpy.ndarray, shape (n_rows,)
        Of the held-out rows.
    probabilities : numpy.ndarray of float, shape (n_rows, n_classes), or None
        None for a regressor.
    classes : sequence, shape (n_classes,)
        Empty for a regressor.
    importance : pandas.Series
        Importance by feature.
    """

    model_type: str
    label_column: str
    history: pd.DataFrame
    labels: np.ndarray
    predictions: np.ndarray
    probabilities: Any
    classes: Sequence[Any]
    importance: pd.Series


_OF_EVERY_MODEL: dict[str, Callable[[Fit], Figure]] = {
    "loss_curve": lambda fit: loss_curve(fit.history, LOSS[fit.model_type]),
    "feature_importance": lambda fit: feature_importance(fit.importance),
}

FIGURES: dict[str, dict[str, Callable[[Fit], Figure]]] = {
    CLASSIFIER: {
        **_OF_EVERY_MODEL,
        "roc_curve": lambda fit: roc_curve(fit.labels, fit.probabilities, fit.classes),
        "precision_recall": lambda fit: precision_recall_by_threshold(fit.labels, fit.probabilities, fit.classes),
        "confusion_matrix": lambda fit: confusion_matrix(fit.labels, fit.predictions, fit.classes),
    },
    REGRESSOR: {
        **_OF_EVERY_MODEL,
        "predicted_against_actual": lambda fit: predicted_against_actual(fit.labels, fit.predictions, fit.label_column),
        "residuals": lambda fit: residuals(fit.labels, fit.predictions, fit.label_column),
    },
}
"""The pictures of a fit by the name of the file that a run gets, for each type of model. To add one, write a function and
add a line."""
