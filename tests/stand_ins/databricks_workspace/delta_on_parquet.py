"""The writes of Delta tables that Spark's own tables do not support, imitated on Parquet.

Delta Lake's jars are not on PyPI. Spark analyses ``createOrReplace`` and ``overwrite(condition)`` for any table, but
the JVM then refuses both for tables of the session catalog. So ``writeTo`` returns another writer here. It copies
whole tables where Delta uses its log. As with Delta, the rows to write may be read from the table that they replace,
rows that do not meet the condition are refused, a table keeps its properties, partitions and clustering, and names that
need a column mapping are refused without one, as are clusters by a column that has no statistics. An overwrite of a table without partitions fails if somebody has committed
since it began. Delta may find out that the other commit is of other rows; here it never does.
Not imitated: reading the old version during a write, and the history. Spark itself keeps the clustering, and refuses it
together with partitions.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import Column, DataFrame, DataFrameWriterV2, SparkSession
from pyspark.sql import functions as F

# Another process of the cluster writes into the same folder.
_numbers = (f"{os.getpid()}_{number}" for number in itertools.count())
commits: Counter[str] = Counter()
"""How often each table was written."""
other_jobs: list[Callable[[], None]] = []
"""What another job does during each of the next overwrites, after the rows are computed and before they are committed."""


class ConcurrentAppendException(PySparkException):
    """What ``delta.exceptions`` of Databricks calls so.

    https://learn.microsoft.com/azure/databricks/error-messages/delta-concurrent-append-error-class
    """


def install(kind: type[DataFrame], scratch: Path) -> None:
    """Make ``writeTo`` use `DeltaWriter` in this process.

    Parameters
    ----------
    kind : type
        The class of DataFrames: the classic one, or that of Spark Connect.
    scratch : pathlib.Path
        A folder for copies.
    """
    plain = kind.writeTo

    def write_to(rows: DataFrame, table: str) -> DeltaWriter:
        return DeltaWriter(rows, table, scratch, plain)

    kind.writeTo = write_to


def _let_another_job_write() -> None:
    if other_jobs:
        job, *later = other_jobs
        other_jobs.clear()
        job()
        other_jobs.extend(later)


class DeltaWriter:
    """What ``rows.writeTo(table)`` returns."""

    def __init__(
        self, rows: DataFrame, table: str, scratch: Path, plain: Callable[[DataFrame, str], DataFrameWriterV2]
    ) -> None:
        self._rows, self._table, self._scratch, self._plain = rows, table, scratch, plain
        self._properties: dict[str, str] = {}
        self._partitions: tuple[Column, ...] = ()
        self._clusters: tuple[str, ...] = ()

    def tableProperty(self, property: str, value: str) -> DeltaWriter:  # noqa: N802
        self._properties[property] = value
        return self

    def partitionedBy(self, *columns: Column) -> DeltaWriter:  # noqa: N802
        self._partitions = columns
        return self

    def clusterBy(self, *columns: str) -> DeltaWriter:  # noqa: N802
        self._clusters = columns
        return self

    def create(self) -> None:
        self._create(self._rows)

    def createOrReplace(self) -> None:  # noqa: N802
        copy = self._copied()
        self._spark.sql(f"DROP TABLE IF EXISTS {self._table}")
        self._create(copy)

    def overwrite(self, condition: Column) -> None:
        columns, version = self._spark.catalog.listColumns(self._table), commits[self._table]
        if {column.name for column in columns} != set(self._rows.columns):
            raise AnalysisException(f"[DELTA_METADATA_MISMATCH] {self._rows.columns} are not those of {self._table}")
        rows, outside = self._copied(), ~F.coalesce(condition, F.lit(False))
        stray = rows.where(outside).count()
        if stray:
            raise AnalysisException(f"[DELTA_REPLACE_WHERE_MISMATCH] {stray} rows do not conform to {condition}")
        _let_another_job_write()
        partitions = [F.col(column.name) for column in columns if column.isPartition]
        if commits[self._table] > version and not partitions:
            raise ConcurrentAppendException(
                "[DELTA_CONCURRENT_APPEND.WITHOUT_HINT] Transaction conflict detected. A concurrent WRITE added data to "
                f"table {self._table} committed at version {version + 1}. Please retry the operation. SQLSTATE: 2D521"
            )
        after = self._spark.table(self._table).where(outside).unionByName(rows)
        whole = DeltaWriter(after, self._table, self._scratch, self._plain)
        for row in self._spark.sql(f"SHOW TBLPROPERTIES {self._table}").collect():
            # Spark writes this one itself.
            if row["key"] != "clusteringColumns":
                whole.tableProperty(row["key"], row["value"])
        whole.partitionedBy(*partitions).clusterBy(*(column.name for column in columns if column.isCluster))
        whole.createOrReplace()

    @property
    def _spark(self) -> SparkSession:
        return self._rows.sparkSession

    def _create(self, rows: DataFrame) -> None:
        unusual = [name for name in rows.columns if re.search(r"[ ,;{}()\n\t=]", name)]
        if unusual and "delta.columnMapping.mode" not in self._properties:
            raise AnalysisException(f"[DELTA_INVALID_CHARACTERS_IN_COLUMN_NAMES] Found invalid ones in {unusual}")
        columns = [
            name for field in rows.schema for name in [field.name] * max(len(getattr(field.dataType, "fields", [])), 1)
        ]
        named = self._properties.get("delta.dataSkippingStatsColumns")
        with_statistics = named.split(", ") if named else columns[:32]
        if set(self._clusters) - set(with_statistics):
            raise AnalysisException(
                f"[DELTA_CLUSTERING_COLUMN_MISSING_STATS] {self._clusters} not in {with_statistics}"
            )
        writer = self._plain(rows, self._table)
        for name, value in self._properties.items():
            writer = writer.tableProperty(name, value)
        if self._partitions:
            writer = writer.partitionedBy(*self._partitions)
        if self._clusters:
            writer = writer.clusterBy(*self._clusters)
        writer.create()
        commits[self._table] += 1

    def _copied(self) -> DataFrame:
        folder = str(self._scratch / f"copy_{next(_numbers)}")
        self._rows.write.parquet(folder)
        return self._spark.read.schema(self._rows.schema).parquet(folder)
