"""scikit-learn's transformers as Spark expressions: imputers, scalers, one-hot encoders and what combines them."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from helpers.data.names import quoted
from helpers.scoring.engines.base import NotSupported

if TYPE_CHECKING:
    from pyspark.sql import Column
    from pyspark.sql.types import DataType


@dataclass(frozen=True)
class Value:
    """An input or output of a step: a column, scaled and shifted.

    Scale and shift are separate numbers because they vanish in the weights of the linear model.
    """

    column: Column
    is_text: bool = False
    scale: float = 1.0
    shift: float = 0.0

    def with_null(self) -> Column:
        """Return the value with null in place of NaN: scikit-learn does not tell them apart, Spark does."""
        from pyspark.sql import functions as F

        if self.is_text:
            return self.column
        plain = self.scale == 1 and self.shift == 0
        return F.nullif(self.column if plain else self.column * self.scale + self.shift, F.lit(float("nan")))


def input_value(name: str, input_type: DataType) -> Value:
    """Return an input column of the signature as the value that the first step takes."""
    from pyspark.sql import functions as F
    from pyspark.sql.types import BooleanType, NumericType

    column = F.col(quoted(name))
    if input_type.typeName() == "string":
        return Value(column, is_text=True)
    if not isinstance(input_type, (BooleanType, NumericType)):
        raise NotSupported(f"a column of type {input_type.simpleString()} is neither number nor text")
    return Value(column.cast("double"))


def steps(estimator: Any) -> list[Any]:
    """Return the steps of a pipeline, or an estimator that is not one as the only step."""
    return [step for _, step in estimator.steps] if type(estimator).__name__ == "Pipeline" else [estimator]


def transformed(step: Any, values: list[Value], names: list[str]) -> list[Value]:
    """Return the outputs of a fitted transformer.

    Parameters
    ----------
    step : object
        The transformer, or ``"passthrough"`` or None, which change nothing.
    values : list of Value
        Its inputs.
    names : list of str
        The names of the inputs if they are the columns of a DataFrame, or else empty.

    Raises
    ------
    helpers.scoring.engines.base.NotSupported
        If it has no translation.
    """
    if not values:
        # A ColumnTransformer does not fit a transformer that gets no column.
        return []
    kind = type(step).__name__
    if step in (None, "passthrough") or (kind == "FunctionTransformer" and step.func is None):
        return values
    if kind == "Pipeline":
        for part in steps(step):
            values, names = transformed(part, values, names), []
        return values
    if kind == "ColumnTransformer":
        return [
            output
            for _, part, columns in step.transformers_
            if not (isinstance(part, str) and part == "drop")
            for output in transformed(part, [values[number] for number in _positions(columns, names)], [])
        ]
    if kind not in _TRANSFORMERS:
        raise NotSupported(f"{kind} is not one of {', '.join(_TRANSFORMERS)}")
    return _TRANSFORMERS[kind](step, values)


def _positions(columns: Any, names: list[str]) -> list[int]:
    columns = [columns] if isinstance(columns, str) else columns
    # isinstance would take a mask of booleans for numbers.
    if isinstance(columns, slice) or not all(type(column) in (str, int) for column in columns):
        raise NotSupported("a ColumnTransformer selects columns neither by name nor by number")
    return [names.index(column) if isinstance(column, str) else column for column in columns]


def _imputed(imputer: Any, values: list[Value]) -> list[Value]:
    from pyspark.sql import functions as F

    marker = imputer.missing_values
    if imputer.add_indicator or (marker is not None and marker == marker):
        raise NotSupported("a SimpleImputer adds an indicator, or fills in for another marker than NaN")
    if any(fill != fill for fill in imputer.statistics_):
        raise NotSupported("a SimpleImputer leaves out a column that had no value")
    return [
        Value(F.coalesce(value.with_null(), F.lit(fill if value.is_text else float(fill))), value.is_text)
        for value, fill in zip(values, imputer.statistics_, strict=True)
    ]


def _scaled(scaler: Any, values: list[Value]) -> list[Value]:
    means = [0.0] * len(values) if scaler.mean_ is None else scaler.mean_
    scales = [1.0] * len(values) if scaler.scale_ is None else scaler.scale_
    return [
        replace(value, scale=value.scale / float(scale), shift=(value.shift - float(mean)) / float(scale))
        for value, mean, scale in zip(values, means, scales, strict=True)
    ]


def _encoded(encoder: Any, values: list[Value]) -> list[Value]:
    if encoder.drop is not None or encoder.handle_unknown == "error":
        raise NotSupported("a OneHotEncoder drops a category, or refuses categories that it does not know")
    infrequent = getattr(encoder, "infrequent_categories_", [None] * len(values))
    outputs = []
    for value, categories, rare in zip(values, encoder.categories_, infrequent, strict=True):
        column, rare = value.with_null(), [] if rare is None else list(rare)
        frequent = [_equals(column, category) for category in categories if category not in rare]
        outputs += [_indicator(condition) for condition in frequent]
        if rare and frequent and encoder.handle_unknown == "infrequent_if_exist":
            outputs.append(_indicator(~_any(frequent)))
        elif rare:
            outputs.append(_indicator(_any([_equals(column, category) for category in rare])))
    return outputs


def _indicator(condition: Column) -> Value:
    from pyspark.sql import functions as F

    return Value(F.when(condition, 1.0).otherwise(0.0))


def _equals(column: Column, category: Any) -> Column:
    from pyspark.sql import functions as F

    if category is None or category != category:
        return column.isNull()
    return column.eqNullSafe(F.lit(category if isinstance(category, str) else float(category)))


def _any(conditions: list[Column]) -> Column:
    return functools.reduce(operator.or_, conditions)


_TRANSFORMERS: dict[str, Callable[[Any, list[Value]], list[Value]]] = {
    "SimpleImputer": _imputed, "StandardScaler": _scaled, "OneHotEncoder": _encoded
}  # fmt: skip
