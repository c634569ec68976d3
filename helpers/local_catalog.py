"""Tables that outlive a Spark session on a laptop.

Spark's in-memory catalog forgets its tables with the session, and Hive's, with the Derby
database that pip's pyspark has, admits one process at a time: a notebook left open would
stop the next job. Here every session reads its catalog from the warehouse folder instead:
each table's folder holds the ``CREATE TABLE`` statement that made it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Spark's readers pass over names that begin with an underscore.
STATEMENT = "_create_table.sql"
UNFINISHED = "_unfinished_"


def table_folder(warehouse: Path, table: str) -> Path:
    """Return the folder in the warehouse where a table's files are, or will be.

    Parameters
    ----------
    warehouse : pathlib.Path
    table : str
        ``schema.table`` or ``catalog.schema.table``, with or without backticks.
    """
    *_, schema, name = table.replace("`", "").lower().split(".")
    return (warehouse if schema == "default" else warehouse / f"{schema}.db") / name


def _warehouse(spark: SparkSession) -> Path:
    return Path(spark.conf.get("spark.sql.warehouse.dir").removeprefix("file:"))


def register_tables(spark: SparkSession) -> None:
    """Register what the session does not know yet: schemas and finished tables of the warehouse folder."""
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
                # Made with saveAsTable in somebody's own cell: the files know the columns.
                spark.sql(f"CREATE TABLE IF NOT EXISTS `{schema}`.`{folder.name}` {location}")


@contextmanager
def new_table(spark: SparkSession, table: str) -> Iterator[None]:
    """Make the table that is created inside the block outlive the session.

    Drops a table of that name first, and what a killed attempt left in its folder.
    """
    folder = table_folder(_warehouse(spark), table)
    unfinished = folder.with_name(UNFINISHED + folder.name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    spark.sql(f"DROP TABLE IF EXISTS {table}")
    shutil.rmtree(folder, ignore_errors=True)
    yield
    statement = spark.sql(f"SHOW CREATE TABLE {table}").first()[0]
    (folder / STATEMENT).write_text(re.sub(r"^LOCATION '.*'\n", "", statement, flags=re.M) + "\n")
    unfinished.unlink()
