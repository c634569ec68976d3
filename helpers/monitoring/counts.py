"""Count the values of many columns by bin and window, with Spark's own functions and in one pass over each column."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers.monitoring.bins import Bins, Counted

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# A group's combinations of bins have to fit into the fast part of Spark's hash table, which has 65,536 entries.
_COLUMNS_PER_GROUP, _MOST_COMBINATIONS = 3, 4096
# Spark generates one method for all bins of a scan, and Java leaves methods above 8,000 bytes interpreted.
_GROUPS_PER_SCAN = 2
# Spark's planner needs long for queries with more parts.
_SCANS_PER_QUERY = 3


@dataclass(frozen=True)
class _Group:
    """Columns that are counted together. Each combination of their bins has a number, from `first` on."""

    columns: Sequence[str]
    sizes: Sequence[int]
    first: int

    @property
    def strides(self) -> list[int]:
        return [1, *itertools.accumulate(self.sizes[:-1], int.__mul__)]

    @property
    def end(self) -> int:
        return self.first + math.prod(self.sizes)

    def number(self, codes: Mapping[str, str]) -> str:
        """Return a SQL expression for the number of a row's combination."""
        terms = (f"{codes[name]} * {stride}" for name, stride in zip(self.columns, self.strides, strict=True))
        return f"CAST({' + '.join(terms)} + {self.first} AS BIGINT)"


def count_by_bin(rows: DataFrame, bins: Mapping[str, Bins], window: Column) -> dict[Any, dict[str, Counted]]:
    """Count the values of columns by window and bin.

    Three columns are counted by one aggregation, whose groups are the combinations of their bins. That is faster than one
    sum per bin, and needs no more memory.

    Parameters
    ----------
    rows : pyspark.sql.DataFrame
    bins : mapping of str to NumberBins or CategoryBins
        By column.
    window : pyspark.sql.Column
        Names the window of a row.

    Returns
    -------
    dict of object to dict of str to Counted
        By window and column. Windows without rows are not there.
    """
    import numpy as np
    from pyspark.sql import DataFrame

    counts: dict[Any, dict[str, Counted]] = {}
    for groups in _queries(bins):
        first_of_scans = range(0, len(groups), _GROUPS_PER_SCAN)
        scans = (_scan(rows, bins, window, groups[n : n + _GROUPS_PER_SCAN], groups[-1].end) for n in first_of_scans)
        counted = functools.reduce(DataFrame.union, scans).toPandas()
        if "window" not in counted:
            counted["window"], counted["number"] = np.divmod(counted["number"], groups[-1].end)
        for key, of_window in counted.groupby("window"):
            columns = counts.setdefault(key, {})
            for group in groups:
                own = of_window[of_window["number"].between(group.first, group.end - 1)]
                for name, stride, size in zip(group.columns, group.strides, group.sizes, strict=True):
                    codes = (own["number"] - group.first) // stride % size
                    totals = np.bincount(codes, weights=own["count"], minlength=size)
                    columns[name] = Counted(bins[name], totals.astype(int).tolist())
    return counts


def _scan(rows: DataFrame, bins: Mapping[str, Bins], window: Column, groups: Sequence[_Group], end: int) -> DataFrame:
    """Count rows by window and combination."""
    from pyspark.sql import functions as F
    from pyspark.sql.types import IntegralType

    values = {name: f"value_{place}" for place, name in enumerate(name for group in groups for name in group.columns)}
    codes = {name: bins[name].code(value) for name, value in values.items()}
    rows = rows.select(window.alias("window"), *(F.expr(bins[name].value(name)).alias(values[name]) for name in values))
    numbers = {f"group_{place}": F.expr(group.number(codes)) for place, group in enumerate(groups)}
    keys = ["window"]
    if isinstance(rows.schema["window"].dataType, IntegralType):
        # One key for window and combination is faster than two.
        keys = []
        numbers = {name: number + F.col("window").cast("bigint") * end for name, number in numbers.items()}
    numbered = rows.select(*keys, *(number.alias(name) for name, number in numbers.items()))
    # Spark unpivots within the generated code, row by row: one scan serves all groups.
    long = numbered.unpivot(tuple(keys), tuple(numbers), "group", "number")
    return long.groupBy(*keys, "number").count()


def _queries(bins: Mapping[str, Bins]) -> list[list[_Group]]:
    """Return the groups of all columns, those of one query together."""
    columns: list[list[str]] = []
    for name in sorted(bins):
        together = [*columns[-1], name] if columns else []
        combinations = math.prod(_size(bins[each]) for each in together)
        if together and len(together) <= _COLUMNS_PER_GROUP and combinations <= _MOST_COMBINATIONS:
            columns[-1] = together
        else:
            columns.append([name])
    queries: list[list[_Group]] = []
    for place, names in enumerate(columns):
        if place % (_GROUPS_PER_SCAN * _SCANS_PER_QUERY) == 0:
            queries.append([])
        groups = queries[-1]
        groups.append(_Group(names, [_size(bins[name]) for name in names], groups[-1].end if groups else 0))
    return queries


def _size(bins: Bins) -> int:
    return bins.missing + 1
