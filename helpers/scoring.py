"""Score a table with a registered model and keep the predictions, batch by batch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from helpers import prediction, runtime, tables
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from pyspark.sql import DataFrame, SparkSession


@dataclass(frozen=True)
class ScoredBatch:
    """What `score_batch` did.

    Attributes
    ----------
    prediction_table, batch_id : str
    rows_scored : int
    rows_replaced : int
        Rows that the batch had in the table before.
    engine : helpers.prediction.Engine
        What applied the model.
    """

    prediction_table: str
    batch_id: str
    rows_scored: int
    rows_replaced: int
    engine: prediction.Engine


def default_prediction_table(model_name: str) -> str:
    """Return the table that a model's predictions go to when none is named.

    One a model, because another model has another id column and other labels.
    """
    return re.sub(r"\W", "_", model_name) + "_predictions"


def rows_to_score(spark: SparkSession, scoring_table: str, scoring_filter: str, id_column: str) -> DataFrame:
    """Return the rows of a table that a SQL condition picks.

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
        If the table or the id column is missing, the condition cannot be used, no row is
        picked, or the ids are not unique.
    """
    from pyspark.errors import AnalysisException

    rows = tables.read_table(spark, scoring_table, "scoring_table")
    if scoring_filter:
        try:
            rows = rows.where(scoring_filter)
        except AnalysisException as error:
            # A parse error is one, too.
            reason = " ".join(line for line in str(error).splitlines() if line.strip())
            raise ParameterError(
                "scoring_filter", scoring_filter, f"is not a condition on {scoring_table}: {reason}"
            ) from None
    if not tables.check_id(rows, id_column):
        if scoring_filter:
            raise ParameterError("scoring_filter", scoring_filter, f"no row of {scoring_table} fulfils it")
        raise ParameterError("scoring_table", scoring_table, "has no rows to score")
    return rows


def score_batch(
    rows: DataFrame,
    version: ModelVersion,
    *,
    prediction_table: str,
    id_column: str,
    batch_id: str,
    scoring_table: str,
    scoring_engine: str = "auto",
) -> ScoredBatch:
    """Score rows and write them as one batch, in place of what the batch had before.

    The table is created if it is missing, partitioned by ``batch_id``. It has the id, then
    ``prediction``, ``probability`` (of the predicted class; null if the model gives none),
    ``model_name``, ``model_version``, ``scored_at`` (UTC) and ``batch_id``.

    Parameters
    ----------
    rows : pyspark.sql.DataFrame
        From `rows_to_score`.
    version : mlflow.entities.model_registry.ModelVersion
        From `helpers.registry.resolve_version`.
    prediction_table : str
        Qualified name.
    id_column : str
    batch_id : str
        Empty for today's date (UTC).
    scoring_table : str
        Where the rows came from, for messages.
    scoring_engine : str, default "auto"
        See `helpers.prediction.Predictor.engine`.

    Returns
    -------
    ScoredBatch

    Raises
    ------
    helpers.parameters.ParameterError
        If the rows do not fit the model's signature, or the predictions the table.
    """
    from pyspark.sql import functions as F

    batch_id = batch_id or datetime.now(timezone.utc).date().isoformat()
    predictor = prediction.load(f"models:/{version.name}/{version.version}")
    predictor.check_columns(rows, "scoring_table", scoring_table)
    engine = predictor.engine(rows, scoring_engine)
    scored = predictor.transform(rows, [id_column], engine).select(
        tables.quoted(id_column),
        "prediction",
        "probability",
        F.lit(version.name).alias("model_name"),
        F.lit(int(version.version)).alias("model_version"),
        F.current_timestamp().alias("scored_at"),
    )
    spark = rows.sparkSession
    expected = scored.withColumn("batch_id", F.lit(batch_id))
    if not tables.exists(spark, prediction_table):
        runtime.replace_table(expected.limit(0), prediction_table, partitioned_by="batch_id")
    table = spark.table(prediction_table)
    if table.dtypes != expected.dtypes:
        raise ParameterError(
            "prediction_table",
            prediction_table,
            f"has other columns than these predictions: it has {_columns(table)}; they have {_columns(expected)}. "
            "Name another table.",
        )
    replaced = _rows_of_batch(spark, prediction_table, batch_id)
    runtime.replace_partition(scored, prediction_table, "batch_id", batch_id)
    return ScoredBatch(prediction_table, batch_id, _rows_of_batch(spark, prediction_table, batch_id), replaced, engine)


def _rows_of_batch(spark: SparkSession, prediction_table: str, batch_id: str) -> int:
    from pyspark.sql import functions as F

    return spark.table(prediction_table).where(F.col("batch_id") == batch_id).count()


def _columns(rows: DataFrame) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in rows.dtypes)
