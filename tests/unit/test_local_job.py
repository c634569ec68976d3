"""The job runner, on small bundles whose notebooks need no Spark."""

import json
import os
from pathlib import Path

import nbformat
import pytest
import yaml

from helpers.jobs import run as local_job

ROOT = Path(__file__).parents[2]
PRELUDE = f"import os, sys\nsys.path.append({str(ROOT)!r})\nfrom helpers import runtime\n"


class SmallBundle:
    """A bundle with one notebook a task, each with one cell of the given code."""

    def __init__(self, folder):
        self.folder = folder
        self.jobs = {}

    def job(self, key, *tasks, **settings):
        self.jobs[key] = {"tasks": list(tasks)} | settings

    def task(self, key, code, *before, parameters=None, **settings):
        cells = [nbformat.v4.new_markdown_cell(f"# Step {key}"), nbformat.v4.new_code_cell(PRELUDE + code)]
        skipped = nbformat.v4.new_code_cell("raise SystemError('skipped')", metadata={"tags": ["skip-execution"]})
        nbformat.write(nbformat.v4.new_notebook(cells=[skipped, *cells]), self.folder / f"{key}.ipynb")
        notebook = {"notebook_path": f"{key}.ipynb", "base_parameters": parameters or {}}
        return self.after(key, *before) | {"notebook_task": notebook} | settings

    def condition(self, key, left, right, *before):
        return self.after(key, *before) | {"condition_task": {"op": "EQUAL_TO", "left": left, "right": right}}

    @staticmethod
    def after(key, *before):
        pairs = [item if isinstance(item, tuple) else (item, None) for item in before]
        depends_on = [{"task_key": name} | ({"outcome": outcome} if outcome else {}) for name, outcome in pairs]
        return {"task_key": key, "depends_on": depends_on}

    def run(self, *arguments):
        """Return the exit status, and the summary if anything was started."""
        content = {"bundle": {"name": "small"}, "resources": {"jobs": self.jobs}}
        (self.folder / "databricks.yml").write_text(yaml.safe_dump(content))
        output = self.folder / "out"
        status = local_job.main([*arguments, "--output", str(output)])
        file = output / "summary.json"
        return status, json.loads(file.read_text()) if file.exists() else None


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUNDLE_LOCAL_DIR", str(tmp_path / "local"))
    return SmallBundle(tmp_path)


def states(summary, job="j"):
    return {key: task["state"] for key, task in summary["jobs"][job]["tasks"].items()}


def test_parameters_and_task_values_pass_through_a_job_in_order(bundle, capsys):
    show = "runtime.set_task_value('seen', [os.environ['BUNDLE_PARAM_SEED'], os.environ['BUNDLE_PARAM_RUN_ID']])"
    last = bundle.task("last", show, "first", parameters={"run_id": "{{tasks.first.values.id}}", "seed": "task's own"})
    first = bundle.task("first", "runtime.set_task_value('id', 'r1')\nruntime.set_task_value('ok', True)")
    bundle.job("j", last, first, parameters=[{"name": "seed", "default": "1"}, {"name": "epochs", "default": "2"}])
    status, summary = bundle.run("j", "--param", "seed=7")
    printed = capsys.readouterr().out

    assert status == 0 and summary["state"] == "SUCCESS"
    assert list(states(summary)) == ["first", "last"]
    job = summary["jobs"]["j"]
    assert job["parameters"] == {"seed": "7", "epochs": "2"}
    assert job["tasks"]["first"]["task_values"] == {"id": "r1", "ok": True}
    assert job["tasks"]["last"]["task_values"] == {"seen": ["7", "r1"]}
    assert summary["tracking_uri"] == summary["registry_uri"] == f"sqlite:///{bundle.folder}/local/mlflow.db"
    assert summary["spark_warehouse"] == f"{bundle.folder}/local/warehouse"
    for task in job["tasks"].values():
        assert task["attempts"] == 1 and task["seconds"] > 0 and task["error"] is None
        assert nbformat.read(task["executed_notebook"], 4).cells[2].execution_count == 1
        assert "Step" in Path(task["html"]).read_text()
    assert "first: cell 1/1 Step first" in printed and "last: done" in printed


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such sockets")
def test_a_kernel_takes_no_port_that_another_job_might_take(bundle):
    show = "import ipykernel, json\nruntime.set_task_value('kernel', json.loads(ipykernel.get_connection_info()))"
    bundle.job("j", bundle.task("a", show))
    _, summary = bundle.run("j")
    kernel = summary["jobs"]["j"]["tasks"]["a"]["task_values"]["kernel"]
    assert kernel["transport"] == "ipc" and Path(kernel["ip"]).is_absolute()


def test_a_failure_stops_what_is_behind_it_and_run_if_decides_the_rest(bundle, capsys):
    bundle.job(
        "j",
        bundle.task("bad", "raise ValueError('the reason')"),
        bundle.task("good", "pass"),
        bundle.task("behind", "pass", "bad"),
        bundle.task("far_behind", "pass", "behind"),
        bundle.task("always", "pass", "bad", "good", run_if="ALL_DONE"),
        bundle.task("on_failure", "pass", "bad", run_if="AT_LEAST_ONE_FAILED"),
        bundle.task("no_failure", "pass", "good", run_if="ALL_FAILED"),
        bundle.task("one_is_enough", "pass", "bad", "good", run_if="AT_LEAST_ONE_SUCCESS"),
    )
    bundle.job("next", bundle.task("never", "pass"))
    status, summary = bundle.run("j", "next")
    printed = capsys.readouterr().out

    assert status == 1 and summary["state"] == "FAILED"
    assert states(summary) == {
        "bad": "FAILED", "good": "SUCCESS", "behind": "NOT_RUN", "far_behind": "NOT_RUN", "always": "SUCCESS",
        "on_failure": "SUCCESS", "no_failure": "EXCLUDED", "one_is_enough": "SUCCESS",
    }  # fmt: skip
    assert summary["jobs"]["next"]["state"] == "NOT_RUN"
    bad = summary["jobs"]["j"]["tasks"]["bad"]
    assert bad["error"] == "cell 1 (Step bad): ValueError: the reason"
    assert Path(bad["executed_notebook"]).is_file() and Path(bad["html"]).is_file()
    assert "ValueError: the reason" in printed and "behind: not run" in printed and "next: not run" in printed


def test_a_condition_chooses_the_branch(bundle):
    bundle.job(
        "j",
        bundle.task("start", "runtime.set_task_value('promoted', False)"),
        bundle.condition("is_promoted", "{{tasks.start.values.promoted}}", "true", "start"),
        bundle.task("deploy", "pass", ("is_promoted", "true")),
        bundle.task("after_deploy", "pass", "deploy"),
        bundle.task("report", "pass", ("is_promoted", "false")),
        bundle.task("join", "pass", "deploy", "report", run_if="NONE_FAILED"),
    )
    status, summary = bundle.run("j")
    assert status == 0
    assert summary["jobs"]["j"]["tasks"]["is_promoted"]["outcome"] == "false"
    assert states(summary) == {
        "start": "SUCCESS", "is_promoted": "SUCCESS", "deploy": "EXCLUDED", "after_deploy": "EXCLUDED",
        "report": "SUCCESS", "join": "SUCCESS",
    }  # fmt: skip


def test_a_task_is_tried_again_as_often_as_it_says(bundle):
    once = "if not os.path.exists('mark'):\n    open('mark', 'w')\n    raise RuntimeError('the first time')"
    bundle.job(
        "j",
        bundle.task("flaky", once, max_retries=2),
        bundle.task("hopeless", "raise RuntimeError('each time')", "flaky", max_retries=1),
    )
    status, summary = bundle.run("j")
    tasks = summary["jobs"]["j"]["tasks"]
    assert status == 1
    assert (tasks["flaky"]["state"], tasks["flaky"]["attempts"]) == ("SUCCESS", 2)
    assert (tasks["hopeless"]["state"], tasks["hopeless"]["attempts"]) == ("FAILED", 2)
    # The attempt that failed can still be read.
    assert (bundle.folder / "out" / "j" / "flaky.html").is_file()


def test_a_task_that_takes_too_long_is_ended_with_its_kernel(bundle):
    hang = "open('pid', 'w').write(str(os.getpid()))\nimport threading\nthreading.Event().wait()"
    bundle.job("j", bundle.task("slow", hang, timeout_seconds=4, max_retries=1))
    status, summary = bundle.run("j")
    slow = summary["jobs"]["j"]["tasks"]["slow"]
    assert status == 1
    # Not tried again: retry_on_timeout is off unless the task says so.
    assert (slow["state"], slow["attempts"]) == ("TIMEDOUT", 1)
    with pytest.raises(ProcessLookupError):
        os.kill(int((bundle.folder / "pid").read_text()), 0)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_job_ends_its_kernel_and_says_so(bundle, capsys, name):
    # The kernel's parent is the runner, here this very process.
    interrupt = "open('pid', 'w').write(str(os.getpid()))\n"
    interrupt += f"import signal, threading\nos.kill(os.getppid(), signal.{name})\nthreading.Event().wait()"
    bundle.job("j", bundle.task("a", interrupt, max_retries=1), bundle.task("b", "pass", "a", run_if="ALL_DONE"))
    bundle.job("next", bundle.task("never", "pass"))
    status, summary = bundle.run("j", "next")
    assert status == 1 and summary["state"] == summary["jobs"]["j"]["state"] == "CANCELED"
    assert states(summary) == {"a": "CANCELED", "b": "NOT_RUN"}
    assert summary["jobs"]["j"]["tasks"]["a"]["attempts"] == 1
    with pytest.raises(ProcessLookupError):
        os.kill(int((bundle.folder / "pid").read_text()), 0)
    assert "a: canceled" in capsys.readouterr().out


def test_a_task_value_that_nobody_set_is_named(bundle):
    bundle.job("j", bundle.task("t", "pass", parameters={"run_id": "{{tasks.train.values.run_id}}"}))
    status, summary = bundle.run("j")
    assert status == 1
    assert "{{tasks.train.values.run_id}} has no value" in summary["jobs"]["j"]["tasks"]["t"]["error"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("epochs=abc", "epochs='abc' (from --param): "),
        ("model_flavor=xgboost", "'sklearn' or 'spark'"),
        ("epoch=3", "did you mean 'epochs'"),
        ("batch_id=x", "j has no such parameter; there are: epochs, model_flavor, source_path"),
    ],
)
def test_a_bad_parameter_is_refused_before_anything_is_started(bundle, capsys, argument, message):
    names = {"epochs": "2", "model_flavor": "sklearn", "source_path": ""}
    defaults = [{"name": name, "default": value} for name, value in names.items()]
    bundle.job("j", bundle.task("t", "pass"), parameters=defaults)
    status, summary = bundle.run("j", "--param", argument)
    assert status == 2 and summary is None
    assert message in capsys.readouterr().err
    assert not (bundle.folder / "out").exists()


def test_a_path_typed_here_is_found_by_the_notebook_and_the_environment_gives_parameters(bundle, monkeypatch):
    show = "runtime.set_task_value('seen', [os.environ['BUNDLE_PARAM_SOURCE_PATH'], os.environ['BUNDLE_PARAM_EPOCHS']])"
    defaults = [{"name": "source_path", "default": ""}, {"name": "epochs", "default": "2"}]
    bundle.job("j", bundle.task("t", show), parameters=defaults)
    (bundle.folder / "rows.csv").touch()
    monkeypatch.setenv("BUNDLE_PARAM_EPOCHS", "5")
    _, summary = bundle.run("j", "--param", "source_path=rows.csv")
    assert summary["jobs"]["j"]["tasks"]["t"]["task_values"]["seen"] == [str(bundle.folder / "rows.csv"), "5"]
