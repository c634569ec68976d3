"""Join labels that arrive after the predictions, and measure a version on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers.data import checks, tables
from helpers.data.columns import has_value
from helpers.data.metrics import CLASSIFIER, DEFAULT_METRIC, REGRESSOR, measure
from helpers.data.names import quoted
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

LABEL = "_label"


@dataclass(frozen=True)
class Quality:
    """How good the predictions with a label are.

    Attributes
    ----------
    model_type : str
    rows : int
        How many predictions have a label.
    metrics : dict of str to float
        Without those that need the probabilities of all classes.
    loss : tuple of float, float, int
        See `helpers.monitoring.baseline.Baseline`.
    """

    model_type: str
    rows: int
    metrics: dict[str, float]
    loss: tuple[float, float, int]

    @property
    def is_classifier(self) -> bool:
        """Whether the labels are classes."""
        return self.model_type == CLASSIFIER

    def judged_metric(self, metric: str) -> str:
        """Return the metric of the gate, or the default one if it cannot be computed from classes alone."""
        return metric if metric in self.metrics else DEFAULT_METRIC[self.model_type]


def read_labels(spark: SparkSession, table: str, id_column: str, label_column: str) -> tuple[DataFrame, str]:
    """Return the labels by id, each id once.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    table : str
        Qualified name.
    id_column, label_column : str

    Returns
    -------
    labels : pyspark.sql.DataFrame
        Columns `id_column` and `LABEL`.
    note : str
        How many ids have several different labels, and are left out; empty if none has.

    Raises
    ------
    helpers.parameters.ParameterError
        If the table or one of the columns is missing.
    """
    from pyspark.sql import functions as F

    rows = tables.read_table(spark, table, "labels_table")
    checks.find_column(rows, id_column, "id_column")
    checks.find_column(rows, label_column, "label_column")
    labelled = rows.where(has_value(rows, label_column)).select(
        F.col(quoted(id_column)), F.col(quoted(label_column)).alias(LABEL)
    )
    by_id = labelled.groupBy(F.col(quoted(id_column))).agg(
        F.min(LABEL).alias(LABEL), (F.min(LABEL) != F.max(LABEL)).alias("differ")
    )
    contradicting = by_id.where("differ").count()
    note = ""
    if contradicting:
        note = f"{contradicting} ids of {table} have several different labels, and are left out"
    return by_id.where("NOT differ").drop("differ"), note


def by_window(
    rows: DataFrame, labels: DataFrame, window: Column, id_column: str, model_type: str
) -> dict[Any, Quality]:
    """Measure the predictions that have a label, by window.

    Parameters
    ----------
    rows : pyspark.sql.DataFrame
        Predictions. If a window has several for an id, the newest counts.
    labels : pyspark.sql.DataFrame
        From `read_labels`.
    window : pyspark.sql.Column
    id_column : str
    model_type : str
        ``classifier`` or ``regressor``.

    Returns
    -------
    dict of object to Quality
        By window. Windows without a label are not there.

    Raises
    ------
    helpers.parameters.ParameterError
        If the labels are not of the kind that the model predicts.
    """
    from pyspark.sql import functions as F

    id_name = quoted(id_column)
    newest = F.max_by(F.col("prediction"), F.col("scored_at")).alias("prediction")
    predicted = rows.select(window.alias("window"), id_name, "prediction", "scored_at")
    predicted = predicted.groupBy("window", id_name).agg(newest)
    _check_types(predicted, labels, model_type)
    joined = predicted.join(labels, id_column)
    return _of_classes(joined) if model_type == CLASSIFIER else _of_numbers(joined)


def _check_types(predicted: DataFrame, labels: DataFrame, model_type: str) -> None:
    from pyspark.sql.types import NumericType

    label, prediction = labels.schema[LABEL].dataType, predicted.schema["prediction"].dataType
    if model_type == REGRESSOR and not isinstance(label, NumericType):
        problem = f"has type {label.simpleString()}, and the model predicts numbers"
    elif label != prediction and not (isinstance(label, NumericType) and isinstance(prediction, NumericType)):
        problem = f"has type {label.simpleString()}, and the model predicts {prediction.simpleString()}"
    else:
        return
    raise ParameterError("label_column", LABEL, f"the column in labels_table {problem}. Name another column or table")


def _of_classes(joined: DataFrame) -> dict[Any, Quality]:
    """Count each pair of class and label, so that memory does not grow with the rows."""
    import numpy as np

    counts: dict[Any, list[tuple[Any, Any, int]]] = {}
    for window, label, prediction, count in joined.groupBy("window", LABEL, "prediction").count().collect():
        counts.setdefault(window, []).append((label, prediction, count))
    qualities = {}
    for window, pairs in counts.items():
        repeat = [count for *_, count in pairs]
        labels = np.repeat(np.array([label for label, *_ in pairs]), repeat)
        predictions = np.repeat(np.array([prediction for _, prediction, _ in pairs]), repeat)
        wrong = (labels != predictions).astype(float)
        loss = (float(wrong.mean()), float(wrong.std(ddof=1)) if len(wrong) > 1 else 0.0, len(wrong))
        qualities[window] = Quality(CLASSIFIER, len(labels), measure(CLASSIFIER, labels, predictions), loss)
    return qualities


def _of_numbers(joined: DataFrame) -> dict[Any, Quality]:
    """Compute the metrics from sums, so that memory does not grow with the rows."""
    from pyspark.sql import functions as F

    label, error = F.col(LABEL).cast("double"), F.col(LABEL).cast("double") - F.col("prediction").cast("double")
    squared = error * error
    sums = joined.groupBy("window").agg(
        F.count(F.lit(1)), F.avg(squared), F.stddev_samp(squared), F.avg(F.abs(error)), F.max(F.abs(error)),
        F.var_pop(label),
    )  # fmt: skip
    qualities = {}
    for window, count, mean_squared, deviation, mean_absolute, highest, variance in sums.collect():
        metrics = {
            "mean_squared_error": mean_squared,
            "root_mean_squared_error": mean_squared**0.5,
            "mean_absolute_error": mean_absolute,
            "max_error": highest,
        }
        if variance:
            metrics["r2_score"] = 1 - mean_squared / variance
        qualities[window] = Quality(REGRESSOR, count, metrics, (mean_squared, deviation or 0.0, count))
    return qualities
