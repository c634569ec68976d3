"""What a version was trained on and how it did at the gate, kept in a small table with the version's number.

So the training table need not exist any more when the version's predictions are compared with it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from helpers import storage
from helpers.data import names, tables
from helpers.data.evaluation import EvaluationRows
from helpers.data.features import choose_features
from helpers.data.metrics import CLASSIFIER
from helpers.data.names import quoted
from helpers.data.split import SplitRecord, load_for_run
from helpers.monitoring.bins import Bins, CategoryBins, Counted, NumberBins
from helpers.monitoring.counts import count_by_bin
from helpers.ownership import MARK
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion
    from pyspark.sql import DataFrame, SparkSession


class Judged(Protocol):
    """What `helpers.registration.judge` returns; the rooms beside this one are not imported."""

    metrics: dict[str, float]
    predictions: pd.DataFrame
    inputs: list[str]


class OfModel(Protocol):
    """Parameters of a stage that say which model, and in which schema its tables are."""

    @property
    def model_name(self) -> str: ...  # noqa: D102
    @property
    def catalog(self) -> str: ...  # noqa: D102
    @property
    def schema(self) -> str: ...  # noqa: D102


_VERSION_COLUMN = "model_version"
_MOST_CATEGORIES = 50
_TENTHS = tuple(tenth / 10 for tenth in range(1, 10))
_ACCURACY = 10_000
_COLUMNS_PER_QUERY = 200


@dataclass(frozen=True)
class Baseline:
    """What the predictions of a version are compared with.

    Attributes
    ----------
    description : str
        Which rows the features were counted on.
    features : dict of str to Counted
        By column of the training table.
    model_type, metric : str
        ``classifier`` or ``regressor``, and the metric of the gate.
    metrics : dict of str to float
        Of the version, at the gate.
    predictions : Counted or None
        Of the rows that judged the version. None if they are neither classes nor numbers.
    probability : tuple of float, float, int, or None
        Mean and standard deviation of the predicted class's probability, and how many there were.
    loss : tuple of float, float, int
        The same of the loss of a row: 1 for a wrong class, or the squared error.
    """

    description: str
    features: dict[str, Counted]
    model_type: str
    metric: str
    metrics: dict[str, float]
    predictions: Counted | None
    probability: tuple[float, float, int] | None
    loss: tuple[float, float, int]

    def as_text(self) -> str:
        """Return the baseline as JSON."""
        values = dict(vars(self))
        values["features"] = {name: counted.as_dict() for name, counted in self.features.items()}
        values["predictions"] = self.predictions and self.predictions.as_dict()
        return json.dumps(values, ensure_ascii=False)

    @classmethod
    def from_text(cls, text: str) -> Baseline:
        """Return the baseline that `as_text` has written."""
        values = json.loads(text)
        values["features"] = {name: Counted.from_dict(counted) for name, counted in values["features"].items()}
        values["predictions"] = values["predictions"] and Counted.from_dict(values["predictions"])
        values["probability"] = values["probability"] and tuple(values["probability"])
        return cls(**values | {"loss": tuple(values["loss"])})


def baseline_table(p: OfModel) -> str:
    """Return the qualified name of the table with the baselines of a model's versions."""
    return names.qualified_name(names.model_table(p.model_name, "baselines"), p.catalog, p.schema)


def make_baseline(
    spark: SparkSession,
    run: Run,
    rows: EvaluationRows,
    judged: Judged,
    metric: str,
) -> Baseline:
    """Count what a version is compared with later.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    run : mlflow.entities.Run
        Of the version. If it records its split, features are counted on its training rows, else on the rows that judge
        the version.
    rows : helpers.data.evaluation.EvaluationRows
        The rows that judged the version.
    judged : Judged
        The version's predictions for these rows.
    metric : str
        The metric of the gate.
    """
    training, description = _training_rows(spark, run, rows)
    numeric, categorical, _ = choose_features(training, rows.label_column, rows.id_column)
    numeric, categorical = ([name for name in names if name in judged.inputs] for names in (numeric, categorical))
    scored = judged.predictions
    labels, predictions, probability = scored[rows.label_column], scored["prediction"], None
    if scored["probability"].notna().any():
        probability = _mean(scored["probability"].astype(float))
    wrong = predictions != labels if rows.model_type == CLASSIFIER else (predictions - labels) ** 2
    return Baseline(
        description=description,
        features=count_features(training, numeric, categorical),
        model_type=rows.model_type,
        metric=metric,
        metrics=judged.metrics,
        predictions=_count_predictions(predictions, rows.model_type),
        probability=probability,
        loss=_mean(wrong.astype(float)),
    )


def _training_rows(spark: SparkSession, run: Run, rows: EvaluationRows) -> tuple[DataFrame, str]:
    if SplitRecord.of(run) is not None:
        try:
            split = load_for_run(spark, run)
        except ParameterError:
            # The table was dropped or has changed, and `rows` are those of an evaluation table.
            return rows.rows, rows.description
        # The table's own columns and types, as a scoring table has them; `split.train` has doubles.
        training = split.hold_out.parts(split.rows)["training"]
        return training, f"training rows of {split.table}"
    return rows.rows, rows.description


def _mean(values: pd.Series) -> tuple[float, float, int]:
    values = values.dropna()
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0, len(values)


def _count_predictions(predictions: pd.Series, model_type: str) -> Counted | None:
    import numpy as np

    if model_type == CLASSIFIER:
        # As Spark writes a value as text.
        texts = predictions.map(lambda value: str(value).lower() if isinstance(value, (bool, np.bool_)) else str(value))
        counts = texts.value_counts().sort_index()
        return Counted(CategoryBins(tuple(counts.index)), [*map(int, counts), 0, 0])
    numbers = np.sort(predictions.to_numpy(dtype=float))
    quantiles = np.quantile(numbers, _TENTHS, method="lower")
    bins = number_bins(float(numbers[0]), float(numbers[-1]), quantiles.tolist(), {})
    counts = np.zeros(bins.missing + 1, dtype=int)
    np.add.at(counts, 1 + np.searchsorted(bins.cuts, numbers, side="right"), 1)
    return Counted(bins, counts.tolist())


def count_features(rows: DataFrame, numeric: list[str], categorical: list[str]) -> dict[str, Counted]:
    """Choose the bins of columns, and count the values of rows in them.

    Parameters
    ----------
    rows : pyspark.sql.DataFrame
    numeric, categorical : list of str
        Columns with numbers or booleans; with text.

    Returns
    -------
    dict of str to Counted
        By column. A column without any value is left out.
    """
    from pyspark.sql import functions as F

    bins: dict[str, Bins] = {}
    for first in range(0, len(numeric), _COLUMNS_PER_QUERY):
        bins |= _bins_of_numbers(rows, numeric[first : first + _COLUMNS_PER_QUERY])
    for first in range(0, len(categorical), _COLUMNS_PER_QUERY):
        bins |= _bins_of_texts(rows, categorical[first : first + _COLUMNS_PER_QUERY])
    if not bins:
        return {}
    counted = count_by_bin(rows, bins, F.lit(0))[0]
    return {name: counted[name] for name in numeric + categorical if name in bins}


def _bins_of_numbers(rows: DataFrame, columns: list[str]) -> dict[str, Bins]:
    """Cut at the tenths. A value that takes more than a tenth of the rows, such as 0, gets a bin of its own."""
    from pyspark.sql import functions as F

    values = {name: F.nanvl(F.col(quoted(name)).cast("double"), F.lit(None)) for name in columns}
    found = rows.select(
        *(
            F.struct(F.min(value), F.max(value), F.percentile_approx(value, list(_TENTHS), _ACCURACY))
            for value in values.values()
        )
    ).collect()[0]
    described = {name: row for name, row in zip(columns, found, strict=True) if row[0] is not None}
    frequent = {
        name: sorted({value for value, after in zip([low, *tenths], [*tenths, high], strict=True) if value == after})
        for name, (low, high, tenths) in described.items()
    }
    wanted = [(name, value) for name, many in frequent.items() for value in many]
    after: dict[str, dict[float, float]] = {name: {} for name in described}
    if wanted:
        found = rows.select(*(F.min(F.when(values[name] > value, values[name])) for name, value in wanted)).collect()[0]
        for (name, value), following in zip(wanted, found, strict=True):
            if following is not None:
                after[name][value] = following
    return {name: number_bins(low, high, tenths, after[name]) for name, (low, high, tenths) in described.items()}


def number_bins(lowest: float, highest: float, tenths: list[float], after: dict[float, float]) -> NumberBins:
    """Return bins with the cuts at `tenths` and `after`, a value that follows a frequent one."""
    cuts = {cut for cut in [*tenths, *after.values()] if cut > lowest}
    return NumberBins(tuple(sorted(cuts)), lowest, highest)


def _bins_of_texts(rows: DataFrame, columns: list[str]) -> dict[str, Bins]:
    from functools import reduce

    from pyspark.sql import DataFrame
    from pyspark.sql import functions as F

    parts = []
    for name in columns:
        texts = rows.select(F.col(quoted(name)).alias("value")).where(F.col("value").isNotNull())
        counts = texts.groupBy("value").count().orderBy(F.desc("count"), "value").limit(_MOST_CATEGORIES)
        parts.append(counts.select(F.lit(name).alias("name"), "value"))
    categories: dict[str, list[str]] = {}
    for name, value in reduce(DataFrame.union, parts).collect():
        categories.setdefault(name, []).append(value)
    return {name: CategoryBins(tuple(sorted(texts))) for name, texts in categories.items()}


def save_baseline(spark: SparkSession, p: OfModel, version: ModelVersion, baseline: Baseline) -> str:
    """Keep the baseline of a version, in place of the one that it had; return the name of the table.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    p : OfModel
        Which model, and the schema of the table. Table and schema are created if they are missing.
    version : mlflow.entities.model_registry.ModelVersion
    baseline : Baseline
    """
    from pyspark.sql import functions as F

    table = baseline_table(p)
    # `createDataFrame` would start a Python worker.
    row = spark.range(1).select(F.lit(version.name).alias("model_name"), F.lit(baseline.as_text()).alias("baseline"))
    if not tables.exists(spark, table):
        tables.create_schema(spark, p.catalog, p.schema)
        schema = row.withColumn(_VERSION_COLUMN, F.lit("")).schema
        storage.create_table(spark, table, schema, _VERSION_COLUMN, {MARK: version.name})
    storage.replace_rows(row, table, _VERSION_COLUMN, str(version.version))
    return table


def load_baseline(spark: SparkSession, p: OfModel, version: str) -> Baseline | None:
    """Return the baseline of a version, or None if it has none; see `save_baseline`."""
    from pyspark.sql import functions as F

    table = baseline_table(p)
    if not tables.exists(spark, table):
        return None
    row = spark.table(table).where(F.col(_VERSION_COLUMN) == version).select("baseline").head()
    return Baseline.from_text(row[0]) if row else None
