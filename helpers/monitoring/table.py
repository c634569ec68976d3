"""The table of measures, one row for each window, version, measure and feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from helpers import storage
from helpers.data import names, tables
from helpers.ownership import MARK
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

    from helpers.monitoring.baseline import OfModel
    from helpers.monitoring.measures import Measured
    from helpers.monitoring.windows import Window

WINDOW_KEY = "window_key"
STATES = ("rows", "quarantined_rows", "last_scored_at", "labelled_rows", "labels_hash", "answered_rows")
"""Measures that say when a window has to be measured again."""
_COLUMNS = (
    "model_name STRING, model_version INT, window_kind STRING, window STRING, window_start TIMESTAMP, measure STRING, feature STRING, "
    "value DOUBLE, baseline DOUBLE, difference DOUBLE, p_value DOUBLE, rows BIGINT, detail STRING"
)


def monitoring_table(p: OfModel) -> str:
    """Return the qualified name of the table with the measures of a model."""
    return names.qualified_name(names.model_table(p.model_name, "monitoring"), p.catalog, p.schema)


def prepare(spark: SparkSession, table: str, model_name: str) -> None:
    """Create the table if it is missing.

    Raises
    ------
    helpers.parameters.ParameterError
        If it was made for another model.
    """
    if not tables.exists(spark, table):
        schema = spark.range(0).select(*_typed_columns()).schema
        storage.create_table(spark, table, schema, WINDOW_KEY, {MARK: model_name})
    owner = tables.properties(spark, table).get(MARK, "")
    if owner != model_name:
        raise ParameterError(
            "model_name",
            model_name,
            f"its table of measures, {table}, exists and belongs to {owner or 'somebody else'!r}",
        )


def _typed_columns() -> list:
    from pyspark.sql import functions as F

    typed = [item.split() for item in f"{_COLUMNS}, {WINDOW_KEY} STRING".split(", ")]
    return [F.lit(None).cast(kind).alias(column) for column, kind in typed]


def write(
    spark: SparkSession, table: str, model_name: str, kind: str, window: Window, measured: Sequence[Measured]
) -> None:
    """Write the measures of a window of a version, in place of those that it had."""
    rows = [
        (
            model_name, window.version, kind, window.name, window.start, item.measure, item.feature, float(item.value),
            _number(item.baseline), _number(item.difference), _number(item.p_value), item.rows, item.detail,
        )
        for item in measured
    ]  # fmt: skip
    key = f"{window.version}.{kind}.{window.name}"
    storage.replace_rows(spark.createDataFrame(rows, _COLUMNS), table, WINDOW_KEY, key)


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def states(spark: SparkSession, table: str, kind: str) -> dict[tuple[int, str], dict[str, float]]:
    """Return what was recorded of each window of a kind, by version and window: its `STATES`."""
    from pyspark.sql import functions as F

    rows = (
        spark.table(table)
        .where((F.col("window_kind") == kind) & F.col("measure").isin(*STATES))
        .select("model_version", "window", "measure", "value")
    )
    recorded: dict[tuple[int, str], dict[str, float]] = {}
    for version, window, measure, value in rows.collect():
        recorded.setdefault((version, window), {})[measure] = value
    return recorded


def read(spark: SparkSession, table: str, kind: str) -> pd.DataFrame:
    """Return the measures of windows of a kind (``day``, ``week`` or ``batch``), sorted by window."""
    from pyspark.sql import functions as F

    rows = spark.table(table).where(F.col("window_kind") == kind).drop(WINDOW_KEY).toPandas()
    return rows.sort_values(["window_start", "model_version", "measure", "feature"], ignore_index=True)
