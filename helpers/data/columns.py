"""Expressions on a column, for any column name and type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.data.names import quoted

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import DataType


def cast_or_null(column: str, kind: DataType) -> Column:
    """Return a column as another type, with null where the value does not convert.

    The result is the same for both values of ``spark.sql.ansi.enabled``.
    """
    from pyspark.sql import functions as F

    return F.expr(f"try_cast({quoted(column)} AS {kind.simpleString()})")


def has_label(rows: DataFrame, label_column: str) -> Column:
    """Return the condition that a row has a label, which is neither null nor NaN."""
    from pyspark.sql import functions as F

    label = F.col(quoted(label_column))
    fractional = rows.schema[label_column].dataType.typeName() in ("double", "float")
    return label.isNotNull() & ~F.isnan(label) if fractional else label.isNotNull()
