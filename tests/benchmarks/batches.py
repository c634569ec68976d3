"""Whether the time of a small batch grows with the number of batches that the table of predictions has already.

    python -m tests.benchmarks.batches [--batches 200] [--rows 100]

Each batch is the whole of ``Scorer.score_batch`` with a linear model, as a stream with an interval runs it. Printed is the
median of the seconds of each fifth of the batches.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time


def main() -> None:
    """Score batch after batch into one table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.batches", description=__doc__)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--rows", type=int, default=100)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BUNDLE_LOCAL_DIR"] = folder
        seconds = score(options.batches, options.rows)
    part = max(len(seconds) // 5, 1)
    for start in range(0, len(seconds), part):
        median = statistics.median(seconds[start : start + part])
        print(f"batches {start + 1:5} to {min(start + part, len(seconds)):5}: {median:.2f} s each")


def score(batches: int, rows: int) -> list[float]:
    """Return how many seconds each batch took."""
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
    scorer = scoring.Scorer(session, mlflow.register_model(uri, "batches"), "bench.rows", "bench.predictions", "id")
    seconds = []
    for number in range(batches):
        began = time.perf_counter()
        batch = scorer.score_batch(scoring.rows_to_score(spark, "bench.rows", "", "id"), f"{number:06}")
        seconds.append(time.perf_counter() - began)
        assert batch.rows_scored == rows
    return seconds


if __name__ == "__main__":
    main()
