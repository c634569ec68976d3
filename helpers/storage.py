"""Write tables, and batches of their rows, at once: Delta on Databricks, the laptop's own store elsewhere."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import runtime
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, DataFrameWriterV2, SparkSession
    from pyspark.sql.types import DataType, StructType

WRITE_ATTEMPTS = 5
_COLUMNS_WITH_STATISTICS = 32
# Delta accepts these characters in column names only with a column mapping:
# https://learn.microsoft.com/azure/databricks/tables/features/column-mapping
_NEEDS_COLUMN_MAPPING = re.compile(r"[ ,;{}()\n\t=]")
_COLUMN_MAPPING = "delta.columnMapping.mode"
# The conflicts of Delta between writers. They are known by name, since their Python classes depend on the runtime and on
# whether this is Spark Connect: https://learn.microsoft.com/azure/databricks/optimizations/isolation/
_CONFLICT = re.compile(r"\[(DELTA_CONCURRENT_\w+|DELTA_METADATA_CHANGED|DELTA_PROTOCOL_CHANGED)")


class WriteConflict(RuntimeError):
    """Other jobs wrote into a table during each attempt to write into it."""


def check_name(parameter: str, table: str) -> None:
    """Check that a table can have a name here.

    Parameters
    ----------
    parameter : str
        The parameter that named the table, for the error.
    table : str
        Qualified name.

    Raises
    ------
    helpers.parameters.ParameterError
        If this is a laptop and the name has other characters than Spark's own catalog accepts:
        https://spark.apache.org/docs/latest/sql-error-conditions.html#invalid_schema_or_relation_name
    """
    if not runtime.in_databricks() and not re.fullmatch(r"[\w.`]+", table, re.ASCII):
        raise ParameterError(
            parameter, table, "on a laptop, Spark accepts only a-z, A-Z, 0-9 and _ in the names of schemas and tables"
        )


def refresh(spark: SparkSession, table: str) -> None:
    """See what other sessions have done with a table since this one began; Databricks' catalogs are always up to date."""
    if not runtime.in_databricks():
        from helpers.laptop import catalog

        catalog.refresh(spark, table)


def refresh_all(spark: SparkSession) -> None:
    """See what other sessions have done with all tables since this one began."""
    if not runtime.in_databricks():
        from helpers.laptop import catalog

        catalog.register_tables(spark)


def one_writer(spark: SparkSession, table: str) -> AbstractContextManager[None]:
    """On a laptop, let one job at a time read and then write a table; on Databricks see `create_table` and `replace_rows`."""
    if runtime.in_databricks():
        return nullcontext()
    from helpers.laptop import catalog

    return catalog.one_writer(spark, table)


def create_table(
    spark: SparkSession, table: str, schema: StructType, column: str, properties: dict[str, str] | None = None
) -> None:
    """Create an empty table for `replace_rows`; a table that another job has created by then stays as it is.

    On Databricks it has no partitions: a stream that looks every minute would make 525,600 of them in a year. Instead it
    is clustered by the column: https://learn.microsoft.com/azure/databricks/tables/partitions

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    table : str
        Qualified name, quoted where needed.
    schema : pyspark.sql.types.StructType
        The table's columns, `column` last.
    column : str
        The column, of type string, whose rows of one value are replaced at once.
    properties : dict of str to str, optional
        Table properties.
    """
    from pyspark.errors import PySparkException
    from pyspark.sql import functions as F

    # Only a column's comment: the longest text that the rows of today may have (varchar) may change.
    kept = [{key: value for key, value in field.metadata.items() if key == "comment"} for field in schema]
    columns = [
        F.lit(None).cast(field.dataType).alias(field.name, metadata=metadata)
        for field, metadata in zip(schema, kept, strict=True)
    ]
    # `createDataFrame` would start Python workers for no rows.
    empty = spark.range(0).select(*columns)
    if runtime.in_databricks():
        try:
            # Runtime 14.2 and newer: https://learn.microsoft.com/azure/databricks/delta/clustering
            _delta_writer(empty, table, _statistics(schema, column) | (properties or {})).clusterBy(column).create()
        except PySparkException:
            if not spark.catalog.tableExists(table):
                raise
    else:
        from helpers.laptop import catalog, progress

        with progress.of_spark(spark, table), catalog.one_writer(spark, table):
            catalog.refresh(spark, table)
            if not spark.catalog.tableExists(table):
                catalog.replace_table(empty, table, properties, column)


def add_columns(spark: SparkSession, table: str, columns: dict[str, DataType]) -> None:
    """Add columns to a table that `create_table` made; those that another job has added by then stay as they are.

    The rows that the table has get null. On Databricks, a query that reads the table as a stream fails once and has to
    be restarted: https://learn.microsoft.com/azure/databricks/tables/update-schema

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    table : str
        Qualified name, quoted where needed.
    columns : dict of str to pyspark.sql.types.DataType
        Type by name.
    """
    if runtime.in_databricks():
        _add_delta_columns(spark, table, columns)
    else:
        from helpers.laptop import catalog

        catalog.add_columns(spark, table, _definitions(columns))


def _add_delta_columns(spark: SparkSession, table: str, columns: dict[str, DataType]) -> None:
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    for attempt in range(1, WRITE_ATTEMPTS + 1):
        there = {name.lower() for name in spark.table(table).columns}
        missing = {name: kind for name, kind in columns.items() if name.lower() not in there}
        if not missing:
            return
        try:
            if any(map(_NEEDS_COLUMN_MAPPING.search, missing)):
                _map_columns(spark, table)
            spark.sql(f"ALTER TABLE {table} ADD COLUMNS ({_definitions(missing)})")
            return
        except (PySparkException, Py4JJavaError) as error:
            changed = {name.lower() for name in spark.table(table).columns} != there
            if attempt == WRITE_ATTEMPTS or not (changed or _CONFLICT.search(str(error))):
                raise


def _map_columns(spark: SparkSession, table: str) -> None:
    """Enable the column mapping of an existing table, if it has none."""
    properties = {row["key"]: row["value"] for row in spark.sql(f"SHOW TBLPROPERTIES {table}").collect()}
    if properties.get(_COLUMN_MAPPING, "none") == "none":
        spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('{_COLUMN_MAPPING}' = 'name')")


def _definitions(columns: dict[str, DataType]) -> str:
    return ", ".join(f"{_quoted(name)} {_type_in_sql(kind)}" for name, kind in columns.items())


def _type_in_sql(kind: DataType) -> str:
    """Return a type as SQL reads it; ``simpleString`` does not quote the names of fields."""
    from pyspark.sql.types import ArrayType, MapType, StructType

    if isinstance(kind, ArrayType):
        return f"array<{_type_in_sql(kind.elementType)}>"
    if isinstance(kind, MapType):
        return f"map<{_type_in_sql(kind.keyType)}, {_type_in_sql(kind.valueType)}>"
    if isinstance(kind, StructType):
        fields = (f"{_quoted(field.name)}: {_type_in_sql(field.dataType)}" for field in kind)
        return f"struct<{', '.join(fields)}>"
    return kind.simpleString()


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def replace_table(rows: DataFrame, table: str, properties: dict[str, str] | None = None) -> None:
    """Create a table from ``rows``; replace an existing table of that name.

    Parameters
    ----------
    rows : pyspark.sql.DataFrame
    table : str
        Qualified name, quoted where needed.
    properties : dict of str to str, optional
        Table properties.
    """
    if runtime.in_databricks():
        # Atomic on Delta, with the old version kept in the table's history.
        _delta_writer(rows, table, properties).createOrReplace()
    else:
        from helpers.laptop import catalog, progress

        with progress.of_spark(rows.sparkSession, table):
            catalog.replace_table(rows, table, properties)


def drop_table(spark: SparkSession, table: str) -> None:
    """Drop a table and its files; Unity Catalog keeps those of a managed table for seven days, for ``UNDROP TABLE``."""
    if runtime.in_databricks():
        spark.sql(f"DROP TABLE IF EXISTS {table}")
    else:
        from helpers.laptop import catalog

        catalog.drop_table(spark, table)


def checkpoint_folder(spark: SparkSession, table: str, create: bool = True) -> str:
    """Return the folder of the checkpoint of a stream into a table; on Databricks it is in a volume beside the table.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    table : str
        Qualified name.
    create : bool, default True
        Create the volume if it is missing.
    """
    parts = table.replace("`", "").split(".")
    if not runtime.in_databricks():
        return str(runtime.local_dir() / "checkpoints" / ".".join(parts))
    catalog = parts[0] if len(parts) == 3 else spark.catalog.currentCatalog()
    if create:
        spark.sql(f"CREATE VOLUME IF NOT EXISTS `{catalog}`.`{parts[-2]}`.checkpoints")
    return f"/Volumes/{catalog}/{parts[-2]}/checkpoints/{parts[-1]}"


def check_checkpoint(checkpoint: str) -> None:
    """Check that a stream can go on with its checkpoint; note where the tables are for the next time.

    Spark knows the rows that it has read by the paths of their files. On a laptop these change when the folder of the local
    state is moved, and all rows would be scored once more.

    Raises
    ------
    helpers.parameters.ParameterError
        If the checkpoint was made when the tables were elsewhere.
    """
    if runtime.in_databricks():
        return
    here, note = str(runtime.local_dir()), Path(checkpoint.removeprefix("file:"), "_local_dir")
    if not note.exists():
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(here)
    before = note.read_text()
    if before != here:
        raise ParameterError(
            "checkpoint",
            checkpoint,
            f"was made when the tables were in {before}; now they are in {here}. Spark knows the rows that it has scored by "
            "their files' paths, so it would score all of them again. Move the folder back; or delete the checkpoint and the "
            "table of predictions, and score all rows anew",
        )


def delete_folder(folder: str) -> None:
    """Delete a folder that `checkpoint_folder` returned, with its contents."""
    if runtime.in_databricks():
        runtime.dbutils().fs.rm(folder, True)
    else:
        shutil.rmtree(folder)


def count_rows(spark: SparkSession, table: str, column: str, value: str) -> int:
    """Return how many rows of a table have a value; see `replace_rows` for the parameters."""
    from pyspark.sql import functions as F

    if runtime.in_databricks():
        return spark.table(table).where(F.col(column) == value).count()
    from helpers.laptop import catalog

    return catalog.partition_rows(spark, table, column, value)


def rows_replacer() -> Callable[[DataFrame, str, str, str], None]:
    """Return a function that does what `replace_rows` does, also in a process that does not have this bundle.

    It can be pickled inside `pickled_by_value`.
    """
    if not runtime.in_databricks():
        from helpers.laptop import catalog

        return catalog.replace_partition

    def replace(rows: DataFrame, table: str, column: str, value: str) -> None:
        from pyspark.sql import functions as F

        _overwrite(rows.withColumn(column, F.lit(value)), table, F.col(column) == value)

    return replace


@contextmanager
def pickled_by_value() -> Iterator[None]:
    """During the block, Spark pickles the function of `rows_replacer` with their code."""
    from pyspark import cloudpickle

    from helpers.laptop import catalog

    modules = [catalog, sys.modules[__name__]]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def replace_rows(rows: DataFrame, table: str, column: str, value: str) -> None:
    """Replace the rows of a table that have a value, and no others, at once: readers see the old or the new.

    Parameters
    ----------
    rows : pyspark.sql.DataFrame
        The table's columns without `column`, in any order. A column that they lack is null.
    table : str
        Qualified name, quoted where needed. Older versions of this bundle partitioned it by `column` on Databricks, too;
        such a table stays partitioned.
    column, value : str
        The column that the table was created for, and its value.

    Raises
    ------
    WriteConflict
        On Databricks, if other jobs wrote into the table during each of `WRITE_ATTEMPTS`.
    """
    from pyspark.sql import functions as F

    if runtime.in_databricks():
        _overwrite(rows.withColumn(column, F.lit(value)), table, F.col(column) == value)
    else:
        from helpers.laptop import catalog, progress

        with progress.of_spark(rows.sparkSession, table):
            catalog.replace_partition(rows, table, column, value)


def _overwrite(rows: DataFrame, table: str, condition: Column) -> None:
    """Replace what meets a condition in one commit of Delta; repeat it if other jobs have committed meanwhile.

    Without partitions, Delta may take a commit of other rows for a conflict. The vendor's table of conflicts does not have
    this kind of write, and the errors say to retry.
    https://learn.microsoft.com/azure/databricks/delta/selective-overwrite
    https://learn.microsoft.com/azure/databricks/optimizations/isolation/row-level-concurrency
    https://learn.microsoft.com/azure/databricks/error-messages/delta-concurrent-append-error-class
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    for attempt in range(1, WRITE_ATTEMPTS + 1):
        try:
            _with_columns_of(rows, table).writeTo(table).overwrite(condition)
            return
        except (PySparkException, Py4JJavaError) as error:
            conflict = _CONFLICT.search(str(error))
            if not conflict:
                raise
            name = conflict[1]
            print(f"{table}: another job wrote into it during attempt {attempt} of {WRITE_ATTEMPTS} ({name}).")
    raise WriteConflict(f"other jobs wrote into it during each of {WRITE_ATTEMPTS} attempts ({name})")


def _with_columns_of(rows: DataFrame, table: str) -> DataFrame:
    """Return rows with all the columns of a table as it is now: another job may have added some since the last attempt."""
    from pyspark.sql import functions as F

    names, columns = {name.lower(): name for name in rows.columns}, []
    for field in rows.sparkSession.table(table).schema:
        name = names.pop(field.name.lower(), None)
        column = F.lit(None).cast(field.dataType) if name is None else F.col(_quoted(name))
        columns.append(column.alias(field.name))
    # What the table does not have is Delta's to refuse.
    return rows.select(*columns, *map(_quoted, names.values()))


def _statistics(schema: StructType, column: str) -> dict[str, str]:
    """Return the property that makes Delta collect statistics of a wide table's last column, which clustering needs.

    Without it they may end after 32 columns, with each field of a struct counted. Statistics of all the columns would be
    in the table's log once for each file. Runtime 13.3 and newer:
    https://learn.microsoft.com/azure/databricks/delta/data-skipping
    """
    return {"delta.dataSkippingStatsColumns": column} if _fields(schema) > _COLUMNS_WITH_STATISTICS else {}


def _fields(data_type: DataType) -> int:
    return sum(_fields(field.dataType) for field in getattr(data_type, "fields", [])) or 1


def _delta_writer(rows: DataFrame, table: str, properties: dict[str, str] | None) -> DataFrameWriterV2:
    writer = rows.writeTo(table)
    if any(map(_NEEDS_COLUMN_MAPPING.search, rows.columns)):
        writer = writer.tableProperty(_COLUMN_MAPPING, "name")
    for key, value in (properties or {}).items():
        writer = writer.tableProperty(key, value)
    return writer
