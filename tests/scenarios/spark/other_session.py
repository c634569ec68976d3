"""What another job or notebook does with the tables of the same laptop."""

from __future__ import annotations

from helpers import parameters, runtime, scoring, storage, tracking
from helpers.data import tables


def begin() -> None:
    """Start the session."""
    runtime.spark()


def rows_of(table: str) -> list[list] | None:
    """Return the sorted rows of a table; None if the table does not exist."""
    spark = runtime.spark()
    return sorted(list(row) for row in spark.table(table).collect()) if tables.exists(spark, table) else None


def replace_table(table: str, rows: int) -> None:
    """Create a table of numbers."""
    storage.replace_table(runtime.spark().range(rows), table)


def make_table(table: str, rows: int) -> str:
    """Make a table as set-up does, if it does not have these rows; return what was done."""
    spark = runtime.spark()
    tables.create_schema(spark, "", table.split(".")[0])
    return tables._make_table(spark.range(rows), table, "the tests")["action"]


def score(
    experiment: str, model: str, table: str, prediction_table: str, batch_id: str, keep_inputs: bool
) -> list[int]:
    """Score a table; return how many rows were scored and how many are in quarantine."""
    session = tracking.configure(parameters.Tracking(experiment_name=experiment))
    version = tracking.resolve_version(session, model, "1")
    scorer = scoring.Scorer(session, version, table, prediction_table, "id", keep_inputs=keep_inputs)
    batch = scorer.score_batch(scoring.rows_to_score(runtime.spark(), table, "", "id"), batch_id)
    return [batch.rows_scored, batch.rows_quarantined]
