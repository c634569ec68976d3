"""The tables that scoring writes batch by batch: predictions, and the rows that cannot be scored."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from helpers import storage
from helpers.data import names, tables
from helpers.ownership import MARK
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

BATCH_COLUMN = "batch_id"
RESULT_COLUMNS = ("prediction", "probability", "model_name", "model_version", "scored_at")
"""What the table of predictions has after the id and the inputs, without `BATCH_COLUMN`."""


def default_prediction_table(model_name: str) -> str:
    """Return the table that receives a model's predictions when none is named.

    There is one per model, because another model has another id column and other labels. A name with other characters
    than letters, digits and underscores, or a long one, gets a hash: ``conc-2`` and ``conc_2`` are two models.
    """
    return names.model_table(model_name, "predictions")


def quarantine_table(prediction_table: str) -> str:
    """Return the qualified name of the table of rows that cannot be scored, in the schema of the predictions."""
    return names.qualified_name(prediction_table.replace("`", "") + "_quarantine", "", "")


def shadow_table(prediction_table: str) -> str:
    """Return the qualified name of the table of the challenger's predictions, in the schema of the predictions."""
    return names.qualified_name(prediction_table.replace("`", "") + "_shadow", "", "")


def prepare(table: str, rows: DataFrame, model_name: str, inputs: Collection[str] = ()) -> None:
    """Create a table for rows if it is missing, or see to it that it has their columns.

    It may have more columns than the rows, which are null for them, and in any order.

    Parameters
    ----------
    table : str
        Qualified name.
    rows : pyspark.sql.DataFrame
        The table's columns without `BATCH_COLUMN`.
    model_name : str
        Marks a new table as this bundle's.
    inputs : collection of str, default ()
        The columns of the rows that are added to a table without them.

    Raises
    ------
    helpers.parameters.ParameterError
        If the table lacks another column, has one of another type, or was made for another model: a batch of the one
        would replace the batch of the other with the same id.
    """
    with storage.one_writer(rows.sparkSession, table):
        _prepare(table, rows, model_name, frozenset(inputs))


def _prepare(table: str, rows: DataFrame, model_name: str, inputs: frozenset[str]) -> None:
    from pyspark.sql import functions as F

    spark, expected = rows.sparkSession, rows.withColumn(BATCH_COLUMN, F.lit(""))
    storage.check_name("prediction_table", table)
    if not tables.exists(spark, table):
        storage.create_table(spark, table, expected.schema, BATCH_COLUMN, {MARK: model_name})
    owner = tables.properties(spark, table).get(MARK, model_name)
    if owner != model_name:
        raise ParameterError(
            "prediction_table",
            table,
            f"was made for the model {owner!r}, and a batch of {model_name!r} would replace its batch with the same id. "
            "Name another table",
        )
    missing = _missing_inputs(table, expected, inputs)
    if missing:
        _add(table, expected, missing)
        # Another job may have added some of them, of other types.
        _missing_inputs(table, expected, inputs)


def _missing_inputs(table: str, rows: DataFrame, inputs: frozenset[str]) -> list[str]:
    """Return the inputs that a table lacks, if it fits the rows otherwise."""
    existing = {name.lower(): type_name for name, type_name in tables.column_types(rows.sparkSession, table)}
    expected = dict(rows.dtypes)
    missing = [name for name in expected if name.lower() not in existing]
    differing = [name for name in expected if existing.get(name.lower(), expected[name]) != expected[name]]
    differing += [name for name in missing if name not in inputs]
    if differing:
        has = (f"{name} {existing[name.lower()]}" if name not in missing else f"no {name}" for name in differing)
        have = (f"{name} {expected[name]}" for name in differing)
        hint = ", or set keep_inputs=false" if inputs.issuperset(differing) else ""
        raise ParameterError(
            "prediction_table",
            table,
            f"has other columns than these predictions: it has {', '.join(has)}; they have {', '.join(have)}. "
            f"Name another table{hint}.",
        )
    return missing


def _add(table: str, rows: DataFrame, names: list[str]) -> None:
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        types = {field.name: field.dataType for field in rows.schema}
        storage.add_columns(rows.sparkSession, table, {name: types[name] for name in names})
    except (PySparkException, Py4JJavaError) as error:
        raise ParameterError(
            "prediction_table",
            table,
            f"lacks the inputs {', '.join(names)}, and they cannot be added: {str(error).splitlines()[0]}. Set "
            "keep_inputs=false, or name another table.",
        ) from None


def replace_batch(rows: DataFrame, table: str, batch_id: str) -> None:
    """Replace the rows of one batch of a table, and no others, at once.

    Raises
    ------
    helpers.parameters.ParameterError
        If other jobs kept writing into the table.
    """
    try:
        storage.replace_rows(rows, table, BATCH_COLUMN, batch_id)
    except storage.WriteConflict as error:
        raise ParameterError(
            "prediction_table",
            table,
            f"{error}, and nothing of batch {batch_id} was written into it. Run it again, run the jobs one after the "
            "other, or name a table of its own for each job",
        ) from None


def count_batch(spark: SparkSession, table: str, batch_id: str) -> int:
    """Return how many rows of a batch a table has; 0 if there is no such table."""
    return storage.count_rows(spark, table, BATCH_COLUMN, batch_id) if tables.exists(spark, table) else 0
