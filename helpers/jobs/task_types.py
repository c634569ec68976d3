"""The task types that can be run here.

To add one, write a subclass of `TaskType` and add it to `TASK_TYPES`.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.jobs.execute import execute_notebook
from helpers.jobs.references import resolve
from helpers.jobs.results import SUCCESS, TaskResult
from helpers.parameters import as_text


class InvalidTask(ValueError):
    """A task cannot be run with the settings that it has; another attempt would not help."""


@dataclass(frozen=True)
class Attempt:
    """One attempt to run a task.

    Attributes
    ----------
    task : str
        Key of the task.
    number : int
        1 for the first attempt.
    references : dict of str to object
        Values of the references in double braces.
    job_parameters : dict of str to str
    output : pathlib.Path
        Folder for the files that show what happened.
    seconds : float or None
        Time limit.
    """

    task: str
    number: int
    references: Mapping[str, Any]
    job_parameters: Mapping[str, str]
    output: Path
    seconds: float | None


class TaskType(ABC):
    """What a task does: the settings of one of its type, and how to run them."""

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: dict[str, Any], root: Path) -> TaskType:
        """Read the settings of a task.

        Parameters
        ----------
        settings : dict
            Value of the field ``<type>_task`` in ``databricks.yml``, with its variables resolved.
        root : pathlib.Path
            Folder of ``databricks.yml``.

        Raises
        ------
        InvalidTask
            If a task with these settings cannot be run here.
        """

    @abstractmethod
    def run(self, attempt: Attempt) -> TaskResult:
        """Run the task.

        Returns
        -------
        TaskResult
            SUCCESS, FAILED, TIMEDOUT or CANCELED, of this attempt.

        Raises
        ------
        InvalidTask
            If the references have values with which it cannot be run.
        helpers.jobs.references.UnknownReference
            If a reference has no value.
        """


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
    def from_settings(cls, settings: dict[str, Any], root: Path) -> NotebookTask:
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
        stem = attempt.task if attempt.number == 1 else f"{attempt.task}-attempt-{attempt.number}"
        executed = attempt.output / f"{stem}.ipynb"
        return execute_notebook(self.path, {**own, **attempt.job_parameters}, executed, attempt.task, attempt.seconds)


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
    def from_settings(cls, settings: dict[str, Any], root: Path) -> ConditionTask:  # noqa: ARG003
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


TASK_TYPES: dict[str, type[TaskType]] = {"notebook_task": NotebookTask, "condition_task": ConditionTask}
"""The task types that can be run here, by their field in ``databricks.yml``."""
