"""How long it takes to compare scored rows with a baseline, beside Spark only reading the same columns.

    python -m tests.benchmarks.monitoring [--rows 5000000] [--growth 1000000 20000000] [--repeats 3]

The rows have 13 numbers and a prediction, and come in ten batches of one day each, as 04_batch_score writes them.
``reading`` writes the numbers and the times to Spark's data source ``noop``, which does nothing with them. ``counting`` is `helpers.monitoring.counts.count_by_bin`: one pass over each column.
``monitor`` is everything that 06_monitor does for these windows but the table of measures: it finds them, counts, and
computes the distances. They run in turn, ``--repeats`` times.
Printed are medians, and what was in use of Java's heap after the last garbage collection.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

COLUMNS = [f"c{number}" for number in range(13)]
TRAINING_ROWS = 20_000
BATCHES = 10


def main() -> None:
    """Measure for each number of rows."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.monitoring", description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--growth", type=int, nargs="*", default=[1_000_000, 20_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BUNDLE_LOCAL_DIR"] = folder
        for rows in sorted({options.rows, *options.growth}):
            measure(Path(folder) / str(rows), rows, options.repeats)


def measure(folder: Path, row_count: int, repeats: int) -> None:
    """Print the medians for a number of rows."""
    from pyspark.sql import functions as F

    from helpers import runtime
    from helpers.monitoring import baseline, counts, measures, windows

    spark = runtime.spark()
    numbers = [F.randn(number).alias(name) for number, name in enumerate(COLUMNS)]
    for batch in range(BATCHES):
        # 2025-11-28 and the days after it.
        scored_at = F.timestamp_seconds(F.lit(1_764_288_000 + batch * 86_400)).alias("scored_at")
        rows = spark.range(batch * row_count // BATCHES, (batch + 1) * row_count // BATCHES)
        rows = rows.select("id", *numbers, F.lit("0").alias("prediction"), scored_at, F.lit(batch).alias("batch_id"))
        rows.write.mode("append").partitionBy("batch_id").parquet(str(folder))
    rows = spark.read.parquet(str(folder))
    features = baseline.count_features(rows.limit(TRAINING_ROWS), COLUMNS, [])
    bins = {name: counted.bins for name, counted in features.items()}

    def read() -> None:
        rows.select(*COLUMNS, "scored_at").write.format("noop").mode("overwrite").save()

    def count() -> None:
        counted = counts.count_by_bin(rows, bins, windows.column(windows.DAY))
        assert len(counted) == BATCHES and sum(each["c0"].rows for each in counted.values()) == row_count

    def compare() -> None:
        counted = counts.count_by_bin(rows, bins, windows.column(windows.DAY))
        measured = [
            item
            for each in counted.values()
            for name in bins
            for item in measures.of_feature(name, features[name], each[name])
        ]
        assert len(measured) == BATCHES * len(COLUMNS) * 4

    seconds: dict[str, list[float]] = {"reading": [], "counting": [], "monitor": []}
    for number in range(repeats + 1):
        for name, function in (("reading", read), ("counting", count), ("monitor", compare)):
            taken = timed(function)
            # The first time, Java compiles the code that Spark generates.
            if number:
                seconds[name].append(taken)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians["monitor"] / medians["reading"]
    listed = ", ".join(f"{name} {value:.2f} s" for name, value in medians.items())
    print(f"{row_count:,} rows: {listed}; monitor / reading {ratio:.2f}; {heap(spark):.0f} MB of heap", flush=True)


def heap(spark: SparkSession) -> float:
    """Return how much of Java's heap was in use after the last garbage collection, in MB."""
    beans = spark.sparkContext._jvm.java.lang.management.ManagementFactory.getMemoryPoolMXBeans()
    used = [bean.getCollectionUsage() for bean in beans]
    return sum(usage.getUsed() for usage in used if usage is not None) / 1e6


def timed(function: Callable[[], None]) -> float:
    """Return how many seconds a function takes."""
    start = time.monotonic()
    function()
    return time.monotonic() - start


if __name__ == "__main__":
    main()
