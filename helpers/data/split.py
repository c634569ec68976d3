"""Which rows a model learns from and which are held out, decided by each row's id alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from helpers import runtime
from helpers.data import tables
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import DataType

# Names that the predictions have, so no feature can.
RESERVED = ("prediction", "probability")
# Parameters of a run that say which rows it held out.
SPLIT_PARAMETERS = ("training_table", "label_column", "id_column", "test_fraction", "seed")
_BUCKETS = 1 << 30


@dataclass(frozen=True)
class Split:
    """A labelled table, cut into training and held-out rows.

    Attributes
    ----------
    table : str
        Qualified name of the table.
    rows : pyspark.sql.DataFrame
        The labelled rows as the table has them.
    id_column, label_column : str
    classes : list
        The labels that occur, sorted.
    numeric, categorical : list of str
        Feature columns. In `train` and `held_out` the numeric ones are doubles.
    left_out : dict of str to str
        Columns that are no features, with the reason.
    train, held_out : pyspark.sql.DataFrame
        The id, the features and the label.
    """

    table: str
    rows: DataFrame
    id_column: str
    label_column: str
    classes: list[Any]
    numeric: list[str]
    categorical: list[str]
    train: DataFrame
    held_out: DataFrame
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def features(self) -> list[str]:
        """The feature columns."""
        return self.numeric + self.categorical

    def log_input(self) -> None:
        """Log the table to the active run as a dataset input, with its name and number of rows."""
        import mlflow
        from mlflow.data.spark_dataset import from_spark

        # MLflow asks whether the table is Delta, and Spark logs an error when it is not; and it
        # warns of integers, which matter in a model's signature and not here.
        with runtime.quiet("SQLQueryContextLogger"):
            dataset = from_spark(self.rows, table_name=self.table, name=self.table, targets=self.label_column)
            mlflow.log_input(dataset, context="training")

    def counts(self) -> pd.DataFrame:
        """Return the number of rows by class (rows) and part (columns)."""
        import pandas as pd

        label = tables.quoted(self.label_column)
        parts = {"training": self.train, "held out": self.held_out}
        return pd.DataFrame({part: dict(rows.groupBy(label).count().collect()) for part, rows in parts.items()})


def is_held_out(id_column: str, test_fraction: float, seed: int) -> Column:
    """Return the condition that a row is held out.

    It depends on the row's id, the fraction and the seed only: neither on the order of the
    rows nor on which others there are, so a row stays on its side when the table grows.

    Parameters
    ----------
    id_column : str
    test_fraction : float
        Expected share of held-out rows, between 0 and 1.
    seed : int
    """
    from pyspark.sql import functions as F

    bucket = F.pmod(F.xxhash64(F.col(tables.quoted(id_column)).cast("string"), F.lit(seed)), F.lit(_BUCKETS))
    return bucket < int(test_fraction * _BUCKETS)


def load_split(
    spark: SparkSession, table: str, *, label_column: str, id_column: str, test_fraction: float, seed: int
) -> Split:
    """Read a labelled table, choose its feature columns and split it.

    Numbers and booleans become doubles, text stays text; columns of other types and columns
    without any value are left out, and named in the result. Rows without a label too.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    table : str
        Qualified name.
    label_column, id_column : str
    test_fraction : float
        Share of the rows to hold out, between 0 and 1.
    seed : int

    Returns
    -------
    Split

    Raises
    ------
    helpers.parameters.ParameterError
        If the table, the label or the id cannot be used, if no feature is left, or if a class
        is missing from either part.
    """
    from pyspark.sql import functions as F

    rows = tables.read_table(spark, table, "training_table")
    tables.check_label(rows, label_column, id_column)
    tables.check_id(rows, id_column)
    rows = rows.where(tables.has_label(rows, label_column))

    numeric, categorical, left_out = _features(rows, label_column, id_column)
    if not numeric + categorical:
        reasons = ", ".join(f"{name} ({reason})" for name, reason in left_out.items()) or "the table has no others"
        raise ParameterError("training_table", table, f"no column can be a feature: {reasons}")
    label = F.col(tables.quoted(label_column)).cast(_label_type(rows.schema[label_column].dataType))
    selected = rows.select(
        tables.quoted(id_column),
        *(F.col(tables.quoted(name)).cast("double").alias(name) for name in numeric),
        *map(tables.quoted, categorical),
        label.alias(label_column),
    )
    held_out = is_held_out(id_column, test_fraction, seed)
    split = Split(
        table=table,
        rows=rows,
        id_column=id_column,
        label_column=label_column,
        classes=sorted(row[0] for row in selected.select(tables.quoted(label_column)).distinct().collect()),
        numeric=numeric,
        categorical=categorical,
        left_out=left_out,
        train=selected.where(~held_out),
        held_out=selected.where(held_out),
    )
    for part, counts in split.counts().items():
        missing = [name for name in split.classes if not counts.get(name, 0) > 0]
        if missing:
            raise ParameterError(
                "test_fraction",
                test_fraction,
                f"with seed={seed} no row of class {missing[0]!r} ({label_column}) is in the {part} part of {table}. "
                "Give more rows of that class, or another test_fraction or seed.",
            )
    return split


def load_for_run(spark: SparkSession, run: Run) -> Split:
    """Split the table that a run of 02_train learned from just as that run did.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    run : mlflow.entities.Run

    Raises
    ------
    helpers.parameters.ParameterError
        If the run does not tell how it split its table, or the table can no longer be used.
    """
    parameters = run.data.params
    missing = [name for name in SPLIT_PARAMETERS if name not in parameters]
    if missing:
        raise ParameterError("run_id", run.info.run_id, f"has no parameter {missing[0]!r}; give a run of 02_train")
    return load_split(
        spark,
        parameters["training_table"],
        label_column=parameters["label_column"],
        id_column=parameters["id_column"],
        test_fraction=float(parameters["test_fraction"]),
        seed=int(parameters["seed"]),
    )


def _features(rows: DataFrame, label_column: str, id_column: str) -> tuple[list[str], list[str], dict[str, str]]:
    from pyspark.sql import functions as F
    from pyspark.sql.types import BooleanType, NumericType, StringType

    numeric, categorical, left_out = [], [], {}
    candidates = [field for field in rows.schema.fields if field.name not in (label_column, id_column)]
    filled = rows.select([F.count(F.col(tables.quoted(field.name))) for field in candidates]).collect()[0]
    for column, values in zip(candidates, filled, strict=True):
        if column.name.lower() in RESERVED:
            left_out[column.name] = "reserved name"
        elif not values:
            left_out[column.name] = "no values"
        elif isinstance(column.dataType, NumericType | BooleanType):
            numeric.append(column.name)
        elif isinstance(column.dataType, StringType):
            categorical.append(column.name)
        else:
            left_out[column.name] = f"type {column.dataType.simpleString()}"
    return numeric, categorical, left_out


def _label_type(kind: DataType) -> str:
    from pyspark.sql.types import BooleanType, DecimalType, DoubleType, FloatType, IntegralType

    if isinstance(kind, BooleanType):
        return "boolean"
    if isinstance(kind, IntegralType) or (isinstance(kind, DecimalType) and kind.scale == 0):
        return "bigint"
    if isinstance(kind, FloatType | DoubleType | DecimalType):
        return "double"
    return "string"
