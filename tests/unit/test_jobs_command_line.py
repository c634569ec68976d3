"""The command line of the job runner: parameters, and the folder of the results."""

import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.jobs.__main__ import main, new_folder
from tests.unit.small_bundle import ROOT, SmallBundle, condition


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUNDLE_LOCAL_DIR", str(tmp_path / "local"))
    return SmallBundle(tmp_path)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("epochs=abc", "epochs='abc' (from --param): "),
        ("model_flavor=prophet", "one of sklearn, xgboost, spark"),
        ("epoch=3", "did you mean 'epochs'"),
        ("batch_id=x", "j has no such parameter; there are: epochs, model_flavor, source_path"),
    ],
)
def test_a_bad_parameter_is_refused_before_anything_is_started(bundle, capsys, argument, message):
    names = {"epochs": "2", "model_flavor": "sklearn", "source_path": ""}
    defaults = [{"name": name, "default": value} for name, value in names.items()]
    bundle.job("j", condition("t", "1", "1"), parameters=defaults)
    status, summary = bundle.run("j", "--param", argument)
    assert status == 2 and summary is None
    assert message in capsys.readouterr().err
    assert not (bundle.folder / "out").exists()


def test_an_argument_that_is_not_an_assignment_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["j", "--param", "epochs"])
    assert caught.value.code == 2
    assert "python -m helpers.jobs: error" in (error := capsys.readouterr().err) and "is not NAME=VALUE" in error


def test_a_relative_path_becomes_absolute_and_the_environment_sets_parameters(bundle, monkeypatch):
    defaults = [{"name": "source_path", "default": ""}, {"name": "epochs", "default": "2"}]
    bundle.job("j", condition("t", "1", "1"), parameters=defaults)
    (bundle.folder / "rows.csv").touch()
    monkeypatch.setenv("BUNDLE_PARAM_EPOCHS", "5")
    _, summary = bundle.run("j", "--param", "source_path=rows.csv")
    assert summary["jobs"]["j"]["parameters"] == {"source_path": str(bundle.folder / "rows.csv"), "epochs": "5"}


def test_runs_that_start_at_the_same_time_have_folders_of_their_own(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        folders = list(threads.map(lambda _: new_folder(tmp_path / "jobs", "20260131-050000"), range(8)))
    assert {folder.name for folder in folders} == {"20260131-050000"} | {f"20260131-050000-{i}" for i in range(2, 9)}
    assert all(folder.is_dir() for folder in folders)


@pytest.mark.parametrize("where", ["state", "output"])
def test_a_folder_that_cannot_be_written_is_named_before_anything_is_started(bundle, capsys, monkeypatch, where):
    bundle.job("j", condition("t", "1", "1"))
    name = {"state": "local", "output": "out"}[where]
    (bundle.folder / name).touch()
    status, summary = bundle.run("j")
    assert status == 2 and summary is None
    printed = capsys.readouterr()
    assert f"{bundle.folder / name}" in printed.err and "File exists" in printed.err and not printed.out


def test_a_disk_that_is_full_ends_the_run_in_one_line_with_the_folder_and_the_way_out(bundle):
    bundle.job("j", condition("t", "1", "1"))
    bundle.run("j")
    # No file can be longer than this, which Python reports as it reports a full disk.
    limit = (100, 100)
    run = subprocess.run(
        [sys.executable, "-m", "helpers.jobs", "j", "--output", str(bundle.folder / "full")],
        cwd=bundle.folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )  # fmt: skip
    assert run.returncode == 1 and "Traceback" not in run.stderr
    (line,) = run.stderr.splitlines()
    assert (
        f"{bundle.folder / 'full'} cannot be written: " in line and "Make room" in line and "BUNDLE_LOCAL_DIR" in line
    )
