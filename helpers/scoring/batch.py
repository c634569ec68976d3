"""Score rows of a table with a registered model and keep the predictions, batch by batch."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING

from helpers import runtime, storage
from helpers.data import checks, names, tables
from helpers.ownership import MARK
from helpers.parameters import ParameterError
from helpers.scoring import predictor as prediction

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from pyspark.sql import DataFrame, SparkSession

# More rows than that in one Arrow batch were slower (tests/benchmarks/scoring.py), and wide ones take memory.
MOST_RECORDS = 100_000
BATCH_BYTES = 16 * 2**20
_BYTES = {"boolean": 1, "byte": 1, "short": 2, "integer": 4, "float": 4, "long": 8, "double": 8}
_BYTES_OF_OTHERS = 64
_ROW = "_azureml_mlflow_row"


@dataclass(frozen=True)
class ScoredBatch:
    """What `Scorer.score_batch` did.

    Attributes
    ----------
    batch_id : str
    rows_scored : int
    rows_replaced : int
        Rows that the batch had in the table before.
    rows_quarantined : int
    engine : helpers.scoring.predictor.Engine
        What applied the model.
    """

    batch_id: str
    rows_scored: int
    rows_replaced: int
    rows_quarantined: int
    engine: prediction.Engine

    def __str__(self) -> str:
        return (
            f"batch {self.batch_id}: {self.rows_scored} rows scored, {self.rows_replaced} of an earlier attempt replaced, "
            f"{self.rows_quarantined} in quarantine"
        )


def default_prediction_table(model_name: str) -> str:
    """Return the table that a model's predictions go to when none is named.

    One a model, because another model has another id column and other labels.
    """
    return re.sub(r"\W", "_", model_name) + "_predictions"


def quarantine_table(prediction_table: str) -> str:
    """Return the qualified name of the table of rows that cannot be scored, beside that of the predictions."""
    return names.qualified_name(prediction_table.replace("`", "") + "_quarantine", "", "")


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
    rows = _picked(tables.read_table(spark, scoring_table, "scoring_table"), scoring_table, scoring_filter)
    if not checks.check_id(rows, id_column):
        if scoring_filter:
            raise ParameterError("scoring_filter", scoring_filter, f"no row of {scoring_table} fulfils it")
        raise ParameterError("scoring_table", scoring_table, "has no rows to score")
    return rows


def new_rows(spark: SparkSession, scoring_table: str, scoring_filter: str, id_column: str) -> DataFrame:
    """Return a table as a stream of the rows that are added to it, for `helpers.scoring.stream.score_new_rows`.

    Parameters and errors are those of `rows_to_score`, but that it cannot be seen whether ids are unique, and that
    there need not be a row.
    """
    checks.require_column(tables.read_table(spark, scoring_table, "scoring_table"), id_column, "id_column")
    return _picked(spark.readStream.table(scoring_table), scoring_table, scoring_filter)


def _picked(rows: DataFrame, scoring_table: str, scoring_filter: str) -> DataFrame:
    from pyspark.errors import AnalysisException

    try:
        picked = rows.where(scoring_filter) if scoring_filter else rows
        # Spark Connect looks at the condition now only if it is asked for something.
        picked.schema  # noqa: B018
        return picked
    except AnalysisException as error:
        # A parse error is one, too.
        reason = " ".join(line for line in str(error).splitlines() if line.strip())
        raise ParameterError(
            "scoring_filter", scoring_filter, f"is not a condition on {scoring_table}: {reason}"
        ) from None


@dataclass(frozen=True)
class Scorer:
    """A version of a model, and where its predictions go.

    The table of predictions is created if it is missing, partitioned by ``batch_id``. It has the id, then
    ``prediction``, ``probability`` (of the predicted class; null if the model gives none), ``model_name``,
    ``model_version``, ``scored_at`` (UTC) and ``batch_id``. The quarantine has the id, ``problem`` (why the row has
    no prediction), ``row`` (all its columns, as JSON), and the last four of these.

    Parameters
    ----------
    version : mlflow.entities.model_registry.ModelVersion
        From `helpers.registration.register.resolve_version`.
    scoring_table : str
        Where the rows come from, for messages.
    prediction_table : str
        Qualified name.
    id_column : str
    on_bad_rows : str, default "quarantine"
        What to do with rows that cannot be scored: ``quarantine`` puts them into a table of their own; ``fail``
        writes nothing at all.
    scoring_engine : str, default "auto"
        See `helpers.scoring.predictor.Predictor.engine`.
    max_records_per_batch : int, default 0
        Rows that Python gets at once. 0: as many as 16 MB have, at most 100,000.
    env_manager : str, default "local"
        See `helpers.scoring.engines.python.PythonEngine`.
    """

    version: ModelVersion
    scoring_table: str
    prediction_table: str
    id_column: str
    on_bad_rows: str = "quarantine"
    scoring_engine: str = "auto"
    max_records_per_batch: int = 0
    env_manager: str = "local"
    _chosen: list[prediction.Engine] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def quarantine_table(self) -> str:
        """Qualified name of the table of rows that cannot be scored."""
        return quarantine_table(self.prediction_table)

    @cached_property
    def predictor(self) -> prediction.Predictor:
        """The model, downloaded when it is first needed."""
        return prediction.load(f"models:/{self.version.name}/{self.version.version}")

    def engine(self, rows: DataFrame) -> prediction.Engine:
        """Check rows against the model's signature and choose what applies it, once.

        Raises
        ------
        helpers.parameters.ParameterError
            If the rows do not fit.
        """
        if not self._chosen:
            self.predictor.check_columns(rows, "scoring_table", self.scoring_table)
            self._chosen.append(self.predictor.engine(rows, self.scoring_engine, self.env_manager))
        return self._chosen[0]

    def score_batch(self, rows: DataFrame, batch_id: str = "", *, observe: bool = False) -> ScoredBatch:
        """Score rows and write them as one batch, in place of what the batch had before.

        Predictions are replaced at once, and so are rows in quarantine, after them. A job that is killed between
        the two has to run again.

        Parameters
        ----------
        rows : pyspark.sql.DataFrame
            From `rows_to_score`.
        batch_id : str
            Empty for today's date (UTC).
        observe : bool, default False
            Count the rows while they are scored, where it takes long to read them again. After that, Spark 4 cannot
            apply a Spark ML model that was trained in their session (its ObservationManager is not serializable).

        Raises
        ------
        helpers.parameters.ParameterError
            If the rows do not fit the model's signature, the predictions do not fit the table, a package that
            the model needs is missing, or there are bad rows and ``on_bad_rows`` is ``fail``.
        """
        from pyspark.sql import Observation
        from pyspark.sql import functions as F

        spark, batch_id = rows.sparkSession, batch_id or datetime.now(timezone.utc).date().isoformat()
        engine, model = self.engine(rows), self.predictor
        observation = Observation() if observe else None
        counted = rows.observe(observation, F.count(F.lit(1)).alias("rows")) if observation else rows
        transform = model.transform if self.on_bad_rows == "fail" else model.transform_accepted
        predictions = self._described(transform(counted, [self.id_column], engine))
        self._prepare(spark, self.prediction_table, predictions, "batch_id")
        replaced = self._rows_of_batch(spark, self.prediction_table, batch_id)
        with self._records_per_batch(spark), self._failures_explained(rows, engine):
            storage.replace_partition(predictions, self.prediction_table, "batch_id", batch_id)
        rows_scored = self._rows_of_batch(spark, self.prediction_table, batch_id)
        refused = (observation.get["rows"] if observation else rows.count()) - rows_scored
        self._quarantine(rows, batch_id, engine, refused)
        return ScoredBatch(batch_id, rows_scored, replaced, refused, engine)

    def _quarantine(self, rows: DataFrame, batch_id: str, engine: prediction.Engine, number: int) -> None:
        spark = rows.sparkSession
        if not number and not self._rows_of_batch(spark, self.quarantine_table, batch_id):
            return
        refused = self._described(self._refused(rows, engine))
        self._prepare(spark, self.quarantine_table, refused, "batch_id")
        with self._records_per_batch(spark):
            storage.replace_partition(refused, self.quarantine_table, "batch_id", batch_id)

    def _refused(self, rows: DataFrame, engine: prediction.Engine) -> DataFrame:
        from pyspark.sql import functions as F

        whole = F.to_json(F.struct(*(F.col(names.quoted(name)) for name in rows.columns)))
        refused = self.predictor.refused(rows.withColumn(_ROW, whole), [self.id_column, _ROW], engine)
        return refused.select(names.quoted(self.id_column), "problem", F.col(_ROW).alias("row"))

    def _described(self, rows: DataFrame) -> DataFrame:
        from pyspark.sql import functions as F

        return rows.select(
            "*",
            F.lit(self.version.name).alias("model_name"),
            F.lit(int(self.version.version)).alias("model_version"),
            F.current_timestamp().alias("scored_at"),
        )

    def _prepare(self, spark: SparkSession, table: str, rows: DataFrame, partition: str) -> None:
        """Create a table for rows if it is missing, or check that it has their columns."""
        from pyspark.sql import functions as F

        expected = rows.withColumn(partition, F.lit(""))
        if not tables.exists(spark, table):
            storage.replace_table(
                spark.createDataFrame([], expected.schema), table, {MARK: self.version.name}, partitioned_by=partition
            )
        found = spark.table(table)
        if found.dtypes != expected.dtypes:
            raise ParameterError(
                "prediction_table",
                table,
                f"has other columns than these predictions: it has {_columns(found)}; they have {_columns(expected)}. "
                "Name another table.",
            )

    @staticmethod
    def _rows_of_batch(spark: SparkSession, table: str, batch_id: str) -> int:
        from pyspark.sql import functions as F

        return spark.table(table).where(F.col("batch_id") == batch_id).count() if tables.exists(spark, table) else 0

    @contextlib.contextmanager
    def _records_per_batch(self, spark: SparkSession) -> Iterator[None]:
        number = self.max_records_per_batch
        if not number:
            width = sum(_BYTES.get(kind.typeName(), _BYTES_OF_OTHERS) for kind in self.predictor.inputs.values())
            number = min(MOST_RECORDS, max(BATCH_BYTES // width, 1))
        with runtime.spark_setting(spark, "spark.sql.execution.arrow.maxRecordsPerBatch", str(number)):
            yield

    @contextlib.contextmanager
    def _failures_explained(self, rows: DataFrame, engine: prediction.Engine) -> Iterator[None]:
        from py4j.protocol import Py4JJavaError
        from pyspark.errors import PySparkException

        try:
            yield
        except (PySparkException, Py4JJavaError) as error:
            explained = self.predictor.missing_package(error)
            if explained:
                raise explained from None
            bad = self._refused(rows, engine).limit(3).collect() if self.on_bad_rows == "fail" else []
            if not bad:
                raise
            examples = "; ".join(f"{self.id_column}={row[self.id_column]!r}: {row['problem']}" for row in bad)
            raise ParameterError(
                "on_bad_rows",
                "fail",
                f"{self.scoring_table} has rows that {self.version.name} version {self.version.version} cannot score, "
                f"and nothing was written. For instance {examples}. Mend them, leave them out with scoring_filter, or "
                "say on_bad_rows=quarantine.",
            ) from None


def _columns(rows: DataFrame) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in rows.dtypes)
