"""What happened to jobs and tasks: the states, the results, and ``summary.json``.

The states are those of Databricks, and NOT_RUN:
https://docs.databricks.com/api/azure/workspace/jobs/getrun

SUCCESS
    The task or the job succeeded.
SUCCESS_WITH_FAILURES
    A task failed, but the tasks at the end of the job succeeded. Jobs only.
FAILED
    The task failed; a task at the end of the job failed.
TIMEDOUT
    It was not done within ``timeout_seconds``.
CANCELED
    The runner was interrupted (Ctrl-C, or a TERM signal).
UPSTREAM_FAILED
    The task did not run, because of the failure of a task that it depends on.
EXCLUDED
    The task did not run, because a condition was not met.
NOT_RUN
    The run ended before the task or the job could start.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SUCCESS, SUCCESS_WITH_FAILURES = "SUCCESS", "SUCCESS_WITH_FAILURES"
FAILED, TIMEDOUT, CANCELED = "FAILED", "TIMEDOUT", "CANCELED"
UPSTREAM_FAILED, EXCLUDED, NOT_RUN = "UPSTREAM_FAILED", "EXCLUDED", "NOT_RUN"
RUNNING = "RUNNING"
SUCCEEDED = (SUCCESS, SUCCESS_WITH_FAILURES)


@dataclass
class TaskResult:
    """What happened to a task.

    Attributes
    ----------
    state : str
        One of the states of this module.
    notebook : str or None
        File name of the notebook.
    executed_notebook, html, log : str or None
        Paths of the last attempt's notebook, of its HTML copy, and of what its kernel printed
        outside of cells.
    seconds : float
        Duration of all attempts together.
    attempts : int
    error : str or None
        One line.
    task_values : dict
        Values that the task passes on to other tasks, by key.
    outcome : str or None
        ``true`` or ``false``, for a condition task.
    is_retryable : bool
        Whether another attempt may end otherwise. An error in a parameter stays one.
    job : JobResult or None
        What happened to the job that the task ran, for a run-job task.
    """

    state: str
    notebook: str | None = None
    executed_notebook: str | None = None
    html: str | None = None
    log: str | None = None
    seconds: float = 0.0
    attempts: int = 0
    error: str | None = None
    task_values: dict[str, Any] = field(default_factory=dict)
    outcome: str | None = None
    is_retryable: bool = True
    job: JobResult | None = None


@dataclass
class JobResult:
    """What happened to a job.

    Attributes
    ----------
    state : str
        One of the states of this module, or RUNNING.
    run_id : int
        0 if the job has not started.
    parameters : dict of str to str
        Value of each job parameter.
    seconds : float
    error : str or None
        The errors of its tasks.
    tasks : dict of str to TaskResult
        By task key, in the order in which they ran.
    """

    state: str = NOT_RUN
    run_id: int = 0
    parameters: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None
    tasks: dict[str, TaskResult] = field(default_factory=dict)


@dataclass
class Summary:
    """What happened to all jobs of a command line: the content of ``summary.json``.

    Attributes
    ----------
    bundle, target : str
    state : str
        RUNNING, then the state of the last job that ran; SUCCESS_WITH_FAILURES if one of them
        had that state and none a worse one.
    started : str
        Time in ISO format, UTC.
    tracking_server, model_registry : str
        The MLflow servers that the jobs used.
    spark_warehouse : str
        Folder of the tables.
    jobs : dict of str to JobResult
        By job key.
    """

    bundle: str
    target: str
    state: str
    started: str
    tracking_server: str
    model_registry: str
    spark_warehouse: str
    jobs: dict[str, JobResult]

    def all_tasks(self) -> Iterator[TaskResult]:
        """Yield the results of all tasks, each after those of the tasks of a job that it ran."""
        for job in self.jobs.values():
            yield from _tasks_of(job)

    def write(self, folder: Path) -> None:
        """Write ``summary.json``; a reader never sees half of it."""
        draft = folder / "summary.json.draft"
        draft.write_text(json.dumps(asdict(self), indent=2) + "\n")
        draft.replace(folder / "summary.json")


def _tasks_of(job: JobResult) -> Iterator[TaskResult]:
    for task in job.tasks.values():
        if task.job:
            yield from _tasks_of(task.job)
        yield task
