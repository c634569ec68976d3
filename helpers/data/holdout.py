"""The ways to hold out rows of a table: by a hash of their id, by time, or as a column says.

To add one, write a class with the methods of `HoldOut`, and add a line to `helpers.kinds.SPLITS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from helpers import kinds
from helpers.data.checks import find_column
from helpers.data.columns import has_value
from helpers.data.names import quoted
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import DataType

TRAINING, VALIDATION, HELD_OUT = "training", "validation", "held out"
"""Names of the parts of a table."""
_HASH_BUCKETS = 1 << 30
# With the offset, because the same local time comes twice when clocks are put back.
_TIMESTAMP_FORMAT = "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXXXX"


@dataclass(frozen=True)
class HoldOut(ABC):
    """A way to hold out rows of a table.

    Attributes
    ----------
    split_by : str
        Its name in `helpers.kinds.SPLITS`.
    id_column : str
    test_fraction : float
    seed : int
    split_column : str
        Empty if it needs none.
    values : tuple of str
        What `find` found in the split column. A run records it, and finds the same rows again by it when the table has
        grown.
    """

    split_by: str
    id_column: str
    test_fraction: float
    seed: int
    split_column: str = ""
    values: tuple[str, ...] = ()

    needs_column: ClassVar[bool] = True
    why_no_feature: ClassVar[str] = ""
    """Why the split column is not a feature."""

    @abstractmethod
    def find(self, rows: DataFrame) -> tuple[str, ...]:
        """Check the split column of the labelled rows, and return what a run has to record of it.

        Raises
        ------
        helpers.parameters.ParameterError
            If the column cannot split the rows.
        """

    @abstractmethod
    def parts(self, rows: DataFrame) -> dict[str, DataFrame]:
        """Return the rows of each part: `TRAINING`, `HELD_OUT`, and `VALIDATION` if other rows measure each epoch."""

    @property
    @abstractmethod
    def description(self) -> str:
        """How the held-out rows were chosen; empty for the id."""

    @abstractmethod
    def missing_class(self, problem: str) -> ParameterError:
        """Return the error for a part that lacks a class, with the way out."""

    def put_aside(self, rows: DataFrame, fraction: float, seed: int) -> HoldOut:
        """Return a way to put a fraction of the training rows aside, to compare models by them: by a hash of the id.

        Parameters
        ----------
        rows : pyspark.sql.DataFrame
            The training rows, with the split column.
        fraction : float
        seed : int
            Another one than that of the split, whose hash chose these rows.
        """
        return ById("id", self.id_column, fraction, seed)

    def unusable(self, problem: str) -> ParameterError:
        """Return the error for a split column that cannot split the rows."""
        return ParameterError("split_column", self.split_column, problem)


class ById(HoldOut):
    """A hash of the id and the seed decides, row by row.

    A row therefore stays on its side when the table is reordered or grows.
    """

    needs_column = False

    def find(self, rows: DataFrame) -> tuple[str, ...]:
        """Return an empty tuple. A split by the id has no split column."""
        return ()

    def parts(self, rows: DataFrame) -> dict[str, DataFrame]:
        """Hold out about `test_fraction` of the rows."""
        from pyspark.sql import functions as F

        text = F.col(quoted(self.id_column)).cast("string")
        bucket = F.pmod(F.xxhash64(text, F.lit(self.seed)), F.lit(_HASH_BUCKETS))
        held_out = bucket < int(self.test_fraction * _HASH_BUCKETS)
        return {TRAINING: rows.where(~held_out), HELD_OUT: rows.where(held_out)}

    @property
    def description(self) -> str:
        """Nothing, because all ids are treated alike."""
        return ""

    def missing_class(self, problem: str) -> ParameterError:
        """Name the fraction and the seed."""
        return ParameterError(
            "test_fraction",
            self.test_fraction,
            f"with seed={self.seed} {problem}. Add rows of that class, or change test_fraction or seed.",
        )


class ByTime(HoldOut):
    """The newest rows are held out: those from a value of the split column on.

    `values` are the oldest and the newest value of the held-out rows. Rows that are newer than both arrived after the
    split: they are in neither part.
    """

    why_no_feature = "split_column: later rows have other values"

    def find(self, rows: DataFrame) -> tuple[str, ...]:
        """Return the value whose share of rows at or after it is nearest to `test_fraction`, and the newest value.

        Rows with the same value stay together, so that no training row is as new as a held-out one. Both parts get at
        least one value. Each distinct value is counted, so the result is exact and the same each time.
        """
        from pyspark.sql import Window
        from pyspark.sql import functions as F
        from pyspark.sql.types import DateType, NumericType, TimestampNTZType, TimestampType

        kind = rows.schema[self.split_column].dataType
        if not isinstance(kind, DateType | TimestampType | TimestampNTZType | NumericType):
            raise self.unusable(
                f"has type {kind.simpleString()}; split_by=time needs a column of dates, timestamps or numbers"
            )
        value = F.col(quoted(self.split_column))
        row_count, value_count, newest = rows.select(
            F.count(F.lit(1)), F.count(F.when(has_value(rows, self.split_column), 1)), _as_text(F.max(value), kind)
        ).collect()[0]
        if value_count < row_count:
            raise self.unusable(
                f"has {row_count - value_count} nulls or NaNs among {row_count} labelled rows; it must have none, because "
                "a row without a time is neither old nor new"
            )
        counts = rows.groupBy(value.alias("value")).agg(F.count(F.lit(1)).alias("rows"))
        # A partition of all rows: without any, Spark warns about that at each call.
        newest_first = Window.partitionBy(F.lit(0)).orderBy(F.desc("value"))
        boundary = (
            counts.select("value", F.sum("rows").over(newest_first).alias("held_out"))
            .where(F.col("held_out") < row_count)
            .orderBy(F.abs(F.col("held_out") - self.test_fraction * row_count), F.desc("value"))
            .select(_as_text(F.col("value"), kind))
            .head(1)
        )
        if not boundary:
            raise self.unusable(f"has one value only, {newest}, in all {row_count} labelled rows; two are needed")
        return boundary[0][0], newest

    def parts(self, rows: DataFrame) -> dict[str, DataFrame]:
        """Hold out the rows from the oldest to the newest recorded value, and train on what is older."""
        from pyspark.sql import functions as F

        kind = rows.schema[self.split_column].dataType
        # Null if the column has another type by now and the text does not convert: then no row is held out.
        oldest, newest = (F.expr(f"try_cast('{text}' AS {kind.simpleString()})") for text in self.values)
        value = F.col(quoted(self.split_column))
        return {TRAINING: rows.where(value < oldest), HELD_OUT: rows.where(value.between(oldest, newest))}

    def put_aside(self, rows: DataFrame, fraction: float, seed: int) -> HoldOut:
        """Put the newest of the training rows aside. If all of them have one time, a hash of the id decides."""
        newer = replace(self, test_fraction=fraction, values=())
        try:
            return replace(newer, values=newer.find(rows))
        except ParameterError:
            return super().put_aside(rows, fraction, seed)

    @property
    def description(self) -> str:
        """The column, and the values between which rows are held out."""
        oldest, newest = (text.replace(".000000", "") for text in self.values)
        return f"newest by {quoted(self.split_column)} from {oldest} to {newest}"

    def missing_class(self, problem: str) -> ParameterError:
        """Name the fraction and the boundary."""
        return ParameterError(
            "test_fraction",
            self.test_fraction,
            f"{problem}, {self.description}. Add rows of that class, or change test_fraction.",
        )


class ByColumn(HoldOut):
    """A column says of each row whether it is for training, validation or test.

    `values` are those of ``test`` and ``validation`` that there are, in this order. The first one judges the model. The
    last one measures each epoch.
    """

    why_no_feature = "split_column: says which part a row is in"

    TRAIN: ClassVar[str] = "train"
    NOT_TRAIN: ClassVar[tuple[str, ...]] = ("test", "validation")

    def find(self, rows: DataFrame) -> tuple[str, ...]:
        """Return which of ``test`` and ``validation`` there are."""
        from pyspark.sql import functions as F
        from pyspark.sql.types import StringType

        kind = rows.schema[self.split_column].dataType
        if not isinstance(kind, StringType):
            raise self.unusable(f"has type {kind.simpleString()}; split_by=column needs a column of text")
        known = F.when(self._word().isin(self.TRAIN, *self.NOT_TRAIN), self._word())
        counts: dict[str | None, int] = dict(rows.groupBy(known).count().collect())
        accepted = "accepted are train, validation and test, in upper or lower case"
        if None in counts:
            other = rows.where(known.isNull()).select(quoted(self.split_column)).head(1)[0][0]
            example = "null" if other is None else repr(other)
            raise self.unusable(
                f"has another value in {counts[None]} of {sum(counts.values())} labelled rows, e.g. {example}; {accepted}"
            )
        present = tuple(word for word in self.NOT_TRAIN if word in counts)
        if self.TRAIN not in counts or not present:
            missing = "validation or test" if self.TRAIN in counts else self.TRAIN
            raise self.unusable(f"no labelled row has {missing}; it has only: {', '.join(sorted(map(str, counts)))}")
        return present

    def parts(self, rows: DataFrame) -> dict[str, DataFrame]:
        """Hold out the ``test`` rows. If the table has none, hold out the ``validation`` rows."""
        words = {TRAINING: self.TRAIN, VALIDATION: self.values[-1], HELD_OUT: self.values[0]}
        if len(self.values) == 1:
            del words[VALIDATION]
        return {part: rows.where(self._word() == word) for part, word in words.items()}

    @property
    def description(self) -> str:
        """The column, and its value that judges."""
        return f"{quoted(self.split_column)} is {self.values[0]}"

    def missing_class(self, problem: str) -> ParameterError:
        """Name the column."""
        return self.unusable(f"{problem}. Each part needs rows of each class.")

    def _word(self) -> Column:
        from pyspark.sql import functions as F

        return F.lower(F.trim(F.col(quoted(self.split_column))))


def make(
    split_by: str, id_column: str, test_fraction: float, seed: int, split_column: str = "", values: Sequence[str] = ()
) -> HoldOut:
    """Return a way to hold out rows with what a run recorded; see `HoldOut` for the parameters."""
    if split_by not in kinds.SPLITS:
        raise ParameterError("split_by", split_by, f"not accepted: one of {', '.join(kinds.SPLITS)}")
    kind = kinds.load(kinds.SPLITS, split_by)
    return kind(split_by, id_column, test_fraction, seed, split_column, tuple(values))


def choose(rows: DataFrame, hold_out: HoldOut, label_column: str) -> HoldOut:
    """Check that a way to hold out rows fits a table, and complete it with what it finds in the split column.

    Parameters
    ----------
    rows : pyspark.sql.DataFrame
        The labelled rows.
    hold_out : HoldOut
        From `make`. With what a run recorded, only the existence of the split column is checked: the table may have
        got any rows since.
    label_column : str

    Raises
    ------
    helpers.parameters.ParameterError
        If there must or must not be a split column, or if it cannot split the rows.
    """
    column, by = hold_out.split_column, hold_out.split_by
    if not hold_out.needs_column:
        if column:
            raise hold_out.unusable(
                f"split_by={by} uses no split column; leave it empty, or set split_by=time or column"
            )
        return hold_out
    if not column:
        raise hold_out.unusable(
            f"split_by={by} needs a column of the table; its columns are: {', '.join(rows.columns)}"
        )
    find_column(rows, column, "split_column")
    if column == label_column:
        raise hold_out.unusable("is also the label_column; name another column")
    return hold_out if hold_out.values else replace(hold_out, values=hold_out.find(rows))


def _as_text(value: Column, kind: DataType) -> Column:
    """Return a value as text that converts back to the same value, whatever the time zone of the session."""
    from pyspark.sql import functions as F
    from pyspark.sql.types import TimestampType

    return F.date_format(value, _TIMESTAMP_FORMAT) if isinstance(kind, TimestampType) else value.cast("string")
