"""Linear scikit-learn pipelines as Spark's own expressions, which run without Python.

Imputers, scalers and one-hot encoders before a linear model are sums of products, which Spark computes in
place. Before such a translation is used, its answers are compared with the model's.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from helpers.data.columns import cast_or_null
from helpers.data.names import quoted

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import DataType
    from sklearn.base import BaseEstimator

CHECKED_ROWS = 500
TOLERANCE = 1e-9
_ROW = "_row"
_MAY_BE_MISSING = ("double", "float")


class NotTranslated(Exception):
    """A model has no translation, or none that gives its answers; the message says why."""


@dataclass(frozen=True)
class _Value:
    """What a step of a pipeline takes or gives: a column, scaled and shifted.

    Scaling is kept apart because it vanishes in the weights of the linear model.
    """

    column: Column
    is_text: bool = False
    scale: float = 1.0
    shift: float = 0.0

    def computed(self) -> Column:
        return self.column if self.scale == 1 and self.shift == 0 else self.column * self.scale + self.shift

    def with_null(self) -> Column:
        """Return the column with null for NaN, which is another thing to Spark only."""
        from pyspark.sql import functions as F

        return self.column if self.is_text else F.nullif(self.computed(), F.lit(float("nan")))


@dataclass(frozen=True)
class Translation:
    """A linear model as expressions.

    Attributes
    ----------
    decisions : list of pyspark.sql.Column
        What the model computes of a row's values: one number, or one a class.
    link : str
        What makes probabilities of them: ``sigmoid`` or ``softmax``; ``identity`` for a regression.
    classes : list
        Empty for a regression.
    """

    decisions: list[Column]
    link: str
    classes: list[Any]

    def transform(self, rows: DataFrame, keep: Sequence[Column]) -> DataFrame:
        """Apply the model.

        Parameters
        ----------
        rows : pyspark.sql.DataFrame
            With the columns of the signature.
        keep : sequence of pyspark.sql.Column
            What else the result has.

        Returns
        -------
        pyspark.sql.DataFrame
            ``keep``, ``prediction``, ``probability`` (of that class; null for a regression) and ``probabilities``
            (array of double; null for a regression). All three are null for a row that the model refuses: one that
            lacks a value which nothing imputes, or has an infinite one.
        """
        from pyspark.sql import functions as F

        numbered = [decision.alias(f"_decision_{number}") for number, decision in enumerate(self.decisions)]
        # Step by step: Spark computes once what a later step uses more than once.
        scored = rows.select(*keep, *numbered)
        kept = scored.columns[: len(keep)]
        decisions = [F.col(name) for name in scored.columns[len(keep) :]]
        accepted = functools.reduce(operator.and_, (F.abs(decision) < float("inf") for decision in decisions))
        if self.link == "identity":
            answers = decisions[0], F.lit(None).cast("double"), F.lit(None).cast("array<double>")
        elif len(decisions) == 1:
            answers = self._one_of_two(decisions[0])
        else:
            greatest = F.greatest(*decisions)
            if self.link == "sigmoid":
                scores = [1 / (1 + F.exp(-decision)) for decision in decisions]
            else:
                scores = [F.exp(decision - greatest) for decision in decisions]
            numbered = [score.alias(f"_score_{number}") for number, score in enumerate(scores)]
            scored = scored.select("*", greatest.alias("_greatest"), *numbered)
            answers = self._one_of_many(decisions, [F.col(f"_score_{number}") for number in range(len(scores))])
        names = ("prediction", "probability", "probabilities")
        return scored.select(
            *kept, *(F.when(accepted, answer).alias(name) for answer, name in zip(answers, names, strict=True))
        )

    def _one_of_two(self, decision: Column) -> tuple[Column, Column, Column]:
        from pyspark.sql import functions as F

        first, second = (F.lit(label) for label in self.classes)
        # By the sign, as scikit-learn does.
        prediction = F.when(decision > 0, second).otherwise(first)
        score = 1 / (1 + F.exp(-decision))
        return prediction, 1 / (1 + F.exp(-F.abs(decision))), F.array(1 - score, score)

    def _one_of_many(self, decisions: list[Column], scores: list[Column]) -> tuple[Column, Column, Column]:
        from pyspark.sql import functions as F

        # The first of those that are equal, as NumPy's argmax.
        prediction = F.lit(self.classes[-1])
        for label, decision in reversed(list(zip(self.classes[:-1], decisions[:-1], strict=True))):
            prediction = F.when(decision == F.col("_greatest"), F.lit(label)).otherwise(prediction)
        total = _sum(scores)
        return prediction, F.greatest(*scores) / total, F.array(*(score / total for score in scores))


def translate(estimator: BaseEstimator, inputs: dict[str, DataType]) -> Translation:
    """Translate a fitted estimator into expressions on the columns of its signature.

    Parameters
    ----------
    estimator : sklearn.base.BaseEstimator
        A linear model, or a pipeline that ends in one.
    inputs : dict of str to pyspark.sql.types.DataType
        Type by column, in the order of the signature.

    Raises
    ------
    NotTranslated
        If any part of it has no translation here.
    """
    import numpy as np

    columns = [_input(cast_or_null(name, kind), kind) for name, kind in inputs.items()]
    *before, model = _steps(estimator)
    names = list(inputs)
    for step in before:
        columns, names = _transformed(step, columns, names), []
    kind = type(model).__name__
    if kind not in _MODELS:
        raise NotTranslated(f"{kind} is not one of {', '.join(_MODELS)}")
    scales, shifts = (np.array([getattr(value, name) for value in columns]) for name in ("scale", "shift"))
    weights_of_classes = np.atleast_2d(model.coef_)
    decisions = [
        _sum([value.column * float(weight) for value, weight in zip(columns, weights * scales, strict=True)])
        + float(intercept + weights @ shifts)
        for weights, intercept in zip(weights_of_classes, np.atleast_1d(model.intercept_), strict=True)
    ]
    return Translation(decisions, *_MODELS[kind](model))


def check(translation: Translation, estimator: BaseEstimator, inputs: dict[str, DataType], rows: DataFrame) -> float:
    """Compare a translation's answers with the model's.

    On some of the rows; on one of these with each value missing or infinite in turn; with text that no
    training row had.

    Parameters
    ----------
    translation : Translation
    estimator : sklearn.base.BaseEstimator
    inputs : dict of str to pyspark.sql.types.DataType
    rows : pyspark.sql.DataFrame
        With the columns of the signature.

    Returns
    -------
    float
        The greatest difference between two probabilities (or predictions, of a regression).

    Raises
    ------
    NotTranslated
        If a class differs, or a number by more than `TOLERANCE` of its size, or a row is refused by one only.
    """
    import pandas as pd
    from pyspark.sql import functions as F

    columns = [
        cast_or_null(name, kind).cast("string" if _is_text(kind) else "double").alias(name)
        for name, kind in inputs.items()
    ]
    # Without those that are refused before the model sees them.
    whole = [name for name, kind in inputs.items() if not _is_text(kind) and kind.typeName() not in _MAY_BE_MISSING]
    sample = rows.select(*columns).dropna(subset=[quoted(name) for name in whole]) if whole else rows.select(*columns)
    # Not by limit(…).toPandas(), which reads a part of each of the table's files.
    some = pd.DataFrame(sample.head(CHECKED_ROWS), columns=list(inputs))
    some = some.astype({name: object if _is_text(kind) else float for name, kind in inputs.items()})
    blocks = list(_variants(some, inputs))
    together = pd.concat(blocks, ignore_index=True).reset_index(names=_ROW)
    types = [f"{quoted(name)} {'string' if _is_text(kind) else 'double'}" for name, kind in inputs.items()]
    given = rows.sparkSession.createDataFrame(together, ", ".join([f"{_ROW} long", *types]))
    found = translation.transform(given, [F.col(_ROW)]).toPandas().sort_values(_ROW)
    greatest, first = 0.0, 0
    for block in blocks:
        greatest = max(greatest, _difference(estimator, block, found[first : first + len(block)]))
        first += len(block)
    return greatest


def _input(column: Column, kind: DataType) -> _Value:
    from pyspark.sql.types import BooleanType, NumericType

    if _is_text(kind):
        return _Value(column, is_text=True)
    if not isinstance(kind, (BooleanType, NumericType)):
        raise NotTranslated(f"a column of type {kind.simpleString()} is neither number nor text")
    return _Value(column.cast("double"))


def _is_text(kind: DataType) -> bool:
    return kind.typeName() == "string"


def _steps(estimator: Any) -> list[Any]:
    return [step for _, step in estimator.steps] if type(estimator).__name__ == "Pipeline" else [estimator]


def _transformed(step: Any, columns: list[_Value], names: list[str]) -> list[_Value]:
    """Return the columns that a transformer makes of columns; names are those of a data frame's."""
    if not columns:
        # A ColumnTransformer does not fit what gets no column.
        return []
    kind = type(step).__name__
    if step in (None, "passthrough") or (kind == "FunctionTransformer" and step.func is None):
        return columns
    if kind == "Pipeline":
        for part in _steps(step):
            columns, names = _transformed(part, columns, names), []
        return columns
    if kind == "ColumnTransformer":
        return [
            made
            for _, part, chosen in step.transformers_
            if not (isinstance(part, str) and part == "drop")
            for made in _transformed(part, [columns[number] for number in _numbers(chosen, names)], [])
        ]
    if kind not in _TRANSFORMERS:
        raise NotTranslated(f"{kind} is not one of {', '.join(_TRANSFORMERS)}")
    return _TRANSFORMERS[kind](step, columns)


def _numbers(chosen: Any, names: list[str]) -> list[int]:
    chosen = [chosen] if isinstance(chosen, str) else chosen
    # A mask of booleans would pass for numbers.
    if isinstance(chosen, slice) or not all(type(item) in (str, int) for item in chosen):
        raise NotTranslated("a ColumnTransformer chooses columns neither by name nor by number")
    return [names.index(item) if isinstance(item, str) else item for item in chosen]


def _imputed(imputer: Any, columns: list[_Value]) -> list[_Value]:
    from pyspark.sql import functions as F

    missing = imputer.missing_values
    if imputer.add_indicator or (missing is not None and missing == missing):
        raise NotTranslated("a SimpleImputer adds an indicator, or takes something else than NaN for missing")
    if any(value != value for value in imputer.statistics_):
        raise NotTranslated("a SimpleImputer leaves out a column that had no value")
    return [
        _Value(F.coalesce(given.with_null(), F.lit(value if given.is_text else float(value))), given.is_text)
        for given, value in zip(columns, imputer.statistics_, strict=True)
    ]


def _scaled(scaler: Any, columns: list[_Value]) -> list[_Value]:
    means = [0.0] * len(columns) if scaler.mean_ is None else scaler.mean_
    scales = [1.0] * len(columns) if scaler.scale_ is None else scaler.scale_
    return [
        replace(value, scale=value.scale / float(scale), shift=(value.shift - float(mean)) / float(scale))
        for value, mean, scale in zip(columns, means, scales, strict=True)
    ]


def _encoded(encoder: Any, columns: list[_Value]) -> list[_Value]:
    from pyspark.sql import functions as F

    if encoder.drop is not None or encoder.handle_unknown == "error":
        raise NotTranslated("a OneHotEncoder drops a category, or refuses those that it does not know")
    infrequent = getattr(encoder, "infrequent_categories_", [None] * len(columns))
    made = []
    for value, categories, rare in zip(columns, encoder.categories_, infrequent, strict=True):
        column, rare = value.with_null(), [] if rare is None else list(rare)
        frequent = [_is(column, category) for category in categories if category not in rare]
        made += [_Value(F.when(condition, 1.0).otherwise(0.0)) for condition in frequent]
        if rare:
            known = frequent if encoder.handle_unknown == "infrequent_if_exist" else None
            others = ~_any(known) if known else _any([_is(column, category) for category in rare])
            made.append(_Value(F.when(others, 1.0).otherwise(0.0)))
    return made


def _is(column: Column, category: Any) -> Column:
    from pyspark.sql import functions as F

    if category is None or category != category:
        return column.isNull()
    return column.eqNullSafe(F.lit(category if isinstance(category, str) else float(category)))


def _sum(columns: Sequence[Column]) -> Column:
    """Return the sum, as a tree that is as low as can be: Spark walks along it by recursion."""
    if len(columns) == 1:
        return columns[0]
    middle = len(columns) // 2
    return _sum(columns[:middle]) + _sum(columns[middle:])


def _any(conditions: Sequence[Column]) -> Column:
    return functools.reduce(operator.or_, conditions)


def _logistic(model: Any) -> tuple[str, list[Any]]:
    one_against_the_rest = getattr(model, "multi_class", "deprecated") == "ovr" or model.solver == "liblinear"
    return "sigmoid" if len(model.classes_) == 2 or one_against_the_rest else "softmax", model.classes_.tolist()


def _stochastic(model: Any) -> tuple[str, list[Any]]:
    if model.loss != "log_loss":
        raise NotTranslated(f"an SGDClassifier with loss={model.loss!r} is not translated, one with 'log_loss' is")
    return "sigmoid", model.classes_.tolist()


def _regression(model: Any) -> tuple[str, list[Any]]:
    if model.coef_.ndim == 2 and len(model.coef_) > 1:
        raise NotTranslated("a regression of more than one number is not translated")
    return "identity", []


_TRANSFORMERS: dict[str, Callable[[Any, list[_Value]], list[_Value]]] = {
    "SimpleImputer": _imputed, "StandardScaler": _scaled, "OneHotEncoder": _encoded
}  # fmt: skip
_MODELS: dict[str, Callable[[Any], tuple[str, list[Any]]]] = {
    "LogisticRegression": _logistic, "SGDClassifier": _stochastic
} | dict.fromkeys(("LinearRegression", "Ridge", "Lasso", "ElasticNet", "SGDRegressor"), _regression)  # fmt: skip


def _variants(sample: pd.DataFrame, inputs: dict[str, DataType]) -> Iterator[pd.DataFrame]:
    yield sample
    some = sample.head(1)
    for name, kind in inputs.items():
        if _is_text(kind):
            yield some.assign(**{name: None})
            yield some.assign(**{name: "no training row has this"})
        elif kind.typeName() in _MAY_BE_MISSING:
            yield some.assign(**{name: float("nan")})
            yield some.assign(**{name: float("inf")})


def _difference(estimator: BaseEstimator, rows: pd.DataFrame, found: pd.DataFrame) -> float:
    """Return the greatest difference between the estimator's answers for rows and those that were found."""
    import numpy as np

    classifies = hasattr(estimator, "classes_")
    try:
        prediction = estimator.predict(rows)
        expected = estimator.predict_proba(rows) if classifies else prediction
    except ValueError:
        # It refuses some row with something missing or infinite, and does not say which.
        if len(rows) > 1:
            return max(_difference(estimator, rows[i : i + 1], found[i : i + 1]) for i in range(len(rows)))
        if found["prediction"].notna().any():
            raise NotTranslated("it would answer for a row that the model refuses") from None
        return 0.0
    if found["prediction"].isna().any():
        raise NotTranslated("it would refuse a row that the model has an answer for")
    if classifies and (found["prediction"].to_numpy() != prediction).any():
        raise NotTranslated("it would predict other classes than the model")
    if classifies:
        numbers = np.column_stack([np.stack(found["probabilities"].to_numpy()), found["probability"]])
        expected = np.column_stack([expected, expected.max(axis=1)])
    else:
        numbers = found["prediction"].to_numpy()
    differences = np.abs(numbers - expected)
    if not (differences <= TOLERANCE * np.maximum(1, np.abs(expected))).all():
        raise NotTranslated(f"its numbers would differ from the model's by {differences.max():.2g}")
    return float(differences.max())
