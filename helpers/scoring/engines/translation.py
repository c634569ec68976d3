"""Linear scikit-learn models, and pipelines that end in one, as Spark expressions.

Imputers, scalers and one-hot encoders before a linear model are sums of products, which Spark computes without Python.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers.scoring.engines import transformers
from helpers.scoring.engines.base import NotSupported

if TYPE_CHECKING:
    from pyspark.sql import Column
    from pyspark.sql.types import DataType
    from sklearn.base import BaseEstimator


@dataclass(frozen=True)
class Translation:
    """A linear model as expressions on the columns of its signature.

    Attributes
    ----------
    decisions : list of pyspark.sql.Column
        The values of the model's decision function: one number, or one per class.
    link : str
        The function that makes probabilities of them: ``sigmoid`` or ``softmax``; ``identity`` for a regression.
    classes : list
        Empty for a regression.
    """

    decisions: list[Column]
    link: str
    classes: list[Any]


def translate(estimator: BaseEstimator, inputs: dict[str, DataType]) -> Translation:
    """Translate a fitted estimator.

    Parameters
    ----------
    estimator : sklearn.base.BaseEstimator
        A linear model, or a pipeline that ends in one.
    inputs : dict of str to pyspark.sql.types.DataType
        Type by column, in the order of the signature.

    Raises
    ------
    helpers.scoring.engines.base.NotSupported
        If any part of it has no translation.
    """
    import numpy as np

    *before, model = transformers.steps(estimator)
    values = [transformers.input_value(name, input_type) for name, input_type in inputs.items()]
    names = list(inputs)
    for step in before:
        values, names = transformers.transformed(step, values, names), []
    kind = type(model).__name__
    if kind not in _MODELS:
        raise NotSupported(f"{kind} is not one of {', '.join(_MODELS)}")
    scales, shifts = (np.array([getattr(value, name) for value in values]) for name in ("scale", "shift"))
    decisions = [
        balanced_sum([value.column * float(weight) for value, weight in zip(values, weights * scales, strict=True)])
        + float(intercept + weights @ shifts)
        for weights, intercept in zip(np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_), strict=True)
    ]
    return Translation(decisions, *_MODELS[kind](model))


def balanced_sum(columns: Sequence[Column]) -> Column:
    """Return the sum as a balanced tree: Spark walks along it by recursion, so it must not be deep."""
    if len(columns) == 1:
        return columns[0]
    middle = len(columns) // 2
    return balanced_sum(columns[:middle]) + balanced_sum(columns[middle:])


def _logistic(model: Any) -> tuple[str, list[Any]]:
    one_against_the_rest = getattr(model, "multi_class", "deprecated") == "ovr" or model.solver == "liblinear"
    return "sigmoid" if len(model.classes_) == 2 or one_against_the_rest else "softmax", model.classes_.tolist()


def _stochastic(model: Any) -> tuple[str, list[Any]]:
    if model.loss != "log_loss":
        raise NotSupported(f"an SGDClassifier with loss={model.loss!r} is not translated, only one with 'log_loss'")
    return "sigmoid", model.classes_.tolist()


def _regression(model: Any) -> tuple[str, list[Any]]:
    if model.coef_.ndim == 2 and len(model.coef_) > 1:
        raise NotSupported("a regression with several outputs is not translated")
    return "identity", []


# The link and the classes, by the estimator's class.
_MODELS: dict[str, Callable[[Any], tuple[str, list[Any]]]] = {
    "LogisticRegression": _logistic, "SGDClassifier": _stochastic
} | dict.fromkeys(("LinearRegression", "Ridge", "Lasso", "ElasticNet", "SGDRegressor"), _regression)  # fmt: skip
