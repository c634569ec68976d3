"""Score only the rows that a table has got since the last time, each exactly once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from helpers import runtime
from helpers.parameters import ParameterError
from helpers.scoring.batch import ScoredBatch, Scorer

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

AVAILABLE_NOW = "available_now"


def score_new_rows(
    scorer: Scorer,
    rows: DataFrame,
    checkpoint: str,
    trigger: str = AVAILABLE_NOW,
    on_batch: Callable[[ScoredBatch], Any] = print,
) -> list[ScoredBatch]:
    """Score the rows that no earlier call with this checkpoint has scored.

    Spark notes in the checkpoint which rows a micro-batch has before it is scored, and that it is done after. One
    that a killed job has left undone is scored again, with the same rows: it replaces what it had written, since
    it is written as the batch ``stream-<id of the checkpoint>-<number>``.
    https://spark.apache.org/docs/latest/streaming/apis-on-dataframes-and-datasets.html#foreachbatch

    Parameters
    ----------
    scorer : helpers.scoring.batch.Scorer
        Its model is loaded when there is a row to score.
    rows : pyspark.sql.DataFrame
        From `helpers.scoring.batch.new_rows`.
    checkpoint : str
        Folder. Deleting it makes all rows new.
    trigger : str, default "available_now"
        ``available_now``: end when all rows are scored that there were at the start. An interval such as ``1
        minute``: look for new rows that often, until the job is cancelled.
    on_batch : callable
        Called with each micro-batch when it is written.

    Returns
    -------
    list of ScoredBatch
        One a micro-batch; empty if there was no new row.

    Raises
    ------
    helpers.parameters.ParameterError
        On Spark Connect; and as `helpers.scoring.batch.Scorer.score_batch`. What was written before stays, and is not
        scored again.
    """
    from pyspark.errors import StreamingQueryException

    if runtime.uses_spark_connect(rows):
        # There the function below would run in a process of its own, without what it collects.
        raise ParameterError(
            "mode",
            "stream",
            "needs compute with a Spark session of its own (on Databricks: a job cluster, or access mode Dedicated), "
            "not Spark Connect (serverless, Standard). Take such compute, or mode=batch with a scoring_filter",
        )
    batches: list[ScoredBatch] = []
    refusals: list[ParameterError] = []
    query_id: Future[str] = Future()

    def score(new: DataFrame, number: int) -> None:
        if new.isEmpty():
            return
        try:
            # Whatever is asked of a micro-batch reads all of its columns: the engine is chosen by rows of the table, and
            # rows are counted while they are scored (a stream has a session of its own).
            scorer.engine(new.sparkSession.table(scorer.scoring_table))
            batch = scorer.score_batch(new, f"stream-{query_id.result()[:8]}-{number:06}", observe=True)
        except ParameterError as error:
            refusals.append(error)
            raise
        batches.append(batch)
        on_batch(batch)

    when = {"availableNow": True} if trigger == AVAILABLE_NOW else {"processingTime": trigger}
    query = rows.writeStream.foreachBatch(score).option("checkpointLocation", checkpoint).trigger(**when).start()
    query_id.set_result(query.id)
    try:
        query.awaitTermination()
    except StreamingQueryException:
        if refusals:
            # It would be a stack trace of Spark's.
            raise refusals[0] from None
        raise
    finally:
        query.stop()
    return batches
