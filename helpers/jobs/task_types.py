"""The task types that can be run here.

To add one, write a subclass of `TaskType` and add it to `TASK_TYPES`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.jobs.definitions import Attempt, InvalidTask, Job, TaskType
from helpers.jobs.execute import execute_notebook
from helpers.jobs.references import resolve
from helpers.jobs.results import SUCCEEDED, SUCCESS, JobResult, TaskResult
from helpers.jobs.run import run_job
from helpers.parameters import as_text


@dataclass(frozen=True)
class NotebookTask(TaskType):
    """Runs a notebook.

    Attributes
    ----------
    path : pathlib.Path
    base_parameters : dict of str to str
        Job parameters of the same names override them.
    """

    path: Path
    base_parameters: dict[str, str]

    @classmethod
    def from_settings(cls, settings: dict[str, Any], root: Path, job: Callable[[str], Job]) -> NotebookTask:  # noqa: ARG003
        """Read the settings of a notebook task; see `TaskType.from_settings`."""
        if settings.get("source", "WORKSPACE") != "WORKSPACE":
            raise InvalidTask(f"notebook_task.source {settings['source']!r} cannot be run on this machine")
        name = str(settings.get("notebook_path", ""))
        path = root / name
        path = path if path.suffix else path.with_suffix(".ipynb")
        if path.suffix != ".ipynb" or not path.is_file():
            raise InvalidTask(f"{name!r} is not an .ipynb file in {root}")
        parameters = settings.get("base_parameters") or {}
        return cls(path, {name: as_text(value) for name, value in parameters.items()})

    def run(self, attempt: Attempt) -> TaskResult:
        """Run the notebook; see `TaskType.run`."""
        # https://learn.microsoft.com/azure/databricks/jobs/job-parameters
        own = {name: resolve(value, attempt.references) for name, value in self.base_parameters.items()}
        executed = attempt.output / f"{_name(attempt)}.ipynb"
        return execute_notebook(self.path, {**own, **attempt.job_parameters}, executed, attempt.label, attempt.seconds)


_EQUALITIES = {"EQUAL_TO": operator.eq, "NOT_EQUAL": operator.ne}
_ORDERS = {
    "GREATER_THAN": operator.gt,
    "GREATER_THAN_OR_EQUAL": operator.ge,
    "LESS_THAN": operator.lt,
    "LESS_THAN_OR_EQUAL": operator.le,
}


@dataclass(frozen=True)
class ConditionTask(TaskType):
    """Compares two values. The outcome, true or false, decides which of the next tasks run.

    Attributes
    ----------
    op : str
        EQUAL_TO and NOT_EQUAL compare texts, the other operators compare numbers.
    left, right : str
        The operands; they may have references.
    """

    op: str
    left: str
    right: str

    @classmethod
    def from_settings(cls, settings: dict[str, Any], root: Path, job: Callable[[str], Job]) -> ConditionTask:  # noqa: ARG003
        """Read the settings of a condition task; see `TaskType.from_settings`."""
        missing = [name for name in ("op", "left", "right") if name not in settings]
        if missing:
            raise InvalidTask(f"condition_task needs {' and '.join(missing)}")
        if settings["op"] not in _EQUALITIES | _ORDERS:
            raise InvalidTask(f"op {settings['op']!r} is unknown; there are: {', '.join(_EQUALITIES | _ORDERS)}")
        return cls(settings["op"], as_text(settings["left"]), as_text(settings["right"]))

    def holds(self, references: Mapping[str, Any]) -> bool:
        """Return whether the condition is met; `run` says what it raises."""
        left, right = resolve(self.left, references), resolve(self.right, references)
        if self.op in _EQUALITIES:
            return _EQUALITIES[self.op](left, right)
        try:
            return _ORDERS[self.op](float(left), float(right))
        except ValueError:
            raise InvalidTask(f"condition {left!r} {self.op} {right!r}: both must be numbers") from None

    def run(self, attempt: Attempt) -> TaskResult:
        """Evaluate the condition; see `TaskType.run`."""
        return TaskResult(SUCCESS, outcome=as_text(self.holds(attempt.references)))


@dataclass(frozen=True)
class RunJobTask(TaskType):
    """Runs another job of the bundle.

    https://learn.microsoft.com/azure/databricks/jobs/run-job

    Attributes
    ----------
    job : helpers.jobs.definitions.Job
    job_parameters : dict of str to str
        Values in place of the defaults of that job; they may have references.
    """

    job: Job
    job_parameters: dict[str, str]

    @classmethod
    def from_settings(cls, settings: dict[str, Any], root: Path, job: Callable[[str], Job]) -> RunJobTask:  # noqa: ARG003
        """Read the settings of a run-job task; see `TaskType.from_settings`."""
        for field in settings.keys() - {"job_id", "job_parameters"}:
            raise InvalidTask(f"run_job_task.{field} cannot be run on this machine")
        target = job(as_text(settings.get("job_id", "")))
        given = settings.get("job_parameters") or {}
        for name in given.keys() - target.parameters.keys():
            declared = ", ".join(target.parameters) or "none"
            raise InvalidTask(
                f"run_job_task.job_parameters: job {target.key!r} does not declare {name!r}; it has: {declared}"
            )
        return cls(target, {name: as_text(value) for name, value in given.items()})

    def run(self, attempt: Attempt) -> TaskResult:
        """Run the job, and return its state as that of the task; see `TaskType.run`."""
        given = {name: resolve(value, attempt.references) for name, value in self.job_parameters.items()}
        output = attempt.output / _name(attempt)
        output.mkdir(exist_ok=True)

        def report(job: JobResult) -> None:
            attempt.on_change(TaskResult(job.state, attempts=attempt.number, job=job))

        job = run_job(self.job, given, output, report, attempt.seconds, f"{attempt.label}/")
        if job.state in SUCCEEDED:
            return TaskResult(SUCCESS, job=job)
        errors = [task for task in job.tasks.values() if task.error]
        return TaskResult(
            job.state,
            error=f"job {self.job.key!r}: {job.error or job.state}",
            job=job,
            is_retryable=not errors or any(task.is_retryable for task in errors),
        )


def _name(attempt: Attempt) -> str:
    """Return the name, without a suffix, of what an attempt leaves in its output folder."""
    return attempt.task if attempt.number == 1 else f"{attempt.task}-attempt-{attempt.number}"


TASK_TYPES: dict[str, type[TaskType]] = {
    "notebook_task": NotebookTask,
    "condition_task": ConditionTask,
    "run_job_task": RunJobTask,
}
"""The task types that can be run here, by their field in ``databricks.yml``."""
