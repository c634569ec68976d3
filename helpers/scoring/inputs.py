"""Rows in the shape that a model takes: its input columns, with their types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.data.names import quoted
from helpers.parameters import ParameterError
from helpers.scoring import schema

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from helpers.scoring.model import LoadedModel

_NESTED = ("array", "map", "struct")


def check_columns(rows: DataFrame, model: LoadedModel, parameter: str, value: str) -> None:
    """Check that rows have every input column of a model, with a type that fits (see `helpers.scoring.schema.fits`).

    Parameters
    ----------
    rows : pyspark.sql.DataFrame
    model : helpers.scoring.model.LoadedModel
    parameter, value : str
        Where the rows came from, for the error.

    Raises
    ------
    helpers.parameters.ParameterError
        Names every column that is missing or has another type.
    """
    problems = []
    for name, input_type in model.inputs.items():
        if name not in rows.columns:
            if name not in model.optional_inputs or (
                model.takes_every_input and input_type.typeName() in schema.NEVER_NULL
            ):
                problems.append(f"{name!r} is missing")
            continue
        column_type = rows.schema[name].dataType
        if not schema.fits(column_type, input_type):
            problems.append(
                f"{name!r} has type {column_type.simpleString()} where the model takes {input_type.simpleString()}"
            )
    if problems:
        raise ParameterError(parameter, value, f"does not fit the model {model.model_uri}: {'; '.join(problems)}")


def convert(rows: DataFrame, model: LoadedModel) -> dict[str, Column]:
    """Return the input columns with the model's types, by name: null where a value does not convert without loss."""
    from pyspark.sql import functions as F

    columns = {}
    for name, input_type in model.inputs.items():
        if name not in rows.columns:
            columns[name] = F.lit(None).cast(input_type)
            continue
        arguments = quoted(name), rows.schema[name].dataType, input_type
        value, loss = schema.converted(*arguments), schema.loss(*arguments)
        columns[name] = F.expr(f"CASE WHEN NOT ({loss}) THEN {value} END" if loss else value)
    return columns


def convert_without_nulls(rows: DataFrame, model: LoadedModel) -> tuple[dict[str, Column], Column]:
    """Convert the input columns, with no null among integers and booleans, and no value that has changed.

    MLflow refuses a null there, whatever the model itself would do with it.

    Returns
    -------
    tuple of (dict of str to pyspark.sql.Column, pyspark.sql.Column)
        The input columns by name, with 0 in place of such a null; and the reason to refuse the row, null if there
        is none.
    """
    from pyspark.sql import functions as F

    columns, problems = convert(rows, model), [F.lit(None).cast("string")]
    for name, input_type in model.inputs.items():
        if name not in rows.columns:
            continue
        column_type, type_name = rows.schema[name].dataType, input_type.simpleString()
        value, loss = F.col(quoted(name)), schema.loss(quoted(name), column_type, input_type)
        if input_type.typeName() in schema.NEVER_NULL:
            problems.append(F.when(value.isNull(), F.lit(f"{name!r} is missing; the model requires type {type_name}")))
            columns[name] = F.coalesce(columns[name], F.lit(0).cast(input_type))
        if loss:
            text = value.cast("string") if column_type.typeName() not in _NESTED else F.to_json(value)
            problems.append(F.when(F.expr(loss), F.concat(F.lit(f"{name!r} is not of type {type_name}: "), text)))
    return columns, F.coalesce(*problems)
