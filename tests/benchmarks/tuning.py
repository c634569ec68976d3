"""How much faster the trials of a study are side by side on Spark than one after the other.

    python -m tests.benchmarks.tuning [--trials 10] [--rows 200000] [--epochs 250] [--repeat 1]

XGBoost learns a table of numbers; each trial uses one processor in both cases. The tracking server is an MLflow server on
this machine. For comparison, the same is measured for two processes that do nothing but train: what is possible where
other programs share the processors. Trials are not pruned, so both cases do the same work: the hyperparameters of the first ten trials are
random and the same. What is measured is the whole of ``training.tune``, with what
the workers import.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd

from tests.stand_ins.databricks_tracking import DatabricksStandIn


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--epochs", type=int, default=250)
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, DatabricksStandIn.start(Path(folder, "server")) as server:
        os.environ |= server.environment() | {
            "BUNDLE_LOCAL_DIR": folder,
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        }
        measure(arguments)


def measure(arguments: argparse.Namespace) -> None:
    """Time both kinds of study, in turn, as often as asked for."""
    import mlflow

    from helpers import data, parameters, runtime, tracking, training
    from helpers.training import trials

    spark = runtime.spark()
    spark.sql("CREATE SCHEMA IF NOT EXISTS tuning")
    spark.createDataFrame(table(arguments.rows)).write.mode("overwrite").saveAsTable("tuning.rows")
    split = data.load_split(spark, "tuning.rows", label_column="y", id_column="id", test_fraction=0.2, seed=1)
    values = {"model_flavor": "xgboost", "epochs": arguments.epochs, "tuning_trials": arguments.trials}
    values |= {"tracking_mode": "databricks", "model_registry": "databricks", "experiment_name": "/Shared/tuning"}
    seconds: dict[int, list[float]] = {2: [], 1: []}
    print(f"{os.cpu_count()} processors, {arguments.trials} trials, {arguments.rows} rows, {arguments.epochs} epochs")

    def seconds_of_study(**changes: object) -> tuple[float, training.Tuning]:
        p = parameters.parse(parameters.Train, values | changes)
        session = tracking.configure(p)
        with mlflow.start_run():
            start = time.perf_counter()
            tuned = training.tune(session, split, p)
            return time.perf_counter() - start, tuned

    print(f"two processes instead of one: {possible():.2f} x as fast")
    # Spark's first queries take longer.
    seconds_of_study(tuning_trials=1, tuning_parallel=1, epochs=1)
    with mock.patch.object(trials, "_FIRST_TRIALS", arguments.trials):
        for _ in range(arguments.repeat):
            for parallel, measured in seconds.items():
                elapsed, tuned = seconds_of_study(tuning_parallel=parallel)
                measured.append(elapsed)
                print(
                    f"{measured[-1]:7.1f} s: {tuned.description}; smallest loss {tuned.trials['tuning_loss'].min():.6f}"
                )
    print(f"side by side: {min(seconds[1]) / min(seconds[2]):.2f} x as fast")


_TRAINING = (
    "import numpy, xgboost\nX = numpy.random.default_rng(0).normal(size=(200_000, 20))\n"
    "xgboost.XGBClassifier(n_estimators=250, n_jobs=1).fit(X, X[:, 0] > 0)"
)


def possible() -> float:
    """Return how much faster two processes train two models at once than one after the other."""

    def train(at_once: int) -> float:
        start = time.perf_counter()
        for _ in range(2 // at_once):
            processes = [subprocess.Popen([sys.executable, "-c", _TRAINING]) for _ in range(at_once)]
            for process in processes:
                process.wait()
        return time.perf_counter() - start

    return train(1) / train(2)


def table(rows: int) -> pd.DataFrame:
    """Return rows of 20 numbers that tell two classes apart, not quite."""
    generator = np.random.default_rng(0)
    numbers = generator.normal(size=(rows, 20))
    score = numbers[:, :5].sum(axis=1) + numbers[:, 5] * numbers[:, 6] + generator.normal(size=rows)
    columns = {f"x{number}": numbers[:, number] for number in range(20)}
    return pd.DataFrame({"id": np.arange(rows), "y": np.where(score > 0, "yes", "no"), **columns})


if __name__ == "__main__":
    main()
