"""How long a table with many columns, or with a text column of many values, takes to train, register and score.

    python -m tests.benchmarks.wide [--columns 2000] [--rows 5000] [--texts 50000] [--text-rows 100000]
                                    [--flavors sklearn xgboost spark]

Each step does what its notebook does: ``train`` is 02_train from the split to the logged model, ``register`` is 03_register
without a champion, and ``score`` is 04_batch_score with keep_inputs=false. The other defaults are those of the notebooks.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FLAVORS = ["sklearn", "xgboost", "spark"]


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.wide", description=__doc__)
    parser.add_argument("--columns", type=int, default=2_000)
    parser.add_argument("--rows", type=int, default=5_000, help="rows of the table with many columns")
    parser.add_argument("--texts", type=int, default=50_000, help="values of the text column")
    parser.add_argument("--text-rows", type=int, default=100_000, help="rows of the table with the text column")
    parser.add_argument("--flavors", nargs="+", choices=FLAVORS, default=FLAVORS)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"BUNDLE_LOCAL_DIR": folder, "TQDM_DISABLE": "1", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "1"}
        from helpers import runtime

        spark = runtime.spark()
        spark.sparkContext.setLogLevel("OFF")
        spark.sql("CREATE SCHEMA bench")
        tables = {
            "bench.columns": many_columns(spark, options.columns, options.rows),
            "bench.texts": many_texts(spark, options.texts, options.text_rows),
        }
        for table, described in tables.items():
            for flavor in options.flavors:
                seconds = measure(spark, table, flavor)
                steps = ", ".join(f"{step} {taken:.0f} s" for step, taken in seconds.items())
                print(f"{described}, {flavor:7}: {steps}", flush=True)


def many_columns(spark: SparkSession, columns: int, rows: int) -> str:
    """Create a table of random numbers with a label that the first two decide; return its description."""
    from pyspark.sql import functions as F

    from helpers import storage

    numbers = [F.randn(seed).alias(f"c{seed}") for seed in range(columns)]
    table = spark.range(rows, numPartitions=4).select("id", *numbers)
    storage.replace_table(table.withColumn("label", (F.col("c0") + F.col("c1") > 0).cast("long")), "bench.columns")
    return f"{rows:,} rows, {columns:,} columns"


def many_texts(spark: SparkSession, texts: int, rows: int) -> str:
    """Create a table with a text column and a number, which decide the label; return its description."""
    from pyspark.sql import functions as F

    from helpers import storage

    text = F.concat(F.lit("town "), (F.xxhash64("id") % texts).cast("string"))
    table = spark.range(rows, numPartitions=4).select("id", text.alias("text"), F.randn(1).alias("number"))
    decides = F.col("number") + F.when(F.xxhash64("text") % 2 == 0, 1).otherwise(-1) > 0
    storage.replace_table(table.withColumn("label", decides.cast("long")), "bench.texts")
    return f"{rows:,} rows, a text column of {texts:,} values"


def measure(spark: SparkSession, table: str, flavor: str) -> dict[str, float]:
    """Return the seconds of each step."""
    import mlflow

    from helpers import data, parameters, registration, scoring, tracking, training

    columns = {"label_column": "label", "id_column": "id"}
    session = tracking.configure(parameters.parse(parameters.Tracking, {"experiment_name": "wide"}))
    seconds, started = {}, time.perf_counter()

    def done(step: str) -> None:
        nonlocal started
        seconds[step] = time.perf_counter() - started
        started = time.perf_counter()

    p = training.with_flavor_defaults(parameters.parse(parameters.Train, {"model_flavor": flavor}))
    split = data.load_split(spark, table, **columns, test_fraction=p.test_fraction, seed=p.seed)
    with mlflow.start_run() as active:
        tracking.log_split(split)
        trained = training.fit(split, p, {})
        for name, figure in trained.figures.items():
            mlflow.log_figure(figure, f"plots/{name}.png")
        model_uri = tracking.log_model(
            trained.model, flavor=trained.flavor, signature=trained.signature, input_example=trained.input_example,
            classes=trained.classes,
        )  # fmt: skip
    done("train")
    run = mlflow.get_run(active.info.run_id)
    rows = data.evaluation_rows(spark, run, evaluation_table="", **columns)
    metrics = registration.evaluate(session, model_uri, rows)
    baseline = registration.evaluate_baseline(rows)
    metric = registration.gate_metric("auto", rows.model_type)
    evaluation = registration.Evaluation(metrics, None, baseline, metric=metric, threshold=None, margin=0.1)
    tags = registration.version_tags(rows, metrics, registration.validate(evaluation))
    version, _ = registration.register(session, run, model_uri, f"{table.split('.')[1]}_{flavor}", tags)
    done("register")
    scorer = scoring.Scorer(session, version, table, f"bench.{version.name}_predictions", "id")
    batch = scorer.score_batch(spark.table(table).drop("label"), "one")
    assert (batch.rows_scored, batch.rows_quarantined) == (spark.table(table).count(), 0)
    done("score")
    return seconds


if __name__ == "__main__":
    main()
