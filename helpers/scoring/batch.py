"""Score rows with a registered model and write the predictions, batch by batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING

from helpers import runtime, storage
from helpers.data.columns import opaque
from helpers.data.names import RESERVED_COLUMNS, qualified_name, quoted
from helpers.parameters import ParameterError
from helpers.scoring import output_tables
from helpers.scoring.predictor import Predictor, load_version

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from pyspark.sql import DataFrame, Observation, SparkSession

    from helpers import parameters
    from helpers.scoring.engines import EngineChoice
    from helpers.scoring.engines.base import Engine
    from helpers.tracking import Session

# More rows in one Arrow batch were slower (tests/benchmarks/scoring.py), and wide rows take memory.
MOST_RECORDS = 100_000
BATCH_BYTES = 16 * 2**20
_BYTES = {"boolean": 1, "byte": 1, "short": 2, "integer": 4, "float": 4, "long": 8, "double": 8}
_BYTES_OF_OTHERS = 64
_ROW, _INPUTS = "_azureml_mlflow_row", "_azureml_mlflow_inputs"


@dataclass(frozen=True)
class ScoredBatch:
    """What `Scorer.score_batch` did.

    Attributes
    ----------
    batch_id : str
    rows_scored : int
    rows_replaced : int or None
        Rows that the table of predictions had of this batch before; None for a stream on Spark Connect, where nobody
        counts them.
    rows_quarantined : int
    engine : helpers.scoring.engines.EngineChoice
        What applied the model, and why.
    """

    batch_id: str
    rows_scored: int
    rows_replaced: int | None
    rows_quarantined: int
    engine: EngineChoice

    def __str__(self) -> str:
        replaced = "" if self.rows_replaced is None else f"{self.rows_replaced} of an earlier attempt replaced, "
        return f"batch {self.batch_id}: {self.rows_scored} rows scored, {replaced}{self.rows_quarantined} in quarantine"


@dataclass(frozen=True)
class Scorer:
    """A version of a model, and where its predictions go.

    The table of predictions is created if it is missing; see `helpers.storage.create_table`. It has the id, with
    ``keep_inputs`` the model's input columns as they are in the rows, then ``prediction``, ``probability`` (of the predicted class; null if the model gives none), ``model_name``,
    ``model_version``, ``scored_at`` (UTC) and ``batch_id``. The quarantine has the id, ``problem`` (why the row has
    no prediction), ``row`` (all its columns, as JSON), and the last four of these.

    Parameters
    ----------
    session : helpers.tracking.Session
    version : mlflow.entities.model_registry.ModelVersion
        From `helpers.tracking.resolve_version`.
    scoring_table : str
        The table that the rows are from.
    prediction_table : str
        Qualified name.
    id_column : str
    on_bad_rows : str, default "quarantine"
        What to do with rows that cannot be scored: ``quarantine`` writes them to a table of their own; ``fail``
        writes nothing at all.
    scoring_engine : str, default "auto"
        See `helpers.scoring.engines.choose`.
    max_records_per_batch : int, default 0
        How many rows a Python worker gets at once. 0: as many as take 16 MB, at most 100,000.
    env_manager : str, default "local"
        See `helpers.scoring.engines.base.Engine`.
    allow_pickle : bool, default False
        Whether to load a version that brings code and that this bundle did not register; see
        `helpers.scoring.trust.check_trust`.
    keep_inputs : bool, default False
        Whether the table of predictions has the model's inputs. They are added to a table without them, and a column
        that the table has and the rows lack is null.
    """

    session: Session
    version: ModelVersion
    scoring_table: str
    prediction_table: str
    id_column: str
    on_bad_rows: str = "quarantine"
    scoring_engine: str = "auto"
    max_records_per_batch: int = 0
    env_manager: str = "local"
    allow_pickle: bool = False
    keep_inputs: bool = False

    @classmethod
    def of(cls, session: Session, version: ModelVersion, p: parameters.Score) -> Scorer:
        """Return the scorer that the parameters describe."""
        table = p.prediction_table or output_tables.default_prediction_table(p.model_name)
        return cls(
            session,
            version,
            qualified_name(p.scoring_table, p.catalog, p.schema),
            qualified_name(table, p.catalog, p.schema),
            p.id_column,
            p.on_bad_rows,
            p.scoring_engine,
            p.max_records_per_batch,
            p.env_manager,
            p.allow_pickle,
            p.keep_inputs,
        )

    @property
    def quarantine_table(self) -> str:
        """Qualified name of the table of rows that cannot be scored."""
        return output_tables.quarantine_table(self.prediction_table)

    @cached_property
    def predictor(self) -> Predictor:
        """The model, downloaded when it is first needed."""
        return load_version(self.session, self.version, self.allow_pickle)

    def choose_engine(self, rows: DataFrame) -> EngineChoice:
        """Check rows against the model's signature and choose the engine that applies the model to them.

        Raises
        ------
        helpers.parameters.ParameterError
            If the rows do not fit, the engine that was asked for does not support the model, or the inputs cannot be
            kept.
        """
        self.predictor.check_columns(rows, "scoring_table", self.scoring_table)
        self.kept_inputs(rows)
        return self.predictor.choose_engine(rows, self.scoring_engine, self.env_manager)

    def kept_inputs(self, rows: DataFrame) -> list[str]:
        """Return the input columns that the table of predictions has beside the id.

        Raises
        ------
        helpers.parameters.ParameterError
            If the table cannot have them under their names.
        """
        if not self.keep_inputs:
            return []
        columns = {*rows.columns} - {self.id_column}
        inputs = [name for name in self.predictor.model.inputs if name in columns]
        _check_names(self.id_column, inputs)
        return inputs

    def score_batch(
        self, rows: DataFrame, batch_id: str = "", *, engine: EngineChoice | None = None, observe: bool = False
    ) -> ScoredBatch:
        """Score rows and write them as one batch, in place of what the batch had before.

        The predictions are replaced at once; after them, the rows in quarantine are replaced at once. A job that is
        killed between the two has to run again. On a laptop, jobs that write into one table wait for each other; on
        Databricks, a batch is scored again if another job has committed meanwhile.

        Parameters
        ----------
        rows : pyspark.sql.DataFrame
            From `helpers.scoring.rows.rows_to_score`.
        batch_id : str
            Empty for today's date (UTC).
        engine : helpers.scoring.engines.EngineChoice, optional
            From `choose_engine`; by default the one that it chooses now.
        observe : bool, default False
            Count the rows while they are scored, which is faster where rows take long to read. After that, Spark 4
            cannot apply a Spark ML model that was trained in the same session (its ObservationManager is not
            serializable).

        Raises
        ------
        helpers.parameters.ParameterError
            If the rows do not fit the model's signature, the predictions do not fit the table, a package that
            the model needs is missing, there are bad rows and ``on_bad_rows`` is ``fail``, or other jobs kept writing
            into the table.
        """
        from pyspark.sql import Observation

        batch_id = batch_id or datetime.now(timezone.utc).date().isoformat()
        choice = engine or self.choose_engine(rows)
        with storage.one_writer(rows.sparkSession, self.prediction_table):
            return self._replace_batch(rows, batch_id, choice, Observation() if observe else None)

    def _replace_batch(
        self, rows: DataFrame, batch_id: str, choice: EngineChoice, observation: Observation | None
    ) -> ScoredBatch:
        from pyspark.sql import functions as F

        spark = rows.sparkSession
        counted = rows.observe(observation, F.count(F.lit(1)).alias("rows")) if observation else rows
        apply = self.predictor.transform if self.on_bad_rows == "fail" else self.predictor.accepted
        inputs = self.kept_inputs(rows)
        keep = [self.id_column, *([_INPUTS] if inputs else [])]
        scored = apply(_with_inputs(counted, inputs), keep, choice.engine)
        predictions = self._with_origin(_unpacked(scored, inputs))
        output_tables.prepare(self.prediction_table, predictions, self.version.name, inputs)
        rows_replaced = output_tables.count_batch(spark, self.prediction_table, batch_id)
        with self.records_per_batch(spark), self._failures_explained(rows, choice.engine):
            output_tables.replace_batch(predictions, self.prediction_table, batch_id)
        rows_scored = output_tables.count_batch(spark, self.prediction_table, batch_id)
        rows_refused = (observation.get["rows"] if observation else rows.count()) - rows_scored
        if rows_refused or output_tables.count_batch(spark, self.quarantine_table, batch_id):
            self._quarantine(rows, batch_id, choice.engine)
        return ScoredBatch(batch_id, rows_scored, rows_replaced, rows_refused, choice)

    def _quarantine(self, rows: DataFrame, batch_id: str, engine: Engine) -> None:
        refused = self._with_origin(self._refused(rows, engine))
        output_tables.prepare(self.quarantine_table, refused, self.version.name)
        with self.records_per_batch(rows.sparkSession):
            output_tables.replace_batch(refused, self.quarantine_table, batch_id)

    def _refused(self, rows: DataFrame, engine: Engine) -> DataFrame:
        from pyspark.sql import functions as F

        refused = self.predictor.refused(_with_whole_row(rows), [self.id_column, _ROW], engine)
        return refused.select(quoted(self.id_column), "problem", F.col(_ROW).alias("row"))

    def outcomes(self, rows: DataFrame, engine: Engine) -> DataFrame:
        """Return the columns of both tables, except ``batch_id``, for rows of a stream.

        A row that the model refuses has a ``problem``, see `helpers.scoring.engines.base.Engine.outcomes`. With
        ``on_bad_rows=fail`` it fails the query instead, and there is neither ``problem`` nor ``row``.
        """
        inputs = self.kept_inputs(rows)
        keep = [self.id_column, *([_INPUTS] if inputs else [])]
        if self.on_bad_rows == "fail":
            outcomes = self.predictor.transform(_with_inputs(rows, inputs), keep, engine)
        else:
            with_all = _with_inputs(_with_whole_row(rows), inputs)
            outcomes = self.predictor.outcomes(with_all, [*keep, _ROW], engine).withColumnRenamed(_ROW, "row")
        return self._with_origin(_unpacked(outcomes, inputs))

    def _with_origin(self, rows: DataFrame) -> DataFrame:
        from pyspark.sql import functions as F

        return rows.select(
            "*",
            F.lit(self.version.name).alias("model_name"),
            F.lit(int(self.version.version)).alias("model_version"),
            F.current_timestamp().alias("scored_at"),
        )

    @contextlib.contextmanager
    def records_per_batch(self, spark: SparkSession) -> Iterator[None]:
        """Set, during the block, how many rows a Python worker of this scorer gets at once."""
        number = self.max_records_per_batch
        if not number:
            types = self.predictor.model.inputs.values()
            row_bytes = sum(_BYTES.get(input_type.typeName(), _BYTES_OF_OTHERS) for input_type in types)
            # The inputs that are kept travel beside those that are converted.
            row_bytes *= 2 if self.keep_inputs else 1
            number = min(MOST_RECORDS, max(BATCH_BYTES // row_bytes, 1))
        with runtime.spark_setting(spark, "spark.sql.execution.arrow.maxRecordsPerBatch", str(number)):
            yield

    @contextlib.contextmanager
    def _failures_explained(self, rows: DataFrame, engine: Engine) -> Iterator[None]:
        from py4j.protocol import Py4JJavaError
        from pyspark.errors import PySparkException

        try:
            yield
        except (PySparkException, Py4JJavaError) as error:
            explained = self.predictor.model.explained(error)
            if explained:
                raise explained from None
            refused = self._refused(rows, engine).limit(3).collect() if self.on_bad_rows == "fail" else []
            if not refused:
                raise
            raise self.bad_rows(
                "; ".join(f"{self.id_column}={row[self.id_column]!r}: {row['problem']}" for row in refused)
            ) from None

    def bad_rows(self, examples: str) -> ParameterError:
        """Return the error that says that rows cannot be scored, with examples."""
        return ParameterError(
            "on_bad_rows",
            "fail",
            f"{self.scoring_table} has rows that {self.version.name} version {self.version.version} cannot score, and "
            f"nothing was written. For instance {examples}. Correct them, exclude them with scoring_filter, or set "
            "on_bad_rows=quarantine.",
        )


def _check_names(id_column: str, inputs: list[str]) -> None:
    seen = {id_column.lower(): id_column}
    for name in inputs:
        if name.lower() in RESERVED_COLUMNS:
            problem = f"the input {name!r} has the name of a column that scoring writes ({', '.join(RESERVED_COLUMNS)})"
        elif name.lower() in seen:
            problem = f"the names {seen[name.lower()]!r} and {name!r} differ only in case"
        else:
            seen[name.lower()] = name
            continue
        raise ParameterError(
            "keep_inputs",
            "true",
            f"{problem}, so the table of predictions cannot have it. Set keep_inputs=false, or rename it",
        )


def _with_whole_row(rows: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    return rows.withColumn(_ROW, opaque(F.to_json(F.struct(*(F.col(quoted(name)) for name in rows.columns)))))


def _with_inputs(rows: DataFrame, inputs: list[str]) -> DataFrame:
    """Return rows with all inputs in one column, which passes through the model's plan as if there were none."""
    from pyspark.sql import functions as F

    return rows.withColumn(_INPUTS, opaque(F.struct(*map(quoted, inputs)))) if inputs else rows


def _unpacked(scored: DataFrame, inputs: list[str]) -> DataFrame:
    """Return the inputs of `_with_inputs` as columns again."""
    from pyspark.sql import functions as F

    if not inputs:
        return scored
    # A generator, because Spark's analysis and optimizer take long for hundreds of fields that are asked for one by one.
    columns = (F.inline(F.array(name)) if name == _INPUTS else F.col(quoted(name)) for name in scored.columns)
    return scored.select(*columns)
