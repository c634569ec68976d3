"""The job runner from databricks.yml to ``summary.json``, with tasks that need no kernel."""

import json
import os
import signal
import threading
import time
from dataclasses import asdict

import pytest

from helpers.jobs import report
from helpers.jobs.results import SUCCESS, JobResult, Summary, TaskResult
from helpers.jobs.task_types import TASK_TYPES
from tests.unit.small_bundle import ScriptedTask, SmallBundle, condition, runs, states, task


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
    assert "sql_task cannot be run on this machine; these can: notebook_task, condition_task, run_job_task" in error
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


def test_a_task_runs_another_job_with_its_own_parameters_in_a_folder_of_its_own(bundle, new_type, capsys):
    bundle.job(
        "train",
        condition(
            "deep", "{{job.parameters.epochs}}/{{job.parameters.seed}}/{{job.parameters.label_column}}", "5/7/old"
        ),
        scripted("fit"),
        parameters=[{"name": name, "default": "7"} for name in ("epochs", "seed")]
        + [{"name": "label_column", "default": "old"}],
    )
    again = runs("retrain", "train", "drifted", parameters={"epochs": "{{job.parameters.epochs}}"})
    bundle.job("monitor", condition("drifted", "1", "1"), again, parameters=[{"name": "epochs", "default": "3"}])
    bundle.job("weekly", runs("all", "monitor", parameters={"epochs": "5"}))
    status, summary = bundle.run("weekly")
    printed = capsys.readouterr().out

    monitor = summary["jobs"]["weekly"]["tasks"]["all"]["job"]
    train = monitor["tasks"]["retrain"]["job"]
    assert status == 0 and monitor["parameters"] == {"epochs": "5"}
    assert train["parameters"] == {"epochs": "5", "seed": "7", "label_column": "old"}
    assert train["tasks"]["deep"]["outcome"] == "true"
    page = bundle.folder / "out" / "weekly" / "all" / "retrain" / "fit.html"
    assert page.read_text() == "all/retrain/fit"
    assert "  all/retrain/fit: done after" in printed and f"  {page}\n" in printed


def test_a_job_that_fails_fails_the_task_that_ran_it_and_can_be_tried_again(bundle, new_type):
    inner = [scripted("good"), scripted("bad", "good", states=["FAILED"]), scripted("behind", "bad")]
    bundle.job("train", *inner)
    bundle.job("j", runs("retrain", "train", max_retries=1), scripted("always", "retrain", run_if="ALL_DONE"))
    status, summary = bundle.run("j")
    retrain = summary["jobs"]["j"]["tasks"]["retrain"]
    # `always` is the leaf that decides.
    assert status == 0 and states(summary) == {"retrain": "FAILED", "always": "SUCCESS"}
    assert retrain["error"] == "job 'train': bad: attempt 1" and retrain["attempts"] == 2
    assert {key: task["state"] for key, task in retrain["job"]["tasks"].items()} == {
        "good": "SUCCESS", "bad": "FAILED", "behind": "UPSTREAM_FAILED"
    }  # fmt: skip
    assert (bundle.folder / "out" / "j" / "retrain-attempt-2").is_dir()


def test_an_error_that_stays_is_not_tried_again_by_the_task_that_runs_the_job(bundle):
    bundle.job("train", condition("t", "{{tasks.nobody.values.x}}", "1"))
    bundle.job("j", runs("retrain", "train", max_retries=3))
    _, summary = bundle.run("j")
    assert summary["jobs"]["j"]["tasks"]["retrain"]["attempts"] == 1


def test_the_time_of_a_task_limits_the_job_that_it_runs(bundle, new_type):
    bundle.job("train", scripted("slow", seconds=3), scripted("behind", "slow"))
    bundle.job("j", runs("retrain", "train", timeout_seconds=0.05))
    status, summary = bundle.run("j")
    retrain = summary["jobs"]["j"]["tasks"]["retrain"]
    assert status == 1 and retrain["state"] == "TIMEDOUT"
    assert {key: task["state"] for key, task in retrain["job"]["tasks"].items()} == {
        "slow": "TIMEDOUT", "behind": "NOT_RUN"
    }  # fmt: skip


def test_the_summary_has_the_tasks_of_a_job_before_the_task_that_runs_it_has_ended(bundle, monkeypatch):
    seen = []
    monkeypatch.setattr(Summary, "write", lambda summary, _: seen.append(json.dumps(asdict(summary))))
    bundle.job("train", condition("one", "1", "1"), condition("two", "1", "1", "one"))
    bundle.job("j", runs("retrain", "train"))
    bundle.run("j")
    first = json.loads(seen[0])["jobs"]["j"]["tasks"]["retrain"]
    assert first["state"] == "RUNNING" and list(first["job"]["tasks"]) == ["one"]


def test_a_value_that_a_job_would_refuse_is_refused_before_the_job_that_runs_it_starts(bundle, capsys):
    bundle.job("train", condition("t", "1", "1"), parameters=[{"name": "epochs", "default": "1"}])
    bundle.job("j", runs("retrain", "train", parameters={"epochs": "many"}))
    assert bundle.run("j") == (2, None)
    assert "epochs='many' (from databricks.yml, job j, task retrain)" in capsys.readouterr().err


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
    other = {"model_name": "m", "model_version": "3", "promoted": False, "not_promoted_because": "it waits"}
    approved = {"model_name": "m", "model_version": "3", "approved": True}
    tasks = {
        "first": TaskResult(SUCCESS, task_values=other | {"run_page": "http://127.0.0.1:5000/#/runs/1"}),
        "register": TaskResult(SUCCESS, task_values=handed_on),
        "approve": TaskResult(SUCCESS, task_values=approved),
        "use": TaskResult(SUCCESS, task_values={"model_name": "m", "model_version": "1"}),
    }
    jobs = {"j": JobResult(SUCCESS, 1, tasks=tasks)}
    report.print_summary(Summary("b", "dev", SUCCESS, "now", "a server", "a registry", str(tmp_path), jobs), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert "Registered model:   m version 2 in a registry" in lines
    assert "Run in MLflow:      http://127.0.0.1:5000/#/runs/1, after `make ui`" in lines
    expected = (
        f"Not promoted:       version 2, because {because}"
        if because
        else f"Summary:            {tmp_path}/summary.json"
    )
    assert lines[-1] == expected and not any("it waits" in line for line in lines)
