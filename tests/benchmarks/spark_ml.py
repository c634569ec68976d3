"""How fast Spark ML models are trained and scored, and how that grows with the number of columns.

    python -m tests.benchmarks.spark_ml [--quick] [--rows 1000000] [--columns 30 100 300 1000] [--wide-rows 100000]
                                        [--repeats 3]

Two pipelines score the same table: one that this bundle trained, and one of somebody's own, with an Imputer and with
stages that refuse rows. ``ours`` is the whole of ``Scorer.score_batch``: it checks the columns, replaces the batch and
counts the rows. ``transform`` is the model's own ``transform`` and the same write. Both are measured with a model that is
loaded, as in all batches but the first of a scorer, and from its URI: ``ours`` then also downloads and loads it, and
``transform`` calls ``mlflow.spark.load_model``. They run in turn, ``--repeats`` times, and the result has medians.
``planning`` is the part of ``ours`` from the URI until Spark has a physical plan. ``--quick`` is for a look at it: fewer
wide rows, and each way once.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TRAINING_ROWS, EPOCHS = 5_000, 5


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.spark_ml", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of 30 columns")
    parser.add_argument("--columns", type=int, nargs="*", default=[30, 100, 300, 1000])
    parser.add_argument("--wide-rows", type=int, default=100_000, help="rows for each number of columns")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="20,000 wide rows, and once")
    options = parser.parse_args()
    if options.quick:
        options.wide_rows, options.repeats = 20_000, 1
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"BUNDLE_LOCAL_DIR": folder, "TQDM_DISABLE": "1"}
        bench = Bench(Path(folder))
        ratios = {
            pipeline: bench.compare(pipeline, 30, options.rows, options.repeats)[1]
            for pipeline in ("trained by this bundle", "somebody's own")
        }
        seconds = {
            columns: bench.compare("trained by this bundle", columns, options.wide_rows, options.repeats)[0]
            for columns in options.columns
        }
    for pipeline, ratio in ratios.items():
        print(f"{pipeline}: {ratio:.2f} × the time of the model's own transform and write, with 30 columns")
    for columns, taken in seconds.items():
        print(
            f"{columns:>4} columns: {taken:.1f} s for {options.wide_rows:,} rows, {1000 * taken / columns:.0f} ms per column"
        )


class Bench:
    """A Spark session with the tables and models that are measured."""

    def __init__(self, folder: Path) -> None:
        from helpers import parameters, runtime, tracking

        self.folder, self.models = folder, {}
        self.spark = runtime.spark()
        self.spark.sparkContext.setLogLevel("OFF")
        self.spark.sql("CREATE SCHEMA bench")
        self.session = tracking.configure(parameters.parse(parameters.Tracking, {"experiment_name": "benchmark"}))

    def table(self, columns: int, rows: int) -> str:
        """Return a table of random numbers, one in 20 of which is missing, with a label that the first two decide."""
        from pyspark.sql import functions as F

        from helpers import storage

        name = f"bench.columns_{columns}_rows_{rows}"
        if not self.spark.catalog.tableExists(name):
            numbers = [F.when(F.rand(seed) > 0.05, F.randn(seed)).alias(f"c{seed}") for seed in range(columns)]
            label = (F.coalesce("c0", F.lit(0)) + F.coalesce("c1", F.lit(0)) > 0).cast("long").alias("label")
            table = self.spark.range(rows, numPartitions=8).select("id", *numbers)
            storage.replace_table(table.select("*", label), name)
        return name

    def model(self, pipeline: str, columns: int) -> tuple[Any, float]:
        """Train and register a model with that many columns; return its version, and how long the training took."""
        import mlflow
        import pandas as pd
        from mlflow.models import infer_signature
        from pyspark.ml import Pipeline
        from pyspark.ml.classification import LogisticRegression
        from pyspark.ml.feature import Imputer, VectorAssembler

        from helpers import data, parameters, tracking, training

        if (pipeline, columns) not in self.models:
            started = time.perf_counter()
            with mlflow.start_run():
                if pipeline == "trained by this bundle":
                    names = {"label_column": "label", "id_column": "id"}
                    split = data.load_split(
                        self.spark, self.table(columns, TRAINING_ROWS), **names, test_fraction=0.25, seed=1
                    )
                    p = parameters.parse(parameters.Fit, {"model_flavor": "spark", "epochs": EPOCHS})
                    fit = training.fit(split, p)
                    model, signature = fit.model, fit.signature
                else:
                    rows = self.spark.table(self.table(columns, TRAINING_ROWS))
                    names = [f"c{number}" for number in range(columns)]
                    imputed = [f"{name}_imputed" for name in names]
                    stages = [
                        Imputer(inputCols=names, outputCols=imputed),
                        VectorAssembler(inputCols=imputed, outputCol="features"),
                        LogisticRegression(maxIter=EPOCHS),
                    ]
                    model = Pipeline(stages=stages).fit(rows)
                    signature = infer_signature(
                        rows.select(names).limit(100).toPandas(), pd.Series([1.0], name="prediction")
                    )
                seconds = time.perf_counter() - started
                uri = tracking.log_model(model, flavor="spark", signature=signature)
            version = mlflow.register_model(uri, f"bench_{columns}_{len(self.models)}")
            self.models[pipeline, columns] = version, seconds
        return self.models[pipeline, columns]

    def compare(self, pipeline: str, columns: int, rows: int, repeats: int) -> tuple[float, float]:
        """Measure and print it; return the seconds of ``ours``, and its ratio to ``transform``."""
        import mlflow

        from helpers import scoring

        version, training_seconds = self.model(pipeline, columns)
        table, uri = self.table(columns, rows), f"models:/{version.name}/{version.version}"
        predictions = {way: f"bench.{way}_{version.name}_{rows}" for way in ("ours", "transform")}

        scorer = scoring.Scorer(self.session, version, table, predictions["ours"], "id")
        own = mlflow.spark.load_model(uri)

        def ours(scorer: scoring.Scorer = scorer) -> None:
            batch = scorer.score_batch(self.spark.table(table), "b")
            assert (batch.rows_scored, batch.rows_quarantined) == (rows, 0)

        def transform(model: Any = own) -> None:
            self.transform(model, table, predictions["transform"], version)

        def ours_from_uri() -> None:
            ours(dataclasses.replace(scorer))

        def transform_from_uri() -> None:
            transform(mlflow.spark.load_model(uri))

        def planning() -> None:
            predictor = scoring.load(self.session, uri)
            engine = predictor.choose_engine(self.spark.table(table)).engine
            scored = predictor.accepted(self.spark.table(table), ["id"], engine)
            scored._jdf.queryExecution().executedPlan()

        ways: dict[str, Callable[[], None]] = {
            "ours": ours,
            "transform": transform,
            "ours from URI": ours_from_uri,
            "transform from URI": transform_from_uri,
            "planning": planning,
        }
        for way in ways.values():
            # A first round, for compiled code and the cache of files; it also creates the tables.
            way()
        rounds = [{way: measured(work) for way, work in ways.items()} for _ in range(repeats)]
        seconds = {way: statistics.median(times[way] for times in rounds) for way in ways}
        same = self.spark.table(predictions["ours"]).select("id", "prediction", "probability")
        different = same.exceptAll(self.spark.table(predictions["transform"]).select(same.columns)).count()
        ratios = [seconds[f"ours{which}"] / seconds[f"transform{which}"] for which in ("", " from URI")]
        print(
            f"{rows:>9,} rows × {columns:>4}, {pipeline:22}: training {training_seconds:5.1f} s; ours {seconds['ours']:6.1f} s, "
            f"own transform and write {seconds['transform']:6.1f} s, ratio {ratios[0]:.2f}; from the URI "
            f"{seconds['ours from URI']:6.1f} s (planning {seconds['planning']:4.1f} s) and "
            f"{seconds['transform from URI']:6.1f} s, ratio {ratios[1]:.2f}; {different} rows differ",
            flush=True,
        )
        return seconds["ours"], ratios[0]

    def transform(self, model: Any, table: str, predictions: str, version: Any) -> None:
        """Write what a model's own transform says about a table, with the columns and in the way of a scored batch."""
        from pyspark.ml.functions import vector_to_array
        from pyspark.sql import functions as F

        from helpers import storage
        from helpers.scoring import output_tables

        scored = model.transform(self.spark.table(table).drop("label")).select(
            "id",
            "prediction",
            F.array_max(vector_to_array("probability")).alias("probability"),
            F.lit(version.name).alias("model_name"),
            F.lit(int(version.version)).alias("model_version"),
            F.current_timestamp().alias("scored_at"),
        )
        if not self.spark.catalog.tableExists(predictions):
            output_tables.prepare(predictions, scored, version.name)
        storage.replace_rows(scored, predictions, output_tables.BATCH_COLUMN, "b")


def measured(work: Callable[[], None]) -> float:
    """Return the seconds that work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
