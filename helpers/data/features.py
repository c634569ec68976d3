"""Which columns of a table a model learns from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.data.names import MODEL_OUTPUT_COLUMNS, quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def choose_features(rows: DataFrame, label_column: str, id_column: str) -> tuple[list[str], list[str], dict[str, str]]:
    """Return the columns of a labelled table that a model can learn from.

    Parameters
    ----------
    rows : pyspark.sql.DataFrame
    label_column, id_column : str

    Returns
    -------
    numeric, categorical : list of str
        Numbers and booleans; text.
    left_out : dict of str to str
        The other columns, with the reason.
    """
    from pyspark.sql import functions as F
    from pyspark.sql.types import BooleanType, NumericType, StringType

    numeric, categorical, left_out = [], [], {}
    candidates = [field for field in rows.schema.fields if field.name not in (label_column, id_column)]
    value_counts = rows.select([F.count(F.col(quoted(field.name))) for field in candidates]).collect()[0]
    for column, value_count in zip(candidates, value_counts, strict=True):
        if column.name.lower() in MODEL_OUTPUT_COLUMNS:
            left_out[column.name] = "reserved name"
        elif not value_count:
            left_out[column.name] = "no values"
        elif isinstance(column.dataType, NumericType | BooleanType):
            numeric.append(column.name)
        elif isinstance(column.dataType, StringType):
            categorical.append(column.name)
        else:
            left_out[column.name] = f"type {column.dataType.simpleString()}"
    return numeric, categorical, left_out
