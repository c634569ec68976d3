"""Which rows a model learns from and which are held out."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from helpers import output
from helpers.data import holdout
from helpers.data.checks import check_table
from helpers.data.columns import has_value
from helpers.data.features import choose_features
from helpers.data.metrics import CLASSIFIER, REGRESSOR
from helpers.data.names import quoted
from helpers.data.tables import read_table
from helpers.ownership import MARK
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import DataType

    from helpers.data.holdout import HoldOut

SPLIT_TAG = f"{MARK}_split"
"""The tag of a run that records which rows it held out."""
# Runs of 02_train from before there was the tag have these parameters, and the mark of the bundle as a tag. A run of
# somebody's own may have some of these names, too, for a split that was made in another way.
_PARAMETERS_OF_TRAINING = (
    "training_table", "label_column", "id_column", "test_fraction", "seed", "model_name", "model_flavor", "epochs",
)  # fmt: skip


@dataclass(frozen=True)
class SplitRecord:
    """How a run held out rows, and which rows these were.

    Attributes
    ----------
    table, label_column, id_column : str
    test_fraction : float
    seed : int
    model_type : str
        ``classifier`` (older records do not say so) or ``regressor``.
    held_out_rows : int or None
        Number of held-out rows. None in the record of an older run of 02_train.
    held_out_ids : str or None
        Hash of their ids, which does not depend on the order of the rows. None as above.
    split_by, split_column : str
        Parameters of 02_train. A record from before there were any is one of ``split_by=id``.
    split_values : list of str
        What was found in the split column: the `helpers.data.holdout.HoldOut.values`.
    """

    table: str
    label_column: str
    id_column: str
    test_fraction: float
    seed: int
    model_type: str = CLASSIFIER
    held_out_rows: int | None = None
    held_out_ids: str | None = None
    split_by: str = "id"
    split_column: str = ""
    split_values: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, run: Run) -> SplitRecord | None:
        """Return the record of a run, or None if it has none."""
        if SPLIT_TAG in run.data.tags:
            return cls(**json.loads(run.data.tags[SPLIT_TAG]))
        parameters = run.data.params
        if MARK not in run.data.tags or any(name not in parameters for name in _PARAMETERS_OF_TRAINING):
            return None
        if parameters.get("split_by", "id") != "id":
            return None
        return cls(
            table=parameters["training_table"],
            label_column=parameters["label_column"],
            id_column=parameters["id_column"],
            test_fraction=float(parameters["test_fraction"]),
            seed=int(parameters["seed"]),
        )

    @property
    def hold_out(self) -> HoldOut:
        """How the run held out rows."""
        return holdout.make(
            self.split_by, self.id_column, self.test_fraction, self.seed, self.split_column, self.split_values
        )

    def as_text(self) -> str:
        """Return the record as JSON, for the tag `SPLIT_TAG`."""
        return json.dumps(asdict(self), ensure_ascii=False)


@dataclass(frozen=True)
class Split:
    """A labelled table, split into training and held-out rows.

    Attributes
    ----------
    table : str
        Qualified name of the table.
    rows : pyspark.sql.DataFrame
        The rows that have a label, with all columns of the table.
    id_column, label_column : str
    model_type : str
        ``classifier`` or ``regressor``.
    reason : str
        Why it is the one or the other.
    classes : list
        Of a classifier: the distinct labels, sorted. Of a regressor: empty.
    numeric, categorical : list of str
        Feature columns.
    train, held_out, validation : pyspark.sql.DataFrame
        The rows to learn from, those that judge the finished model, and those that measure it while it is trained:
        after each epoch, and for early stopping. Unless the table has rows for validation and for test, the last two
        are the same object. The columns are the id, the features and the label. Numeric features are doubles.
    test_fraction : float
    seed : int
    hold_out : helpers.data.holdout.HoldOut
        How the rows were held out.
    left_out : dict of str to str
        Columns that are not used as features, with the reason.
    """

    table: str
    rows: DataFrame
    id_column: str
    label_column: str
    model_type: str
    reason: str
    classes: list[Any]
    numeric: list[str]
    categorical: list[str]
    train: DataFrame
    held_out: DataFrame
    validation: DataFrame
    test_fraction: float
    seed: int
    hold_out: HoldOut
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def features(self) -> list[str]:
        """The feature columns."""
        return self.numeric + self.categorical

    def columns_of(self, rows: DataFrame) -> DataFrame:
        """Return the columns of `train` of some of `rows`."""
        return rows.select(
            *_columns(rows, self.id_column, self.numeric, self.categorical, self.label_column, self.model_type)
        )

    def log_input(self) -> None:
        """Log the table to the active run as a dataset input, with its name and number of rows."""
        import mlflow
        from mlflow.data.spark_dataset import from_spark

        # MLflow asks Spark whether the table is Delta, and Spark logs an error if it is not. MLflow also warns about
        # integer columns, which matter in a model's signature, but not here. On Spark Connect, it warns that it cannot count
        # the rows.
        with output.quiet_sql_errors(), output.quiet("mlflow.data.spark_dataset"):
            dataset = from_spark(self.rows, table_name=self.table, name=self.table, targets=self.label_column)
            mlflow.log_input(dataset, context="training")

    def record(self) -> SplitRecord:
        """Return what a run has to record, so that its held-out rows can be found again and recognized."""
        from pyspark.sql import functions as F

        # As text, because the type of an id may change without the id. Decimal, because a sum of 64-bit hashes does not
        # fit into 64 bits.
        id_hash = F.xxhash64(F.col(quoted(self.id_column)).cast("string")).cast("decimal(38,0)")
        row_count, hash_sum = self.held_out.select(F.count(F.lit(1)), F.sum(id_hash)).collect()[0]
        return SplitRecord(
            table=self.table,
            label_column=self.label_column,
            id_column=self.id_column,
            test_fraction=self.test_fraction,
            seed=self.seed,
            model_type=self.model_type,
            held_out_rows=row_count,
            held_out_ids=f"{int(hash_sum or 0) % (1 << 64):016x}",
            split_by=self.hold_out.split_by,
            split_column=self.hold_out.split_column,
            split_values=list(self.hold_out.values),
        )

    def counts(self) -> pd.DataFrame:
        """Return the number of rows in each part.

        The index has the classes, or ``rows`` for a regressor. The columns are ``training``, ``held out``, and
        ``validation`` if these are other rows.
        """
        import pandas as pd
        from pyspark.sql import functions as F

        group = F.col(quoted(self.label_column)) if self.model_type == CLASSIFIER else F.lit("rows")
        parts = {holdout.TRAINING: self.train, holdout.HELD_OUT: self.held_out}
        if self.validation is not self.held_out:
            parts[holdout.VALIDATION] = self.validation
        # One query for all parts, because the start of a query takes longer than the count.
        groups = [rows.select(F.lit(part).alias("part"), group.alias("group")) for part, rows in parts.items()]
        counts: dict[str, dict[Any, int]] = {part: {} for part in parts}
        all_parts = functools.reduce(lambda some, more: some.unionAll(more), groups)
        for part, name, count in all_parts.groupBy("part", "group").count().collect():
            counts[part][name] = count
        return pd.DataFrame(counts, columns=list(parts)).fillna(0).astype(int).sort_index()


def load_split(
    spark: SparkSession,
    table: str,
    *,
    label_column: str,
    id_column: str,
    test_fraction: float,
    seed: int,
    model_type: str = "auto",
    split_by: str = "id",
    split_column: str = "",
    split_values: Sequence[str] = (),
) -> Split:
    """Read a labelled table, check it, choose its feature columns and split it.

    Numeric and boolean features become doubles, and text stays text. Columns of other types and columns without any
    value are left out, and the result says so. Rows without a label are left out, too.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    table : str
        Qualified name.
    label_column, id_column : str
    test_fraction : float
        Share of the rows to hold out, between 0 and 1.
    seed : int
    model_type : str, default "auto"
        ``classifier`` or ``regressor``; ``auto`` decides by the label, see `helpers.data.checks.check_label`.
    split_by : str, default "id"
        One of `helpers.kinds.SPLITS`: a hash of the id decides which rows are held out (``id``), the newest ones are
        (``time``), or a column says ``train``, ``validation`` or ``test`` (``column``).
    split_column : str, default ""
        The column of ``time`` or ``column``. It is not a feature.
    split_values : sequence of str, optional
        What a run recorded about its split column, to find the same rows again. Default: find it in the table.

    Returns
    -------
    Split

    Raises
    ------
    helpers.parameters.ParameterError
        If the table, the label, the id or the split column cannot be used, if no column can be a feature, or if a class
        is missing from a part.
    """
    rows = read_table(spark, table, "training_table")
    label = check_table(rows, label_column, id_column, model_type)
    rows = rows.where(has_value(rows, label_column))
    hold_out = holdout.make(split_by, id_column, test_fraction, seed, split_column, split_values)
    hold_out = holdout.choose(rows, hold_out, label_column)

    numeric, categorical, left_out = choose_features(rows, label_column, id_column)
    if split_column in numeric + categorical or split_column in left_out:
        numeric, categorical = ([name for name in names if name != split_column] for names in (numeric, categorical))
        left_out[split_column] = hold_out.why_no_feature
    if not numeric + categorical:
        reasons = ", ".join(f"{name} ({reason})" for name, reason in left_out.items())
        raise ParameterError(
            "training_table", table, f"no column can be a feature: {reasons or 'the table has no other columns'}"
        )
    columns = _columns(rows, id_column, numeric, categorical, label_column, label.model_type)
    parts = {name: part.select(*columns) for name, part in hold_out.parts(rows).items()}
    split = Split(
        table=table,
        rows=rows,
        id_column=id_column,
        label_column=label_column,
        model_type=label.model_type,
        reason=label.reason,
        classes=[],
        numeric=numeric,
        categorical=categorical,
        left_out=left_out,
        train=parts[holdout.TRAINING],
        held_out=parts[holdout.HELD_OUT],
        validation=parts.get(holdout.VALIDATION, parts[holdout.HELD_OUT]),
        test_fraction=test_fraction,
        seed=seed,
        hold_out=hold_out,
    )
    counts = split.counts()
    for part, counts_of_part in counts.items():
        missing = [name for name, count in counts_of_part.items() if not count]
        # The rows of a run are recognized by their ids. Classes that the table has got since do not matter.
        if (missing or counts.empty) and not split_values:
            named = f"row of class {missing[0]!r} ({label_column})" if label.model_type == CLASSIFIER else "row"
            raise hold_out.missing_class(f"no {named} is in the {part} part of {table}")
    return replace(split, classes=counts.index.tolist() if label.model_type == CLASSIFIER else [])


def load_for_run(spark: SparkSession, run: Run) -> Split:
    """Split the training table of a run in the same way as that run did.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    run : mlflow.entities.Run

    Raises
    ------
    helpers.parameters.ParameterError
        If the run did not record how it split its table, or if the table can no longer be used.
    """
    record = SplitRecord.of(run)
    if record is None:
        raise ParameterError(
            "run_id",
            run.info.run_id,
            "this run does not record which rows it held out, and rows that its model may have learned from cannot "
            "judge it. There are three ways. (1) Split the table with data.load_split and call "
            "tracking.log_split(split) in the training code. (2) Set evaluation_table to labelled rows that the model "
            "has not seen. (3) Train with 02_train, which records its split. See docs/guide/your-own-model.md",
        )
    return load_split(
        spark,
        record.table,
        label_column=record.label_column,
        id_column=record.id_column,
        test_fraction=record.test_fraction,
        seed=record.seed,
        model_type=record.model_type,
        split_by=record.split_by,
        split_column=record.split_column,
        split_values=record.split_values,
    )


def _columns(
    rows: DataFrame, id_column: str, numeric: list[str], categorical: list[str], label_column: str, model_type: str
) -> list[Any]:
    """Return the columns that a flavor gets: the id, the features, the label."""
    from pyspark.sql import functions as F

    type_of_label = label_type(rows.schema[label_column].dataType, model_type)
    return [
        quoted(id_column),
        *(F.col(quoted(name)).cast("double").alias(name) for name in numeric),
        *map(quoted, categorical),
        F.col(quoted(label_column)).cast(type_of_label).alias(label_column),
    ]


def label_type(kind: DataType, model_type: str = CLASSIFIER) -> str:
    """Return the type in which labels of a type are trained on and predicted."""
    from pyspark.sql.types import BooleanType, DecimalType, DoubleType, FloatType, IntegralType

    if model_type == REGRESSOR:
        return "double"
    if isinstance(kind, BooleanType):
        return "boolean"
    if isinstance(kind, IntegralType) or (isinstance(kind, DecimalType) and kind.scale == 0):
        return "bigint"
    if isinstance(kind, FloatType | DoubleType | DecimalType):
        return "double"
    return "string"
