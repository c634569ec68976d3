"""Score batches and streams on a Spark Connect server whose Python processes see no file of this process.

python -m tests.scenarios.spark.on_spark_connect RESULTS HIDDEN
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
from mlflow.models import infer_signature
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from helpers import parameters, runtime, scoring, storage, tracking, training
from helpers.monitoring.bins import CategoryBins, NumberBins
from helpers.monitoring.collected import read_collected, with_columns
from helpers.parameters import ParameterError
from helpers.scoring.engines import shipping
from helpers.serving.data_collection import local_collectors

ROWS = 300
# Spark takes the dot for a field of a struct, unless it is quoted.
ID = "row.id"


def main() -> None:
    """Write to the file RESULTS what each step gave."""
    results, hidden = sys.argv[1:]
    spark = runtime.spark()
    session = tracking.configure(parameters.parse(parameters.Tracking, {"experiment_name": "connect"}))
    numbers = pd.DataFrame(np.random.default_rng(0).normal(size=(ROWS, 4)), columns=list("abcd"))
    labels = (numbers["a"] + numbers["b"] > 0).map({True: "yes", False: "no"})
    signature = infer_signature(numbers, pd.Series(["no"], name="prediction"))
    estimators = {"forest": RandomForestClassifier(10), "linear": LogisticRegression()}
    versions = {}
    for name, estimator in estimators.items():
        with mlflow.start_run():
            uri = tracking.log_model(estimator.fit(numbers, labels), flavor="sklearn", signature=signature)
            versions[name] = mlflow.register_model(uri, name)
    spark.sql("CREATE SCHEMA s")
    storage.replace_table(spark.createDataFrame(numbers.assign(**{ID: range(ROWS)})).coalesce(1), "s.scoring")

    def score(name: str, table: str, **options: object) -> list[object]:
        scorer = scoring.Scorer(session, versions[name], "s.scoring", table, ID, **options, keep_inputs=True)
        batch = scorer.score_batch(scoring.rows_to_score(spark, "s.scoring", "", ID), "one")
        rows = spark.table(table).toPandas().sort_values(ID)
        equal = (rows["prediction"].to_numpy() == estimators[name].predict(numbers)).all()
        equal = equal and rows[list(numbers)].reset_index(drop=True).equals(numbers)
        difference = np.abs(rows["probability"] - estimators[name].predict_proba(numbers).max(axis=1)).max()
        return [batch.engine.engine.name, batch.rows_scored, bool(equal), float(difference)]

    def stream(
        name: str,
        table: str,
        trigger: str = "available_now",
        on_batch: Callable[[object], None] | None = None,
        keep_inputs: bool = True,
        **options: object,
    ) -> object:
        options["keep_inputs"] = keep_inputs
        scorer = scoring.Scorer(session, versions[name], "s.scoring", table, ID, **options)
        rows = scoring.new_rows(spark, "s.scoring", "", ID)
        checkpoint = str(runtime.local_dir() / "checkpoints" / table)
        try:
            batches = scoring.score_new_rows(scorer, rows, checkpoint, trigger, on_batch)
        except ParameterError as error:
            return str(error)
        return [[batch.batch_id[-6:], batch.rows_scored, batch.rows_quarantined, str(batch)] for batch in batches]

    def add(*rows: tuple[float, float, float, float, int]) -> None:
        columns = "a double, b double, c double, d double, `row.id` long"
        spark.createDataFrame(list(rows), columns).coalesce(1).write.insertInto("s.scoring")

    numbers_seen: list[str] = []

    def add_another_then_stop(batch: scoring.ScoredBatch) -> None:
        numbers_seen.append(batch.batch_id[-6:])
        if len(numbers_seen) == 1:
            add((1.0, 2.0, 1.0, 1.0, 700))
        else:
            # An interrupt can meet Spark's client amid a call, which may never return then.
            for query in spark.streams.active:
                query.stop()

    steps: dict[str, object] = {"workers": _workers(spark, hidden)}
    try:
        training.with_flavor_defaults(parameters.parse(parameters.Train, {"model_flavor": "spark"}))
    except ParameterError as error:
        steps["spark flavor"] = str(error)
    steps["python"] = score("forest", "s.python")
    steps["sql"] = score("linear", "s.sql")
    most, shipping.MOST_BYTES_IN_PLAN = shipping.MOST_BYTES_IN_PLAN, 0
    steps["large"] = score("forest", "s.large")
    shipping.MOST_BYTES_IN_PLAN = most

    for name in estimators:
        steps[f"{name} first"] = stream(name, f"s.{name}_stream", keep_inputs=name == "linear")
    steps["nothing new"] = stream("linear", "s.linear_stream")
    add((1.0, float("inf"), 1.0, 1.0, 400), (1.0, 2.0, 1.0, 1.0, 500))
    steps["fail"] = stream("linear", "s.linear_stream", on_bad_rows="fail")
    for name in estimators:
        table = f"s.{name}_stream"
        steps[f"{name} added"] = stream(name, table)
        refused = spark.table(f"{table}_quarantine").select(f"`{ID}`", "problem").collect()
        steps[f"{name} quarantine"] = [list(row) for row in refused]
    # As if the process had been killed before the commit.
    commits = runtime.local_dir() / "checkpoints" / "s.linear_stream" / "commits"
    for file in ("1", ".1.crc"):
        (commits / file).unlink(missing_ok=True)
    steps["again"] = stream("linear", "s.linear_stream")
    for name in estimators:
        rows = spark.table(f"s.{name}_stream").toPandas().sort_values(ID)
        once = rows[ID].tolist() == [*range(ROWS), 500]
        predicted = estimators[name].predict(numbers)
        steps[f"{name} rows"] = once and bool((rows["prediction"].to_numpy()[:ROWS] == predicted).all())
        steps[f"{name} inputs"] = rows[list(numbers)].notna().all(axis=1).value_counts().to_dict().get(True)
        steps[f"{name} last inputs"] = rows[list(numbers)].iloc[-1].tolist()

    of_inputs, of_outputs = local_collectors(runtime.local_dir() / "collected" / "linear-3")
    correlation = of_inputs.collect(pd.DataFrame({"a": [1.5, True], "b": [None, "x"]}, dtype=object))
    of_outputs.collect(pd.DataFrame([0, 1]), correlation)
    collected = read_collected(spark, str(runtime.local_dir() / "collected"), ID, "linear")
    bins = {"a": NumberBins((), 0, 1), "b": CategoryBins(("x",))}
    of_requests = with_columns(collected, bins, NumberBins((), 0, 1)).sort(f"`{ID}`")
    steps["collected"] = [list(row) for row in of_requests.select("model_version", "prediction", "a", "b").collect()]

    add((1.0, 2.0, 1.0, 1.0, 600))
    stream("linear", "s.linear_stream", "1 second", add_another_then_stop)
    later = spark.table("s.linear_stream").where(f"`{ID}` > 500").sort(f"`{ID}`").toPandas()
    steps["interval"] = [later[ID].tolist(), later["batch_id"].nunique(), len(spark.streams.active)]
    Path(results).write_text(json.dumps(steps))


def _workers(spark: object, hidden: str) -> list[object]:
    """Return whether a worker can import this bundle, and what it sees of a file of this process."""

    def look(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            seen = Path(hidden).read_text()
        except FileNotFoundError as error:
            seen = error.strerror
        for batch in batches:
            size = batch.num_rows
            bundle = importlib.util.find_spec("helpers") is not None
            yield pa.RecordBatch.from_pydict({"bundle": [bundle] * size, "seen": [seen] * size})

    row = spark.range(1).mapInArrow(look, "bundle boolean, seen string").collect()[0]
    return [row["bundle"], row["seen"]]


if __name__ == "__main__":
    main()
