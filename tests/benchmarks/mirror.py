"""How long it takes to bring a run to Azure ML: mirrored, logged call by call, or by mlflow-export-import.

    python -m tests.benchmarks.mirror [--points 1000] [--calls 2000] [--export-import BIN]

Both servers run on this machine, so that the numbers say how many requests and how much work each way
takes; with a network between, each request costs more. ``--calls`` measures only so many of the plain
API's metric calls and scales the time to all of them. ``--export-import`` is the ``bin`` of a virtual environment
that has mlflow-export-import beside the packages of requirements.txt.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.azureml import both_servers
from tests.azureml.databricks_stand_in import DatabricksStandIn
from tests.azureml.stand_in import AzureMLStandIn

PARAMETERS, METRICS, FILES = 20, 50, 200
EXPERIMENT = "/Shared/benchmark"


def main() -> None:
    """Start both servers, measure each way in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.mirror", description=__doc__)
    parser.add_argument("--points", type=int, nargs="+", default=[1000], help="steps of each of the 50 metrics")
    parser.add_argument("--calls", type=int, help="metric calls of the plain API to measure (default: all)")
    parser.add_argument("--export-import", type=Path, metavar="BIN", help="folder of its commands")
    parser.add_argument("--step", choices=["log", "mirror", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        steps: dict[str, Callable[[], Any]] = {
            "log": lambda: log(options.points[0]),
            "mirror": lambda: mirror(options.run),
            "plain": lambda: plain(options.points[0], options.calls),
        }
        print(json.dumps(steps[options.step]()))
        return
    with tempfile.TemporaryDirectory() as folder:
        with (
            AzureMLStandIn.start(Path(folder, "aml")) as aml,
            DatabricksStandIn.start(Path(folder, "databricks")) as databricks,
        ):
            environment = os.environ | both_servers.environment(aml, databricks)
            environment["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
            for points in options.points:
                measure(points, options, aml, environment, Path(folder))


def measure(
    points: int, options: argparse.Namespace, aml: AzureMLStandIn, environment: dict[str, str], folder: Path
) -> None:
    """Measure each way for one size, and print what it took."""

    def step(name: str, *more: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "tests.benchmarks.mirror", "--points", str(points), "--step", name, *more]
        before = len(aml.requests())
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout.splitlines()[-1]) | {"requests": len(aml.requests()) - before}

    print(f"{PARAMETERS} parameters, {METRICS} metrics x {points:,} steps, {FILES} files", flush=True)
    run_id = step("log")["run_id"]
    mirrored = step("mirror", "--run", run_id)
    show("mirror", mirrored)
    show("mirror again, nothing new", step("mirror", "--run", run_id))
    if options.calls != 0:
        calls = [] if options.calls is None else ["--calls", str(options.calls)]
        by_call = step("plain", *calls)
        show("plain MLflow API, call by call", by_call)
        print(f"  {by_call['seconds'] / mirrored['seconds']:.1f} times the mirror's")
    if options.export_import:
        export_import(options.export_import, run_id, environment, folder / str(points), mirrored["seconds"])


def export_import(commands: Path, run_id: str, environment: dict[str, str], folder: Path, mirrored: float) -> None:
    """Copy the run with mlflow-export-import, and print the time or why it fails."""
    start = time.perf_counter()
    for name, uri, arguments in (
        # By its address: the tool does not take the token of DATABRICKS_TOKEN for `databricks`.
        ("export-run", environment["DATABRICKS_HOST"], ["--run-id", run_id, "--output-dir", str(folder)]),
        ("import-run", environment["TRACKING_URI"], ["--input-dir", str(folder), "--experiment-name", "export_import"]),
    ):
        command = [commands / name, *arguments]
        done = subprocess.run(
            command, env=environment | {"MLFLOW_TRACKING_URI": uri}, cwd=folder.parent, capture_output=True, text=True
        )
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            print(f"  mlflow-export-import: {name} fails: {said[-1][:300] if said else done.returncode}", flush=True)
            return
    seconds = time.perf_counter() - start
    print(f"  mlflow-export-import: {seconds:.1f} s, {seconds / mirrored:.1f} times the mirror's", flush=True)


def show(what: str, measured: dict[str, Any]) -> None:
    """Print one way's time, requests to Azure ML, and memory beyond what it had before."""
    scaled = " (scaled from a part)" if measured.get("scaled") else ""
    requests = "" if scaled else f", {measured['requests']:,} requests to Azure ML"
    print(
        f"  {what}: {measured['seconds']:.1f} s{scaled}{requests}, {measured['megabytes']:.0f} MB more memory",
        flush=True,
    )


def log(points: int) -> dict[str, Any]:
    """Log the run to Databricks, in the quickest way."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    client = MlflowClient(tracking_uri="databricks")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    run_id = client.create_run(
        experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
    ).info.run_id
    client.log_batch(run_id, params=[Param(f"p{number}", str(number)) for number in range(PARAMETERS)])
    rows = [
        Metric(f"m{number}", step / (number + 1), 1_700_000_000_000 + step, step)
        for number in range(METRICS)
        for step in range(points)
    ]
    for first in range(0, len(rows), 1000):
        client.log_batch(run_id, metrics=rows[first : first + 1000])
    with tempfile.TemporaryDirectory() as folder:
        for path in files(Path(folder)):
            client.log_artifact(run_id, str(path), path.parent.name)
    client.set_terminated(run_id)
    return {"run_id": run_id}


def mirror(run_id: str) -> dict[str, Any]:
    """Mirror the run."""
    logging.disable(logging.WARNING)
    from helpers.tracking import dual
    from helpers.tracking.mirror import mirror_run

    pair = dual.experiments(both_servers.parameters(experiment_name=EXPERIMENT))
    with Measured() as measured:
        mirror_run(pair, run_id)
    return vars(measured)


def plain(points: int, calls: int | None) -> dict[str, Any]:
    """Log the same to Azure ML as a notebook would."""
    mlflow = importlib.import_module("mlflow")
    mlflow.set_tracking_uri(os.environ["TRACKING_URI"])
    mlflow.set_experiment("plain")
    total = METRICS * points
    calls = min(calls or total, total)
    with tempfile.TemporaryDirectory() as folder, mlflow.start_run():
        paths = files(Path(folder))
        with Measured() as measured:
            for number in range(PARAMETERS):
                mlflow.log_param(f"p{number}", number)
            for path in paths:
                mlflow.log_artifact(str(path), path.parent.name)
        with Measured() as of_metrics:
            for number in range(calls):
                mlflow.log_metric(f"m{number % METRICS}", number / 7, step=number // METRICS)
    measured.seconds += of_metrics.seconds * total / calls
    measured.megabytes += of_metrics.megabytes
    return vars(measured) | {"scaled": calls < total}


def files(folder: Path) -> list[Path]:
    """Make the files: 20 kB each, in ten folders."""
    paths = [folder / f"folder{number % 10}" / f"{number}.bin" for number in range(FILES)]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(20_000))
    return paths


class Measured:
    """Time and growth of the greatest memory in a block."""

    def __enter__(self) -> Measured:
        self.seconds, self.megabytes = time.perf_counter(), self._peak()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds, self.megabytes = time.perf_counter() - self.seconds, self._peak() - self.megabytes

    @staticmethod
    def _peak() -> float:
        # Kilobytes on Linux.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()
