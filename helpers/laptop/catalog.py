"""Tables that outlive a Spark session on a laptop, and that several sessions may use at once.

Spark's in-memory catalog forgets its tables when the session ends. Hive's catalog, on the Derby
database that pip's pyspark includes, allows only one process at a time, so an open notebook would
block the next job. Here every session reads its catalog from the warehouse folder instead.
A table's folder holds the ``CREATE TABLE`` statement that made it, and a subfolder for the rows, which the statement
names. A table is replaced by writing another subfolder and then renaming a new statement over the old one. These folders
are not where Spark puts a table of that name, so that ``saveAsTable`` still can.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# No table can have this name.
_TABLES = "bundle.tables"
# Spark's readers ignore names that begin with an underscore.
STATEMENT = "_create_table.sql"
_ATTEMPTS = "_attempts"
_VERSION = "version-"
_LOCATION = re.compile(r"^LOCATION '(.*)'\n", flags=re.M)
# The statement of each table that a session knows.
_registered: WeakKeyDictionary[SparkSession, dict[Path, str]] = WeakKeyDictionary()


def table_folder(warehouse: Path, table: str) -> Path:
    """Return the folder of a table in the warehouse, whether or not the table exists.

    Parameters
    ----------
    warehouse : pathlib.Path
    table : str
        ``schema.table`` or ``catalog.schema.table``, with or without backticks.
    """
    *_, schema, name = table.replace("`", "").lower().split(".")
    return (warehouse if schema == "default" else warehouse / f"{schema}.db") / _TABLES / name


def rows_folder(warehouse: Path, table: str) -> Path:
    """Return the folder of a table's Parquet files; see `table_folder` for the parameters."""
    return _rows_folder(table_folder(warehouse, table))


def register_tables(spark: SparkSession) -> None:
    """Register the schemas and tables of the warehouse folder that the session does not know yet."""
    warehouse = _warehouse(spark)
    if not warehouse.is_dir():
        return
    schemas = {"default": warehouse} | {folder.stem: folder for folder in sorted(warehouse.glob("*.db"))}
    for schema, schema_folder in schemas.items():
        spark.sql(f"CREATE SCHEMA IF NOT EXISTS `{schema}`")
        folders = [*schema_folder.iterdir(), *schema_folder.glob(f"{_TABLES}/*")]
        for name in sorted({path.name for path in folders if path.is_dir()} - {_TABLES}):
            if not name.endswith(".db"):
                refresh(spark, f"`{schema}`.`{name}`")


def refresh(spark: SparkSession, table: str) -> None:
    """Register a table as it is in the warehouse folder now: another session may have created or replaced it.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    table : str
        Qualified name. A name without a schema, such as a temporary view's, is left to the session.
    """
    if "." not in table:
        return
    folder = table_folder(_warehouse(spark), table)
    saved_by_hand = folder.parent.with_name(folder.name)
    known = _registered.setdefault(spark, {})
    if (saved_by_hand / STATEMENT).exists():
        # Older versions of this module had the table there.
        folder.parent.mkdir(exist_ok=True)
        saved_by_hand.rename(folder)
    statement = _statement(folder)
    if any(saved_by_hand.rglob("*.parquet")):
        # Somebody dropped the table, if there was one, and saved another one. Spark reads its columns from the files.
        if statement:
            shutil.rmtree(folder)
        statement, rows = "", saved_by_hand
    else:
        rows = _rows_folder(folder)
    if not statement and known.pop(folder, "") and _location(spark, table) not in (None, rows):
        # Another session dropped it.
        spark.sql(f"DROP TABLE {table}")
    if rows == saved_by_hand:
        _create_schema(spark, table)
        spark.sql(f"CREATE TABLE IF NOT EXISTS {table} USING parquet LOCATION {_text(str(rows))}")
    if not statement:
        return
    if known.get(folder) == statement:
        return
    _create_schema(spark, table)
    location = _location(spark, table)
    if location not in (None, rows) or (location and folder in known):
        # The session's entry is for another version, or has other columns. Its files stay, because all entries name a
        # location.
        spark.sql(f"DROP TABLE {table}")
    statement_here = _LOCATION.sub("", statement).replace(
        "USING parquet\n", f"USING parquet\nLOCATION {_text(str(rows))}\n", 1
    )
    spark.sql(statement_here.replace("CREATE TABLE ", "CREATE TABLE IF NOT EXISTS ", 1))
    known[folder] = statement


@contextmanager
def one_writer(spark: SparkSession, table: str) -> Iterator[None]:
    """Let one process or thread at a time change a table; the others wait, and say so.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    table : str
        Qualified name.
    """
    from filelock import FileLock, Timeout

    warehouse = _warehouse(spark)
    name = hashlib.sha256(str(table_folder(warehouse, table).relative_to(warehouse)).encode()).hexdigest()[:16]
    folder = warehouse.parent / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    # The operating system releases the lock of a process that is killed.
    lock = FileLock(folder / name, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{table} is being written by another job or notebook; waiting until it is done.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def replace_table(
    rows: DataFrame, table: str, properties: Mapping[str, str] | None = None, partitioned_by: str | None = None
) -> None:
    """Create a table from ``rows``, or replace it for all sessions at once.

    The rows of the version before stay until the next replacement, for sessions that are reading them. The parameters are
    those of `helpers.storage.replace_table`.
    """
    spark = rows.sparkSession
    folder = table_folder(_warehouse(spark), table)
    with one_writer(spark, table):
        before = _rows_folder(folder)
        new = folder / f"{_VERSION}{uuid.uuid4().hex}"
        # A name and a view of the session only: the table itself changes when its statement does.
        *schema, _ = table.split(".")
        draft, view = ".".join([*schema, f"draft_{new.name[len(_VERSION) :]}"]), f"rows_of_{new.name[len(_VERSION) :]}"
        rows.createOrReplaceTempView(view)
        try:
            described = ", ".join(f"{_text(key)} = {_text(value)}" for key, value in (properties or {}).items())
            spark.sql(
                f"CREATE TABLE {draft} USING parquet {f'PARTITIONED BY (`{partitioned_by}`)' if partitioned_by else ''} "
                f"LOCATION {_text(str(new))} {f'TBLPROPERTIES ({described})' if described else ''} "
                f"AS TABLE {view}"
            )
            statement = _described(spark, draft, table, f"LOCATION '{new.name}'\n")
        finally:
            spark.catalog.dropTempView(view)
            spark.sql(f"DROP TABLE IF EXISTS {draft}")
        _save_statement(statement, folder)
        refresh(spark, table)
        for path in folder.iterdir():
            if path not in (new, before, folder / STATEMENT):
                _delete(path)


def add_columns(spark: SparkSession, table: str, definitions: str) -> None:
    """Add columns to a table, for all sessions at once; the rows that it has get null.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    table : str
        Qualified name.
    definitions : str
        The names and types of the columns, as SQL has them.
    """
    folder = table_folder(_warehouse(spark), table)
    with one_writer(spark, table):
        refresh(spark, table)
        before = _statement(folder)
        # The session's entry is not that of the statement until the statement has the columns, too.
        _registered[spark][folder] = ""
        spark.sql(f"ALTER TABLE {table} ADD COLUMNS ({definitions})")
        if before:
            location = _LOCATION.search(before)
            statement = _described(spark, table, table, location[0] if location else "")
            _save_statement(statement, folder)
            _registered[spark][folder] = statement


def drop_table(spark: SparkSession, table: str) -> None:
    """Drop a table and its folder, so that no later session finds it.

    The statement is deleted last. After an interrupted attempt the table still exists, with its name and properties,
    and can be dropped again.
    """
    folder = table_folder(_warehouse(spark), table)
    with one_writer(spark, table):
        if folder.is_dir():
            for path in folder.iterdir():
                if path.name != STATEMENT:
                    _delete(path)
        spark.sql(f"DROP TABLE IF EXISTS {table}")
        shutil.rmtree(folder, ignore_errors=True)


def replace_partition(rows: DataFrame, table: str, column: str, value: str) -> None:
    """Replace the rows of one partition, for all readers at once.

    Spark would delete the old files before it writes the new ones. This function writes the new files beside the
    table first, and then points the partition's folder, which is a symbolic link, to them. A DataFrame that has listed
    the old files but not opened them yet gets an error; one that is made from the table now reads the new ones.

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
    with one_writer(rows.sparkSession, table):
        folder = rows_folder(_warehouse(rows.sparkSession), table)
        link = _partition_folder(folder, column, value)
        attempts = folder / _ATTEMPTS / link.name
        attempt = attempts / uuid.uuid4().hex
        rows.write.parquet(str(attempt))
        if link.is_dir() and not link.is_symlink():
            # Spark itself wrote this folder.
            link.rename(attempts / uuid.uuid4().hex)
        new_link = attempts / "link"
        new_link.unlink(missing_ok=True)
        new_link.symlink_to(os.path.relpath(attempt, folder))
        new_link.replace(link)
        for old in attempts.iterdir():
            if old != attempt:
                shutil.rmtree(old)


def partition_rows(spark: SparkSession, table: str, column: str, value: str) -> int:
    """Return how many rows a partition has, without a look at the others; see `replace_partition` for the parameters."""
    folder = _partition_folder(rows_folder(_warehouse(spark), table), column, value)
    return spark.read.parquet(str(folder)).count() if any(folder.glob("*.parquet")) else 0


def _partition_folder(folder: Path, column: str, value: str) -> Path:
    return folder / f"{column}={value.replace(':', '%3A')}"


def _warehouse(spark: SparkSession) -> Path:
    # Spark returns None only if None was passed as the default.
    return Path(spark.conf.get("spark.sql.warehouse.dir").removeprefix("file:"))  # type: ignore[union-attr]


def _statement(folder: Path) -> str:
    try:
        return (folder / STATEMENT).read_text()
    except FileNotFoundError:
        return ""


def _described(spark: SparkSession, entry: str, table: str, location: str) -> str:
    """Return the statement that creates a table with the columns and properties of an entry of the session's catalog."""
    statement = spark.sql(f"SHOW CREATE TABLE {entry}").collect()[0][0] + "\n"
    statement = re.sub(r"\A.*", lambda _: f"CREATE TABLE {table} (", statement)
    return _LOCATION.sub(location, statement)


def _save_statement(statement: str, folder: Path) -> None:
    unfinished = folder / f"{STATEMENT}.new"
    unfinished.write_text(statement)
    unfinished.replace(folder / STATEMENT)


def _rows_folder(folder: Path) -> Path:
    # Older versions of this module wrote the rows into the table's own folder.
    version = _LOCATION.search(_statement(folder))
    return folder / version[1] if version else folder


def _location(spark: SparkSession, table: str) -> Path | None:
    if not spark.catalog.tableExists(table):
        return None
    described = spark.sql(f"DESCRIBE TABLE EXTENDED {table}").collect()
    return Path(next(row["data_type"] for row in described if row["col_name"] == "Location").removeprefix("file:"))


def _create_schema(spark: SparkSession, table: str) -> None:
    spark.sql(f"CREATE SCHEMA IF NOT EXISTS {'.'.join(table.split('.')[:-1])}")


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
