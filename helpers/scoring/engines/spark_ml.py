"""A Spark ML pipeline, applied by Spark itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import output

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

SKIPPED = "the Spark ML pipeline skips it, for a value that is missing or that it does not know (handleInvalid)"


@dataclass(frozen=True)
class SparkMLEngine:
    """A Spark ML model's own ``transform``.

    Through ``mlflow.pyfunc.spark_udf`` it would start a Spark session inside each Python worker.

    Parameters
    ----------
    folder : pathlib.Path
        The MLflow model.
    """

    folder: Path

    def transform(self, rows: DataFrame, keep: Sequence[Column], inputs: dict[str, Column], skip: bool) -> DataFrame:
        """Apply the model.

        Parameters
        ----------
        rows : pyspark.sql.DataFrame
        keep : sequence of pyspark.sql.Column
            What else the result has.
        inputs : dict of str to pyspark.sql.Column
            The values of the signature's columns.
        skip : bool
            Leave out the rows that the model refuses. Otherwise it does what it was logged to do: as a rule, the
            job fails at the first.

        Returns
        -------
        pyspark.sql.DataFrame
            ``keep``, ``prediction`` and ``probabilities`` (array of double; null if the model gives none).
        """
        import mlflow
        from pyspark.ml.functions import vector_to_array
        from pyspark.sql import functions as F

        given = rows.select(*keep, *(column.alias(name) for name, column in inputs.items()))
        with output.quiet("mlflow.spark"):
            model = mlflow.spark.load_model(self.folder.as_uri())
        if skip:
            _skip_what_is_invalid(model)
        scored = model.transform(given)
        probabilities = F.lit(None).cast("array<double>")
        if "probability" in scored.columns:
            probabilities = vector_to_array(F.col("probability"))
        return scored.select(*given.columns[: len(keep)], "prediction", probabilities.alias("probabilities"))


def _skip_what_is_invalid(model: Any) -> None:
    for stage in getattr(model, "stages", []):
        _skip_what_is_invalid(stage)
    # An encoder of categories knows "keep" and "error" only; what it refuses, an indexer before it has skipped.
    # https://spark.apache.org/docs/latest/ml-features.html
    skips = model.hasParam("handleInvalid") and not type(model).__name__.startswith("OneHotEncoder")
    if skips and model.getOrDefault("handleInvalid") == "error":
        model.set(model.handleInvalid, "skip")
