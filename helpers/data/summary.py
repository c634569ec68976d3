"""What set-up read: one line per column."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.data.csv_files import NUMBER
from helpers.data.features import choose_features
from helpers.data.names import quoted

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

MOST_ROWS = 1_000_000
"""Of a larger table, only so many rows are counted."""
# A text column is pointed out if at least this share of its values are numbers, or are different.
_MOSTLY = 0.9
_FEW = 20


def column_summary(rows: DataFrame, label_column: str, id_column: str) -> pd.DataFrame:
    """Describe the columns of a labelled table, and point out what is probably not meant.

    Parameters
    ----------
    rows : pyspark.sql.DataFrame
    label_column, id_column : str

    Returns
    -------
    pandas.DataFrame
        A row per column, with its type as read, the number of nulls and of distinct values (which is estimated), what it is
        used as, and a note: few texts among numbers, an id with fractions, text that is different in nearly every row.
        Counted are at most `MOST_ROWS` rows.
    """
    import pandas as pd
    from pyspark.sql import functions as F

    numeric, categorical, left_out = choose_features(rows, label_column, id_column)
    uses = {name: "not used: " + reason for name, reason in left_out.items()}
    uses |= dict.fromkeys(numeric, "feature, a number") | dict.fromkeys(categorical, "feature, a category")
    uses |= {label_column: "label", id_column: "id"}
    # One row per value, so that the plan does not grow with the number of columns.
    texts = F.array(*(F.col(quoted(name)).cast("string") for name in rows.columns))
    values = rows.limit(MOST_ROWS).select(F.posexplode(texts).alias("position", "value"))
    is_text = ~F.trim("value").rlike(NUMBER)
    counted = values.groupBy("position").agg(
        F.count(F.lit(1)).alias("rows"),
        F.count("value").alias("values"),
        F.approx_count_distinct("value").alias("distinct"),
        F.count_if(is_text).alias("texts"),
        F.min(F.when(is_text, F.col("value"))).alias("text"),
        F.count_if(F.col("value").rlike("[.](?!0+$)")).alias("fractions"),
    )
    described = []
    for count in sorted(counted.collect(), key=lambda row: row["position"]):
        name = rows.columns[count["position"]]
        kind = rows.schema[name].dataType.simpleString()
        described.append(
            {
                "column": name,
                "type": kind,
                "nulls": count["rows"] - count["values"],
                "distinct": count["distinct"],
                "used as": uses[name],
                "note": _note(count.asDict(), kind, uses[name]),
            }
        )
    return pd.DataFrame(described)


def _note(count: dict, kind: str, use: str) -> str:
    values = count["values"]
    if kind == "string" and count["texts"] and count["texts"] <= (1 - _MOSTLY) * values:
        return (
            f"{count['texts']} of {values} values are not numbers, e.g. {count['text']!r}, so all are text. If they stand for "
            "a missing value, set csv_nulls; else correct them"
        )
    if use == "id" and kind in ("double", "float") and count["fractions"]:
        return "an id with fractions: is it a measurement?"
    if kind == "string" and use.startswith("feature") and count["distinct"] > max(_FEW, _MOSTLY * values):
        return "nearly every row has another text, from which a model cannot learn: remove the column"
    return ""
