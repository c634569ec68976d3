"""Run jobs of ``databricks.yml`` on this machine: their notebooks, in order, with their parameters.

    python -m helpers.jobs.run JOB [JOB …] [--target dev] [--param NAME=VALUE …] [--output DIR]

Tasks run one after the other, each notebook in a kernel of its own; clusters, schedules and
notifications have no meaning here. The executed notebooks, with an HTML copy of each, and
``summary.json`` are in the output folder.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import parameters, runtime, tracking
from helpers.jobs import report as job_report
from helpers.jobs.bundle import FILE, Bundle, BundleError, Job, Task
from helpers.jobs.references import UnknownReference, condition_holds, resolve, start_time_references
from helpers.laptop.dbutils import PARAMETER_PREFIX, TASK_VALUES_FILE

if TYPE_CHECKING:
    from traitlets.config import Config

SUCCESS, FAILED, TIMEDOUT, CANCELED = "SUCCESS", "FAILED", "TIMEDOUT", "CANCELED"
EXCLUDED, NOT_RUN = "EXCLUDED", "NOT_RUN"
UNSUCCESSFUL = (FAILED, TIMEDOUT, CANCELED)


@dataclass
class TaskResult:
    """What happened to a task.

    Attributes
    ----------
    state : {"SUCCESS", "FAILED", "TIMEDOUT", "CANCELED", "EXCLUDED", "NOT_RUN"}
        NOT_RUN: what it depends on failed. EXCLUDED: a condition said no. CANCELED: the runner
        was told to end (Ctrl-C, or a TERM signal).
    seconds : float
        All attempts together.
    attempts : int
    executed_notebook, html, log : str or None
        Paths of the last attempt's notebook, of its HTML copy, and of what its kernel printed
        outside of cells.
    error : str or None
        Short.
    task_values : dict
        What the task handed over.
    outcome : str or None
        Of a condition task: ``true`` or ``false``.
    """

    state: str
    seconds: float = 0.0
    attempts: int = 0
    executed_notebook: str | None = None
    html: str | None = None
    log: str | None = None
    error: str | None = None
    task_values: dict[str, Any] = field(default_factory=dict)
    outcome: str | None = None


@dataclass
class JobResult:
    """What happened to a job: its state, seconds, parameters and tasks by key."""

    state: str
    run_id: int
    parameters: dict[str, str]
    seconds: float = 0.0
    error: str | None = None
    tasks: dict[str, TaskResult] = field(default_factory=dict)


def run_job(job: Job, given: dict[str, str], output: Path, on_change: Callable[[JobResult], None]) -> JobResult:
    """Run a job's tasks in order.

    Parameters
    ----------
    job : helpers.jobs.bundle.Job
    given : dict of str to str
        Job parameters that differ from their defaults.
    output : pathlib.Path
        Folder for the executed notebooks.
    on_change : callable
        Called with the result whenever a task has ended.

    Returns
    -------
    JobResult
    """
    started, now = time.monotonic(), datetime.now(timezone.utc)
    run_id = time.time_ns() // 1000
    known = {"job.id": job.key, "job.name": job.name, "job.run_id": str(run_id), "job.repair_count": "0"}
    known |= {"job.trigger.type": "one_time"} | start_time_references(now)
    values = {name: resolve(given.get(name, default), known) for name, default in job.parameters.items()}
    known |= {f"job.parameters.{name}": value for name, value in values.items()}
    result = JobResult("RUNNING", run_id, values)
    print(f"\n{job.name} (run {run_id})")
    if job.not_used:
        print(f"  not used on this machine: {', '.join(job.not_used)}")
    deadline = started + job.timeout if job.timeout else None
    for task in job.tasks:
        if any(before.state == CANCELED for before in result.tasks.values()):
            task_result = TaskResult(NOT_RUN)
        else:
            task_result = _run_task(task, result, known, output, deadline)
        result.tasks[task.key] = task_result
        known |= {f"tasks.{task.key}.values.{key}": value for key, value in task_result.task_values.items()}
        known[f"tasks.{task.key}.result_state"] = task_result.state.lower()
        result.seconds = time.monotonic() - started
        job_report.print_task(task.key, task_result)
        on_change(result)
    unsuccessful = {key: task for key, task in result.tasks.items() if task.state in UNSUCCESSFUL}
    result.state = SUCCESS
    if unsuccessful:
        canceled = any(task.state == CANCELED for task in unsuccessful.values())
        result.state = CANCELED if canceled else FAILED
        result.error = "; ".join(f"{key}: {task.error}" for key, task in unsuccessful.items())
    on_change(result)
    return result


def _run_task(task: Task, job: JobResult, known: dict[str, Any], output: Path, deadline: float | None) -> TaskResult:
    state = _state_before(task, job.tasks)
    if state:
        return TaskResult(state)
    started = time.monotonic()
    known = known | {"task.name": task.key}
    try:
        if task.notebook is None:
            outcome = condition_holds(
                task.condition["op"], resolve(task.condition["left"], known), resolve(task.condition["right"], known)
            )
            return TaskResult(SUCCESS, time.monotonic() - started, 1, outcome=str(outcome).lower())
        result = TaskResult(NOT_RUN)
        for attempt in range(1, task.max_retries + 2):
            references = known | {"task.run_id": f"{job.run_id}{attempt}", "task.execution_count": str(attempt)}
            # Job parameters win over a task's own: https://learn.microsoft.com/azure/databricks/jobs/job-parameters
            values = {name: resolve(value, references) for name, value in task.base_parameters.items()} | job.parameters
            result = _run_attempt(task, task.notebook, attempt, values, output, deadline)
            result.seconds, result.attempts = time.monotonic() - started, attempt
            again = result.state == FAILED or (result.state == TIMEDOUT and task.retry_on_timeout)
            if not again or attempt > task.max_retries or (deadline and time.monotonic() > deadline):
                return result
            job_report.print_retry(task.key, result.error, attempt, task.max_retries)
            time.sleep(task.retry_wait)
        return result
    except UnknownReference as error:
        return TaskResult(FAILED, time.monotonic() - started, error=str(error))


def _state_before(task: Task, results: dict[str, TaskResult]) -> str | None:
    """Return the state of a task that must not run, None for one that must.

    The rules are those of https://learn.microsoft.com/azure/databricks/jobs/run-if: an excluded
    task counts as successful, but a task whose dependencies are all excluded is excluded, too.
    """
    if not task.depends_on:
        return None
    states = []
    for key, outcome in task.depends_on.items():
        before = results[key]
        branch_not_taken = before.state == SUCCESS and outcome is not None and before.outcome != outcome
        states.append(EXCLUDED if branch_not_taken else before.state)
    if all(state == EXCLUDED for state in states):
        return EXCLUDED
    bad = [state in (*UNSUCCESSFUL, NOT_RUN) for state in states]
    met = {
        "ALL_SUCCESS": not any(bad) and EXCLUDED not in states,
        "AT_LEAST_ONE_SUCCESS": SUCCESS in states,
        "NONE_FAILED": not any(bad),
        "ALL_DONE": True,
        "AT_LEAST_ONE_FAILED": any(bad),
        "ALL_FAILED": all(bad),
    }[task.run_if]
    if met:
        return None
    return NOT_RUN if any(bad) and task.run_if not in ("AT_LEAST_ONE_FAILED", "ALL_FAILED") else EXCLUDED


def _run_attempt(
    task: Task, path: Path, attempt: int, values: dict[str, str], output: Path, deadline: float | None
) -> TaskResult:
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    notebook = nbformat.read(path, as_version=4)
    stem = task.key if attempt == 1 else f"{task.key}-attempt-{attempt}"
    executed = output / f"{stem}.ipynb"
    html_file, log_file = executed.with_suffix(".html"), executed.with_suffix(".log")
    result = TaskResult(SUCCESS, executed_notebook=str(executed), html=str(html_file), log=str(log_file))
    seconds = task.timeout
    if deadline:
        remaining = max(deadline - time.monotonic(), 0)
        seconds = min(seconds, remaining) if seconds else remaining
    with (
        tempfile.TemporaryDirectory() as scratch,
        log_file.open("wb") as log,
        job_report.CellProgress(task.key, notebook) as progress,
    ):
        task_values = Path(scratch, "task_values.json")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(PARAMETER_PREFIX)}
        environment |= {PARAMETER_PREFIX + name.upper(): value for name, value in values.items()}
        environment |= {
            TASK_VALUES_FILE: str(task_values),
            "BUNDLE_LOCAL_DIR": str(runtime.local_dir()),
        }
        client = NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            resources={"metadata": {"path": str(path.parent)}},
            coalesce_streams=True,
            on_cell_start=progress.on_cell_start,
            config=kernel_sockets(Path(scratch)),
        )
        try:
            asyncio.run(_execute(client, seconds, env=environment, stdout=log, stderr=log))
        except CellExecutionError as error:
            result.state, result.error = FAILED, f"{error.ename}: {error.evalue}"
        except DeadKernelError:
            result.state, result.error = FAILED, f"the kernel died; see {result.log}"
        except asyncio.TimeoutError:
            result.state, result.error = TIMEDOUT, f"not done after {seconds:.0f} s (timeout_seconds)"
        except KeyboardInterrupt:
            result.state, result.error = CANCELED, "interrupted"
        if result.error:
            result.error = f"{progress.where}: {result.error}"
        if task_values.exists():
            result.task_values = json.loads(task_values.read_text())
    nbformat.write(notebook, executed)
    html_file.write_text(_html(notebook, task.key), encoding="utf-8")
    return result


def kernel_sockets(folder: Path) -> Config:
    """Return the settings of a kernel that is talked to through sockets in a folder, not through ports.

    Jupyter chooses free ports before the kernel takes them: two kernels that start at once may get
    the same, and one dies. On Windows, where there are no such sockets, it stays with ports.
    https://jupyter-client.readthedocs.io/en/stable/kernels.html#connection-files
    """
    from traitlets.config import Config

    if os.name != "posix":
        return Config()
    return Config(KernelManager={"transport": "ipc", "connection_file": str(folder / "kernel.json")})


async def _execute(client: Any, seconds: float | None, **kernel: Any) -> None:
    """Execute a notebook; on a timeout or a signal end it with its kernel.

    The clock and the signals are watched beside nbclient, which takes a cancellation from
    outside for the kernel's death, and on a signal only ends the kernel.

    Raises
    ------
    asyncio.TimeoutError
        If it is not done after `seconds`.
    KeyboardInterrupt
        If the process got SIGINT or SIGTERM.
    """
    told_to_end = asyncio.Event()

    def listen(**_: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, told_to_end.set)

    client.on_notebook_start = listen
    execution = asyncio.ensure_future(client.async_execute(**kernel))
    interruption = asyncio.ensure_future(told_to_end.wait())
    await asyncio.wait([execution, interruption], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    interruption.cancel()
    if not execution.done():
        execution.cancel()
        await asyncio.wait([execution])
        raise KeyboardInterrupt if told_to_end.is_set() else asyncio.TimeoutError
    execution.result()


def _html(notebook: Any, title: str) -> str:
    from nbconvert import HTMLExporter

    return HTMLExporter().from_notebook_node(notebook, resources={"metadata": {"name": title}})[0]


def check_parameters(jobs: list[Job], given: dict[str, str]) -> None:
    """Refuse parameters that no job has, and values that the notebooks would refuse.

    Raises
    ------
    helpers.parameters.ParameterError
        Before anything is started.
    """
    declared = {name for job in jobs for name in job.parameters}
    for name in given.keys() - declared:
        parameters.require_declared([name], "--param")
        raise parameters.ParameterError(
            name,
            given[name],
            f"{' and '.join(job.key for job in jobs)} has no such parameter; there are: {', '.join(sorted(declared))}",
            "--param",
        )
    for job in jobs:
        values = {
            name: given.get(name, default)
            for name, default in job.parameters.items()
            # A value that is known only when the job runs is checked by the notebook.
            if name in parameters.FIELDS and "{{" not in given.get(name, default)
        }
        sources = {name: "--param" if name in given else f"{FILE}, job {job.key}" for name in values}
        parameters.parse(values, sources)


def main(arguments: list[str] | None = None) -> int:
    """Run the jobs that the command line names.

    Returns
    -------
    int
        Exit status: 0, 1 if a task did not succeed, 2 if nothing was started.
    """
    options = _parse_arguments(arguments)
    try:
        bundle = Bundle(_bundle_root(), options.target, dict(options.var))
        jobs = [bundle.job(key) for key in dict.fromkeys(options.jobs)]
        declared = {name for job in jobs for name in job.parameters}
        environment = {
            key.removeprefix(PARAMETER_PREFIX).lower(): value
            for key, value in os.environ.items()
            if key.startswith(PARAMETER_PREFIX)
        }
        parameters.require_declared(environment, f"environment variable {PARAMETER_PREFIX}…")
        given = {name: value for name, value in environment.items() if name in declared} | dict(options.param)
        for name in parameters.PATHS & given.keys():
            # Notebooks run in their own folder; a path was typed in this one.
            given[name] = str(Path(given[name]).resolve()) if Path(given[name]).exists() else given[name]
        check_parameters(jobs, given)
    except (BundleError, parameters.ParameterError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2

    started = datetime.now(timezone.utc)
    output = options.output or runtime.local_dir() / "jobs" / started.strftime("%Y%m%d-%H%M%S")
    summary: dict[str, Any] = {
        "bundle": bundle.name,
        "target": bundle.target,
        "state": "RUNNING",
        "started": started.isoformat(timespec="seconds"),
        **_servers(jobs, given),
        "spark_warehouse": str(runtime.local_dir() / "warehouse"),
        "jobs": {job.key: asdict(JobResult(NOT_RUN, 0, {})) for job in jobs},
    }

    def write_summary() -> None:
        draft = output / "summary.json.draft"
        draft.write_text(json.dumps(summary, indent=2) + "\n")
        draft.replace(output / "summary.json")

    def record(key: str, result: JobResult) -> None:
        summary["jobs"][key] = asdict(result)
        write_summary()

    for job in jobs:
        folder = output / job.key
        folder.mkdir(parents=True, exist_ok=True)
        result = run_job(job, given, folder, partial(record, job.key))
        if result.state != SUCCESS:
            break
    summary["state"] = result.state
    write_summary()
    job_report.print_summary(summary, output)
    return 0 if summary["state"] == SUCCESS else 1


def _servers(jobs: list[Job], given: dict[str, str]) -> dict[str, str]:
    values = {name: given.get(name, default) for job in jobs for name, default in job.parameters.items()}
    mode, registry = (values.get(name, "auto") for name in ("tracking_mode", "model_registry"))
    workspace = values.get("azureml_tracking_uri") or f"Azure ML workspace {values.get('azureml_workspace')}"
    servers = tracking.servers(mode, registry, workspace)
    return {"tracking_uri": servers.tracking_uri, "registry_uri": servers.registry_uri}


def _bundle_root() -> Path:
    """Return the nearest folder with ``databricks.yml``, from the working directory upward."""
    here = Path.cwd()
    return next((folder for folder in [here, *here.parents] if (folder / FILE).is_file()), runtime.BUNDLE_ROOT)


def assignment(text: str) -> tuple[str, str]:
    """Split ``NAME=VALUE`` of a command line."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m helpers.jobs.run", description="Run jobs of databricks.yml on this machine."
    )
    parser.add_argument("jobs", nargs="+", metavar="JOB", help="keys of the jobs, in the order to run them")
    parser.add_argument("--target", help="target of the bundle (default: the one that databricks.yml marks)")
    parser.add_argument(
        "--param", action="append", default=[], type=assignment, metavar="NAME=VALUE", help="a job parameter"
    )
    parser.add_argument(
        "--var", action="append", default=[], type=assignment, metavar="NAME=VALUE", help="a variable of the bundle"
    )
    parser.add_argument(
        "--output", type=lambda path: Path(path).resolve(), metavar="DIR", help="default: .local/jobs/<time>"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
