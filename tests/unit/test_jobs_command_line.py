"""The command line of the job runner: parameters, and the folder of the results."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.jobs.__main__ import main, new_folder
from tests.unit.small_bundle import SmallBundle, condition


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
