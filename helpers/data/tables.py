"""The bundle's tables: their names, the data that set-up loads into them, and their checks."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from helpers import runtime
from helpers.ownership import MARK, is_marked
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import DataType

MAX_CLASSES = 100
# Bitmaps are for ids with no more than so many numbers from one to the next on average: a byte an id.
_SPARSE = 8
SAMPLE = "scikit-learn's breast-cancer data"
# What a table of predictions has beside the id; a label or an id of that name would be there twice.
OUTPUT_COLUMNS = (
    "prediction", "probability", "probabilities", "model_name", "model_version", "scored_at", "batch_id",
)  # fmt: skip
# What a table that set-up made holds, so that the same data is not written again.
FINGERPRINT_PROPERTY = f"{MARK}.fingerprint"
# What an unknown schema or catalog is answered with, depending on Spark's version and on Unity Catalog.
_UNKNOWN_SCHEMA = (
    "REQUIRES_SINGLE_PART_NAMESPACE", "CATALOG_NOT_FOUND", "NO_SUCH_CATALOG_EXCEPTION", "SCHEMA_NOT_FOUND",
)  # fmt: skip


def quoted(column: str) -> str:
    """Return a column or table part as a SQL identifier, whatever characters are in it."""
    return "`" + column.replace("`", "``") + "`"


def cast_or_null(column: str, kind: DataType) -> Column:
    """Return a column as another type, with null for a value that is none of it, whatever ``spark.sql.ansi.enabled`` is."""
    from pyspark.sql import functions as F

    return F.expr(f"try_cast({quoted(column)} AS {kind.simpleString()})")


def qualified_name(table: str, catalog: str, schema: str) -> str:
    """Complete a table name with the schema and catalog it lacks.

    Parameters
    ----------
    table : str
        ``table``, ``schema.table`` or ``catalog.schema.table``.
    catalog, schema : str
        What to complete it with; an empty catalog is left out.

    Returns
    -------
    str
        The name, quoted where SQL needs it.
    """
    parts = table.split(".")
    if len(parts) == 1:
        parts = [schema, *parts]
    if len(parts) == 2 and catalog:
        parts = [catalog, *parts]
    return ".".join(part if re.fullmatch(r"[A-Za-z_]\w*", part) else quoted(part) for part in parts)


def create_schema(spark: SparkSession, catalog: str, schema: str) -> None:
    """Create the schema if it is missing.

    Raises
    ------
    ParameterError
        If it cannot be made there.
    """
    from pyspark.errors import AnalysisException

    name = f"{quoted(catalog)}.{quoted(schema)}" if catalog else quoted(schema)
    try:
        spark.sql(f"CREATE SCHEMA IF NOT EXISTS {name}")
    except AnalysisException as error:
        raise ParameterError("schema", schema, f"cannot be created: {_first_line(error)}") from None


def check_catalog(spark: SparkSession, catalog: str) -> None:
    """Check that a catalog exists; empty means the current one.

    Raises
    ------
    ParameterError
        If it does not.
    """
    known = [row[0] for row in spark.sql("SHOW CATALOGS").collect()]
    # Spark lists a catalog of its configuration only once it has been used.
    if catalog and catalog not in known and not spark.conf.get(f"spark.sql.catalog.{catalog}", ""):
        raise ParameterError(
            "catalog", catalog, f"no such catalog; there are: {', '.join(known)}. Empty means the current one."
        )


def exists(spark: SparkSession, table: str) -> bool:
    """Return whether a table exists; in a schema or catalog that does not exist, none does."""
    from pyspark.errors import AnalysisException

    try:
        return spark.catalog.tableExists(table)
    except AnalysisException as error:
        if error.getErrorClass() not in _UNKNOWN_SCHEMA:
            raise
        return False


def read_table(spark: SparkSession, table: str, parameter: str) -> DataFrame:
    """Return a table.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    table : str
        Qualified name.
    parameter : str
        The parameter that named it, for the error.

    Raises
    ------
    ParameterError
        If there is no such table.
    """
    if not exists(spark, table):
        raise ParameterError(parameter, table, "no such table. Run 01_setup first, or name a table that exists.")
    return spark.table(table)


def read_source(spark: SparkSession, source_path: str) -> DataFrame:
    """Read a CSV (with a header line) or Parquet file or folder.

    Column names are taken as they are; CSV types are inferred.

    Raises
    ------
    ParameterError
        If nothing is there, if it is neither CSV nor Parquet, or if it has no rows.
    """
    from pyspark.errors import AnalysisException

    try:
        files = spark.read.format("binaryFile").option("recursiveFileLookup", True).load(source_path).inputFiles()
    except AnalysisException as error:
        raise ParameterError("source_path", source_path, f"cannot be read: {_first_line(error)}") from None
    kinds = {kind for file in files for kind in ("csv", "parquet") if f".{kind}" in file.rsplit("/", 1)[-1].lower()}
    if len(kinds) != 1:
        found = " and ".join(sorted(kinds)) or "no .csv or .parquet file"
        raise ParameterError("source_path", source_path, f"one kind of file is expected, CSV or Parquet; found {found}")
    reader = spark.read
    if kinds == {"csv"}:
        # Quoted fields may span lines, and a quote in them is doubled (RFC 4180).
        reader = reader.options(header=True, inferSchema=True, multiLine=True, quote='"', escape='"')
    rows = reader.format(kinds.pop()).load(source_path)
    if rows.isEmpty():
        raise ParameterError("source_path", source_path, "has no rows")
    return rows


def sample_rows(spark: SparkSession) -> DataFrame:
    """Return the breast-cancer data set that ships with scikit-learn: 569 rows, 30 features."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer(as_frame=True)
    rows = data.data.rename(columns=lambda name: name.replace(" ", "_"))
    rows.insert(0, "id", range(len(rows)))
    rows["diagnosis"] = data.target.map(dict(enumerate(data.target_names.tolist())))
    return spark.createDataFrame(rows)


def require_column(rows: DataFrame, column: str, parameter: str) -> DataType:
    """Return the type of the label or the id.

    Raises
    ------
    ParameterError
        If the column is not there, or if predictions need its name.
    """
    if column not in rows.columns:
        near = [name for name in rows.columns if name.strip().lower() == column.strip().lower()]
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ParameterError(parameter, column, f"no such column; {hint}there are: {_listed(rows.columns)}")
    if column.lower() in OUTPUT_COLUMNS:
        names = ", ".join(OUTPUT_COLUMNS)
        raise ParameterError(
            parameter, column, f"the predictions have a column of that name; rename it: {names} are taken"
        )
    return rows.schema[column].dataType


def check_id(rows: DataFrame, id_column: str) -> int:
    """Check that a column identifies each row, and return the number of rows.

    Raises
    ------
    ParameterError
        If the column is missing, or has nulls or duplicates.
    """
    from pyspark.sql import functions as F

    kind = require_column(rows, id_column, "id_column")
    identifier = F.col(quoted(id_column))
    whole = kind.typeName() in ("byte", "short", "integer", "long")
    looked_at = [F.min(identifier), F.max(identifier)] if whole else [F.count_distinct(identifier)]
    count, filled, *found = rows.select(F.count(F.lit(1)), F.count(identifier), *looked_at).collect()[0]
    if filled < count:
        raise ParameterError(
            "id_column", id_column, f"has {count - filled} nulls among {count} rows; it must have none"
        )
    distinct = _distinct(rows, identifier, count, *found) if whole else found[0]
    if distinct < count:
        example = rows.groupBy(identifier).count().where("`count` > 1").head(1)[0][0]
        raise ParameterError(
            "id_column",
            id_column,
            f"has duplicates: {distinct} values for {count} rows, e.g. {example!r}; it must identify each row",
        )
    return count


def _distinct(rows: DataFrame, identifier: Column, count: int, lowest: int | None, highest: int | None) -> int:
    """Count the different whole numbers."""
    from pyspark.sql import functions as F

    if lowest is None or highest is None or highest - lowest > _SPARSE * count:
        return rows.select(F.count_distinct(identifier)).collect()[0][0]
    # A bit for each number between the lowest and the highest: several times faster than a shuffle of all numbers.
    bits = F.bitmap_count(F.bitmap_construct_agg(F.bitmap_bit_position(identifier)))
    buckets = rows.groupBy(F.bitmap_bucket_number(identifier)).agg(bits.alias("different"))
    return buckets.agg(F.sum("different")).collect()[0][0]


def check_label(rows: DataFrame, label_column: str, id_column: str) -> dict:
    """Check that a column can be the label of a classification, and return its classes.

    Returns
    -------
    dict
        Rows by class, sorted by class; rows without a label are not counted.

    Raises
    ------
    ParameterError
        If the column is missing, empty, has one value only, or too many to be classes.
    """
    from pyspark.sql import functions as F
    from pyspark.sql.types import AtomicType

    kind = require_column(rows, label_column, "label_column")
    if label_column == id_column:
        raise ParameterError("label_column", label_column, "is the id_column too; the label is another column")
    if not isinstance(kind, AtomicType):
        raise ParameterError(
            "label_column", label_column, f"has type {kind.simpleString()}; numbers or text are accepted"
        )
    label = F.col(quoted(label_column))
    labelled = rows.where(has_label(rows, label_column))
    counts: dict[Any, int] = dict(labelled.groupBy(label).count().limit(MAX_CLASSES + 1).collect())
    if not counts:
        raise ParameterError("label_column", label_column, "is null in every row")
    if len(counts) == 1:
        raise ParameterError(
            "label_column", label_column, f"has one class only, {next(iter(counts))!r}; two or more are needed"
        )
    if len(counts) > MAX_CLASSES:
        raise ParameterError(
            "label_column", label_column, f"has more than {MAX_CLASSES} different values; these are not classes"
        )
    return dict(sorted(counts.items()))


def has_label(rows: DataFrame, label_column: str) -> Column:
    """Return the condition that a row's label is there (neither null nor NaN)."""
    from pyspark.sql import functions as F

    label = F.col(quoted(label_column))
    fractional = rows.schema[label_column].dataType.typeName() in ("double", "float")
    return label.isNotNull() & ~F.isnan(label) if fractional else label.isNotNull()


def make_tables(
    spark: SparkSession,
    *,
    training_table: str,
    scoring_table: str,
    catalog: str,
    schema: str,
    source_path: str,
    label_column: str,
    id_column: str,
) -> list[dict]:
    """Make the tables ``training`` and ``scoring`` from the user's data or the sample data.

    The scoring table has the same rows without the label. A table that already holds this
    data is left alone, one that an earlier set-up made from other data is replaced, and one
    that set-up did not make is never written to. Everything is checked before anything is
    written.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    training_table, scoring_table : str
        Table names; `catalog` and `schema` complete them.
    catalog, schema : str
        The schema is created if it is missing.
    source_path : str
        What to load; empty for the sample data.
    label_column, id_column : str
        Columns of the data.

    Returns
    -------
    list of dict
        For each table its name, what was done, rows, columns and source.

    Raises
    ------
    ParameterError
        If the catalog, the data, the label or the id cannot be used, or if a table is somebody's own.
    """
    check_catalog(spark, catalog)
    names = {
        "training_table": qualified_name(training_table, catalog, schema),
        "scoring_table": qualified_name(scoring_table, catalog, schema),
    }
    own = [
        parameter for parameter, name in names.items() if exists(spark, name) and not is_marked(properties(spark, name))
    ]
    if source_path:
        for parameter in own:
            raise ParameterError(
                parameter,
                names[parameter],
                "exists and was not made by set-up, so source_path is not loaded over it. "
                "Name a table that does not exist yet, or leave source_path empty to use this table as it is.",
            )
        rows, source = read_source(spark, source_path), source_path
    elif "training_table" in own:
        rows, source = spark.table(names["training_table"]), names["training_table"]
    else:
        rows, source = sample_rows(spark), SAMPLE
    check_label(rows, label_column, id_column)
    check_id(rows, id_column)

    create_schema(spark, catalog, schema)
    contents = {"training_table": rows, "scoring_table": rows.drop(label_column)}
    return [
        _made_by_somebody(spark, names[parameter])
        if parameter in own
        else _make_table(contents[parameter], names[parameter], source)
        for parameter in names
    ]


def _make_table(rows: DataFrame, table: str, source: str) -> dict:
    from pyspark.sql import functions as F

    spark = rows.sparkSession
    columns = [F.col(quoted(column)) for column in rows.columns]
    # Decimal, because a sum of 64-bit hashes does not fit into 64 bits.
    total = F.sum(F.xxhash64(*columns).cast("decimal(38,0)"))
    count, hashes = rows.select(F.count(F.lit(1)), total).collect()[0]
    content = f"{count} {hashes} {rows.schema.simpleString()}"
    fingerprint = hashlib.sha256(content.encode()).hexdigest()[:16]
    old = properties(spark, table) if exists(spark, table) else {}
    if old.get(FINGERPRINT_PROPERTY) == fingerprint:
        action = "unchanged"
    else:
        new = {MARK: source, FINGERPRINT_PROPERTY: fingerprint}
        if any(re.search(r"[ ,;{}()\n\t=]", column) for column in rows.columns):
            # Without it Delta refuses such names: https://learn.microsoft.com/azure/databricks/delta/column-mapping
            new["delta.columnMapping.mode"] = "name"
        runtime.replace_table(rows, table, new)
        action = "replaced" if old else "created"
    return {"table": table, "action": action, "rows": count, "columns": len(rows.columns), "source": source}


def _made_by_somebody(spark: SparkSession, table: str) -> dict:
    rows = spark.table(table)
    return {
        "table": table,
        "action": "left as it is (not made by set-up)",
        "rows": rows.count(),
        "columns": len(rows.columns),
        "source": table,
    }


def properties(spark: SparkSession, table: str) -> dict[str, str]:
    """Return the properties of a table that exists, by its qualified name."""
    return {row["key"]: row["value"] for row in spark.sql(f"SHOW TBLPROPERTIES {table}").collect()}


def in_schema(spark: SparkSession, catalog: str, schema: str) -> list[str]:
    """Return the qualified names of the tables and views of a schema; none if there is no such schema."""
    from pyspark.errors import AnalysisException

    name = f"{quoted(catalog)}.{quoted(schema)}" if catalog else quoted(schema)
    try:
        rows = spark.sql(f"SHOW TABLES IN {name}").collect()
    except AnalysisException as error:
        if error.getErrorClass() not in _UNKNOWN_SCHEMA:
            raise
        return []
    # Temporary views belong to the session, not to the schema.
    return [qualified_name(row["tableName"], catalog, schema) for row in rows if not row["isTemporary"]]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _listed(names: list[str], most: int = 40) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + rest
