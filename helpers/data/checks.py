"""The checks of a labelled table.

To add one, write a function that takes the rows, the label column and the id column and raises `ParameterError`, and
add a line to `TABLE_CHECKS`. Set-up and training run all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers.data.columns import has_value
from helpers.data.metrics import CLASSIFIER, REGRESSOR
from helpers.data.names import RESERVED_COLUMNS, quoted
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import DataType

MAX_CLASSES = 100
# More different numbers are a label for regression, unless `model_type` says otherwise.
MAX_CLASSES_OF_NUMBERS = 20
_MAX_NAMES_IN_MESSAGE = 40
# Bitmaps of the ids have one bit for each number between the lowest and the highest. Up to this many bits per row they
# are used, which is one byte per row.
_MAX_BITS_PER_ROW = 8


def require_column(rows: DataFrame, column: str, parameter: str) -> DataType:
    """Return the type of the label or the id column.

    Parameters
    ----------
    rows : pyspark.sql.DataFrame
    column : str
    parameter : str
        The parameter that named the column, for the error.

    Raises
    ------
    helpers.parameters.ParameterError
        If there is no such column, or if its name is one of `helpers.data.names.RESERVED_COLUMNS`.
    """
    find_column(rows, column, parameter)
    if column.lower() in RESERVED_COLUMNS:
        raise ParameterError(
            parameter,
            column,
            f"scoring writes a column of this name; rename yours. Reserved names: {', '.join(RESERVED_COLUMNS)}",
        )
    return rows.schema[column].dataType


def find_column(rows: DataFrame, column: str, parameter: str) -> None:
    """Check that there is a column of exactly this name; the error names `parameter` and the columns."""
    if column not in rows.columns:
        similar = [name for name in rows.columns if name.strip().lower() == column.strip().lower()]
        hint = f"did you mean {similar[0]!r}? " if similar else ""
        raise ParameterError(parameter, column, f"no such column; {hint}the columns are: {_listed(rows.columns)}")


def check_id(rows: DataFrame, id_column: str) -> int:
    """Check that a column identifies each row, and return the number of rows.

    Parameters
    ----------
    rows : pyspark.sql.DataFrame
    id_column : str

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    helpers.parameters.ParameterError
        If the column is missing, or has nulls or duplicates.
    """
    from pyspark.sql import functions as F

    kind = require_column(rows, id_column, "id_column")
    ids = F.col(quoted(id_column))
    is_integer = kind.typeName() in ("byte", "short", "integer", "long")
    aggregates = [F.min(ids), F.max(ids)] if is_integer else [F.count_distinct(ids)]
    row_count, id_count, *aggregated = rows.select(F.count(F.lit(1)), F.count(ids), *aggregates).collect()[0]
    if id_count < row_count:
        raise ParameterError(
            "id_column", id_column, f"has {row_count - id_count} nulls among {row_count} rows; it must have none"
        )
    distinct_count = _distinct_integers(rows, ids, row_count, *aggregated) if is_integer else aggregated[0]
    if distinct_count < row_count:
        example = rows.groupBy(ids).count().where("`count` > 1").head(1)[0][0]
        raise ParameterError(
            "id_column",
            id_column,
            f"has duplicates: {distinct_count} values for {row_count} rows, e.g. {example!r}; each row needs its own id",
        )
    return row_count


def _distinct_integers(rows: DataFrame, ids: Column, row_count: int, lowest: int | None, highest: int | None) -> int:
    """Count the distinct integers; `lowest` and `highest` are None if there are no rows."""
    from pyspark.sql import functions as F

    if lowest is None or highest is None or highest - lowest > _MAX_BITS_PER_ROW * row_count:
        return rows.select(F.count_distinct(ids)).collect()[0][0]
    # One bit for each number between the lowest and the highest: several times faster than a shuffle of all numbers.
    bits = F.bitmap_count(F.bitmap_construct_agg(F.bitmap_bit_position(ids)))
    buckets = rows.groupBy(F.bitmap_bucket_number(ids)).agg(bits.alias("distinct"))
    return buckets.agg(F.sum("distinct")).collect()[0][0]


@dataclass(frozen=True)
class Label:
    """What is known of a label column.

    Attributes
    ----------
    model_type : str
        ``classifier`` or ``regressor``: what can be trained on it.
    reason : str
        Why.
    summary : dict
        Of a classifier: the number of rows by class, sorted by class. Of a regressor: count, mean, standard deviation,
        minimum and maximum of the label. Rows without a label are not counted.
    """

    model_type: str
    reason: str
    summary: dict[Any, Any]

    def table(self) -> pd.DataFrame:
        """Return the summary as a table: one row per class, or one per statistic."""
        import pandas as pd

        names = ("class", "rows") if self.model_type == CLASSIFIER else ("label", "value")
        return pd.DataFrame(dict(zip(names, (list(self.summary), list(self.summary.values())), strict=True)))


def check_label(rows: DataFrame, label_column: str, id_column: str, model_type: str = "auto") -> Label:
    """Check that a column can be the label, and tell classification from regression.

    With ``auto``, text and booleans are classes, and so are whole numbers with at most `MAX_CLASSES_OF_NUMBERS` different
    values. Other numbers are a label for regression.

    Parameters
    ----------
    rows : pyspark.sql.DataFrame
    label_column, id_column : str
    model_type : str, default "auto"
        ``auto``, ``classifier`` or ``regressor``.

    Returns
    -------
    Label

    Raises
    ------
    helpers.parameters.ParameterError
        If the column is missing, is the id, is empty or has only one value; if it has too many values to be classes; or
        if it cannot be the label of a regression, because it is not a number or has an infinite value.
    """
    from pyspark.sql import functions as F
    from pyspark.sql.types import AtomicType, NumericType

    kind = require_column(rows, label_column, "label_column")
    if label_column == id_column:
        raise _unusable(label_column, "is also the id_column; the label must be another column")
    if not isinstance(kind, AtomicType):
        raise _unusable(label_column, f"has type {kind.simpleString()}; it must have numbers, booleans or text")
    labelled = rows.where(has_value(rows, label_column)).select(F.col(quoted(label_column)).alias("label"))
    is_number = isinstance(kind, NumericType)
    if model_type == REGRESSOR and not is_number:
        raise ParameterError(
            "model_type",
            model_type,
            f"regression needs a number as the label, and {label_column} has type {kind.simpleString()}. Set "
            "model_type=classifier, or name another label_column",
        )
    # Classes are counted on the cluster, and never more than are needed to see that these are too many.
    counts: dict[Any, int] = dict(labelled.groupBy("label").count().limit(MAX_CLASSES + 1).collect())
    if not counts:
        raise _unusable(label_column, "is null in every row")
    if len(counts) == 1:
        raise _unusable(label_column, f"has only one value, {next(iter(counts))!r}; at least two are needed")
    reason = "as model_type says"
    if model_type == "auto":
        model_type, reason = _infer_model_type(counts, kind)
    if model_type == REGRESSOR:
        return Label(model_type, reason, _number_summary(labelled, label_column))
    if len(counts) > MAX_CLASSES:
        hint = "; for numbers, set model_type=regressor" if is_number else ""
        raise _unusable(
            label_column, f"has more than {MAX_CLASSES} different values, which are too many to be classes{hint}"
        )
    return Label(model_type, reason, dict(sorted(counts.items())))


def _infer_model_type(counts: dict[Any, int], kind: DataType) -> tuple[str, str]:
    from pyspark.sql.types import NumericType

    if not isinstance(kind, NumericType):
        return CLASSIFIER, f"the label has type {kind.simpleString()}"
    if any(value != value // 1 for value in counts):
        return REGRESSOR, "the label has numbers with a fraction"
    if len(counts) > MAX_CLASSES_OF_NUMBERS:
        return REGRESSOR, f"the label is a number with more than {MAX_CLASSES_OF_NUMBERS} different values"
    return CLASSIFIER, f"the label has {len(counts)} different whole numbers"


def _number_summary(labelled: DataFrame, label_column: str) -> dict[str, float]:
    from pyspark.sql import functions as F

    label = F.col("label").cast("double")
    aggregates = {"rows": F.count, "mean": F.mean, "standard deviation": F.stddev, "lowest": F.min, "highest": F.max}
    summary = labelled.select(*(function(label).alias(name) for name, function in aggregates.items())).collect()[0]
    if any(abs(summary[name]) == float("inf") for name in ("lowest", "highest")):
        raise _unusable(label_column, "has infinite values, which no regression can learn; remove these rows")
    return summary.asDict()


def check_finite(rows: DataFrame, label_column: str, id_column: str) -> None:
    """Check that no feature has an infinite value, which scikit-learn and XGBoost refuse and Spark ML learns NaN from.

    Raises
    ------
    helpers.parameters.ParameterError
        With the columns, and the id of a row.
    """
    from pyspark.sql import functions as F
    from pyspark.sql.types import FractionalType

    names = [
        field.name
        for field in rows.schema.fields
        if isinstance(field.dataType, FractionalType) and field.name not in (label_column, id_column)
    ]
    if not names:
        return
    # One expression for all columns: Java does not compile a thousand of them.
    doubles = F.array(*(F.col(quoted(name)).cast("double") for name in names))
    with_infinity = rows.where(F.exists(doubles, lambda value: F.abs(value) == float("inf")))
    row_count, example = with_infinity.agg(F.count(F.lit(1)), F.first(F.struct(quoted(id_column), doubles))).collect()[
        0
    ]
    if row_count:
        row_id, values = example
        infinite = [
            name for name, value in zip(names, values, strict=True) if value is not None and abs(value) == float("inf")
        ]
        raise ParameterError(
            "features",
            ", ".join(infinite[:_MAX_NAMES_IN_MESSAGE]),
            f"infinite in the row {id_column}={row_id!r}; {row_count} rows have such values, from which no model can learn. "
            "Replace them by null, which is a missing value, or remove these rows",
        )


def _unusable(label_column: str, problem: str) -> ParameterError:
    return ParameterError("label_column", label_column, problem)


# Each takes the rows, the label column and the id column, and raises ParameterError if the table cannot be used.
TABLE_CHECKS: list[Callable[[DataFrame, str, str], object]] = [
    lambda rows, _label_column, id_column: check_id(rows, id_column),
    check_finite,
]


def check_table(rows: DataFrame, label_column: str, id_column: str, model_type: str = "auto") -> Label:
    """Check the label of a labelled table, and run the checks of `TABLE_CHECKS`.

    Parameters
    ----------
    rows : pyspark.sql.DataFrame
    label_column, id_column : str
    model_type : str, default "auto"
        See `check_label`.

    Returns
    -------
    Label

    Raises
    ------
    helpers.parameters.ParameterError
        From the first check that fails.
    """
    label = check_label(rows, label_column, id_column, model_type)
    for check in TABLE_CHECKS:
        check(rows, label_column, id_column)
    return label


def _listed(names: list[str]) -> str:
    omitted = len(names) - _MAX_NAMES_IN_MESSAGE
    more = f" and {omitted} more" if omitted > 0 else ""
    return ", ".join(map(repr, names[:_MAX_NAMES_IN_MESSAGE])) + more
