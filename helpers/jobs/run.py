"""Run jobs on this machine: their tasks in order, with parameters, retries and time limits."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from helpers import parameters
from helpers.jobs import report, scheduling
from helpers.jobs.definitions import Attempt, InvalidTask, Job, Task
from helpers.jobs.html import link_pages
from helpers.jobs.references import UnknownReference, resolve, start_time_references
from helpers.jobs.results import CANCELED, FAILED, NOT_RUN, RUNNING, SUCCEEDED, TIMEDOUT, JobResult, Summary, TaskResult


def run_jobs(jobs: Sequence[Job], overrides: dict[str, str], output: Path, summary: Summary) -> None:
    """Run jobs one after the other, until one does not succeed.

    Parameters
    ----------
    jobs : sequence of helpers.jobs.definitions.Job
    overrides : dict of str to str
        Job parameters whose values differ from their defaults.
    output : pathlib.Path
        Folder for ``summary.json``, and for a folder per job with the executed notebooks.
    summary : helpers.jobs.results.Summary
        Its jobs and its state are set, and it is written whenever a task has ended.
    """

    def record(key: str, result: JobResult) -> None:
        summary.jobs[key] = result
        summary.write(output)

    states = []
    for job in jobs:
        folder = output / job.key
        folder.mkdir(parents=True, exist_ok=True)
        result = run_job(job, overrides, folder, partial(record, job.key))
        states.append(result.state)
        if result.state not in SUCCEEDED:
            break
    link_pages(summary.all_tasks())
    summary.state = scheduling.overall_state(states)
    summary.write(output)


def run_job(
    job: Job,
    overrides: dict[str, str],
    output: Path,
    on_change: Callable[[JobResult], None],
    seconds: float | None = None,
    prefix: str = "",
) -> JobResult:
    """Run a job's tasks in order.

    Parameters
    ----------
    job : helpers.jobs.definitions.Job
    overrides : dict of str to str
        Job parameters whose values differ from their defaults.
    output : pathlib.Path
        Folder for the executed notebooks.
    on_change : callable
        Called with the result whenever a task has ended.
    seconds : float, optional
        Time limit, for a job that a task runs. The job may have a shorter one.
    prefix : str, default ""
        What to print before the names of its tasks.

    Returns
    -------
    helpers.jobs.results.JobResult
    """
    started = time.monotonic()
    limit = scheduling.attempt_limit(job.timeout, seconds)
    deadline = None if limit is None else started + limit
    result = JobResult(RUNNING, run_id=time.time_ns() // 1000)
    print(f"\n{job.name} (run {result.run_id})")
    if job.not_used:
        print(f"  settings of a workspace, without effect on this machine: {', '.join(job.not_used)}")
    references = _job_references(job, result.run_id)
    try:
        result.parameters = _parameter_values(job, overrides, references)
    except (UnknownReference, parameters.ParameterError) as error:
        result.state, result.error = FAILED, str(error)
        print(f"  {result.error}")
        on_change(result)
        return result
    references |= {f"job.parameters.{name}": value for name, value in result.parameters.items()}

    def record(key: str, task_result: TaskResult) -> None:
        result.tasks[key] = task_result
        result.seconds = time.monotonic() - started
        on_change(result)

    for task in job.tasks:
        first = Attempt(
            task=task.key,
            label=f"{prefix}{task.key}",
            number=1,
            references=references,
            job_parameters=result.parameters,
            output=output,
            seconds=None,
            on_change=partial(record, task.key),
        )
        state = _state_before(task, result, deadline)
        task_result = TaskResult(state) if state else _run_task(task, first, deadline)
        references |= {f"tasks.{task.key}.values.{key}": value for key, value in task_result.task_values.items()}
        references[f"tasks.{task.key}.result_state"] = task_result.state.lower()
        report.print_task(first.label, task_result)
        record(task.key, task_result)
    states = {key: task_result.state for key, task_result in result.tasks.items()}
    result.state = scheduling.job_state(states, job.leaves, time_is_up=_seconds_left(deadline) == 0)
    errors = [f"{key}: {task_result.error}" for key, task_result in result.tasks.items() if task_result.error]
    if result.state == TIMEDOUT:
        errors.append(f"the job was not done after {limit:.0f} s (timeout_seconds)")
    result.error = "; ".join(errors) or None
    on_change(result)
    return result


def _job_references(job: Job, run_id: int) -> dict[str, Any]:
    return {
        "job.id": job.key,
        "job.name": job.name,
        "job.run_id": str(run_id),
        "job.repair_count": "0",
        "job.trigger.type": "one_time",
        **start_time_references(datetime.now(timezone.utc)),
    }


def _parameter_values(job: Job, overrides: dict[str, str], references: dict[str, Any]) -> dict[str, str]:
    values = {name: resolve(overrides.get(name, default), references) for name, default in job.parameters.items()}
    # A condition compares texts: `true`, however it was typed.
    return values | {name: parameters.canonical_text(name, values[name]) for name in values.keys() & parameters.FIELDS}


def _seconds_left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


def _state_before(task: Task, job: JobResult, deadline: float | None) -> str | None:
    """Return the state of a task that must not run, or None for a task that must run."""
    if _seconds_left(deadline) == 0 or any(result.state == CANCELED for result in job.tasks.values()):
        return NOT_RUN
    dependencies = [scheduling.dependency_state(job.tasks[key], outcome) for key, outcome in task.depends_on.items()]
    return scheduling.state_before(task.run_if, dependencies)


def _run_task(task: Task, first: Attempt, deadline: float | None) -> TaskResult:
    """Run a task, as often as its retry policy says."""
    started = time.monotonic()
    result = TaskResult(NOT_RUN)
    run_id = first.references["job.run_id"]
    try:
        for number in itertools.count(1):
            of_attempt = {
                "task.name": task.key,
                "task.run_id": f"{run_id}{number}",
                "task.execution_count": str(number),
            }
            attempt = replace(
                first,
                number=number,
                references={**first.references, **of_attempt},
                seconds=scheduling.attempt_limit(task.timeout, _seconds_left(deadline)),
            )
            result = task.action.run(attempt)
            result.attempts = number
            another = task.retries.allows_another(result.state, number, _seconds_left(deadline))
            if not (another and result.is_retryable):
                break
            report.print_retry(first.label, result.error, number, task.retries.max_retries)
            _pause(task.retries.wait)
    except KeyboardInterrupt:
        result.state, result.error = CANCELED, "interrupted"
    except (InvalidTask, UnknownReference) as error:
        result.state, result.error, result.is_retryable = FAILED, str(error), False
    result.seconds = time.monotonic() - started
    return result


def _pause(seconds: float) -> None:
    """Wait between two attempts.

    Raises
    ------
    KeyboardInterrupt
        If the process receives SIGINT (Ctrl-C) or SIGTERM meanwhile.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        time.sleep(seconds)
    finally:
        signal.signal(signal.SIGTERM, before)
