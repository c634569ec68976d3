"""Pictures of a trained model, as Matplotlib figures.

To add one, write a function here, with the decorator `helpers.figures.styled`, and add a line to `FIGURES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers import figures
from helpers.data.metrics import CLASSIFIER, LOSS, REGRESSOR

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@figures.styled
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

    figure, axes = figures.one_plot(3.6, "Loss by epoch")
    ends = []
    for column, label in {"epoch_loss": "training rows", f"val_{loss}": "held-out rows"}.items():
        if column in history:
            (line,) = axes.plot(history.index, history[column], marker="o", markersize=3.5)
            ends.append((history.index[-1], history[column].iloc[-1], line.get_color(), label))
    axes.set(xlabel="epoch", ylabel=loss.replace("_", " "))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figures.label_lines(axes, ends)
    return figure


@figures.styled
def roc_curve(labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[Any]) -> Figure:
    """Draw the ROC curve of the second of two classes, or of each class against the rest, for ten classes at most.

    Parameters
    ----------
    labels : numpy.ndarray, shape (n_rows,)
    probabilities : numpy.ndarray of float, shape (n_rows, n_classes)
    classes : sequence, shape (n_classes,)
    """
    from sklearn.metrics import auc, roc_curve

    shown = list(enumerate(classes))[1:] if len(classes) == 2 else list(enumerate(classes))[:10]
    curves = [(name, *roc_curve(labels == name, probabilities[:, index])[:2]) for index, name in shown]
    areas = [auc(false, true) for _, false, true in curves]
    if len(classes) == 2:
        title, width = f"ROC of class {figures.cut(classes[1], 20)}, held-out rows: area {areas[0]:.3f}", 6.0
    else:
        title, width = "ROC of each class against the rest, held-out rows", figures.WIDTH
    figure, axes = figures.one_plot(5.2, title, width)
    for area, (name, false, true) in zip(areas, curves, strict=True):
        axes.plot(false, true, label=f"{figures.short(name, 20)}: {area:.3f}")
    axes.plot([0, 1], [0, 1], linestyle=":", color=figures.QUIET, linewidth=1.2)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    if len(classes) > 2:
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), title="class: area", alignment="left")
    return figure


@figures.styled
def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, classes: Sequence[Any]) -> Figure:
    """Draw how many rows of each class were predicted as each class.

    Parameters
    ----------
    labels, predictions : numpy.ndarray, shape (n_rows,)
    classes : sequence, shape (n_classes,)
    """
    from sklearn.metrics import ConfusionMatrixDisplay

    wrong = int((labels != predictions).sum())
    title = f"Confusion matrix: {wrong} of {len(labels)} held-out rows in the wrong class"
    size = min(4 + 0.35 * len(classes), figures.WIDTH)
    figure, axes = figures.one_plot(size * 0.9, title, size)
    # As many names as have room.
    names = [figures.short(name, 20) for name in classes]
    ConfusionMatrixDisplay.from_predictions(
        labels,
        predictions,
        labels=list(classes),
        display_labels=names,
        ax=axes,
        cmap="Blues",
        colorbar=False,
        include_values=len(classes) <= 20,
        # Otherwise the smallest number looks like none.
        im_kw={"vmin": 0},
    )
    figures.label_some(axes.xaxis, classes, most=30, most_characters=20)
    places = range(0, len(names), -(-len(names) // 30))
    axes.set_yticks(places, [names[place] for place in places])
    axes.grid(visible=False)
    axes.set(xlabel="predicted", ylabel="true")
    return figure


@figures.styled
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
    title = f"Precision and recall of class {figures.cut(classes[shown], 20)}, held-out rows"
    figure, axes = figures.one_plot(3.6, title)
    ends = []
    for values, label in ((precision, "precision"), (recall, "recall")):
        # Each threshold is a step: the values hold up to the next one.
        (line,) = axes.plot(thresholds, values[:-1], drawstyle="steps-pre")
        ends.append((thresholds[-1], values[-2], line.get_color(), label))
    share = is_class.mean()
    axes.axhline(share, linestyle=":", color=figures.QUIET, linewidth=1.2)
    axes.set(xlabel="threshold of the probability", ylabel="share", xlim=(0, 1), ylim=(-0.02, 1.02))
    figures.label_lines(axes, [*ends, (1, share, figures.QUIET, "share of\nthe class")])
    return figure


@figures.styled
def predicted_against_actual(labels: np.ndarray, predictions: np.ndarray, label_column: str) -> Figure:
    """Draw the predictions of a regressor over the labels; on the line, they are equal.

    Parameters
    ----------
    labels, predictions : numpy.ndarray of float, shape (n_rows,)
    label_column : str
        The name of the label, for the axes.
    """
    figure, axes = figures.one_plot(5.2, "Predicted against actual, held-out rows", 6.4)
    _points(axes, labels, predictions)
    ends = [min(labels.min(), predictions.min()), max(labels.max(), predictions.max())]
    axes.plot(ends, ends, linestyle=":", color=figures.QUIET)
    axes.set(xlabel=f"actual {figures.short(label_column, 45)}", ylabel=f"predicted {figures.short(label_column)}")
    figures.label_lines(axes, [(ends[1], ends[1], figures.QUIET, "equal")])
    return figure


@figures.styled
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
    figure = Figure(figsize=(figures.WIDTH, 4), layout="constrained")
    over, beside = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    over.set_title("Errors by prediction, held-out rows")
    _points(over, predictions, errors)
    over.set(xlabel=f"predicted {figures.short(label_column, 40)}", ylabel="actual - predicted")
    beside.hist(errors, bins="auto" if len(errors) < 10_000 else 100, orientation="horizontal")
    beside.set_title("How often")
    beside.set(xlabel="rows")
    for axes in (over, beside):
        axes.axhline(0, linestyle=":", color=figures.QUIET)
    return figure


def _points(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Draw points, and where they are too many to be told apart, how many there are in each place."""
    if len(x) <= _MAX_POINTS:
        axes.scatter(x, y, s=18, alpha=0.6, linewidths=0)
    else:
        image = axes.hexbin(x, y, gridsize=60, bins="log", mincnt=1, cmap="viridis_r")
        axes.figure.colorbar(image, ax=axes, label="rows", shrink=0.8)


@figures.styled
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
    number = "all" if len(shown) == len(importance) else f"the {len(shown)} most important"
    figure, axes = figures.one_plot(1.3 + 0.26 * len(shown), f"Feature importance: {number} of {len(importance)}")
    _bars(axes, [figures.short(name, 40) for name in shown.index], shown.to_numpy())
    axes.set(xlabel=importance.name)
    return figure


def _bars(axes: Axes, names: Sequence[str], values: Any) -> None:
    # At places, because Matplotlib would draw bars with the same short name over each other.
    axes.barh(range(len(names)), values, height=0.7)
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False, axis="y")
    axes.margins(y=0.02)


@figures.styled
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

    losses = trials.sort_index()["tuning_loss"]
    is_complete = trials.sort_index()["outcome"] == "complete"
    pruned = "" if is_complete.all() else "; a cross was stopped early"
    figure, axes = figures.one_plot(3.6, f"Loss of each trial, on rows put aside{pruned}")
    axes.plot(losses[is_complete], "o", markersize=5)
    if not is_complete.all():
        axes.plot(losses[~is_complete], "x", markersize=6, markeredgewidth=1.6)
    best = losses[is_complete].cummin().reindex(losses.index).ffill()
    axes.step(losses.index, best, color=figures.QUIET, where="post", linestyle="-")
    axes.set(xlabel="trial", ylabel=loss.replace("_", " "))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if is_complete.any():
        figures.label_lines(axes, [(losses.index[-1], best.iloc[-1], figures.QUIET, "best so far")])
    return figure


@figures.styled
def hyperparameter_importance(importance: Mapping[str, float]) -> Figure:
    """Draw how much of the difference between the trials is due to each hyperparameter.

    Parameters
    ----------
    importance : mapping of str to float
        Share by hyperparameter.
    """
    shown = sorted(importance.items(), key=lambda item: item[1])
    figure, axes = figures.one_plot(1.3 + 0.3 * len(shown), "Importance of the hyperparameters")
    _bars(axes, [figures.short(name, 40) for name, _ in shown], [share for _, share in shown])
    axes.set(xlabel="share of the variance of the trials' losses", xlim=(0, 1))
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
