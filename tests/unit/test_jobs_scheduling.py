"""Which tasks of a job run, how often and for how long, and how the job ends; tested without running anything."""

import pytest

from helpers.jobs.results import (
    CANCELED,
    EXCLUDED,
    FAILED,
    NOT_RUN,
    SUCCESS,
    SUCCESS_WITH_FAILURES,
    TIMEDOUT,
    UPSTREAM_FAILED,
    TaskResult,
)
from helpers.jobs.scheduling import (
    RUN_IF,
    RetryPolicy,
    attempt_limit,
    dependency_state,
    job_state,
    overall_state,
    state_before,
)

RUNS = None


@pytest.mark.parametrize(
    ("run_if", "dependencies", "expected"),
    [
        ("ALL_SUCCESS", [SUCCESS, SUCCESS], RUNS),
        ("ALL_SUCCESS", [SUCCESS, FAILED], UPSTREAM_FAILED),
        ("ALL_SUCCESS", [SUCCESS, TIMEDOUT], UPSTREAM_FAILED),
        ("ALL_SUCCESS", [SUCCESS, UPSTREAM_FAILED], UPSTREAM_FAILED),
        ("ALL_SUCCESS", [FAILED, EXCLUDED], UPSTREAM_FAILED),
        # A dependency did not run, but none failed.
        ("ALL_SUCCESS", [SUCCESS, EXCLUDED], EXCLUDED),
        ("AT_LEAST_ONE_SUCCESS", [SUCCESS, FAILED], RUNS),
        ("AT_LEAST_ONE_SUCCESS", [SUCCESS, EXCLUDED], RUNS),
        ("AT_LEAST_ONE_SUCCESS", [FAILED, EXCLUDED], UPSTREAM_FAILED),
        ("NONE_FAILED", [SUCCESS, SUCCESS], RUNS),
        ("NONE_FAILED", [SUCCESS, EXCLUDED], RUNS),
        ("NONE_FAILED", [SUCCESS, FAILED], UPSTREAM_FAILED),
        ("ALL_DONE", [FAILED, UPSTREAM_FAILED], RUNS),
        ("ALL_DONE", [SUCCESS, EXCLUDED], RUNS),
        ("AT_LEAST_ONE_FAILED", [SUCCESS, FAILED], RUNS),
        ("AT_LEAST_ONE_FAILED", [SUCCESS, TIMEDOUT], RUNS),
        ("AT_LEAST_ONE_FAILED", [SUCCESS, EXCLUDED], EXCLUDED),
        ("AT_LEAST_ONE_FAILED", [SUCCESS, SUCCESS], EXCLUDED),
        ("ALL_FAILED", [FAILED, TIMEDOUT], RUNS),
        ("ALL_FAILED", [FAILED, SUCCESS], EXCLUDED),
        ("ALL_FAILED", [FAILED, EXCLUDED], EXCLUDED),
        *((run_if, [EXCLUDED, EXCLUDED], EXCLUDED) for run_if in RUN_IF),
        *((run_if, [], RUNS) for run_if in RUN_IF),
    ],
)
def test_run_if_decides_from_the_states_of_the_dependencies(run_if, dependencies, expected):
    assert state_before(run_if, dependencies) == expected
    assert state_before(run_if, dependencies[::-1]) == expected


@pytest.mark.parametrize(
    ("result", "outcome", "expected"),
    [
        (TaskResult(SUCCESS, outcome="true"), "true", SUCCESS),
        (TaskResult(SUCCESS, outcome="false"), "true", EXCLUDED),
        (TaskResult(SUCCESS, outcome="false"), None, SUCCESS),
        (TaskResult(FAILED), "true", FAILED),
        (TaskResult(EXCLUDED), "true", EXCLUDED),
    ],
)
def test_a_condition_task_with_another_outcome_counts_as_excluded(result, outcome, expected):
    assert dependency_state(result, outcome) == expected


@pytest.mark.parametrize(
    ("policy", "state", "attempts", "seconds_left", "expected"),
    [
        (RetryPolicy(), FAILED, 1, None, False),
        (RetryPolicy(max_retries=1), FAILED, 1, None, True),
        (RetryPolicy(max_retries=1), FAILED, 2, None, False),
        (RetryPolicy(max_retries=2), FAILED, 2, None, True),
        (RetryPolicy(max_retries=1), SUCCESS, 1, None, False),
        (RetryPolicy(max_retries=1), CANCELED, 1, None, False),
        (RetryPolicy(max_retries=1), TIMEDOUT, 1, None, False),
        (RetryPolicy(max_retries=1, on_timeout=True), TIMEDOUT, 1, None, True),
        (RetryPolicy(max_retries=1, on_timeout=True), TIMEDOUT, 2, None, False),
        (RetryPolicy(max_retries=1), FAILED, 1, 5.0, True),
        (RetryPolicy(max_retries=1), FAILED, 1, 0.0, False),
        (RetryPolicy(max_retries=1, wait=4.0), FAILED, 1, 5.0, True),
        (RetryPolicy(max_retries=1, wait=6.0), FAILED, 1, 5.0, False),
    ],
)
def test_an_attempt_is_followed_by_another_if_the_policy_and_the_time_allow_it(
    policy, state, attempts, seconds_left, expected
):
    assert policy.allows_another(state, attempts, seconds_left) is expected


@pytest.mark.parametrize(
    ("task_timeout", "seconds_left", "expected"),
    [(None, None, None), (60.0, None, 60.0), (None, 30.0, 30.0), (60.0, 30.0, 30.0), (60.0, 90.0, 60.0)],
)
def test_an_attempt_has_the_shorter_of_the_two_time_limits(task_timeout, seconds_left, expected):
    assert attempt_limit(task_timeout, seconds_left) == expected


@pytest.mark.parametrize(
    ("tasks", "leaves", "time_is_up", "expected"),
    [
        ({"a": SUCCESS, "b": SUCCESS}, "b", False, SUCCESS),
        ({"a": SUCCESS, "b": EXCLUDED}, "b", False, SUCCESS),
        ({"a": FAILED, "b": SUCCESS}, "b", False, SUCCESS_WITH_FAILURES),
        ({"a": FAILED, "b": EXCLUDED}, "b", False, SUCCESS_WITH_FAILURES),
        ({"a": FAILED, "b": UPSTREAM_FAILED}, "b", False, FAILED),
        ({"a": SUCCESS, "b": FAILED}, "ab", False, FAILED),
        ({"a": SUCCESS, "b": TIMEDOUT}, "b", False, FAILED),
        ({"a": TIMEDOUT, "b": NOT_RUN}, "b", True, TIMEDOUT),
        ({"a": SUCCESS, "b": NOT_RUN}, "b", True, TIMEDOUT),
        ({"a": SUCCESS, "b": SUCCESS}, "b", True, SUCCESS),
        ({"a": CANCELED, "b": NOT_RUN}, "b", False, CANCELED),
        ({"a": CANCELED, "b": NOT_RUN}, "b", True, CANCELED),
        ({}, "", False, SUCCESS),
    ],
)
def test_the_leaf_tasks_decide_how_a_job_ends_unless_it_was_cut_short(tasks, leaves, time_is_up, expected):
    assert job_state(tasks, leaves, time_is_up) == expected


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([SUCCESS, SUCCESS], SUCCESS),
        ([SUCCESS_WITH_FAILURES, SUCCESS], SUCCESS_WITH_FAILURES),
        ([SUCCESS_WITH_FAILURES, FAILED], FAILED),
        ([SUCCESS, CANCELED], CANCELED),
    ],
)
def test_several_jobs_together_have_the_worst_of_their_states(jobs, expected):
    assert overall_state(jobs) == expected
