"""Items of a run that cannot be read from Databricks: left out of the copy and listed, or pending for a later try."""

import os

import pytest

from tests.scenarios.azureml import mirror_unreadable
from tests.scenarios.process import ScenarioProcess
from tests.stand_ins import both_servers


@pytest.fixture
def process(aml, databricks, tmp_path):
    """A separate process that is signed in to both servers, and repeats a request only once, to save time."""
    variables = both_servers.environment(aml, databricks) | {"BUNDLE_LOCAL_DIR": str(tmp_path / "local")}
    variables |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_DATABRICKS_ENDPOINT_HTTP_RETRY_TIMEOUT": "2"}
    with ScenarioProcess.start(tmp_path, os.environ | variables) as process:
        yield process
    aml.faults.clear()


def test_deleted_models_and_a_file_name_that_is_refused_are_listed_and_the_copy_ends(process):
    run = process.run(mirror_unreadable.mirror_what_is_deleted_or_refused)
    assert run["pending"] == 0 and run["status"] == "FINISHED"
    model, file = run["omissions"]
    assert model.startswith(f"logged model {run['deleted']}: cannot be read from Databricks: RESOURCE_DOES_NOT_EXIST")
    assert file == "file notes/a#b.txt: cannot be read from Databricks: Invalid path"
    assert run["note"] == f"{model}; {file}"
    # A path without content could not be downloaded.
    assert run["files"] == ["notes/fine.txt"]


def test_models_keep_their_folders_when_an_older_model_of_their_name_is_deleted(process):
    run = process.run(mirror_unreadable.delete_older_models_of_the_same_names)
    second, third = f"checkpoint_{run['second']}", f"checkpoint_{run['third']}"
    folders = {path.split("/")[0] for path in run["before"]}
    assert folders == {"checkpoint", second, "replaced"}
    assert run["address"].endswith(f"/{second}")
    assert f"has no logged model {run['first']}, or it was deleted" in run["refused"]
    assert run["sent"] == 0 and run["unchanged"] == run["before"]
    after = run["after"]
    assert {path.split("/")[0] for path in after} == {*folders, third}
    checkpoints = {path: content for path, content in run["before"].items() if path.startswith("checkpoint")}
    assert checkpoints.items() <= after.items()
    assert after["replaced/data/weights.bin"] == run["replacement"] != run["before"]["replaced/data/weights.bin"]


def test_over_http_a_missing_item_is_left_out_and_a_file_that_fails_for_now_keeps_the_run_pending(process):
    run = process.run(mirror_unreadable.read_over_http_with_faults)
    # The file's name comes first, and the cause last; between them is the long address of the request.
    assert run["reason"].startswith(f"file {run['long']} cannot be read now: API request to http")
    assert "too many 503 error responses" in run["reason"][-100:] and run["pending"] == [run["run_id"]]
    metric, folder, file = run["omissions"]
    assert metric.startswith("metric missing: cannot be read from Databricks: RESOURCE_DOES_NOT_EXIST")
    assert folder.startswith("folder elsewhere: cannot be read from Databricks: 404 Client Error")
    assert file.startswith("file missing.txt: cannot be read from Databricks: 404 Client Error")
    assert run["pending_later"] == 0
    # Mirrored again when everything can be read.
    assert run["sent"] == [1, 2] and run["note"] == ""
    assert run["files"] == sorted(["elsewhere/fine.txt", "fine.txt", "folder/fine.txt", "missing.txt", run["long"]])
