"""Score only the rows that were added to a table since the last time, each exactly once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from helpers import runtime, storage
from helpers.parameters import ParameterError
from helpers.scoring.batch import ScoredBatch, Scorer
from helpers.scoring.connect_stream import ConnectStream, batch_name

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.streaming import StreamingQuery

    from helpers.scoring.engines import EngineChoice

AVAILABLE_NOW = "available_now"
_SECONDS_BETWEEN_LINES = 1


def score_new_rows(
    scorer: Scorer,
    rows: DataFrame,
    checkpoint: str,
    trigger: str = AVAILABLE_NOW,
    on_batch: Callable[[ScoredBatch], Any] | None = None,
) -> list[ScoredBatch]:
    """Score the rows that no earlier call with this checkpoint has scored.

    Spark records in the checkpoint which rows a micro-batch has before it is scored, and afterwards that it is done.
    A micro-batch that a killed job has left undone is scored again, with the same rows. It replaces what it had
    written, because it is written as the batch ``stream-<id of the checkpoint>-<number>``.
    https://spark.apache.org/docs/latest/streaming/apis-on-dataframes-and-datasets.html#foreachbatch

    Parameters
    ----------
    scorer : helpers.scoring.batch.Scorer
        Its model is downloaded when there is a row to score.
    rows : pyspark.sql.DataFrame
        From `helpers.scoring.rows.new_rows`.
    checkpoint : str
        Folder; empty for one beside the table of predictions. Deleting it makes all rows new.
    trigger : str, default "available_now"
        ``available_now``: end when all rows are scored that the table had at the start. An interval such as ``1
        minute``: look for new rows that often, until the job is cancelled.
    on_batch : callable, optional
        Called with each micro-batch when it is written and not yet committed, in a thread of Spark's; on Spark Connect when
        it is committed. By default the batch is printed, from the calling thread: Jupyter shows what Spark's thread prints in the cell that started the first
        stream.

    Returns
    -------
    list of ScoredBatch
        One per micro-batch; empty if there was no new row.

    Raises
    ------
    helpers.parameters.ParameterError
        If serverless compute does not take the trigger; if the tables were moved since the checkpoint was made; and for
        the reasons of `helpers.scoring.batch.Scorer.score_batch`. What was written before stays, and is not scored again.
    """
    from pyspark.errors import StreamingQueryException

    if trigger != AVAILABLE_NOW and runtime.is_serverless():
        raise ParameterError(
            "trigger",
            trigger,
            "serverless compute takes available_now only; schedule the job as often as rows are to be scored, or run it on "
            "a cluster (https://learn.microsoft.com/azure/databricks/compute/serverless/limitations)",
        )
    stream_class = ConnectStream if runtime.uses_spark_connect(rows) else _Stream
    stream = stream_class(scorer, rows, on_batch)
    checkpoint = checkpoint or storage.checkpoint_folder(rows.sparkSession, scorer.prediction_table)
    storage.check_checkpoint(checkpoint)
    query = stream.start(
        checkpoint, {"availableNow": True} if trigger == AVAILABLE_NOW else {"processingTime": trigger}
    )
    shown = 0
    try:
        while not query.awaitTermination(_SECONDS_BETWEEN_LINES):
            stream.update()
            shown = _print_new(stream.batches, shown, on_batch)
    except StreamingQueryException as error:
        refusal = stream.refusal(error)
        if refusal is not None:
            # Spark's own error would be a stack trace.
            raise refusal from None
        raise
    finally:
        stream.update()
        _print_new(stream.batches, shown, on_batch)
        query.stop()
    return stream.batches


def _print_new(batches: list[ScoredBatch], shown: int, on_batch: object) -> int:
    """Print the new batches, unless `on_batch` receives them; return the number of all batches."""
    new = batches[shown:]
    if on_batch is None:
        for batch in new:
            print(batch)
    return shown + len(new)


class _Stream:
    """A streaming query and what its micro-batches have done."""

    def __init__(self, scorer: Scorer, rows: DataFrame, on_batch: Callable[[ScoredBatch], Any] | None) -> None:
        self.batches: list[ScoredBatch] = []
        self._refusal: ParameterError | None = None
        self._scorer, self._rows, self._on_batch = scorer, rows, on_batch
        self._query_id, self._started = "", threading.Event()

    def start(self, checkpoint: str, when: dict[str, Any]) -> StreamingQuery:
        writer = self._rows.writeStream.foreachBatch(self._score).option("checkpointLocation", checkpoint)
        query = writer.trigger(**when).start()
        self._query_id = query.id
        self._started.set()
        return query

    def update(self) -> None:
        """Do nothing: micro-batches are added when they are written."""

    def refusal(self, error: Exception) -> ParameterError | None:
        """Return what ended the query, if it is the rows or the model."""
        return self._refusal

    def _score(self, rows: DataFrame, number: int) -> None:
        """Score a micro-batch; Spark may call this before `start` knows the query's id."""
        if rows.isEmpty():
            return
        self._started.wait()
        try:
            # Rows are counted while they are scored, because whatever is asked of a micro-batch reads it again.
            batch_id = batch_name(self._query_id, number)
            batch = self._scorer.score_batch(rows, batch_id, engine=self._engine, observe=True)
        except ParameterError as error:
            self._refusal = error
            raise
        self.batches.append(batch)
        if self._on_batch:
            self._on_batch(batch)

    @cached_property
    def _engine(self) -> EngineChoice:
        """The engine, chosen once by rows of the table, because a micro-batch would be read in full for it."""
        return self._scorer.choose_engine(self._rows.sparkSession.table(self._scorer.scoring_table))
