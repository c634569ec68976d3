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


def opaque(column: Column) -> Column:
    """Return a column of the same values, from which Spark's optimizer derives no constraint.

    A constraint of N columns has up to 2^N variants once each column has a second name, and planning does not end (Spark's
    ``getAllValidConstraints``). Spark derives none from an expression that is not deterministic.
    """
    from pyspark.sql import functions as F

    # Spark 4.1 knows that ``rand() >= 0`` is always true.
    return F.when(F.spark_partition_id() >= 0, column)
