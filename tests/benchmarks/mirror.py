"""How long it takes to bring a run to Azure ML: mirrored, logged call by call, or by mlflow-export-import.

    python -m tests.benchmarks.mirror [--points 1000] [--delay 0 50] [--calls 2000] [--export-import BIN]

Both servers run on this machine and share its processors with what is measured. ``--delay`` makes each
request take so many milliseconds longer, as one to a server elsewhere does. ``--calls`` measures only so many of the
plain API's metric calls and scales the time to all of them. ``--export-import`` is the ``bin`` of a virtual
environment that has mlflow-export-import beside the packages of requirements.txt.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import logging
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.stand_ins import both_servers
from tests.stand_ins.azureml_workspace import AzureMLStandIn
from tests.stand_ins.databricks_tracking import DatabricksStandIn

PARAMETERS, METRICS, FILES = 20, 50, 200
EXPERIMENT = "/Shared/benchmark"
# The SDK for Databricks asks for it before each request of the mirror, but not for those of mlflow-export-import.
DISCOVERY = "/.well-known/databricks-config"
_TIMED = """
import time
from mlflow_export_import.run import {name}

# It sends 1,000 at once, which may be more rows of one metric than Azure ML takes, and then it fails.
{name}.MAX_METRICS_PER_BATCH = 250
start = time.perf_counter()
{name}.main({arguments}, standalone_mode=False)
print(time.perf_counter() - start)
"""


def main() -> None:
    """Start both servers, measure each way in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.mirror", description=__doc__)
    parser.add_argument("--points", type=int, nargs="+", default=[1000], help="steps of each of the 50 metrics")
    parser.add_argument("--delay", type=int, nargs="+", default=[0], metavar="MS", help="milliseconds more a request")
    parser.add_argument("--calls", type=int, help="metric calls of the plain API to measure (default: all)")
    parser.add_argument("--export-import", type=Path, metavar="BIN", help="folder of its commands")
    parser.add_argument("--step", choices=["log", "mirror", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        steps: dict[str, Callable[[], Any]] = {
            "log": lambda: log(options.points[0], options.store),
            "mirror": lambda: mirror(options.run),
            "plain": lambda: plain(options.points[0], options.calls),
        }
        print(json.dumps(steps[options.step]()))
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        AzureMLStandIn.start(Path(folder, "aml")) as aml,
        DatabricksStandIn.start(Path(folder, "databricks")) as databricks,
    ):
        environment = os.environ | both_servers.environment(aml, databricks)
        environment["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
        environment["DATABRICKS_HOST"] = aml.front_of(databricks.url)
        for delay in options.delay:
            for points in options.points:
                measure(points, delay, options, aml, databricks.store, environment)


def measure(
    points: int, delay: int, options: argparse.Namespace, aml: AzureMLStandIn, store: Path, environment: dict[str, str]
) -> None:
    """Measure each way for one size, and print what it took."""

    def step(name: str, *more: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "tests.benchmarks.mirror", "--points", str(points), "--step", name, *more]
        before = _count(aml)
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout.splitlines()[-1]) | {"requests": _count(aml) - before}

    size = f"{PARAMETERS} parameters, {METRICS} metrics x {points:,} steps, {FILES} files"
    print(f"{size}, {delay} ms more a request", flush=True)
    run_id = step("log", "--store", str(store))["run_id"]
    aml.faults.add(f"^\\w+ (?!{DISCOVERY})", delay=delay / 1000)
    mirrored = step("mirror", "--run", run_id)
    show("mirror", mirrored)
    show("mirror again, nothing new", step("mirror", "--run", run_id))
    if options.calls != 0:
        calls = [] if options.calls is None else ["--calls", str(options.calls)]
        by_call = step("plain", *calls)
        show("plain MLflow API, call by call", by_call)
        print(f"  {by_call['seconds'] / mirrored['seconds']:.1f} times the mirror's")
    if options.export_import:
        export_import(options.export_import, run_id, environment, mirrored["seconds"])
    aml.faults.clear()


def _count(aml: AzureMLStandIn) -> int:
    return len([request for request in aml.requests() if request.path != DISCOVERY])


def export_import(commands: Path, run_id: str, environment: dict[str, str], mirrored: float) -> None:
    """Copy the run with mlflow-export-import, and print the time or why it fails.

    Both its commands, without the time that they take to start. ``--mlmodel-fix``, its default, would list the
    run's artifacts with MLflow 3's client, which asks for logged models, too, and Azure ML answers that with 404.
    """
    seconds = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, uri, arguments in (
            # By its address: the tool does not take the token of DATABRICKS_TOKEN for `databricks`.
            ("export_run", environment["DATABRICKS_HOST"], ["--run-id", run_id, "--output-dir", folder]),
            (
                "import_run",
                environment["TRACKING_URI"],
                ["--input-dir", folder, "--experiment-name", "imported", "--mlmodel-fix", "False"],
            ),
        ):
            command = [commands / "python", "-c", _TIMED.format(name=name, arguments=arguments)]
            variables = environment | {"MLFLOW_TRACKING_URI": uri}
            done = subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True)
            if done.returncode:
                said = [line for line in (done.stderr + done.stdout).splitlines() if "Exception" in line]
                print(f"  mlflow-export-import: {name} fails: {' / '.join(said)[:600]}", flush=True)
                return
            seconds += float(done.stdout.splitlines()[-1])
    print(f"  mlflow-export-import: {seconds:.1f} s, {seconds / mirrored:.1f} times the mirror's", flush=True)


def show(what: str, measured: dict[str, Any]) -> None:
    """Print one way's time, requests to both servers, and memory beyond what it had before."""
    scaled = " (scaled from a part)" if measured.get("scaled") else ""
    requests = "" if scaled else f", {measured['requests']:,} requests"
    print(
        f"  {what}: {measured['seconds']:.1f} s{scaled}{requests}, {measured['megabytes']:.0f} MB more memory",
        flush=True,
    )


def log(points: int, store: Path) -> dict[str, Any]:
    """Make the run in Databricks, whose server keeps it in the file ``store``."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    client = MlflowClient(tracking_uri="databricks")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    run_id = client.create_run(
        experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
    ).info.run_id
    client.log_batch(run_id, params=[Param(f"p{number}", str(number)) for number in range(PARAMETERS)])
    last = points - 1
    client.log_batch(run_id, metrics=[Metric(f"m{number}", *_point(number, last)) for number in range(METRICS)])
    # The others behind the server's back, whose interface would take as long as everything that is measured.
    rows = ((f"m{number}", *_point(number, step), run_id) for number in range(METRICS) for step in range(last))
    with contextlib.closing(sqlite3.connect(store, timeout=60)) as connection, connection:
        connection.executemany(
            "insert into metrics (key, value, timestamp, step, run_uuid, is_nan) values (?, ?, ?, ?, ?, 0)", rows
        )
    with tempfile.TemporaryDirectory() as folder:
        for path in files(Path(folder)):
            client.log_artifact(run_id, str(path), path.parent.name)
    client.set_terminated(run_id)
    return {"run_id": run_id}


def _point(metric: int, step: int) -> tuple[float, int, int]:
    """Return value, timestamp and step."""
    return step / (metric + 1), 1_700_000_000_000 + step, step


def mirror(run_id: str) -> dict[str, Any]:
    """Mirror the run."""
    logging.disable(logging.WARNING)
    from helpers import tracking
    from helpers.tracking import dual
    from helpers.tracking.mirror import mirror_run

    p = both_servers.parameters(tracking_mode="dual", experiment_name=EXPERIMENT)
    experiment = dual.mirrored_experiment(tracking.configure(p, create=False))
    with Measured() as measured:
        mirror_run(experiment, run_id)
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
