"""Expressions on a column, for any column name and type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.data.names import quoted

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def has_value(rows: DataFrame, column: str) -> Column:
    """Return the condition that a column is neither null nor NaN."""
    from pyspark.sql import functions as F

    value = F.col(quoted(column))
    fractional = rows.schema[column].dataType.typeName() in ("double", "float")
    return value.isNotNull() & ~F.isnan(value) if fractional else value.isNotNull()
