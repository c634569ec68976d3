"""A Spark ML pipeline, applied by Spark itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from helpers import output
from helpers.data.names import quoted
from helpers.scoring.engines.base import Engine

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SKIPPED = "the Spark ML pipeline skips it: a value is missing, or is not known to the pipeline (handleInvalid)"


class SparkMLEngine(Engine):
    """A Spark ML model's own ``transform``.

    ``mlflow.pyfunc.spark_udf`` would start a Spark session inside each Python worker.

    A pipeline does not say why it refuses a row: it fails or leaves the row out, as the parameter ``handleInvalid`` of
    its stages says. The refused rows are therefore those that are missing in the result.
    """

    name = "spark ml"
    accepts_null_integers = True

    def check(self, rows: DataFrame) -> str:
        """Return the reason; a Spark ML model needs no check."""
        return "a Spark ML model's own transform"

    def apply(self, rows: DataFrame, keep: Sequence[str], *, each_class: bool = False) -> DataFrame:
        """Apply the pipeline; as a rule, the job fails at a row that it refuses, and ``problem`` is always null."""
        return self._transformed(self._pipeline(), rows, keep, each_class)

    def accepted(self, rows: DataFrame, keep: Sequence[str]) -> DataFrame:
        """Apply the pipeline, and make it leave out the rows that it refuses."""
        pipeline = self._pipeline()
        _skip_invalid(pipeline)
        return self._transformed(pipeline, rows, keep, each_class=False).drop("problem")

    def refused(self, rows: DataFrame, keep: Sequence[str]) -> DataFrame:
        """Return the rows that `accepted` leaves out."""
        from pyspark.sql import functions as F

        accepted = self.accepted(rows, keep).select(keep[0])
        refused = rows.select(*keep).join(accepted, keep[0], "left_anti")
        return refused.select(*keep, F.lit(SKIPPED).alias("problem"))

    def _pipeline(self) -> Any:
        import mlflow

        with output.quiet("mlflow.spark"):
            return mlflow.spark.load_model(self.model.folder.as_uri())

    def _transformed(self, pipeline: Any, rows: DataFrame, keep: Sequence[str], each_class: bool) -> DataFrame:
        from pyspark.ml.functions import vector_to_array
        from pyspark.sql import functions as F

        transformed = pipeline.transform(rows.select(*keep, *map(quoted, self.model.inputs)))
        probabilities = F.lit(None).cast("array<double>")
        if "probability" in transformed.columns:
            probabilities = vector_to_array(F.col("probability"))
        columns = [F.array_max(probabilities).alias("probability")]
        if each_class:
            columns.append(probabilities.alias("probabilities"))
        return transformed.select(*keep, "prediction", *columns, F.lit(None).cast("string").alias("problem"))


def _skip_invalid(stage: Any) -> None:
    """Make the stages of a pipeline leave out the rows at which they would fail."""
    for inner in getattr(stage, "stages", []):
        _skip_invalid(inner)
    # A one-hot encoder knows "keep" and "error" only; an indexer before it has skipped what it would refuse.
    # https://spark.apache.org/docs/latest/ml-features.html
    can_skip = stage.hasParam("handleInvalid") and not type(stage).__name__.startswith("OneHotEncoder")
    if can_skip and stage.getOrDefault("handleInvalid") == "error":
        stage.set(stage.handleInvalid, "skip")
