"""A Spark ML pipeline, applied by Spark itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from helpers import runtime
from helpers.data.names import quoted
from helpers.scoring import worker
from helpers.scoring.engines.base import LEFT_OUT, Engine
from helpers.scoring.engines.spark_ml_stages import PROBLEM, GuardedPipeline

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


class SparkMLEngine(Engine):
    """A Spark ML model's own ``transform``, stage by stage.

    ``mlflow.pyfunc.spark_udf`` would start a Spark session inside each Python worker.
    """

    name = "spark ml"
    accepts_null_integers = True
    may_leave_out = True

    def check(self, rows: DataFrame) -> str:
        """Return the reason; a Spark ML model needs no check."""
        return "a Spark ML model's own transform"

    def apply(self, rows: DataFrame, keep: Sequence[str], *, each_class: bool = False) -> DataFrame:
        """Apply the pipeline; a stage whose values `GuardedPipeline` does not check fails the job at an invalid one."""
        return _with_problem(self._scored(self._pipeline(rows).transform(self._inputs(rows, keep)), keep, each_class))

    def accepted(self, rows: DataFrame, keep: Sequence[str]) -> DataFrame:
        """Apply the pipeline, and leave out the rows that it refuses."""
        from pyspark.sql import functions as F

        scored = self._scored(self._pipeline(rows).transform(self._inputs(rows, keep), skip=True), keep)
        if "problem" not in scored.columns:
            return scored
        return _only(scored, F.col("problem").isNull()).drop("problem")

    def refused(self, rows: DataFrame, keep: Sequence[str]) -> DataFrame:
        """Return the rows that `accepted` leaves out, and why."""
        from pyspark.sql import functions as F

        pipeline = self._pipeline(rows)
        scored = _with_problem(self._scored(pipeline.transform(self._inputs(rows, keep), skip=True), keep))
        refused = _only(scored.select(*keep, "problem"), F.col("problem").isNotNull())
        if pipeline.may_leave_out:
            missing = rows.select(*keep).join(scored.select(keep[0]), keep[0], "left_anti")
            refused = refused.union(missing.select(*keep, F.lit(LEFT_OUT)))
        return refused

    def outcomes(self, rows: DataFrame, keep: Sequence[str]) -> DataFrame:
        """Apply the pipeline as `Engine.outcomes` says."""
        from pyspark.sql import functions as F

        pipeline = self._pipeline(rows)
        outcomes = _with_problem(self._scored(pipeline.transform(self._inputs(rows, keep), skip=True), keep))
        if not pipeline.may_leave_out:
            return outcomes
        nothing = [
            F.lit(None).cast(outcomes.schema[name].dataType).alias(name) for name in ("prediction", "probability")
        ]
        return outcomes.union(rows.select(*keep, *nothing, F.lit(LEFT_OUT).alias("problem")))

    def _pipeline(self, rows: DataFrame) -> GuardedPipeline:
        return GuardedPipeline.of(self.model.spark_pipeline, connect=runtime.uses_spark_connect(rows))

    def _inputs(self, rows: DataFrame, keep: Sequence[str]) -> DataFrame:
        return rows.select(*keep, *map(quoted, self.model.inputs))

    def _scored(self, transformed: DataFrame, keep: Sequence[str], each_class: bool = False) -> DataFrame:
        """Return the columns of `apply`; without ``problem`` if no row can have one."""
        from pyspark.ml.functions import vector_to_array
        from pyspark.sql import functions as F

        is_classifier = "probability" in transformed.columns
        probabilities = vector_to_array(F.col("probability")) if is_classifier else F.lit(None).cast("array<double>")
        outputs = {"prediction": F.col("prediction"), "probability": F.array_max(probabilities)}
        if each_class:
            outputs["probabilities"] = probabilities
        problems = []
        if PROBLEM in transformed.columns:
            problems = [F.col(PROBLEM)]
            outputs = {name: F.when(F.col(PROBLEM).isNull(), column) for name, column in outputs.items()}
        scored = transformed.select(*keep, *(column.alias(name) for name, column in outputs.items()), *problems)
        # A class is never NaN.
        if not is_classifier and scored.schema["prediction"].dataType.typeName() in ("double", "float"):
            value = F.col("prediction")
            problems.append(F.when(F.isnan(value) | (F.abs(value) == float("inf")), F.lit(worker.NOT_FINITE)))
        return scored.withColumn("problem", F.coalesce(*problems)).drop(PROBLEM) if problems else scored


def _with_problem(scored: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    return scored if "problem" in scored.columns else scored.withColumn("problem", F.lit(None).cast("string"))


def _only(rows: DataFrame, condition: Column) -> DataFrame:
    """Return the rows that fulfil a condition, without a filter.

    Spark's optimizer pushes a filter into the model's plan, and derives constraints for it from every column there,
    which takes long for wide models and may not end. It leaves alone an array that is expanded.
    """
    from pyspark.sql import functions as F

    return rows.select(F.inline(F.when(condition, F.array(F.struct(*rows.columns)))))
