"""How fast a table is scored: by this bundle, by MLflow's documented snippet, and by upper bounds for both.

    python -m tests.benchmarks.scoring [--rows 5000000] [--growth 100000 1000000 20000000] [--repeats 3] [--keep-inputs]

Each way reads the same table (an id and 13 numbers) and writes predictions to Parquet. All ways run in turn,
``--repeats`` times, and the result has medians. ``ours`` is the whole of ``Scorer.score_batch``: it downloads the model,
compares the SQL translation with it, and replaces the batch. The snippet and ``struct(*)`` write only id and prediction,
with Spark's default batches. The identity sends the same columns to Python and back as ours does, in batches of the same
size. ``no model`` reads all columns and writes as many as ours. With ``--keep-inputs`` each of ours runs once more and writes the
inputs, too, as the notebook does by default. scikit-learn predicts from arrays in memory and writes
nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helpers import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = [f"c{number}" for number in range(13)]
MODELS = ["linear", "xgboost", "boosting", "forest"]
TRAINING_ROWS, CHUNK = 20_000, 100_000
ARROW_BATCH = "spark.sql.execution.arrow.maxRecordsPerBatch"
_shared: dict[str, Any] = {}


def main() -> None:
    """Measure everything, print it, and write it as JSON and PNG."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scoring", description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--growth", type=int, nargs="*", default=[100_000, 1_000_000, 5_000_000, 20_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep-inputs", action="store_true", help="also measure ours with keep_inputs=true")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--output", type=Path, default=Path(".local/benchmarks"))
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BUNDLE_LOCAL_DIR"] = folder
        bench = Bench(Path(folder), options.keep_inputs)
        result: dict[str, Any] = {
            "rows": options.rows,
            "columns": len(COLUMNS),
            "repeats": options.repeats,
            "models": {},
        }
        for model in options.models:
            result["models"][model] = bench.compare(model, options.rows, options.repeats)
        result["growth"] = [bench.grow(rows, options.repeats) for rows in options.growth]
    options.output.mkdir(parents=True, exist_ok=True)
    Path(options.output, "scoring.json").write_text(json.dumps(result, indent=2) + "\n")
    draw(result).savefig(options.output / "scoring.png", dpi=110)
    print(f"\n{options.output / 'scoring.json'}\n{options.output / 'scoring.png'}")


class Bench:
    """A Spark session with the tables and models that are measured."""

    def __init__(self, folder: Path, keep_inputs: bool) -> None:
        import mlflow

        from helpers import parameters, runtime, tracking

        self.folder, self.keep_inputs, self.tables, self.number = folder, keep_inputs, {}, 0
        self.spark = runtime.spark()
        self.spark.sparkContext.setLogLevel("OFF")
        self.spark.sql("CREATE SCHEMA bench")
        self.session = tracking.configure(parameters.Tracking(experiment_name="benchmark"))
        self.mlflow = mlflow

    def table(self, rows: int) -> str:
        """Return a table with that many rows, in eight files."""
        from pyspark.sql import functions as F

        from helpers import storage

        if rows not in self.tables:
            numbers = [F.randn(seed).alias(name) for seed, name in enumerate(COLUMNS)]
            self.tables[rows] = f"bench.rows_{rows}"
            storage.replace_table(self.spark.range(rows, numPartitions=8).select("id", *numbers), self.tables[rows])
        return self.tables[rows]

    def register(self, name: str) -> tuple[Any, Any]:
        """Log and register a model as MLflow's documentation does; return its version and the estimator."""
        from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from xgboost import XGBClassifier

        from helpers import tracking

        chance = np.random.default_rng(0)
        rows = pd.DataFrame(chance.normal(size=(TRAINING_ROWS, len(COLUMNS))), columns=COLUMNS)
        labels = (rows.sum(axis=1) + chance.normal(size=TRAINING_ROWS) > 0).astype(int)
        estimator = {
            "linear": make_pipeline(StandardScaler(), LogisticRegression()),
            "xgboost": XGBClassifier(n_estimators=100, max_leaves=31, max_depth=0, grow_policy="lossguide", n_jobs=1),
            "boosting": HistGradientBoostingClassifier(random_state=0),
            "forest": RandomForestClassifier(100, max_depth=10, random_state=0),
        }[name].fit(rows, labels)
        signature = self.mlflow.models.infer_signature(rows, estimator.predict(rows))
        with self.mlflow.start_run():
            flavor = "xgboost" if name == "xgboost" else "sklearn"
            uri = tracking.log_model(estimator, flavor=flavor, signature=signature)
            return self.mlflow.register_model(uri, f"bench_{name}"), estimator

    def ways(self, version: Any, estimator: Any, rows: int) -> dict[str, Callable[[], Any]]:
        """Return each way to score a table, by name."""
        from pyspark.sql import functions as F

        from helpers import runtime

        table = self.spark.table(self.table(rows))
        uri = f"models:/{version.name}/{version.version}"

        def written(predictions: Any, batch: int) -> None:
            self.number += 1
            with runtime.spark_setting(self.spark, ARROW_BATCH, str(batch)):
                predictions.write.parquet(str(self.folder / "written" / str(self.number)))

        def udf(*arguments: Any) -> None:
            predict = self.mlflow.pyfunc.spark_udf(self.spark, uri, env_manager="local")
            written(table.select("id", predict(*arguments).alias("prediction")), 10_000)

        def described(scored: Any) -> Any:
            names = [F.lit(version.name).alias("model_name"), F.lit(1).alias("model_version")]
            return scored.select("*", *names, F.current_timestamp().alias("scored_at"))

        def back(batches: Iterator[Any]) -> Iterator[Any]:
            for batch in batches:
                yield batch.select(["id", "c0", "c1"])

        total = " + ".join(COLUMNS)
        ways = {
            "snippet": lambda: udf(*COLUMNS),
            "struct(*)": lambda: udf(F.struct(*COLUMNS)),
            "ours, in Python": lambda: self.ours(version, rows, "udf"),
            "Arrow identity": lambda: written(
                described(table.mapInArrow(back, "id long, c0 double, c1 double")), CHUNK
            ),
            "no model": lambda: written(
                described(table.selectExpr("id", f"{total} AS prediction", "c0 AS probability")), CHUNK
            ),
            "scikit-learn, 2 processes": lambda: in_memory(estimator, rows),
        }
        if version.name == "bench_linear":
            ways["ours, auto (SQL)"] = lambda: self.ours(version, rows, "auto")
        if self.keep_inputs:
            ways["ours, in Python, inputs"] = lambda: self.ours(version, rows, "udf", keep_inputs=True)
        if self.keep_inputs and version.name == "bench_linear":
            ways["ours, auto (SQL), inputs"] = lambda: self.ours(version, rows, "auto", keep_inputs=True)
        return ways

    def scorer(self, version: Any, rows: int, engine: str, keep_inputs: bool = False) -> Any:
        """Return a new scorer, which has not downloaded the model yet."""
        from helpers import scoring

        table = f"bench.{version.name}_{engine}" + ("_inputs" if keep_inputs else "")
        options = {"scoring_engine": engine, "keep_inputs": keep_inputs}
        return scoring.Scorer(self.session, version, self.table(rows), table, "id", **options)

    def ours(self, version: Any, rows: int, engine: str, keep_inputs: bool = False) -> None:
        """Score a batch."""
        scorer = self.scorer(version, rows, engine, keep_inputs)
        batch = scorer.score_batch(self.spark.table(self.table(rows)), f"rows_{rows}")
        assert (batch.rows_scored, batch.rows_quarantined) == (rows, 0)

    def compare(self, name: str, rows: int, repeats: int) -> dict[str, Any]:
        """Measure every way, in turn, and compare the predictions with the model's."""
        version, estimator = self.register(name)
        # A first round, for imports, compiled code and the cache of files.
        for way in self.ways(version, estimator, min(rows, CHUNK)).values():
            way()
        times: dict[str, list[float]] = {}
        memory: dict[str, dict[str, float]] = {}
        for _ in range(repeats):
            for way, score in self.ways(version, estimator, rows).items():
                seconds, used = measured(score)
                times.setdefault(way, []).append(seconds)
                memory[way] = {key: max(value, memory.get(way, {}).get(key, 0)) for key, value in used.items()}
        medians = {way: statistics.median(seconds) for way, seconds in times.items()}
        engines = ["udf", "auto"] if name == "linear" else ["udf"]
        result = {"seconds": times, "median": medians, "memory_mb": memory}
        result["stream"] = self.stream(version, rows, repeats, engines[-1])
        result["ids_checked"] = statistics.median(self.ids_checked(rows) for _ in range(repeats))
        result["different_predictions"] = {
            engine: self.different(version, estimator, rows, engine) for engine in engines
        }
        show(name, rows, result)
        return result

    def stream(self, version: Any, rows: int, repeats: int, engine: str) -> dict[str, Any]:
        """Score the table as a stream, and again with nothing new."""
        from helpers import scoring

        batch, stream, again = [], [], []
        for _ in range(repeats):
            self.number += 1
            checkpoint = str(self.folder / "checkpoints" / str(self.number))

            def new(checkpoint: str = checkpoint) -> list[Any]:
                added = scoring.new_rows(self.spark, self.table(rows), "", "id")
                return scoring.score_new_rows(
                    self.scorer(version, rows, engine), added, checkpoint, on_batch=lambda _: None
                )

            batch.append(measured(lambda: self.ours(version, rows, engine))[0])
            stream.append(measured(lambda: [sum(batch.rows_scored for batch in new())].index(rows))[0])
            again.append(measured(lambda: [len(new())].index(0))[0])
        seconds = {"batch": batch, "stream": stream, "nothing_new": again}
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        return {"engine": engine, "seconds": seconds, "median": medians}

    def ids_checked(self, rows: int) -> float:
        """Return how long it takes to check that the ids are unique."""
        from helpers import scoring

        return measured(lambda: scoring.rows_to_score(self.spark, self.table(rows), "", "id"))[0]

    def different(self, version: Any, estimator: Any, rows: int, engine: str) -> int:
        """Count the rows whose prediction differs from that of ``predict``."""
        import pyarrow.dataset as ds
        import pyarrow.parquet as pq

        from helpers.laptop.catalog import rows_folder

        warehouse = self.folder / "warehouse"
        folder = rows_folder(warehouse, f"bench.{version.name}_{engine}") / f"batch_id=rows_{rows}"
        written = ds.dataset(folder, format="parquet").to_table(columns=["id", "prediction"]).to_pandas()
        predicted = np.empty(rows, dtype=int)
        predicted[written["id"]] = written["prediction"]
        different = rows - len(written)
        for file in sorted(rows_folder(warehouse, self.table(rows)).glob("*.parquet")):
            for batch in pq.ParquetFile(file).iter_batches(CHUNK):
                scored = batch.to_pandas()
                different += int((predicted[scored["id"]] != estimator.predict(scored[COLUMNS])).sum())
        return different

    def grow(self, rows: int, repeats: int) -> dict[str, Any]:
        """Measure both engines with a linear pipeline, and the memory of the JVM and of a worker."""
        from mlflow.entities.model_registry import ModelVersion

        version, result = ModelVersion("bench_linear", "1", 0), {"rows": rows}
        for engine in ("udf", "auto"):
            runs = [measured(lambda engine=engine: self.ours(version, rows, engine)) for _ in range(repeats)]
            result[engine] = {
                "seconds": statistics.median(seconds for seconds, _ in runs),
                **{name: max(used[name] for _, used in runs) for name in ("worker", "jvm", "driver")},
            }
        texts = [f"{engine} {run['seconds']:6.1f} s, worker {run['worker']:4.0f} MB, JVM {run['jvm']:5.0f} MB"
                 for engine, run in result.items() if engine != "rows"]  # fmt: skip
        print(f"{rows:>12,} rows: " + "; ".join(texts), flush=True)
        return result


def in_memory(estimator: Any, rows: int) -> None:
    """Predict with two processes; the time to make the arrays is not measured."""
    key = f"arrays of {rows}"
    if key not in _shared:
        _shared.clear()
        chance = np.random.default_rng(1)
        _shared[key] = [
            pd.DataFrame(chance.normal(size=(min(CHUNK, rows - first), len(COLUMNS))), columns=COLUMNS)
            for first in range(0, rows, CHUNK)
        ]
    _shared["estimator"], _shared["chunks"] = estimator, _shared[key]
    # One thread each, as in Spark's workers.
    os.environ["OMP_NUM_THREADS"] = "1"
    with multiprocessing.get_context("fork").Pool(2, initializer=_ready) as pool:
        pool.map(_wait, range(2), chunksize=1)
        started = time.perf_counter()
        pool.map(_predict, range(len(_shared["chunks"])), chunksize=1)
        _shared["seconds"] = time.perf_counter() - started


def _ready() -> None:
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)


def _wait(_: int) -> None:
    _shared["estimator"].predict(_shared["chunks"][0][:10])


def _predict(number: int) -> int:
    return int(_shared["estimator"].predict(_shared["chunks"][number]).sum())


def measured(work: Callable[[], Any]) -> tuple[float, dict[str, float]]:
    """Return the seconds that work takes, and the peak resident memory of its processes in MB."""
    _shared.pop("seconds", None)
    with peak_memory() as used:
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
    # in_memory measures itself, without the start of its processes.
    return _shared.pop("seconds", seconds), used


@contextlib.contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """Read the memory of this process, its JVM and the largest Python worker, twenty times a second."""
    used, done = {"driver": 0.0, "jvm": 0.0, "worker": 0.0}, threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            for name, size in processes():
                used[name] = max(used[name], size)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield used
    finally:
        done.set()
        thread.join()


def processes() -> Iterator[tuple[str, float]]:
    """Yield the kind and the resident megabytes of this process and of each of its descendants."""
    parents, sizes, names = {}, {}, {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "VmRSS" in lines:
            pid = int(status.parent.name)
            parents[pid], names[pid] = int(lines["PPid"]), lines["Name"]
            sizes[pid] = int(lines["VmRSS"].split()[0]) / 1024
    yield "driver", sizes[os.getpid()]
    for pid, name in names.items():
        ancestors, parent = [], parents[pid]
        while parent in parents:
            ancestors.append(parent)
            parent = parents[parent]
        if os.getpid() in ancestors:
            below_java = any(names[ancestor] == "java" for ancestor in ancestors)
            if name == "java" or below_java:
                yield "jvm" if name == "java" else "worker", sizes[pid]


def show(name: str, rows: int, result: dict[str, Any]) -> None:
    """Print one model's measurements."""
    medians, stream = result["median"], result["stream"]
    print(f"\n{name}, {rows:,} rows × {len(COLUMNS)}")
    print(f"{'':28}{'s':>7}{'rows/s':>12}{'× snippet':>11}{'worker MB':>11}")
    for way, seconds in sorted(medians.items(), key=lambda item: -item[1]):
        worker = result["memory_mb"][way]["worker"]
        print(f"{way:28}{seconds:7.2f}{rows / seconds:12,.0f}{medians['snippet'] / seconds:11.2f}{worker:11.0f}")
    ours = {way: seconds for way, seconds in medians.items() if way.startswith("ours")}
    for way, seconds in ours.items():
        others = ("Arrow identity", "no model", "scikit-learn, 2 processes")
        print(f"{way}: " + ", ".join(f"{medians[other] / seconds:.2f} of {other}" for other in others))
    ratio = stream["median"]["stream"] / stream["median"]["batch"]
    print(f"stream ({stream['engine']}): {ratio:.2f} × the batch; nothing new: {stream['median']['nothing_new']:.2f} s")
    print(
        f"ids checked: {result['ids_checked']:.2f} s; predictions that differ: {result['different_predictions']}",
        flush=True,
    )


@figures.styled
def draw(result: dict[str, Any]) -> Figure:
    """Draw rows per second by way and model, and seconds by rows."""
    from matplotlib.figure import Figure

    number = len(result["models"]) + 1
    figure = Figure(figsize=(figures.WIDTH, 2.8 * number), layout="constrained")
    axes = figure.subplots(number, 1)
    for axis, (name, measurements) in zip(axes, result["models"].items(), strict=False):
        rates = sorted(((result["rows"] / seconds / 1e6, way) for way, seconds in measurements["median"].items()))
        bars = axis.barh([way for _, way in rates], [rate for rate, _ in rates],
                         color=[figures.COLORS[0] if way.startswith("ours") else figures.QUIET for _, way in rates])  # fmt: skip
        axis.bar_label(bars, fmt="%.2f", padding=3)
        axis.set(title=f"{name}, {result['rows'] / 1e6:g} million rows", xlabel="million rows per second", xscale="log")
        axis.margins(x=0.25)
    for engine, label in (("udf", "ours, in Python"), ("auto", "ours, auto (SQL)")):
        sizes = [grown["rows"] for grown in result["growth"]]
        axes[-1].loglog(sizes, [grown[engine]["seconds"] for grown in result["growth"]], "o-", label=label)
    axes[-1].set(title="linear, by size", xlabel="rows", ylabel="seconds")
    axes[-1].legend()
    return figure


if __name__ == "__main__":
    main()
