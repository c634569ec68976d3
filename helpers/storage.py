"""Write tables and partitions at once: Delta on Databricks, the laptop's own store elsewhere."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import runtime
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


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
    """Let one job at a time read and then write a table, where the table's format does not see to it as Delta does."""
    if runtime.in_databricks():
        return nullcontext()
    from helpers.laptop import catalog

    return catalog.one_writer(spark, table)


def replace_table(
    rows: DataFrame, table: str, properties: dict[str, str] | None = None, partitioned_by: str | None = None
) -> None:
    """Create a table from ``rows``; replace an existing table of that name.

    Parameters
    ----------
    rows : pyspark.sql.DataFrame
    table : str
        Qualified name, quoted where needed.
    properties : dict of str to str, optional
        Table properties.
    partitioned_by : str, optional
        Partition column.
    """
    from pyspark.sql import functions as F

    if runtime.in_databricks():
        writer = rows.writeTo(table)
        for key, value in (properties or {}).items():
            writer = writer.tableProperty(key, value)
        if partitioned_by:
            writer = writer.partitionedBy(F.col(partitioned_by))
        # Atomic on Delta, with the old version kept in the table's history.
        writer.createOrReplace()
    else:
        from helpers.laptop import catalog, progress

        with progress.of_spark(rows.sparkSession, table):
            catalog.replace_table(rows, table, properties, partitioned_by)


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


def partition_rows(spark: SparkSession, table: str, column: str, value: str) -> int:
    """Return how many rows one partition of a table has; see `replace_partition` for the parameters."""
    from pyspark.sql import functions as F

    if runtime.in_databricks():
        return spark.table(table).where(F.col(column) == value).count()
    from helpers.laptop import catalog

    return catalog.partition_rows(spark, table, column, value)


def partition_replacer() -> Callable[[DataFrame, str, str, str], None]:
    """Return a function that does what `replace_partition` does, also in a process that does not have this bundle.

    It can be pickled inside `pickled_by_value`.
    """
    if not runtime.in_databricks():
        from helpers.laptop import catalog

        return catalog.replace_partition

    def overwrite(rows: DataFrame, table: str, column: str, value: str) -> None:
        from pyspark.sql import functions as F

        rows.withColumn(column, F.lit(value)).writeTo(table).overwrite(F.col(column) == value)

    return overwrite


@contextmanager
def pickled_by_value() -> Iterator[None]:
    """During the block, Spark pickles the functions of `partition_replacer` with their code."""
    from pyspark import cloudpickle

    from helpers.laptop import catalog

    cloudpickle.register_pickle_by_value(catalog)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(catalog)


def replace_partition(rows: DataFrame, table: str, column: str, value: str) -> None:
    """Replace the rows of one partition of a table, and no others, at once: readers see the old or the new.

    Parameters
    ----------
    rows : pyspark.sql.DataFrame
        The table's columns without the partition's.
    table : str
        Qualified name, quoted where needed.
    column, value : str
        The partition column, of type string, and its value.
    """
    from pyspark.sql import functions as F

    if runtime.in_databricks():
        # One commit of Delta: https://learn.microsoft.com/azure/databricks/delta/selective-overwrite
        rows.withColumn(column, F.lit(value)).writeTo(table).overwrite(F.col(column) == value)
    else:
        from helpers.laptop import catalog, progress

        with progress.of_spark(rows.sparkSession, table):
            catalog.replace_partition(rows, table, column, value)
