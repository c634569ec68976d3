"""Predictions of an endpoint, read from the files in which Azure ML, or a local endpoint, collects its requests.

https://learn.microsoft.com/azure/machine-learning/how-to-collect-production-data
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.data.names import quoted
from helpers.monitoring.bins import NumberBins, text_literal
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import Column, DataFrame, SparkSession

    from helpers.monitoring.bins import Bins

_FILES = "*.jsonl"
# One event per request and collection. `data` has its rows, and is read as text: each model has other columns.
_EVENT = "id STRING, time TIMESTAMP, correlationid STRING, data STRING"
_ROWS = "array<map<string,string>>"
_PREDICTION = "prediction"


def read_collected(spark: SparkSession, folder: str, id_column: str, model_name: str) -> DataFrame:
    """Return the requests that an endpoint has answered, in the columns of a table of predictions.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    folder : str
        ``…/modelDataCollector/<endpoint>``: below it ``<deployment>/model_inputs/…/<hour>/*.jsonl``, and the same of
        ``model_outputs``. A deployment that this bundle made ends with ``-<version>``; others are left out.
    id_column : str
        Gets ``<correlation id>-<number of the row>``.
    model_name : str

    Returns
    -------
    pyspark.sql.DataFrame
        `id_column`, prediction, probability (null), model_name, model_version, scored_at, batch_id (the deployment), and
        ``inputs``, a map from column to text; see `with_columns`.

    Raises
    ------
    helpers.parameters.ParameterError
        If the folder does not exist or cannot be read.
    """
    from pyspark.sql import functions as F

    events = _events(spark, folder)
    inputs, outputs = (_rows_of(events, kind) for kind in ("inputs", "outputs"))
    keys = ["deployment", "correlationid", "number"]
    # MLflow names the column of predictions as the model does; those of a model without a name get a number.
    values = F.coalesce(F.col("outputs")[_PREDICTION], F.map_values("outputs")[0])
    return inputs.join(outputs.drop("time"), keys).select(
        F.concat_ws("-", "correlationid", "number").alias(id_column),
        values.alias(_PREDICTION),
        F.lit(None).cast("double").alias("probability"),
        F.lit(model_name).alias("model_name"),
        _version_of("deployment"),
        F.col("time").alias("scored_at"),
        F.col("deployment").alias("batch_id"),
        "inputs",
    )


def read_answered(spark: SparkSession, folder: str) -> DataFrame:
    """Return a row for each row that an endpoint has answered, whether its inputs were collected or not.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    folder : str
        As for `read_collected`.

    Returns
    -------
    pyspark.sql.DataFrame
        model_version, scored_at, batch_id (the deployment).
    """
    from pyspark.sql import functions as F

    outputs = _rows_of(_events(spark, folder), "outputs")
    return outputs.select(
        _version_of("deployment"), F.col("time").alias("scored_at"), F.col("deployment").alias("batch_id")
    )


def _version_of(deployment: str) -> Column:
    from pyspark.sql import functions as F

    return F.regexp_extract(deployment, "-([0-9]+)$", 1).cast("int").alias("model_version")


def _events(spark: SparkSession, folder: str) -> DataFrame:
    from pyspark.errors import AnalysisException
    from pyspark.sql import functions as F

    reader = spark.read.schema(_EVENT).option("recursiveFileLookup", True).option("pathGlobFilter", _FILES)
    try:
        events = reader.json(folder).select("*", F.col("_metadata.file_path").alias("path"))
        # Spark Connect looks for the folder only when it needs to.
        events.schema  # noqa: B018
    except AnalysisException as error:
        raise ParameterError(
            "collected_data",
            folder,
            f"cannot be read: {str(error).splitlines()[0]} 05_deploy_endpoint prints the folder",
        ) from None
    return events


def _rows_of(events: DataFrame, kind: str) -> DataFrame:
    """Return the rows of one collection, numbered within their request."""
    from pyspark.sql import functions as F

    path = f"/([^/]*-[0-9]+)/model_{kind}/"
    # A collector that sends an event again keeps its id. A line that is not an event has none.
    own = events.where(F.col("path").rlike(path) & F.col("id").isNotNull()).dropDuplicates(["id"])
    return own.select(
        F.regexp_extract("path", path, 1).alias("deployment"),
        "correlationid",
        "time",
        F.posexplode(F.from_json("data", _ROWS)).alias("number", kind),
    )


def with_columns(rows: DataFrame, features: Mapping[str, Bins], predictions: Bins | None) -> DataFrame:
    """Return collected rows with a column for each feature: null where a request has none, or no number for a number.

    Parameters
    ----------
    rows : pyspark.sql.DataFrame
        From `read_collected`.
    features : mapping of str to NumberBins or CategoryBins
        By name. They say which features are numbers.
    predictions : NumberBins, CategoryBins or None
        They say whether predictions are numbers.
    """
    from pyspark.sql import functions as F

    def typed(value: str, bins: Bins | None) -> Column:
        if not isinstance(bins, NumberBins):
            return F.expr(value)
        # JSON has true and false for a flag, which a table of predictions has as 1 and 0.
        return F.expr(f"coalesce(try_cast({value} AS DOUBLE), CAST(try_cast({value} AS BOOLEAN) AS DOUBLE))")

    others = [quoted(name) for name in rows.columns if name not in ("inputs", _PREDICTION)]
    columns = (typed(f"inputs[{text_literal(name)}]", bins).alias(name) for name, bins in features.items())
    return rows.select(*others, typed(_PREDICTION, predictions).alias(_PREDICTION), *columns)
