"""Train a model of any flavor in the active MLflow run, measure it, and draw how good it is."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from helpers import environment, kinds, output
from helpers.data.metrics import CLASSIFIER, measure, measure_each_class
from helpers.parameters import ParameterError
from helpers.training import plots
from helpers.training.flavors import load_flavor
from helpers.training.flavors.base import Flavor

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from mlflow.models import ModelSignature

    from helpers.data.split import Split
    from helpers.parameters import Fit

_Fit = TypeVar("_Fit", bound="Fit")
# Training rows from which the signature is inferred.
SAMPLE_ROWS = 1_000
_EXAMPLES = 5


@dataclass(frozen=True)
class TrainedModel:
    """A trained model, with what is needed to log it and to show how good it is.

    Attributes
    ----------
    model : object
        What MLflow logs: a `sklearn.pipeline.Pipeline` or a `pyspark.ml.PipelineModel`, for instance.
    flavor : str
        Module of MLflow that logs it: ``sklearn`` or ``spark``, for instance.
    classes : list
        Of a classifier: in the order of the probabilities. Empty for a regressor.
    signature : mlflow.models.ModelSignature
        The features by name as inputs, and ``prediction`` as output.
    input_example : pandas.DataFrame
        A few rows of features, with a value in each column that has one in the sample.
    metrics : dict of str to float
        Metrics of the rows that measure the model, ``split.validation``: ``val_<metric>``.
    figures : dict of str to matplotlib.figure.Figure
        Figures by name.
    each_class : pandas.DataFrame or None
        Of a classifier: precision, recall and held-out rows of each class.
    """

    model: Any
    flavor: str
    classes: list[Any]
    signature: ModelSignature
    input_example: pd.DataFrame
    metrics: dict[str, float]
    figures: dict[str, Figure]
    each_class: pd.DataFrame | None


def with_flavor_defaults(p: _Fit) -> _Fit:
    """Return the parameters with the flavor's own number of epochs where they say 0.

    Raises
    ------
    helpers.parameters.ParameterError
        If the flavor cannot be used here, or if `tuning_trials` asks for what cannot be tuned.
    """
    flavor = load_flavor(p.model_flavor)
    flavor.check(p)
    if p.tuning_trials:
        _require_tuning(p, flavor)
    return p if p.epochs else replace(p, epochs=flavor.default_epochs)


def _require_tuning(p: Fit, flavor: Flavor) -> None:
    if type(flavor).search_space is Flavor.search_space:
        raise ParameterError(
            "tuning_trials",
            p.tuning_trials,
            f"model_flavor={p.model_flavor} has no search space. Set tuning_trials=0, or write the method search_space in "
            f"its class, {kinds.FLAVORS[p.model_flavor]}",
        )
    if importlib.util.find_spec("optuna") is None:
        raise ParameterError(
            "tuning_trials",
            p.tuning_trials,
            f"{environment.how_to_install('optuna')}, or set tuning_trials=0",
        )


def fit(split: Split, p: Fit, hyperparameters: Mapping[str, Any] | None = None) -> TrainedModel:
    """Train a model, and log the metrics of each epoch to the active MLflow run, with the epoch as step.

    Parameters
    ----------
    split : helpers.data.split.Split
        The training rows, and those on which the model is measured: ``split.validation``.
    p : helpers.parameters.Fit
        Which flavor, and how it is trained. With ``epochs=0`` the flavor's own number.
    hyperparameters : mapping of str to object, optional
        In place of the flavor's own values.

    Returns
    -------
    TrainedModel
    """
    import mlflow
    import pandas as pd
    from mlflow.models import infer_signature
    from tqdm import tqdm

    flavor, p = load_flavor(p.model_flavor), with_flavor_defaults(p)
    history: dict[int, dict[str, float]] = {}
    with tqdm(total=p.epochs, desc="epochs", file=sys.stdout) as progress:

        def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
            mlflow.log_metrics(metrics, step=epoch)
            history[epoch] = metrics
            progress.set_postfix(epoch_loss=f"{metrics['epoch_loss']:.4f}", refresh=False)
            progress.update()

        model = flavor.fit(split, p, on_epoch, hyperparameters or {})

    labels, predictions, probabilities = flavor.predict(model, split)
    validation = measure(split.model_type, labels, predictions, probabilities, split.classes)
    metrics = {f"val_{name}": value for name, value in validation.items()}
    last = max(history)
    mlflow.log_metrics({name: value for name, value in metrics.items() if name not in history[last]}, step=last)
    sample = split.train.limit(SAMPLE_ROWS).toPandas()[split.features]
    # The output is a Series, so that the signature names a column. An array would be a tensor, which Spark turns into a
    # list for every row. MLflow warns about integers in the output, where they do not matter.
    with output.quiet():
        signature = infer_signature(sample, pd.Series(predictions, name="prediction"))
    fitted = plots.Fit(
        model_type=split.model_type,
        label_column=split.label_column,
        history=pd.DataFrame.from_dict(history, orient="index"),
        labels=labels,
        predictions=predictions,
        probabilities=probabilities,
        classes=split.classes,
        importance=flavor.importance(model, split, p.seed),
    )
    return TrainedModel(
        model=model,
        flavor=flavor.mlflow_flavor,
        classes=split.classes,
        signature=signature,
        input_example=_examples(sample),
        metrics=metrics,
        figures={name: draw(fitted) for name, draw in plots.FIGURES[split.model_type].items()},
        each_class=measure_each_class(labels, predictions, split.classes) if split.model_type == CLASSIFIER else None,
    )


def _examples(sample: pd.DataFrame) -> pd.DataFrame:
    """Return the first rows, and of each column the first that has a value.

    Azure ML's scoring script converts requests to the types of the example's columns. It would take a column of texts for
    one of numbers if no row had a text.
    """
    with_values = {sample[name].first_valid_index() for name in sample} - {None}
    return sample.loc[sorted({*sample.index[:_EXAMPLES], *with_values})]
