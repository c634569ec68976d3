"""A Spark ML pipeline, applied by Spark itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from helpers import output, runtime
from helpers.data.names import quoted
from helpers.scoring.engines.base import Engine
from helpers.scoring.engines.spark_ml_stages import PROBLEM, GuardedPipeline

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

LEFT_OUT = "the Spark ML pipeline leaves out the row: a value is missing, or is not known to the pipeline"


class SparkMLEngine(Engine):
    """A Spark ML model's own ``transform``, stage by stage.

    ``mlflow.pyfunc.spark_udf`` would start a Spark session inside each Python worker.
    """

    name = "spark ml"
    accepts_null_integers = True

    def check(self, rows: DataFrame) -> str:
        """Return the reason; a Spark ML model needs no check."""
        return "a Spark ML model's own transform"

    def apply(self, rows: DataFrame, keep: Sequence[str], *, each_class: bool = False) -> DataFrame:
        """Apply the pipeline; a stage whose values `GuardedPipeline` does not check fails the job at an invalid one."""
        return self._scored(self._pipeline(rows).transform(self._inputs(rows, keep)), keep, each_class)

    def accepted(self, rows: DataFrame, keep: Sequence[str]) -> DataFrame:
        """Apply the pipeline, and leave out the rows that it refuses."""
        from pyspark.sql import functions as F

        transformed = self._pipeline(rows).transform(self._inputs(rows, keep), skip=True)
        scored = self._scored(transformed, keep, each_class=False)
        if PROBLEM in transformed.columns:
            scored = _only(scored, F.col("problem").isNull())
        return scored.drop("problem")

    def refused(self, rows: DataFrame, keep: Sequence[str]) -> DataFrame:
        """Return the rows that `accepted` leaves out, and why."""
        from pyspark.sql import functions as F

        pipeline = self._pipeline(rows)
        transformed = pipeline.transform(self._inputs(rows, keep), skip=True)
        problem = F.col(PROBLEM) if PROBLEM in transformed.columns else F.lit(None).cast("string")
        refused = _only(transformed.select(*keep, problem.alias("problem")), F.col("problem").isNotNull())
        if pipeline.may_leave_out:
            missing = rows.select(*keep).join(transformed.select(keep[0]), keep[0], "left_anti")
            refused = refused.union(missing.select(*keep, F.lit(LEFT_OUT)))
        return refused

    def _pipeline(self, rows: DataFrame) -> GuardedPipeline:
        import mlflow

        with output.quiet("mlflow.spark"):
            pipeline = mlflow.spark.load_model(self.model.folder.as_uri())
        return GuardedPipeline.of(pipeline, connect=runtime.uses_spark_connect(rows))

    def _inputs(self, rows: DataFrame, keep: Sequence[str]) -> DataFrame:
        return rows.select(*keep, *map(quoted, self.model.inputs))

    def _scored(self, transformed: DataFrame, keep: Sequence[str], each_class: bool) -> DataFrame:
        from pyspark.ml.functions import vector_to_array
        from pyspark.sql import functions as F

        prediction: Column = F.col("prediction")
        probabilities = problem = F.lit(None)
        if "probability" in transformed.columns:
            probabilities = vector_to_array(F.col("probability"))
        if PROBLEM in transformed.columns:
            problem = F.col(PROBLEM)
            prediction, probabilities = (F.when(problem.isNull(), column) for column in (prediction, probabilities))
        probabilities = probabilities.cast("array<double>")
        columns = [prediction.alias("prediction"), F.array_max(probabilities).alias("probability")]
        if each_class:
            columns.append(probabilities.alias("probabilities"))
        return transformed.select(*keep, *columns, problem.cast("string").alias("problem"))


def _only(rows: DataFrame, condition: Column) -> DataFrame:
    """Return the rows that fulfil a condition, without a filter.

    Spark's optimizer pushes a filter into the model's plan, and derives constraints for it from every column there,
    which takes long for wide models and may not end. It leaves alone an array that is expanded.
    """
    from pyspark.sql import functions as F

    return rows.select(F.inline(F.when(condition, F.array(F.struct(*rows.columns)))))
