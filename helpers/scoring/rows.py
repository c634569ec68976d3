"""Which rows of a table are scored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.data import checks, tables
from helpers.parameters import ParameterError
from helpers.scoring.condition import check_condition

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def rows_to_score(spark: SparkSession, scoring_table: str, scoring_filter: str, id_column: str) -> DataFrame:
    """Return the rows of a table that fulfil a SQL condition.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    scoring_table : str
        Qualified name.
    scoring_filter : str
        SQL condition; empty for all rows.
    id_column : str

    Raises
    ------
    helpers.parameters.ParameterError
        If the table or the id column is missing, the condition is not valid, no row fulfils it, or the ids are not
        unique.
    """
    rows = _filtered(tables.read_table(spark, scoring_table, "scoring_table"), scoring_table, scoring_filter)
    if not checks.check_id(rows, id_column):
        if scoring_filter:
            raise ParameterError("scoring_filter", scoring_filter, f"no row of {scoring_table} fulfils it")
        raise ParameterError("scoring_table", scoring_table, "has no rows to score")
    return rows


def new_rows(spark: SparkSession, scoring_table: str, scoring_filter: str, id_column: str) -> DataFrame:
    """Return the rows that are added to a table as a stream, for `helpers.scoring.stream.score_new_rows`.

    Parameters and errors are those of `rows_to_score`, except that ids are not checked and that there may be no row.
    """
    checks.require_column(tables.read_table(spark, scoring_table, "scoring_table"), id_column, "id_column")
    return _filtered(spark.readStream.table(scoring_table), scoring_table, scoring_filter)


def _filtered(rows: DataFrame, scoring_table: str, scoring_filter: str) -> DataFrame:
    from pyspark.errors import AnalysisException

    if not scoring_filter:
        return rows
    check_condition(scoring_filter)
    try:
        filtered = rows.where(scoring_filter)
        # Spark Connect does not analyze the condition before something is asked of the rows.
        filtered.schema  # noqa: B018
    except AnalysisException as error:
        # A ParseException is one, too.
        reason = " ".join(line for line in str(error).splitlines() if line.strip())
        raise ParameterError(
            "scoring_filter", scoring_filter, f"is not a condition on {scoring_table}: {reason}"
        ) from None
    return filtered
