"""The job runner from databricks.yml to ``summary.json``, with tasks that need no kernel."""

import os
import signal
import threading
import time

import pytest

from helpers.jobs import report
from helpers.jobs.results import SUCCESS, JobResult, Summary, TaskResult
from helpers.jobs.task_types import TASK_TYPES
from tests.unit.small_bundle import ScriptedTask, SmallBundle, condition, states, task


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUNDLE_LOCAL_DIR", str(tmp_path / "local"))
    return SmallBundle(tmp_path)


@pytest.fixture
def new_type(monkeypatch):
    """Add a task type that exists in Databricks but not in the runner."""
    monkeypatch.setitem(TASK_TYPES, "sql_task", ScriptedTask)


def scripted(key, *before, states=("SUCCESS",), seconds=0, **settings):
    return task(key, *before, sql_task={"states": list(states), "seconds": seconds}, **settings)


def test_a_task_type_that_is_added_to_the_table_runs(bundle, capsys, monkeypatch):
    bundle.job("j", scripted("t"))
    assert bundle.run("j") == (2, None)
    error = capsys.readouterr().err
    assert "sql_task cannot be run on this machine; these can: notebook_task, condition_task" in error
    monkeypatch.setitem(TASK_TYPES, "sql_task", ScriptedTask)
    status, summary = bundle.run("j")
    assert status == 0 and states(summary) == {"t": "SUCCESS"}


def test_a_failure_stops_the_tasks_and_jobs_behind_it_and_run_if_decides_the_rest(bundle, new_type, capsys):
    bundle.job(
        "j",
        scripted("bad", states=["FAILED"]),
        scripted("good"),
        scripted("behind", "bad"),
        scripted("far_behind", "behind"),
        scripted("always", "bad", "good", run_if="ALL_DONE"),
        scripted("no_failure", "good", run_if="ALL_FAILED"),
    )
    bundle.job("next", scripted("never"))
    status, summary = bundle.run("j", "next")
    printed = capsys.readouterr().out

    assert status == 1 and summary["state"] == summary["jobs"]["j"]["state"] == "FAILED"
    assert states(summary) == {
        "bad": "FAILED", "good": "SUCCESS", "behind": "UPSTREAM_FAILED", "far_behind": "UPSTREAM_FAILED",
        "always": "SUCCESS", "no_failure": "EXCLUDED",
    }  # fmt: skip
    assert summary["jobs"]["j"]["error"] == "bad: attempt 1"
    assert summary["jobs"]["next"] == {
        "state": "NOT_RUN", "run_id": 0, "parameters": {}, "seconds": 0.0, "error": None, "tasks": {}
    }  # fmt: skip
    assert "behind: not run, because of an earlier failure" in printed and "next: not run" in printed


def test_after_a_failure_that_another_task_deals_with_the_next_job_runs(bundle, new_type, capsys):
    bundle.job("j", scripted("bad", states=["FAILED"]), scripted("handler", "bad", run_if="ALL_FAILED"))
    bundle.job("next", scripted("t"))
    status, summary = bundle.run("j", "next")
    assert status == 0 and summary["state"] == "SUCCESS_WITH_FAILURES"
    assert [job["state"] for job in summary["jobs"].values()] == ["SUCCESS_WITH_FAILURES", "SUCCESS"]
    assert "j: done, although tasks failed" in capsys.readouterr().out


def test_an_unmet_outcome_keeps_a_task_from_running_even_beside_a_successful_task(bundle, new_type):
    bundle.job(
        "j",
        scripted("train"),
        condition("is_asked", "no", "yes", "train"),
        scripted("deploy", "train", ("is_asked", "true")),
        scripted("after_deploy", "deploy"),
        scripted("explain", ("is_asked", "false")),
        scripted("join", "deploy", "explain", run_if="NONE_FAILED"),
    )
    status, summary = bundle.run("j")
    assert status == 0 and summary["jobs"]["j"]["tasks"]["is_asked"]["outcome"] == "false"
    assert states(summary) == {
        "train": "SUCCESS", "is_asked": "SUCCESS", "deploy": "EXCLUDED", "after_deploy": "EXCLUDED",
        "explain": "SUCCESS", "join": "SUCCESS",
    }  # fmt: skip


def test_a_task_is_tried_again_as_databricks_yml_says(bundle, new_type):
    bundle.job(
        "j",
        scripted("flaky", states=["FAILED", "SUCCESS"], max_retries=2),
        scripted("hopeless", states=["FAILED"] * 3, max_retries=1),
        scripted("slow", seconds=3, timeout_seconds=0.01, max_retries=1),
        scripted("slow_again", seconds=3, timeout_seconds=0.01, max_retries=1, retry_on_timeout=True),
    )
    _, summary = bundle.run("j")
    tasks = summary["jobs"]["j"]["tasks"]
    assert {key: (result["state"], result["attempts"]) for key, result in tasks.items()} == {
        "flaky": ("SUCCESS", 2),
        "hopeless": ("FAILED", 2),
        "slow": ("TIMEDOUT", 1),
        "slow_again": ("TIMEDOUT", 2),
    }


def test_a_job_ends_when_its_own_time_is_up(bundle, new_type):
    bundle.job(
        "j",
        scripted("slow", seconds=3, timeout_seconds=2),
        scripted("clean_up", "slow", run_if="ALL_DONE"),
        timeout_seconds=0.05,
    )
    status, summary = bundle.run("j")
    assert status == 1 and summary["state"] == summary["jobs"]["j"]["state"] == "TIMEDOUT"
    assert states(summary) == {"slow": "TIMEDOUT", "clean_up": "NOT_RUN"}
    assert "the job was not done after" in summary["jobs"]["j"]["error"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_before_the_next_attempt(bundle, new_type, number):
    def interrupt():
        # The runner sets its SIGTERM handler when it starts to wait. Before that, a TERM signal would end pytest.
        end = time.monotonic() + 5
        while signal.getsignal(signal.SIGTERM) == before and time.monotonic() < end:
            time.sleep(0.01)
        if signal.getsignal(signal.SIGTERM) != before:
            os.kill(os.getpid(), number)

    before = signal.getsignal(signal.SIGTERM)
    flaky = scripted("flaky", states=["FAILED", "SUCCESS"], max_retries=1, min_retry_interval_millis=10_000)
    bundle.job("j", flaky, scripted("b", "flaky", run_if="ALL_DONE"))
    thread = threading.Thread(target=interrupt)
    thread.start()
    status, summary = bundle.run("j")
    thread.join()
    assert status == 1 and summary["state"] == "CANCELED"
    assert states(summary) == {"flaky": "CANCELED", "b": "NOT_RUN"}
    assert summary["jobs"]["j"]["tasks"]["flaky"]["attempts"] == 1
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_task_value_that_no_task_has_set_is_named(bundle):
    bundle.job("j", condition("t", "{{tasks.train.values.run_id}}", "1"))
    status, summary = bundle.run("j")
    assert status == 1
    assert "{{tasks.train.values.run_id}} has no value" in summary["jobs"]["j"]["tasks"]["t"]["error"]


def test_a_job_parameter_without_a_value_fails_the_job(bundle, new_type):
    bundle.job("j", scripted("t"), parameters=[{"name": "stamp", "default": "{{job.stamp}}"}])
    status, summary = bundle.run("j")
    assert status == 1 and summary["jobs"]["j"]["tasks"] == {}
    assert "{{job.stamp}} has no value" in summary["jobs"]["j"]["error"]


@pytest.mark.parametrize(("typed", "outcome"), [("True", "true"), ("true", "true"), ("False", "false")])
def test_a_condition_compares_the_value_of_a_declared_parameter_however_it_was_typed(bundle, typed, outcome):
    asked = condition("asked", "{{job.parameters.deploy}}", "true")
    bundle.job("j", asked, parameters=[{"name": "deploy", "default": "false"}])
    status, summary = bundle.run("j", "--param", f"deploy={typed}")
    assert status == 0 and summary["jobs"]["j"]["parameters"] == {"deploy": outcome}
    assert summary["jobs"]["j"]["tasks"]["asked"]["outcome"] == outcome


@pytest.mark.parametrize("because", ["", "check 'threshold' failed: accuracy_score 0.8500 < 0.9000 (fails by 0.05)"])
def test_the_last_line_says_why_a_version_was_not_promoted_whatever_the_tasks_after_it_used(tmp_path, capsys, because):
    handed_on = {"model_name": "m", "model_version": "2", "promoted": not because, "not_promoted_because": because}
    tasks = {
        "register": TaskResult(SUCCESS, task_values=handed_on),
        "use": TaskResult(SUCCESS, task_values={"model_name": "m", "model_version": "1"}),
    }
    jobs = {"j": JobResult(SUCCESS, 1, tasks=tasks)}
    report.print_summary(Summary("b", "dev", SUCCESS, "now", "a server", "a registry", str(tmp_path), jobs), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert "Registered model:   m version 2 in a registry" in lines
    expected = (
        f"Not promoted:       version 2, because {because}"
        if because
        else f"Summary:            {tmp_path}/summary.json"
    )
    assert lines[-1] == expected
