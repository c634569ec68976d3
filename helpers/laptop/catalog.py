"""Tables that outlive a Spark session on a laptop.

Spark's in-memory catalog forgets its tables when the session ends. Hive's catalog, on the Derby
database that pip's pyspark includes, allows only one process at a time, so an open notebook would
block the next job. Here every session reads its catalog from the warehouse folder instead:
each table's folder holds the ``CREATE TABLE`` statement that made it.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# Spark's readers ignore names that begin with an underscore.
STATEMENT = "_create_table.sql"
UNFINISHED = "_unfinished_"
_ATTEMPTS = "_attempts"


def table_folder(warehouse: Path, table: str) -> Path:
    """Return the folder of a table in the warehouse, whether or not the table exists.

    Parameters
    ----------
    warehouse : pathlib.Path
    table : str
        ``schema.table`` or ``catalog.schema.table``, with or without backticks.
    """
    *_, schema, name = table.replace("`", "").lower().split(".")
    return (warehouse if schema == "default" else warehouse / f"{schema}.db") / name


def _warehouse(spark: SparkSession) -> Path:
    # Spark returns None only if None was passed as the default.
    return Path(spark.conf.get("spark.sql.warehouse.dir").removeprefix("file:"))  # type: ignore[union-attr]


def register_tables(spark: SparkSession) -> None:
    """Register the schemas and finished tables of the warehouse folder that the session does not know yet."""
    warehouse = _warehouse(spark)
    if not warehouse.is_dir():
        return
    schemas = {"default": warehouse} | {folder.stem: folder for folder in sorted(warehouse.glob("*.db"))}
    for schema, schema_folder in schemas.items():
        spark.sql(f"CREATE SCHEMA IF NOT EXISTS `{schema}`")
        for folder in sorted(schema_folder.iterdir()):
            if not folder.is_dir() or folder.suffix == ".db" or (schema_folder / (UNFINISHED + folder.name)).exists():
                continue
            statement = folder / STATEMENT
            location = f"USING parquet\nLOCATION '{folder}'\n"
            if statement.exists():
                text = statement.read_text().replace("CREATE TABLE ", "CREATE TABLE IF NOT EXISTS ", 1)
                spark.sql(text.replace("USING parquet\n", location, 1))
            elif any(folder.rglob("*.parquet")):
                # Somebody made it with saveAsTable; Spark reads the columns from the files.
                spark.sql(f"CREATE TABLE IF NOT EXISTS `{schema}`.`{folder.name}` {location}")


@contextmanager
def new_table(spark: SparkSession, table: str) -> Iterator[None]:
    """Make the table that is created inside the block outlive the session.

    First drops an existing table of this name, and deletes the files that an interrupted attempt left in its folder.
    """
    folder = table_folder(_warehouse(spark), table)
    unfinished = folder.with_name(UNFINISHED + folder.name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    spark.sql(f"DROP TABLE IF EXISTS {table}")
    shutil.rmtree(folder, ignore_errors=True)
    yield
    statement = spark.sql(f"SHOW CREATE TABLE {table}").collect()[0][0]
    (folder / STATEMENT).write_text(re.sub(r"^LOCATION '.*'\n", "", statement, flags=re.M) + "\n")
    unfinished.unlink()


def drop_table(spark: SparkSession, table: str) -> None:
    """Drop a table and its folder, so that no later session finds it.

    The statement is deleted last. After an interrupted attempt the table still exists, with its name and properties,
    and can be dropped again.
    """
    folder = table_folder(_warehouse(spark), table)
    if folder.is_dir():
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != STATEMENT:
                path.unlink()
    spark.sql(f"DROP TABLE IF EXISTS {table}")
    shutil.rmtree(folder, ignore_errors=True)


def replace_partition(rows: DataFrame, table: str, column: str, value: str) -> None:
    """Replace the rows of one partition, for all readers at once.

    Spark would delete the old files before it writes the new ones. This function writes the new files beside the
    table first, and then points the partition's folder, which is a symbolic link, to them. A reader that has listed
    the old files but not opened them yet gets an error, and has to read again.

    Parameters
    ----------
    rows : pyspark.sql.DataFrame
        The table's columns without the partition column.
    table : str
        Qualified name.
    column, value : str
        The partition. Spark escapes some characters of a value in the folder's name; of these, the value may contain
        colons only.
    """
    folder = table_folder(_warehouse(rows.sparkSession), table)
    partition = f"{column}={value.replace(':', '%3A')}"
    link, attempts = folder / partition, folder / _ATTEMPTS / partition
    attempt = attempts / uuid.uuid4().hex
    rows.write.parquet(str(attempt))
    if link.is_dir() and not link.is_symlink():
        # Spark itself wrote this folder.
        link.rename(attempts / uuid.uuid4().hex)
    new_link = attempts / "link"
    new_link.unlink(missing_ok=True)
    new_link.symlink_to(os.path.relpath(attempt, folder))
    new_link.replace(link)
    rows.sparkSession.catalog.refreshTable(table)
    for old in attempts.iterdir():
        if old != attempt:
            shutil.rmtree(old)
