"""Whether the time of a small batch grows with the number of batches that the table of predictions has already.

    python -m tests.benchmarks.batches [--at 1 100 1000 5000] [--rows 100] [--times 5]

Each measured batch is the whole of ``Scorer.score_batch`` with a linear model, as a stream with an interval runs it. The
batches before it are copies of the first one, in the folders that the bundle writes. Printed are, for each number of
batches, the median of the seconds of a batch, and the seconds that Spark takes to count the rows of one batch and of all.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from helpers.laptop import catalog

PREDICTIONS = "bench.predictions"
T = TypeVar("T")


def main() -> None:
    """Score some batches into a table that has more and more of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.batches", description=__doc__)
    parser.add_argument("--at", type=int, nargs="+", default=[1, 100, 1000, 5000], help="which batches to measure")
    parser.add_argument("--rows", type=int, default=100, help="rows per batch")
    parser.add_argument("--times", type=int, default=5, help="how many batches to measure at each point")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BUNDLE_LOCAL_DIR"] = folder
        measure(sorted(options.at), options.rows, options.times)


def measure(points: list[int], rows: int, times: int) -> None:
    """Print the seconds at each point."""
    from helpers import runtime

    score = scorer(rows)
    # The first batch of a session also pays for its start: imports in Python's workers, code that Java compiles.
    for number in range(20):
        score(f"first-{number}")
    spark = runtime.spark()
    folder = catalog.rows_folder(Path(spark.conf.get("spark.sql.warehouse.dir").removeprefix("file:")), PREDICTIONS)
    for point in points:
        fill(folder, point - 1)
        batch = statistics.median(seconds(lambda: score(f"measured-{uuid.uuid4().hex}"))[0] for _ in range(times))
        one, _ = seconds(lambda: spark.table(PREDICTIONS).where("batch_id = 'first-0'").count())
        everything, counted = seconds(lambda: spark.table(PREDICTIONS).count())
        assert counted == rows * len(list(folder.glob("batch_id=*")))
        print(f"batch {point:6}: {batch:.2f} s; to count its rows {one:.2f} s, those of the table {everything:.2f} s")


def scorer(rows: int) -> Callable[[str], None]:
    """Return a function that scores a batch with the id that it is given."""
    import mlflow
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.linear_model import LinearRegression

    from helpers import parameters, runtime, scoring, storage, tracking

    session = tracking.configure(parameters.Tracking(experiment_name="batches"))
    spark = runtime.spark()
    spark.sql("CREATE SCHEMA bench")
    storage.replace_table(spark.range(rows).selectExpr("id", "id / 7 AS x"), "bench.rows")
    features = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
    signature = infer_signature(features, pd.Series([1.0], name="prediction"))
    with mlflow.start_run():
        uri = tracking.log_model(LinearRegression().fit(features, [1, 2, 3]), flavor="sklearn", signature=signature)
    model = scoring.Scorer(session, mlflow.register_model(uri, "batches"), "bench.rows", PREDICTIONS, "id")

    def score(batch_id: str) -> None:
        batch = model.score_batch(scoring.rows_to_score(spark, "bench.rows", "", "id"), batch_id)
        assert batch.rows_scored == rows

    return score


def fill(folder: Path, batches: int) -> None:
    """Copy a batch of a table until the table has so many."""
    (first,) = (folder / "_attempts" / "batch_id=first-0").iterdir()
    for number in range(len(list(folder.glob("batch_id=*"))), batches):
        link = folder / f"batch_id=copy-{number:06}"
        attempt = folder / "_attempts" / link.name / uuid.uuid4().hex
        shutil.copytree(first, attempt)
        link.symlink_to(os.path.relpath(attempt, folder))


def seconds(action: Callable[[], T]) -> tuple[float, T]:
    """Return how many seconds an action takes, and what it returns."""
    began = time.perf_counter()
    result = action()
    return time.perf_counter() - began, result


if __name__ == "__main__":
    main()
