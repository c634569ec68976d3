"""Count the values of many columns by bin and window, with Spark's own functions and in one pass over each column."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from helpers.monitoring.bins import Bins, Counted

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# Spark's planner needs long for queries with more parts.
_PAIRS_PER_QUERY = 8
_VALUES = ("first_value", "second_value")


def count_by_bin(rows: DataFrame, bins: Mapping[str, Bins], window: Column) -> dict[Any, dict[str, Counted]]:
    """Count the values of columns by window and bin.

    Two columns are counted by one aggregation whose groups are pairs of bins: that is faster than one sum per bin, and
    needs no more memory. The aggregations of several pairs are one query.

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
    from pyspark.sql import DataFrame
    from pyspark.sql import functions as F

    names = sorted(bins)
    pairs = [names[first : first + 2] for first in range(0, len(names), 2)]
    counts: dict[Any, dict[str, Counted]] = {}
    for first in range(0, len(pairs), _PAIRS_PER_QUERY):
        chunk = pairs[first : first + _PAIRS_PER_QUERY]
        parts = []
        for number, pair in enumerate(chunk):
            codes = [bins[name].code(value) for name, value in zip(pair, _VALUES, strict=False)]
            code = codes[0] if len(pair) == 1 else f"{codes[0]} + {_codes(bins[pair[0]])} * {codes[1]}"
            values = (F.expr(bins[name].value(name)).alias(value) for name, value in zip(pair, _VALUES, strict=False))
            coded = rows.select(window.alias("window"), *values).select("window", F.expr(code).alias("code"))
            parts.append(coded.groupBy("window", "code").count().select(F.lit(number).alias("pair"), "*"))
        for number, key, code, count in functools.reduce(DataFrame.union, parts).collect():
            columns = counts.setdefault(key, {name: Counted(bins[name], [0] * _codes(bins[name])) for name in names})
            for name in chunk[number]:
                code, own = divmod(code, _codes(bins[name]))
                columns[name].counts[own] += count
    return counts


def _codes(bins: Bins) -> int:
    return bins.missing + 1
