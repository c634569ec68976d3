"""Train a model in the active MLflow run and look at it."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers import runtime
from helpers.data.metrics import classification_metrics
from helpers.training import plots

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from mlflow.models import ModelSignature

    from helpers.data.split import Split

SAMPLE_ROWS = 1_000


@dataclass(frozen=True)
class TrainedModel:
    """A fitted model and how it does.

    Attributes
    ----------
    model : sklearn.pipeline.Pipeline or pyspark.ml.PipelineModel
    flavor : str
        ``sklearn`` or ``spark``.
    classes : list
        In the order of the probabilities.
    signature : mlflow.models.ModelSignature
        The features by name, and ``prediction``.
    input_example : pandas.DataFrame
        A few rows of features.
    metrics : dict of str to float
        On the held-out rows: ``val_<metric>``.
    figures : dict of str to matplotlib.figure.Figure
        Pictures by name.
    """

    model: Any
    flavor: str
    classes: list[Any]
    signature: ModelSignature
    input_example: pd.DataFrame
    metrics: dict[str, float]
    figures: dict[str, Figure]


def fit(split: Split, *, model_flavor: str, epochs: int, learning_rate: float, seed: int) -> TrainedModel:
    """Train a model; each epoch's metrics go to the active MLflow run, with the epoch as step.

    Parameters
    ----------
    split : helpers.data.split.Split
        What to learn from, and what to measure on.
    model_flavor : {"sklearn", "spark"}
    epochs : int
        Passes over the training rows.
    learning_rate : float
        Step size (``sklearn``).
    seed : int

    Returns
    -------
    TrainedModel
    """
    import mlflow
    import pandas as pd
    from mlflow.models import infer_signature
    from tqdm import tqdm

    flavor = importlib.import_module(f"helpers.training.{model_flavor}")
    history: dict[int, dict[str, float]] = {}
    with tqdm(total=epochs, desc="epochs", file=sys.stdout) as progress:

        def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
            mlflow.log_metrics(metrics, step=epoch)
            history[epoch] = metrics
            progress.set_postfix(epoch_loss=f"{metrics['epoch_loss']:.4f}", refresh=False)
            progress.update()

        model = flavor.fit(split, epochs=epochs, learning_rate=learning_rate, seed=seed, on_epoch=on_epoch)

    labels, predictions, probabilities = flavor.predict(model, split)
    metrics = {
        f"val_{name}": value
        for name, value in classification_metrics(labels, predictions, probabilities, split.classes).items()
    }
    if not metrics.keys() <= history[max(history)].keys():
        mlflow.log_metrics(metrics, step=max(history))
    sample = split.train.limit(SAMPLE_ROWS).toPandas()[split.features]
    # A Series, so that the output is a column; an array would be a tensor, which Spark turns into
    # a list for every row. MLflow warns of integers, which matter among the inputs only.
    with runtime.quiet():
        signature = infer_signature(sample, pd.Series(predictions, name="prediction"))
    return TrainedModel(
        model=model,
        flavor=model_flavor,
        classes=split.classes,
        signature=signature,
        input_example=sample.head(5),
        metrics=metrics,
        figures={
            "loss_curve": plots.loss_curve(pd.DataFrame.from_dict(history, orient="index")),
            "roc_curve": plots.roc_curve(labels, probabilities, split.classes),
            "confusion_matrix": plots.confusion_matrix(labels, predictions, split.classes),
            "feature_importance": plots.feature_importance(flavor.importance(model, split, seed)),
        },
    )
