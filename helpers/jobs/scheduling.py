"""Which tasks run, how often, for how long, and in which state the job ends.

Nothing runs here: each function decides from states and numbers.

The rules are those of https://learn.microsoft.com/azure/databricks/jobs/run-if. For one case, its sentences do not
agree with each other: a task with `ALL_SUCCESS` that depends on a successful task and on an excluded one.

- Whether it runs: no. The page defines `ALL_SUCCESS` as "all dependencies have run and succeeded", and an excluded
  task has not run. That excluded tasks "are treated as successful" decides about `NONE_FAILED` and about the state
  of the job only.
- Its state: EXCLUDED, so that a branch that was not chosen does not fail the job. The page says "Upstream failed",
  but nothing has failed, and the Jobs API defines UPSTREAM_FAILED as "skipped because of an upstream failure" and
  EXCLUDED as "skipped because the necessary conditions were not met".
  https://docs.databricks.com/api/azure/workspace/jobs/getrun
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from helpers.jobs.results import (
    CANCELED,
    EXCLUDED,
    FAILED,
    NOT_RUN,
    SUCCEEDED,
    SUCCESS,
    SUCCESS_WITH_FAILURES,
    TIMEDOUT,
    UPSTREAM_FAILED,
    TaskResult,
)

_FAILURES = (FAILED, TIMEDOUT, CANCELED, UPSTREAM_FAILED)

RUN_IF: dict[str, Callable[[Sequence[str]], bool]] = {
    "ALL_SUCCESS": lambda states: all(state == SUCCESS for state in states),
    "AT_LEAST_ONE_SUCCESS": lambda states: SUCCESS in states,
    "NONE_FAILED": lambda states: not any(state in _FAILURES for state in states),
    "ALL_DONE": lambda _: True,
    "AT_LEAST_ONE_FAILED": lambda states: any(state in _FAILURES for state in states),
    "ALL_FAILED": lambda states: all(state in _FAILURES for state in states),
}
"""For each value of ``run_if``: whether a task runs, from the states of its dependencies."""

_FAILURE_HANDLERS = ("AT_LEAST_ONE_FAILED", "ALL_FAILED")


@dataclass(frozen=True)
class RetryPolicy:
    """When a task is tried again.

    Attributes
    ----------
    max_retries : int
        Attempts after the first.
    on_timeout : bool
        Whether an attempt that took too long is tried again.
    wait : float
        Seconds between two attempts.
    """

    max_retries: int = 0
    on_timeout: bool = False
    wait: float = 0.0

    def allows_another(self, state: str, attempts: int, seconds_left: float | None) -> bool:
        """Return whether another attempt follows.

        Parameters
        ----------
        state : str
            State of the last attempt.
        attempts : int
            Attempts so far.
        seconds_left : float or None
            Seconds until the job's time limit, if it has one. An attempt that could only start after it is not made.
        """
        if state == TIMEDOUT and not self.on_timeout:
            return False
        in_time = seconds_left is None or seconds_left > self.wait
        return state in (FAILED, TIMEDOUT) and attempts <= self.max_retries and in_time


def dependency_state(result: TaskResult, outcome: str | None) -> str:
    """Return the state that a dependency has for one of the tasks that depend on it.

    Parameters
    ----------
    result : TaskResult
        Of the dependency.
    outcome : str or None
        The outcome that the dependent task requires, if the dependency is a condition task. With
        another outcome, the dependency counts as excluded.
    """
    if result.state == SUCCESS and outcome is not None and result.outcome != outcome:
        return EXCLUDED
    return result.state


def state_before(run_if: str, dependencies: Sequence[str]) -> str | None:
    """Return the state of a task that must not run, or None for a task that must run.

    Parameters
    ----------
    run_if : str
        A key of `RUN_IF`.
    dependencies : sequence of str
        States of the tasks that it depends on, as `dependency_state` returns them.
    """
    if not dependencies:
        return None
    if all(state == EXCLUDED for state in dependencies):
        return EXCLUDED
    if RUN_IF[run_if](dependencies):
        return None
    failed = any(state in _FAILURES for state in dependencies)
    return UPSTREAM_FAILED if failed and run_if not in _FAILURE_HANDLERS else EXCLUDED


def attempt_limit(task_timeout: float | None, seconds_left: float | None) -> float | None:
    """Return how many seconds an attempt may take, or None if there is no limit.

    Parameters
    ----------
    task_timeout : float or None
        The task's time limit for each attempt, if it has one.
    seconds_left : float or None
        Seconds until the job's time limit, if it has one.
    """
    return min((limit for limit in (task_timeout, seconds_left) if limit is not None), default=None)


def job_state(tasks: Mapping[str, str], leaves: Collection[str], time_is_up: bool) -> str:
    """Return the state that a job ends with.

    Its leaf tasks decide: if they succeeded or were excluded, failures of other tasks have been dealt with.

    Parameters
    ----------
    tasks : mapping of str to str
        State of each task, by its key.
    leaves : collection of str
        Keys of the tasks that no other task depends on.
    time_is_up : bool
        Whether the job's time limit has passed.
    """
    states = tasks.values()
    if CANCELED in states:
        return CANCELED
    if time_is_up and (TIMEDOUT in states or NOT_RUN in states):
        return TIMEDOUT
    if any(tasks[key] in _FAILURES for key in leaves):
        return FAILED
    return SUCCESS_WITH_FAILURES if any(state in _FAILURES for state in states) else SUCCESS


def overall_state(jobs: Sequence[str]) -> str:
    """Return the state of several jobs, from the states of those that ran: only the last of them can have failed."""
    if jobs[-1] in SUCCEEDED and SUCCESS_WITH_FAILURES in jobs:
        return SUCCESS_WITH_FAILURES
    return jobs[-1]
