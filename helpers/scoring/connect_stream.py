"""A stream on Spark Connect, where micro-batches are written by a process that has neither the session nor the bundle."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from helpers import storage
from helpers.data.names import quoted
from helpers.parameters import ParameterError
from helpers.scoring import output_tables
from helpers.scoring.batch import ScoredBatch, Scorer
from helpers.scoring.engines.base import LEFT_OUT

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.streaming import StreamingQuery

_ORIGIN = ("model_name", "model_version", "scored_at")


class ConnectStream:
    """A streaming query that applies the model itself, and a function that only writes what each micro-batch gives.

    Spark pickles the function and runs it beside the server, so what it did is read from the tables afterwards.
    https://learn.microsoft.com/azure/databricks/structured-streaming/foreach
    """

    def __init__(self, scorer: Scorer, rows: DataFrame, on_batch: Callable[[ScoredBatch], Any] | None) -> None:
        self.batches: list[ScoredBatch] = []
        self._scorer, self._rows, self._on_batch = scorer, rows, on_batch
        self._spark = rows.sparkSession
        self._choice = scorer.choose_engine(self._spark.table(scorer.scoring_table))
        self._query: StreamingQuery | None = None
        self._seen: set[int] = set()

    def start(self, checkpoint: str, when: dict[str, Any]) -> StreamingQuery:
        """Create the tables that are missing, and start the query."""
        scorer, engine = self._scorer, self._choice.engine
        sample = scorer.outcomes(self._spark.table(scorer.scoring_table), engine)
        inputs = scorer.kept_inputs(self._rows)
        tables = {scorer.prediction_table: [scorer.id_column, *inputs, *output_tables.RESULT_COLUMNS]}
        if scorer.on_bad_rows == "quarantine":
            tables[scorer.quarantine_table] = [scorer.id_column, "problem", "row", *_ORIGIN]
        for table, columns in tables.items():
            of_table = sample.select(*map(quoted, columns))
            output_tables.prepare(table, of_table, scorer.version.name, [name for name in inputs if name in columns])
        # The name finds the query in the process that runs the function.
        name = f"{scorer.version.name} {uuid.uuid4().hex}"
        write = _batch_function(
            name,
            tables,
            scorer.id_column,
            storage.rows_replacer(),
            output_tables.BATCH_COLUMN,
            engine.may_leave_out,
        )
        writer = (
            scorer.outcomes(self._rows, engine).writeStream.queryName(name).option("checkpointLocation", checkpoint)
        )
        with storage.pickled_by_value(), scorer.records_per_batch(self._spark):
            self._query = writer.foreachBatch(write).trigger(**when).start()
        return self._query

    def update(self) -> None:
        """Add the micro-batches that were written since the last time."""
        if self._query is None:
            return
        for progress in self._query.recentProgress:
            number = int(progress["batchId"])
            # Otherwise there was no new row, and a later micro-batch may have the number.
            if number in self._seen or "addBatch" not in progress["durationMs"]:
                continue
            self._seen.add(number)
            batch_id = batch_name(self._query.id, number)
            scorer = self._scorer
            scored, refused = (
                output_tables.count_batch(self._spark, table, batch_id)
                for table in (scorer.prediction_table, scorer.quarantine_table)
            )
            if scored or refused:
                batch = ScoredBatch(batch_id, scored, None, refused, self._choice)
                self.batches.append(batch)
                if self._on_batch:
                    self._on_batch(batch)

    def refusal(self, error: Exception) -> ParameterError | None:
        """Return what ended the query, if it is the model's or the rows'."""
        refused = re.search(r"refuses the row (.*?)(?:\s+SQLSTATE|\n|$)", str(error))
        if refused and self._scorer.on_bad_rows == "fail":
            return self._scorer.bad_rows(refused[1])
        conflict = re.search(r"WriteConflict: (.*)", str(error))
        if conflict:
            return ParameterError("prediction_table", self._scorer.prediction_table, conflict[1])
        return self._scorer.predictor.model.explained(error)


def batch_name(query_id: str, number: int) -> str:
    """Return the ``batch_id`` of a micro-batch."""
    return f"stream-{query_id[:8]}-{number:06}"


def _batch_function(
    query_name: str,
    tables: dict[str, list[str]],
    id_column: str,
    replace: Callable[[DataFrame, str, str, str], None],
    batch_column: str,
    may_leave_out: bool,
) -> Callable[[DataFrame, int], None]:
    """Return the function that writes a micro-batch. What it uses is in it, because it is pickled by value."""
    left_out, quoted_id = LEFT_OUT, quoted(id_column)
    tables = {table: [quoted(name) for name in columns] for table, columns in tables.items()}

    def only(rows: DataFrame, condition: Any) -> DataFrame:
        from pyspark.sql import functions as F

        # See `helpers.scoring.engines.spark_ml`: a filter would send Spark's optimizer through the columns of a wide model.
        columns = [F.col("`" + name.replace("`", "``") + "`") for name in rows.columns]
        return rows.select(F.inline(F.when(condition, F.array(F.struct(*columns)))))

    def write(rows: DataFrame, number: int) -> None:
        from pyspark.sql import functions as F

        spark = rows.sparkSession
        if rows.isEmpty():
            return
        (query_id,) = (query.id for query in spark.streams.active if query.name == query_name)
        batch_id = f"stream-{query_id[:8]}-{number:06}"
        (predictions, columns), *quarantine = tables.items()
        accepted = only(rows, F.col("problem").isNull()) if quarantine else rows
        replace(accepted.select(*columns), predictions, batch_column, batch_id)
        for table, columns in quarantine:
            refused = only(rows, F.col("problem").isNotNull() & (F.col("problem") != left_out))
            if may_leave_out:
                present = only(rows, F.col("problem").isNull() | (F.col("problem") != left_out))
                present = present.select(F.col(quoted_id).alias("_present"))
                is_present = F.col(quoted_id).eqNullSafe(F.col("_present"))
                missing = only(rows, F.col("problem") == left_out).join(present, is_present, "left_anti")
                refused = refused.unionByName(missing)
            refused = refused.select(*columns)
            before = spark.table(table).where(F.col(batch_column) == batch_id)
            if not refused.isEmpty() or not before.isEmpty():
                replace(refused, table, batch_column, batch_id)

    return write
