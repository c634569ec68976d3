"""The bundle's tables in the catalog: set-up makes them, and the other stages find and read them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from helpers import runtime, storage
from helpers.data.checks import check_table
from helpers.data.names import qualified_name, qualified_schema, quoted
from helpers.data.source import read_source, sample_name, sample_rows
from helpers.ownership import MARK, is_marked
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from helpers.data.csv_files import CsvOptions

# Table property with a hash of the rows, so that set-up does not write the same data again.
FINGERPRINT_PROPERTY = f"{MARK}.fingerprint"
RETRAINING_PROPERTY = f"{MARK}.retraining"
"""Table property of the rows that monitoring has collected for a retraining; set-up leaves them and their scoring table."""
_SHORTENED = " more fields"
# Error classes for a schema or catalog that does not exist, or cannot exist. They depend on Spark's version and on Unity Catalog.
_UNKNOWN_SCHEMA = (
    "REQUIRES_SINGLE_PART_NAMESPACE", "CATALOG_NOT_FOUND", "NO_SUCH_CATALOG_EXCEPTION", "SCHEMA_NOT_FOUND",
    "INVALID_SCHEMA_OR_RELATION_NAME",
)  # fmt: skip


def create_schema(spark: SparkSession, catalog: str, schema: str) -> None:
    """Create a schema if it is missing.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    catalog : str
        Empty for the current catalog.
    schema : str

    Raises
    ------
    helpers.parameters.ParameterError
        If the schema cannot be created.
    """
    from pyspark.errors import AnalysisException

    try:
        spark.sql(f"CREATE SCHEMA IF NOT EXISTS {qualified_schema(catalog, schema)}")
    except AnalysisException as error:
        raise ParameterError("schema", schema, f"cannot be created: {str(error).splitlines()[0]}") from None


def check_catalog(spark: SparkSession, catalog: str) -> None:
    """Check that a catalog exists.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    catalog : str
        Empty for the current catalog.

    Raises
    ------
    helpers.parameters.ParameterError
        If the catalog does not exist.
    """
    catalogs = [row[0] for row in spark.sql("SHOW CATALOGS").collect()]
    # Spark lists a catalog of its configuration only once it has been used.
    if catalog and catalog not in catalogs and not runtime.setting(spark, f"spark.sql.catalog.{catalog}"):
        raise ParameterError(
            "catalog",
            catalog,
            f"no such catalog; the catalogs are: {', '.join(catalogs)}. Leave it empty to use the current one.",
        )


def exists(spark: SparkSession, table: str) -> bool:
    """Return whether a table exists; False if its schema or catalog does not exist either."""
    from pyspark.errors import AnalysisException

    storage.refresh(spark, table)
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
        The parameter that named the table, for the error.

    Raises
    ------
    helpers.parameters.ParameterError
        If the table does not exist.
    """
    if not exists(spark, table):
        raise ParameterError(parameter, table, "no such table. Run 01_setup first, or name a table that exists.")
    return spark.table(table)


def properties(spark: SparkSession, table: str) -> dict[str, str]:
    """Return the properties of an existing table, by its qualified name."""
    return {row["key"]: row["value"] for row in spark.sql(f"SHOW TBLPROPERTIES {table}").collect()}


def column_types(spark: SparkSession, table: str) -> list[tuple[str, str]]:
    """Return the names and types of the columns of an existing table, as ``DataFrame.dtypes`` has them.

    On a laptop, ``spark.table`` would list the files of all batches first, which takes longer with every batch.
    """
    types = [(column.name, column.dataType) for column in spark.catalog.listColumns(table)]
    # The catalog names only 25 fields of a struct.
    types = spark.table(table).dtypes if any(_SHORTENED in type_name for _, type_name in types) else types
    # From Spark 4.2 on, it names the default collation, too.
    return [(name, type_name.replace(" collate UTF8_BINARY", "")) for name, type_name in types]


def in_schema(spark: SparkSession, catalog: str, schema: str) -> list[str]:
    """Return the qualified names of the tables and views of a schema; an empty list if there is no such schema."""
    from pyspark.errors import AnalysisException

    storage.refresh_all(spark)
    try:
        rows = spark.sql(f"SHOW TABLES IN {qualified_schema(catalog, schema)}").collect()
    except AnalysisException as error:
        if error.getErrorClass() not in _UNKNOWN_SCHEMA:
            raise
        return []
    # Temporary views belong to the session, not to the schema.
    return [qualified_name(row["tableName"], catalog, schema) for row in rows if not row["isTemporary"]]


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
    sample_data: str = "diabetes",
    model_type: str = "auto",
    csv: CsvOptions | None = None,
) -> list[dict]:
    """Make the training table and the scoring table from the user's data or the sample data.

    The scoring table has the same rows without the label. A table that already holds this data stays as it is. A table
    that an earlier set-up made from other data is replaced. A table that set-up did not make is never written to, and
    neither is the scoring table if the training table is one that monitoring collected for a retraining. All
    checks run before anything is written.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    training_table, scoring_table : str
        Table names, which `catalog` and `schema` complete.
    catalog, schema : str
        The schema is created if it is missing.
    source_path : str
        File or folder to load. Empty for the sample data.
    label_column, id_column : str
        Columns of the data.
    sample_data : str, default "diabetes"
        One of `helpers.kinds.SAMPLES`, which is loaded if `source_path` is empty.
    model_type : str, default "auto"
        See `helpers.data.checks.check_label`.
    csv : helpers.data.csv_files.CsvOptions, optional
        How CSV files are written; see `helpers.data.source.read_source`.

    Returns
    -------
    list of dict
        For each of the two tables its name, what was done, the numbers of rows and columns, and the source.

    Raises
    ------
    helpers.parameters.ParameterError
        If the catalog, the data, the label or the id cannot be used, or if `source_path` would replace a table that
        set-up did not make.
    """
    check_catalog(spark, catalog)
    names = {
        "training_table": qualified_name(training_table, catalog, schema),
        "scoring_table": qualified_name(scoring_table, catalog, schema),
    }
    for parameter, name in names.items():
        storage.check_name(parameter, name)
    foreign = [
        parameter for parameter, name in names.items() if exists(spark, name) and not is_marked(properties(spark, name))
    ]
    if exists(spark, names["training_table"]) and RETRAINING_PROPERTY in properties(spark, names["training_table"]):
        foreign = [parameter for parameter, name in names.items() if exists(spark, name)]
    if source_path:
        for parameter in foreign:
            raise ParameterError(
                parameter,
                names[parameter],
                "exists and was not made by set-up, so source_path is not loaded over it. "
                "Name a table that does not exist yet, or leave source_path empty to use this table as it is.",
            )
        rows, source = read_source(spark, source_path, csv), source_path
    elif "training_table" in foreign:
        rows, source = spark.table(names["training_table"]), names["training_table"]
    else:
        rows, source = sample_rows(spark, sample_data), sample_name(sample_data)
    check_table(rows, label_column, id_column, model_type)

    create_schema(spark, catalog, schema)
    contents = {"training_table": rows, "scoring_table": rows.drop(label_column)}
    return [
        _describe_foreign_table(spark, names[parameter])
        if parameter in foreign
        else _make_table(contents[parameter], names[parameter], source)
        for parameter in names
    ]


def _make_table(rows: DataFrame, table: str, source: str) -> dict:
    row_count, fingerprint = _count_and_fingerprint(rows)
    with storage.one_writer(rows.sparkSession, table):
        action = _replace_if_changed(rows, table, {MARK: source, FINGERPRINT_PROPERTY: fingerprint})
    return {"table": table, "action": action, "rows": row_count, "columns": len(rows.columns), "source": source}


def _replace_if_changed(rows: DataFrame, table: str, new_properties: dict[str, str]) -> str:
    spark = rows.sparkSession
    old_properties = properties(spark, table) if exists(spark, table) else {}
    if old_properties.get(FINGERPRINT_PROPERTY) == new_properties[FINGERPRINT_PROPERTY]:
        return "unchanged"
    storage.replace_table(rows, table, new_properties)
    if not old_properties:
        return "created"
    held, holds = old_properties.get(MARK), new_properties[MARK]
    return "replaced" if held == holds else f"replaced (it held {held})"


def _count_and_fingerprint(rows: DataFrame) -> tuple[int, str]:
    """Return the number of rows and a hash of rows and schema that does not depend on the order of the rows."""
    from pyspark.sql import functions as F

    columns = [F.col(quoted(column)) for column in rows.columns]
    # Decimal, because a sum of 64-bit hashes does not fit into 64 bits.
    hash_sum = F.sum(F.xxhash64(*columns).cast("decimal(38,0)"))
    row_count, hashes = rows.select(F.count(F.lit(1)), hash_sum).collect()[0]
    content = f"{row_count} {hashes} {rows.schema.simpleString()}"
    return row_count, hashlib.sha256(content.encode()).hexdigest()[:16]


def _describe_foreign_table(spark: SparkSession, table: str) -> dict:
    rows = spark.table(table)
    return {
        "table": table,
        "action": "left as it is (not made by set-up)",
        "rows": rows.count(),
        "columns": len(rows.columns),
        "source": table,
    }
