"""Faults in each request of a mirror; afterwards the run is mirrored again and compared with its copy.

    python -m tests.scenarios.azureml.mirror_faults [--every N] [--kind KIND …]

tries each request (or every N-th) with each kind of fault, and prints the number of requests. The mirror runs in
forks of this process, because some faults kill it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag
from tqdm import tqdm

from tests.scenarios.azureml import mirrored_runs
from tests.stand_ins import both_servers
from tests.stand_ins.azureml_workspace import AzureMLStandIn
from tests.stand_ins.databricks_tracking import DatabricksStandIn

EXPERIMENT = "/Shared/faults"
# The Databricks SDK requests this first, and continues without it only after five minutes, which cannot be changed.
DISCOVERY = "/.well-known/databricks-config"
# Imported before the process forks, because importing them in each fork would take most of the time.
_IMPORTED_ONCE = ("azure.identity", "azureml.mlflow", "databricks.sdk", "helpers.tracking.dual", "IPython")
# With the client's retries the mirror survives a fault; without them the next call completes the copy.
KINDS = {
    "429": {"answer": 429, "retries": 0},
    "503": {"answer": 503, "retries": 0},
    "503, then retried": {"answer": 503, "retries": 3},
    "dropped": {"answer": "drop", "retries": 0},
    "answer lost": {"answer": "lose_answer", "retries": 0},
    "answer lost, then retried": {"answer": "lose_answer", "retries": 3},
    "killed before": {"answer": "kill", "retries": 0},
    "killed after": {"answer": "kill_after", "retries": 0},
    # All requests from the first faulty one until the process ends.
    "gone": {"answer": 503, "retries": 0, "times": None},
}


class Outcome(NamedTuple):
    """The result of one fault."""

    kind: str
    request: int
    # Whether the first mirror raised an error or died.
    first_failed: bool
    problems: list[str]


def mirror(retries: int, *run_ids: str, databricks: str = "") -> None:
    """Mirror runs in this process, with Databricks at another address if one is given."""
    if databricks:
        os.environ["DATABRICKS_HOST"] = databricks
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = str(retries)
    os.environ["MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"] = os.environ["MLFLOW_HTTP_REQUEST_BACKOFF_JITTER"] = "0"
    # Seconds. The Databricks SDK waits at least one second after each attempt, so it tries once, or until it succeeds.
    os.environ["MLFLOW_DATABRICKS_ENDPOINT_HTTP_RETRY_TIMEOUT"] = "120" if retries else "1"
    from helpers import tracking
    from helpers.azureml import run_files
    from helpers.tracking import dual
    from helpers.tracking.mirror import mirror_run

    # Fewer retries and no pauses, so that the test is quick.
    run_files._REST_RETRIES = {"retry_total": retries, "retry_backoff_factor": 0}
    p = both_servers.parameters(tracking_mode="dual", experiment_name=EXPERIMENT)
    experiment = dual.mirrored_experiment(tracking.configure(p, create=False))
    for run_id in run_ids:
        mirror_run(experiment, run_id)


def log_run() -> tuple[str, str]:
    """Log a small run with one item of each kind; return its id and its parent's."""
    client = MlflowClient(tracking_uri="databricks")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
    chance = random.Random(0)
    parent = client.create_run(experiment_id, tags={"role": "parent"}).info.run_id
    run = client.create_run(experiment_id, tags={"mlflow.parentRunId": parent, "ä": "漢字"}, run_name="child")
    run_id = run.info.run_id
    metrics = [Metric("loss", 1 / (step + 1), 1_700_000_000_000 + step, step) for step in range(300)]
    metrics += [
        Metric("odd", value, 1_700_000_000_000, step) for step, value in enumerate([float("nan"), float("inf"), -1.0])
    ]
    client.log_batch(run_id, metrics=metrics, params=[Param("p", "1"), Param("q", "")], tags=[RunTag("t", "u")])
    client.log_inputs(run_id, [DatasetInput(Dataset("table", "digest", "local", '{"uri": "x"}'), [])])
    client.log_text(run_id, "text", "notes/a b.txt")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "large.bin").write_bytes(chance.randbytes(5_000_000))
        client.log_artifact(run_id, f"{folder}/large.bin")
    mirrored_runs.log_model(client, experiment_id, run_id, "model", chance)
    client.set_terminated(run_id, "FINISHED")
    client.set_terminated(parent, "FINISHED")
    return run_id, parent


class Fork:
    """A function call in a fork of this process, which starts when `go` is called.

    Parameters
    ----------
    work : callable
        The function; `end` returns its result, or its exception as text.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        go_read, self._go = os.pipe()
        self._answer, answer_write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.read(go_read, 1)
            status = 1
            try:
                os.write(answer_write, json.dumps(work()).encode())
                status = 0
            except Exception as error:  # noqa: BLE001
                os.write(answer_write, json.dumps(f"{type(error).__name__}: {error}"[:1000]).encode())
            finally:
                os._exit(status)
        os.close(go_read)
        os.close(answer_write)

    def go(self) -> None:
        """Start the call."""
        os.write(self._go, b".")
        os.close(self._go)

    def end(self) -> tuple[int, Any]:
        """Wait until the fork ends; return its exit status (negative for a signal), and the result or the error."""
        with open(self._answer) as answer:  # noqa: PTH123
            text = answer.read()
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status), json.loads(text) if text else None


def in_fork(work: Callable[[], Any]) -> tuple[int, Any]:
    """Call a function in a fork, and wait until the fork ends."""
    fork = Fork(work)
    fork.go()
    return fork.end()


def at_once(*works: Callable[[], Any]) -> list[tuple[int, Any]]:
    """Call a function in several forks at the same time, and wait for all of them."""
    forks = [Fork(work) for work in works]
    for fork in forks:
        fork.go()
    return [fork.end() for fork in forks]


def sweep(aml: AzureMLStandIn, kinds: list[str], every: int = 1, first: int = 0) -> Iterator[Outcome]:
    """Try each kind of fault at every N-th request of a mirror.

    Parameters
    ----------
    aml : AzureMLStandIn
    kinds : list of str
        Keys of `KINDS`.
    every : int
        The distance between the requests that fail.
    first : int
        The first request that fails.
    """
    for module in _IMPORTED_ONCE:
        importlib.import_module(module)
    # Counts the requests to both servers in the order in which they arrive.
    front = aml.front_of(os.environ["DATABRICKS_HOST"])
    for kind in kinds:
        number = first
        while True:
            # Log in a fork, since later forks would share the connections of this process.
            _, (run_id, parent_id) = in_fork(log_run)
            fault = dict(KINDS[kind])
            retries = fault.pop("retries")
            fault = {"times": 1, "skip": number} | fault
            fork = Fork(lambda: mirror(retries, run_id, databricks=front))  # noqa: B023
            aml.faults.add(f"^\\w+ (?!{DISCOVERY})", fault.pop("answer"), pid=fork.pid, **fault)
            fork.go()
            status, result = fork.end()
            (met,) = aml.faults.clear()
            if not met.taken:
                # The previous request was the last one.
                break
            problems = []
            if kind.startswith("killed") and status != -signal.SIGKILL:
                problems.append(f"not killed: {status} {result}")
            elif kind.endswith("retried") and status != 0:
                problems.append(f"not survived: {result}")
            again, result = in_fork(lambda: mirror(3, parent_id, run_id))  # noqa: B023
            if again != 0:
                problems.append(f"second time: {result}")
            _, different = in_fork(lambda: compare(parent_id, run_id))  # noqa: B023
            yield Outcome(kind, number, status != 0, problems + different)
            number += every


def race(aml: AzureMLStandIn, processes: int) -> list[str]:
    """Mirror one run in several processes at once, none of which finds a copy at first; return the problems."""
    _, (run_id, parent_id) = in_fork(log_run)
    in_fork(lambda: mirror(3, parent_id))
    # By then, each process has looked for a copy and found none.
    aml.faults.add("runs/create", times=processes, together=processes)
    outcomes = at_once(*[lambda: mirror(3, run_id)] * processes)
    aml.faults.clear()
    made = len([request for request in aml.requests("runs/create") if run_id in (request.body or "")])
    if made < processes:
        return [f"no race: {made} copies made"]
    return [str(result) for status, result in outcomes if status] + in_fork(lambda: compare(parent_id, run_id))[1]


def compare(*run_ids: str) -> list[str]:
    """Return the differences between runs and their copies."""
    source, target = MlflowClient(tracking_uri="databricks"), MlflowClient(tracking_uri=os.environ["TRACKING_URI"])
    experiment, problems = target.get_experiment_by_name("faults"), []
    for run_id in run_ids:
        problems += mirrored_runs.differences(source, target, run_id)
        copies = target.search_runs([experiment.experiment_id], f"tags.mirrored_from_run_id = '{run_id}'")
        if len(copies) != 1:
            problems.append(f"{len(copies)} copies of {run_id}")
    return problems


def main() -> int:
    """Try the faults, and print each copy that differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios.azureml.mirror_faults", description=__doc__)
    parser.add_argument("--every", type=int, default=1, metavar="N")
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument(
        "--races", type=int, default=0, metavar="N", help="mirror a run in two or three processes at once"
    )
    options = parser.parse_args()
    if "TRACKING_URI" not in os.environ:
        return _with_servers()
    aml = AzureMLStandIn.from_environment()
    logging.disable(logging.WARNING)
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    tried, failed = {}, 0
    for kind in options.kind or KINDS:
        outcomes = tqdm(sweep(aml, [kind], options.every), desc=kind, unit=" faults", mininterval=10)
        for number, outcome in enumerate(outcomes, start=1):
            tried[kind] = number
            failed += bool(outcome.problems)
            if outcome.problems:
                print(outcome, flush=True)
    for number in range(options.races):
        problems = race(aml, 2 + number % 2)
        failed += bool(problems)
        print(f"race {number}: {problems or 'one copy, equal'}", flush=True)
    print(f"{sum(tried.values())} faults tried {tried}, {failed} with a copy that differs")
    return 1 if failed else 0


def _with_servers() -> int:
    """Start both stand-ins, and run this module in a process that is signed in to them."""
    command = [sys.executable, "-m", "tests.scenarios.azureml.mirror_faults", *sys.argv[1:]]
    with (
        tempfile.TemporaryDirectory() as folder,
        AzureMLStandIn.start(Path(folder, "aml")) as aml,
        DatabricksStandIn.start(Path(folder, "db")) as databricks,
    ):
        variables = both_servers.environment(aml, databricks) | {"BUNDLE_LOCAL_DIR": str(Path(folder, "local"))}
        return subprocess.run(command, env=os.environ | variables).returncode


if __name__ == "__main__":
    sys.exit(main())
