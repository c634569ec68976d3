"""What a job and its tasks are, and what each type of task can do.

https://learn.microsoft.com/azure/databricks/jobs/configure-task
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.jobs.results import TaskResult
from helpers.jobs.scheduling import RetryPolicy


class InvalidTask(ValueError):
    """A task cannot be run with the settings that it has; another attempt would not help."""


@dataclass(frozen=True)
class Attempt:
    """One attempt to run a task.

    Attributes
    ----------
    task : str
        Key of the task.
    label : str
        Name to print: the key, after those of the tasks that run its job.
    number : int
        1 for the first attempt.
    references : dict of str to object
        Values of the references in double braces.
    job_parameters : dict of str to str
    output : pathlib.Path
        Folder for the files that show what happened.
    seconds : float or None
        Time limit.
    on_change : callable
        Takes what is known of the task's result while it runs.
    """

    task: str
    label: str
    number: int
    references: Mapping[str, Any]
    job_parameters: Mapping[str, str]
    output: Path
    seconds: float | None
    on_change: Callable[[TaskResult], None]


class TaskType(ABC):
    """What a task does: the settings of one of its type, and how to run them."""

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: dict[str, Any], root: Path, job: Callable[[str], Job]) -> TaskType:
        """Read the settings of a task.

        Parameters
        ----------
        settings : dict
            Value of the field ``<type>_task`` in ``databricks.yml``, with its variables resolved.
        root : pathlib.Path
            Folder of ``databricks.yml``.
        job : callable
            Returns the job of a key; it raises `InvalidTask` if the task cannot run that job.

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
class Task:
    """One task of a job.

    Attributes
    ----------
    key : str
    action : TaskType
        What the task does.
    depends_on : dict of str to (str or None)
        Keys of other tasks; for a condition task, with the outcome that it must have.
    run_if : str
        A key of `helpers.jobs.scheduling.RUN_IF`.
    retries : helpers.jobs.scheduling.RetryPolicy
    timeout : float or None
        Seconds that one attempt may take.
    """

    key: str
    action: TaskType
    depends_on: dict[str, str | None]
    run_if: str
    retries: RetryPolicy
    timeout: float | None


@dataclass(frozen=True)
class Job:
    """A job.

    Attributes
    ----------
    key, name : str
    parameters : dict of str to str
        Default of each job parameter.
    tasks : list of Task
        In an order in which they can run.
    timeout : float or None
        Seconds that the job may take.
    not_used : list of str
        Fields in the file that have no meaning on this machine.
    """

    key: str
    name: str
    parameters: dict[str, str]
    tasks: list[Task]
    timeout: float | None
    not_used: list[str]

    @property
    def leaves(self) -> set[str]:
        """The keys of the tasks that no other task depends on."""
        return {task.key for task in self.tasks} - {before for task in self.tasks for before in task.depends_on}
