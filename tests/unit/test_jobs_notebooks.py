"""The job runner with notebooks in kernels; most of them need no Spark."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from base64 import b64encode
from pathlib import Path

import nbformat
import psutil
import pytest

from helpers.jobs.kernels import ForkingProvisioner, PreloadedProcess
from tests.unit.small_bundle import SmallBundle, condition, states

pytestmark = pytest.mark.slow

HANG = "open('pid', 'w').write(str(os.getpid()))\nimport signal, threading\n{}\nthreading.Event().wait()"

# On Linux, the process whose forks they are.
STARTS_KERNELS = "preloaded.py" if sys.platform == "linux" else "ipykernel"


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUNDLE_LOCAL_DIR", str(tmp_path / "local"))
    return SmallBundle(tmp_path)


def kernels():
    """Return the ids of the kernels that this process has started and that are alive."""
    ids = []
    for child in psutil.Process().children(recursive=True):
        # Child processes of other tests may end just now.
        with contextlib.suppress(psutil.NoSuchProcess):
            command = child.parent().cmdline() if sys.platform == "linux" else child.cmdline()
            if any(STARTS_KERNELS in part for part in command):
                ids.append(child.pid)
    return ids


def kernels_left():
    """Return the ids of the kernels that do not end."""
    # A killed process is there until its parent has noticed.
    psutil.wait_procs([psutil.Process(id) for id in kernels() if psutil.pid_exists(id)], timeout=60)
    return kernels()


def test_parameters_and_task_values_pass_through_a_job_in_order(bundle, capsys):
    show = "runtime.set_task_value('seen', [os.environ['BUNDLE_PARAM_COLOR'], os.environ['BUNDLE_PARAM_RUN_ID']])"
    parameters = {"run_id": "{{tasks.first.values.id}}", "color": "the task's own"}
    last = bundle.notebook("last", show, "first", parameters=parameters)
    first = bundle.notebook("first", "runtime.set_task_value('id', 'r1')\nruntime.set_task_value('ok', True)")
    bundle.job("j", last, first, parameters=[{"name": "color", "default": "red"}, {"name": "size", "default": "2"}])
    (bundle.folder / "here.svg").write_text("<svg/>")
    written = bundle.folder / "first.ipynb"
    written.write_text(written.read_text().replace("# Step first", r"# Step first\n\n![you are here](here.svg)"))
    status, summary = bundle.run("j", "--param", "color=blue")
    printed = capsys.readouterr().out

    assert status == 0 and summary["state"] == "SUCCESS"
    assert list(states(summary)) == ["first", "last"]
    job = summary["jobs"]["j"]
    assert job["parameters"] == {"color": "blue", "size": "2"}
    assert job["tasks"]["first"]["task_values"] == {"id": "r1", "ok": True}
    assert job["tasks"]["last"]["task_values"] == {"seen": ["blue", "r1"]}
    assert summary["tracking_server"] == summary["model_registry"] == f"sqlite:///{bundle.folder}/local/mlflow.db"
    assert summary["spark_warehouse"] == f"{bundle.folder}/local/warehouse"
    for result in job["tasks"].values():
        assert result["attempts"] == 1 and result["seconds"] > 0 and result["error"] is None
        assert nbformat.read(result["executed_notebook"], 4).cells[2].execution_count == 1
        assert "Step" in Path(result["html"]).read_text()
    # The page is read elsewhere, so the picture is in it.
    picture = b64encode(b"<svg/>").decode()
    page = Path(job["tasks"]["first"]["html"]).read_text()
    assert f'<img alt="you are here" src="data:image/svg+xml;base64,{picture}"' in page.replace("  ", " ")
    assert "first: cell 1/1 Step first" in printed and "last: done" in printed


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux kernels are forks")
def test_notebooks_share_what_is_imported_and_neither_random_numbers_nor_their_folders_modules(bundle):
    looks = [
        "import random, numpy",
        "values = ['mlflow' in sys.modules, random.random(), numpy.random.random()]",
        "runtime.set_task_value('seen', values + [any(path.endswith('jobs') for path in sys.path)])",
    ]
    bundle.job("j", *(bundle.notebook(name, "\n".join(looks)) for name in ("a", "b")))
    status, summary = bundle.run("j")
    first, second = (task["task_values"]["seen"] for task in summary["jobs"]["j"]["tasks"].values())
    assert status == 0 and first[0] is second[0] is True and first[3] is second[3] is False
    assert first[1] != second[1] and first[2] != second[2]


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux kernels are forks")
def test_a_kernel_starts_by_itself_when_it_cannot_be_a_fork(bundle, monkeypatch):
    requests, other_end = socket.socketpair()
    other_end.close()
    monkeypatch.setattr(ForkingProvisioner, "preloaded", PreloadedProcess(requests, os.environ))
    bundle.job("j", bundle.notebook("alone", "runtime.set_task_value('imported', 'mlflow' in sys.modules)"))
    status, summary = bundle.run("j")
    assert status == 0 and summary["jobs"]["j"]["tasks"]["alone"]["task_values"] == {"imported": False}


def test_variables_that_a_module_may_read_when_it_is_imported_are_those_of_the_kernel():
    with socket.socket() as requests:
        process = PreloadedProcess(requests, {"MPLBACKEND": "agg", "BUNDLE_PARAM_SEED": "1"})
    assert process.serves({"MPLBACKEND": "agg", "BUNDLE_PARAM_SEED": "2", "SPARK_REMOTE": "sc://127.0.0.1"})
    assert not process.serves({"MPLBACKEND": "svg"}) and not process.serves({})


def test_a_task_value_decides_a_condition(bundle):
    bundle.job(
        "j",
        bundle.notebook("start", "runtime.set_task_value('promoted', False)"),
        condition("is_promoted", "{{tasks.start.values.promoted}}", "true", "start"),
        bundle.notebook("deploy", "pass", ("is_promoted", "true")),
    )
    status, summary = bundle.run("j")
    assert status == 0
    assert summary["jobs"]["j"]["tasks"]["is_promoted"]["outcome"] == "false"
    assert states(summary) == {"start": "SUCCESS", "is_promoted": "SUCCESS", "deploy": "EXCLUDED"}


def test_a_notebook_that_failed_is_executed_again_and_the_failed_attempt_can_still_be_read(bundle, capsys):
    once = "if not os.path.exists('mark'):\n    open('mark', 'w')\n    raise ValueError('the reason')"
    bundle.job("j", bundle.notebook("flaky", once, max_retries=2))
    status, summary = bundle.run("j")
    flaky = summary["jobs"]["j"]["tasks"]["flaky"]
    assert status == 0 and (flaky["state"], flaky["attempts"], flaky["error"]) == ("SUCCESS", 2, None)
    assert flaky["executed_notebook"] == f"{bundle.folder}/out/j/flaky-attempt-2.ipynb"
    assert Path(flaky["executed_notebook"]).is_file() and Path(flaky["html"]).is_file()
    assert "ValueError" in (bundle.folder / "out" / "j" / "flaky.html").read_text()
    printed = capsys.readouterr().out
    assert "flaky: attempt 1 failed, trying again (1 of 2)\n    cell 1 (Step flaky): ValueError: the reason" in printed


def test_a_notebook_with_an_error_in_a_parameter_is_not_executed_again(bundle, capsys):
    wrong = "from helpers.parameters import ParameterError\nraise ParameterError('model_name', 'm', 'has no champion')"
    bundle.job("j", bundle.notebook("score", wrong, max_retries=2))
    status, summary = bundle.run("j")
    score = summary["jobs"]["j"]["tasks"]["score"]
    assert status == 1 and (score["state"], score["attempts"]) == ("FAILED", 1)
    assert score["error"] == "cell 1 (Step score): ParameterError: model_name='m': has no champion"
    assert "trying again" not in capsys.readouterr().out


def test_a_job_whose_time_is_up_ends_a_kernel_that_is_still_starting(bundle):
    slow = bundle.notebook("slow", HANG.format(""))
    bundle.job("j", slow, bundle.notebook("next", "pass", "slow", run_if="ALL_DONE"), timeout_seconds=0.2)
    status, summary = bundle.run("j")
    assert status == 1 and summary["state"] == "TIMEDOUT"
    assert states(summary) == {"slow": "TIMEDOUT", "next": "NOT_RUN"}
    assert kernels_left() == []


def test_a_term_signal_ends_the_kernel_and_the_runner_says_so(bundle, capsys):
    # The runner is this process.
    interrupt = HANG.format(f"os.kill({os.getpid()}, signal.SIGTERM)")
    bundle.job("j", bundle.notebook("a", interrupt, max_retries=1), bundle.notebook("b", "pass", run_if="ALL_DONE"))
    bundle.job("next", bundle.notebook("never", "pass"))
    status, summary = bundle.run("j", "next")
    assert status == 1 and summary["state"] == summary["jobs"]["j"]["state"] == "CANCELED"
    assert states(summary) == {"a": "CANCELED", "b": "NOT_RUN"}
    assert summary["jobs"]["j"]["tasks"]["a"]["attempts"] == 1
    with pytest.raises(ProcessLookupError):
        os.kill(int((bundle.folder / "pid").read_text()), 0)
    assert "a: canceled" in capsys.readouterr().out


SHOW_SPARK = """
spark = runtime.spark()
java = spark.sparkContext._jvm.java
runtime.set_task_value("jvm", java.lang.ProcessHandle.current().pid())
seen = {
    "folder": java.io.File("").getAbsolutePath(),
    "views": [table.name for table in spark.catalog.listTables()],
    "partitions": spark.conf.get("spark.sql.shuffle.partitions"),
    "rows": spark.range(7).count(),
    "child processes find it": "BUNDLE_SPARK_JVM" in os.environ,
    "option": java.lang.System.getProperty("mine"),
}
runtime.set_task_value("seen", seen)
spark.range(1).createOrReplaceTempView("mine")
spark.conf.set("spark.sql.shuffle.partitions", "9")
open('pid', 'w').write(str(os.getpid()))
import ipykernel, json
runtime.set_task_value('kernel', json.loads(ipykernel.get_connection_info()))
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such signals and sockets")
def test_notebooks_share_a_jvm_and_nothing_in_it_until_one_takes_too_long_and_is_ended(bundle, quick_jvm, monkeypatch):
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", f'--driver-java-options "{quick_jvm} -Dmine=yes" pyspark-shell')
    works_on = "spark.range(10**15).selectExpr('sum(id % 7)').collect()"
    bundle.job(
        "j",
        bundle.notebook("first", SHOW_SPARK),
        bundle.notebook("works_on", f"{SHOW_SPARK}\n{works_on}", "first", timeout_seconds=20),
        bundle.notebook(
            "last", f"runtime.set_task_value('ended', open('pid').read())\n{SHOW_SPARK}", "works_on", run_if="ALL_DONE"
        ),
    )
    _, summary = bundle.run("j")
    assert states(summary) == {"first": "SUCCESS", "works_on": "TIMEDOUT", "last": "SUCCESS"}
    tasks = summary["jobs"]["j"]["tasks"]
    first, works_on, last = (task["task_values"] for task in tasks.values())
    assert first["jvm"] == works_on["jvm"] != last["jvm"]
    alone = {"views": [], "partitions": "4", "rows": 7, "child processes find it": False, "option": "yes"}
    for values in (first, works_on, last):
        assert values["seen"] == {"folder": str(bundle.folder), **alone}
    assert not any(psutil.pid_exists(id) for id in (first["jvm"], last["jvm"], int(last["ended"])))
    assert tasks["works_on"]["error"] == "cell 1 (Step works_on): not done after 20 s (timeout_seconds)"
    # No ports, which another process could take.
    assert works_on["kernel"]["transport"] == "ipc" and Path(works_on["kernel"]["ip"]).is_absolute()


def test_ctrl_c_ends_a_kernel_that_is_still_starting(bundle):
    def interrupt():
        while not kernels():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    bundle.job("j", bundle.notebook("a", HANG.format("")))
    thread = threading.Thread(target=interrupt)
    thread.start()
    _, summary = bundle.run("j")
    thread.join()
    assert states(summary) == {"a": "CANCELED"}
    assert kernels_left() == []
