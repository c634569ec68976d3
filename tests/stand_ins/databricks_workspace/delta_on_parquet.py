"""Two writes of Delta tables that Spark's own tables do not support, imitated on Parquet.

Delta Lake's jars are not on PyPI. Spark analyses ``createOrReplace`` and ``overwrite(condition)`` for any table, but
the JVM then refuses both for tables of the session catalog. So ``writeTo`` returns another writer here. It copies
whole tables where Delta uses its log. As with Delta, the rows to write may be read from the table that they replace,
rows that do not meet the condition are refused, and a table keeps its properties and partitions. Not imitated:
reading the old version during a write, the history, and names that Delta refuses.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, DataFrameWriterV2, SparkSession
from pyspark.sql import functions as F

_numbers = itertools.count()


def install(spark: SparkSession, scratch: Path) -> None:
    """Make ``writeTo`` use `DeltaWriter` in this process.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    scratch : pathlib.Path
        A folder for copies.
    """

    def write_to(rows: DataFrame, table: str) -> DeltaWriter:
        return DeltaWriter(rows, table, scratch)

    type(spark.range(0)).writeTo = write_to


class DeltaWriter:
    """What ``rows.writeTo(table)`` returns."""

    def __init__(self, rows: DataFrame, table: str, scratch: Path) -> None:
        self._rows, self._table, self._scratch = rows, table, scratch
        self._properties: dict[str, str] = {}
        self._partitions: tuple[Column, ...] = ()

    def tableProperty(self, property: str, value: str) -> DeltaWriter:  # noqa: N802
        self._properties[property] = value
        return self

    def partitionedBy(self, *columns: Column) -> DeltaWriter:  # noqa: N802
        self._partitions = columns
        return self

    def create(self) -> None:
        self._writer(self._rows).create()

    def createOrReplace(self) -> None:  # noqa: N802
        copy = self._copied()
        self._spark.sql(f"DROP TABLE IF EXISTS {self._table}")
        self._writer(copy).create()

    def overwrite(self, condition: Column) -> None:
        before = self._spark.table(self._table)
        if set(self._rows.columns) != set(before.columns):
            raise AnalysisException(f"[DELTA_METADATA_MISMATCH] {self._rows.columns} are not {before.columns}")
        rows, outside = self._copied(), ~F.coalesce(condition, F.lit(False))
        stray = rows.where(outside).count()
        if stray:
            raise AnalysisException(f"[DELTA_REPLACE_WHERE_MISMATCH] {stray} rows do not conform to {condition}")
        after = before.where(outside).unionByName(rows)
        whole = DeltaWriter(after, self._table, self._scratch)
        for row in self._spark.sql(f"SHOW TBLPROPERTIES {self._table}").collect():
            whole.tableProperty(row["key"], row["value"])
        columns = self._spark.catalog.listColumns(self._table)
        whole.partitionedBy(*(F.col(column.name) for column in columns if column.isPartition)).createOrReplace()

    @property
    def _spark(self) -> SparkSession:
        return self._rows.sparkSession

    def _writer(self, rows: DataFrame) -> DataFrameWriterV2:
        writer = DataFrameWriterV2(rows, self._table)
        for name, value in self._properties.items():
            writer = writer.tableProperty(name, value)
        return writer.partitionedBy(*self._partitions) if self._partitions else writer

    def _copied(self) -> DataFrame:
        folder = str(self._scratch / f"copy_{next(_numbers)}")
        self._rows.write.parquet(folder)
        return self._spark.read.schema(self._rows.schema).parquet(folder)
