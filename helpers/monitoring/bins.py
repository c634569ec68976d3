"""The bins in which values are counted: of numbers by quantiles of the training rows, of text by category."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

from helpers.data.names import quoted


@dataclass(frozen=True)
class NumberBins:
    """Bins of a number. A value equal to a cut belongs to the bin above it.

    Attributes
    ----------
    cuts : tuple of float
        Between the bins, rising.
    lowest, highest : float
        The range of the baseline. Values outside have codes of their own, 0 and `above`.
    """

    cuts: tuple[float, ...]
    lowest: float
    highest: float

    @property
    def above(self) -> int:
        """Code of the values above `highest`."""
        return len(self.cuts) + 2

    @property
    def missing(self) -> int:
        """Code of null and NaN."""
        return len(self.cuts) + 3

    @property
    def names(self) -> list[str]:
        """What each bin inside the range has, in the order of the codes from 1 on."""
        ends = [self.lowest, *self.cuts, self.highest]
        return [f"{low:.4g} to {high:.4g}" for low, high in itertools.pairwise(ends)]

    def value(self, column: str) -> str:
        """Return a SQL expression for the value of a column, from which `code` is computed."""
        return f"coalesce(CAST({quoted(column)} AS DOUBLE), double('NaN'))"

    def code(self, value: str) -> str:
        """Return a SQL expression for the code of a value."""
        # Spark's NaN is above all other numbers. The expression has no null and branches like a binary search, so that
        # Java's compiler takes the code that Spark generates of it: methods above 8,000 bytes stay interpreted.
        ends = [self.lowest, *self.cuts, math.nextafter(self.highest, math.inf)]
        return _search(value, [*map(_literal, ends), "double('NaN')"], 0)

    def distribution(self, counts: list[int]) -> list[int]:
        """Return the counts by bin. Values outside the range belong to the outermost bins, missing values to none."""
        inside = list(counts[1 : self.above])
        inside[0] += counts[0]
        inside[-1] += counts[self.above]
        return inside


@dataclass(frozen=True)
class CategoryBins:
    """Bins of a text, one for each category.

    Attributes
    ----------
    values : tuple of str
        The categories of the baseline, or the most frequent of them.
    """

    values: tuple[str, ...]

    @property
    def others(self) -> int:
        """Code of all other texts."""
        return len(self.values)

    @property
    def missing(self) -> int:
        """Code of null."""
        return len(self.values) + 1

    @property
    def names(self) -> list[str]:
        """The categories."""
        return [*self.values, "others"]

    def value(self, column: str) -> str:
        """Return a SQL expression for the value of a column, from which `code` is computed."""
        return f"CAST({quoted(column)} AS STRING)"

    def code(self, value: str) -> str:
        """Return a SQL expression for the code of a value."""
        known = (
            f"array({', '.join(map(text_literal, self.values))})" if self.values else "CAST(array() AS ARRAY<STRING>)"
        )
        # The position is 0 for a text that is not there, and null for null.
        size = len(self.values)
        position = f"array_position({known}, {value})"
        return f"CAST(coalesce(({position} + {size}) % {size + 1}, {self.missing}) AS INT)"

    def distribution(self, counts: list[int]) -> list[int]:
        """Return the counts by bin. Missing values belong to none."""
        return list(counts[: self.missing])


Bins = NumberBins | CategoryBins


@dataclass(frozen=True)
class Counted:
    """A column's bins, and how many values of some rows are in each.

    Attributes
    ----------
    bins : NumberBins or CategoryBins
    counts : list of int
        By code.
    """

    bins: Bins
    counts: list[int] = field(default_factory=list)

    @property
    def distribution(self) -> list[int]:
        """Number of values in each bin."""
        return self.bins.distribution(self.counts)

    @property
    def missing(self) -> int:
        """Number of missing values."""
        return self.counts[self.bins.missing]

    @property
    def rows(self) -> int:
        """Number of values, with the missing ones."""
        return sum(self.counts)

    def as_dict(self) -> dict[str, Any]:
        """Return what `from_dict` reads; all of it can be written as JSON."""
        bins = self.bins
        if isinstance(bins, CategoryBins):
            return {"categories": list(bins.values), "counts": self.counts}
        return {"cuts": list(bins.cuts), "lowest": bins.lowest, "highest": bins.highest, "counts": self.counts}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Counted:
        """Return what `as_dict` has described."""
        if "categories" in values:
            return cls(CategoryBins(tuple(values["categories"])), values["counts"])
        return cls(NumberBins(tuple(values["cuts"]), values["lowest"], values["highest"]), values["counts"])


def _search(value: str, ends: list[str], first: int) -> str:
    if not ends:
        return str(first)
    middle = len(ends) // 2
    above = _search(value, ends[middle + 1 :], first + middle + 1)
    return f"IF({value} >= {ends[middle]}, {above}, {_search(value, ends[:middle], first)})"


def _literal(number: float) -> str:
    return f"double('{'Infinity' if number == math.inf else '-Infinity' if number == -math.inf else repr(number)}')"


def text_literal(value: str) -> str:
    """Return a text as a literal of SQL."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
