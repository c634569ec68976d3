"""What of a run cannot be read from Databricks: left out of the copy and listed, or pending if it may be read later."""

import pytest

from tests.azureml import both_servers
from tests.azureml.client import Client

SCRIPT = """
import random
import mlflow
from helpers.tracking import dual, mirror
from tests.azureml import both_servers, mirrored_runs
from tests.azureml.both_servers import parameters as p

aml = both_servers.stand_in()
source = mlflow.MlflowClient(tracking_uri="databricks")
target = mlflow.MlflowClient(tracking_uri=os.environ["TRACKING_URI"])
chance = random.Random(0)

def log_model(experiment_id, run_id, name):
    before = {output.model_id for output in source.get_run(run_id).outputs.model_outputs}
    mirrored_runs.log_model(source, experiment_id, run_id, name, chance)
    (model_id,) = {output.model_id for output in source.get_run(run_id).outputs.model_outputs} - before
    return model_id

def files(copy_id):
    return mirrored_runs.files(target, target.get_run(copy_id))
"""


@pytest.fixture
def run(aml, databricks, tmp_path):
    """Run a script that mirrors, in a process of its own, signed in to both servers."""
    variables = both_servers.environment(aml, databricks) | {"BUNDLE_LOCAL_DIR": str(tmp_path / "local")}
    # One retry only, to save time.
    variables |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_DATABRICKS_ENDPOINT_HTTP_RETRY_TIMEOUT": "2"}
    yield lambda *code: Client(aml, tmp_path).run(SCRIPT, *code, **variables)
    aml.faults.clear()


def test_deleted_models_and_a_file_name_that_is_refused_are_listed_and_the_copy_ends(run):
    result = run(
        """
        experiment_id = source.create_experiment("/Shared/unreadable")
        run_id = source.create_run(experiment_id).info.run_id
        gone = log_model(experiment_id, run_id, "gone")
        source.delete_logged_model(gone)
        source.log_text(run_id, "text", "notes/fine.txt")
        source.log_text(run_id, "text", "notes/a#b.txt")
        source.set_terminated(run_id)
        experiment = dual.experiments(p(experiment_name="/Shared/unreadable"))
        outcomes = list(mirror.mirror_runs(experiment, mirror.pending_runs(experiment)))
        copy = target.get_run(outcomes[0].copy_id)
        answer(
            gone=gone, failures=[o.reason for o in outcomes if isinstance(o, mirror.Failure)],
            omissions=[str(item) for item in outcomes[0].omissions], note=copy.data.tags["mirrored_without"],
            status=copy.info.status, files=list(files(copy.info.run_id)),
            pending=len(mirror.pending_runs(experiment)),
        )
        """
    )
    assert result["failures"] == [] and result["pending"] == 0 and result["status"] == "FINISHED"
    model, file = result["omissions"]
    assert model.startswith(f"logged model {result['gone']}: cannot be read from Databricks: RESOURCE_DOES_NOT_EXIST")
    assert file == "file notes/a#b.txt: cannot be read from Databricks: Invalid path"
    assert result["note"] == f"{model}; {file}"
    # A path that exists without content could not be downloaded.
    assert result["files"] == ["notes/fine.txt"]


def test_models_keep_their_folders_when_an_older_model_of_their_name_is_deleted(run):
    result = run(
        """
        experiment_id = source.create_experiment("/Shared/checkpoints")
        run_id = source.create_run(experiment_id).info.run_id
        first, second = (log_model(experiment_id, run_id, "checkpoint") for _ in range(2))
        replaced = log_model(experiment_id, run_id, "replaced")
        source.set_terminated(run_id)
        experiment = dual.experiments(p(experiment_name="/Shared/checkpoints"))
        copy_id = mirror.mirror_run(experiment, run_id).copy_id
        before = files(copy_id)
        source.delete_logged_model(first)
        mlflow.set_tracking_uri("databricks")
        _, address = mirror.model_in_copy(source.get_run(run_id), f"models:/{second}", os.environ["TRACKING_URI"])
        deleted = error(mirror.model_in_copy, source.get_run(run_id), f"models:/{first}", os.environ["TRACKING_URI"])
        sent = mirror.mirror_run(experiment, run_id).files
        unchanged = files(copy_id)
        third = log_model(experiment_id, run_id, "checkpoint")
        source.delete_logged_model(replaced)
        # Its files have the sizes of those that it replaces.
        replacement = log_model(experiment_id, run_id, "replaced")
        mirror.mirror_run(experiment, run_id)
        content = lambda model_id: Path(source.get_logged_model(model_id).artifact_location.removeprefix("file://"))
        import hashlib
        expected = hashlib.sha256((content(replacement) / "data/weights.bin").read_bytes()).hexdigest()[:8]
        answer(
            first=first, second=second, third=third, before=before, unchanged=unchanged, sent=sent, after=files(copy_id),
            address=address, deleted=deleted, replacement=f"2000 {expected}",
        )
        """
    )
    second, third = f"checkpoint_{result['second']}", f"checkpoint_{result['third']}"
    folders = {path.split("/")[0] for path in result["before"]}
    assert folders == {"checkpoint", second, "replaced"}
    assert result["address"].endswith(f"/{second}")
    assert f"has no logged model {result['first']}, or it was deleted" in result["deleted"]
    assert result["sent"] == 0 and result["unchanged"] == result["before"]
    after = result["after"]
    assert {path.split("/")[0] for path in after} == {*folders, third}
    checkpoints = {path: content for path, content in result["before"].items() if path.startswith("checkpoint")}
    assert checkpoints.items() <= after.items()
    assert after["replaced/data/weights.bin"] == result["replacement"]


def test_over_http_a_missing_item_is_left_out_and_a_file_that_fails_for_now_keeps_the_run_pending(run):
    result = run(
        """
        host = os.environ["DATABRICKS_HOST"] = aml.front_of(os.environ["DATABRICKS_HOST"])
        experiment_id = source.create_experiment("/Shared/http", f"{host}/api/2.0/mlflow-artifacts/artifacts/http")
        run_id = source.create_run(experiment_id).info.run_id
        long = f"{'folder/' * 50}late.txt"
        for name in ("fine.txt", "missing.txt", "folder/fine.txt", "elsewhere/fine.txt", long):
            source.log_text(run_id, "text", name)
        for key in ("fine", "missing"):
            source.log_metric(run_id, key, 0.5)
        source.set_terminated(run_id)
        experiment = dual.experiments(p(experiment_name="/Shared/http"))

        def mirror_with_faults(*, late):
            aml.faults.add("GET .*/artifacts/http/.*/missing.txt", 404)
            aml.faults.add("GET .*/mlflow-artifacts/artifacts[?]path=http.*elsewhere", 404)
            aml.faults.add("GET .*metrics/get-history.*metric_key=missing", 404)
            if late:
                aml.faults.add("GET .*/artifacts/http/.*/late.txt", 503)
            (outcome,) = mirror.mirror_runs(experiment, mirror.pending_runs(experiment))
            aml.faults.clear()
            return outcome

        failure = mirror_with_faults(late=True)
        pending = [run.info.run_id for run in mirror.pending_runs(experiment)]
        mirrored = mirror_with_faults(late=False)
        pending_later = mirror.pending_runs(experiment)
        complete = mirror.mirror_run(experiment, run_id)
        answer(
            long=long, run_id=run_id, reason=failure.reason, pending=pending, pending_later=len(pending_later),
            omissions=[str(item) for item in mirrored.omissions], sent=[complete.points, complete.files],
            files=list(files(complete.copy_id)),
            note=target.get_run(complete.copy_id).data.tags["mirrored_without"],
        )
        """
    )
    # The file's name comes first, and the cause last; between them is the long address of the request.
    assert result["reason"].startswith(f"file {result['long']} cannot be read now: API request to http")
    assert "too many 503 error responses" in result["reason"][-100:] and result["pending"] == [result["run_id"]]
    metric, folder, file = result["omissions"]
    assert metric.startswith("metric missing: cannot be read from Databricks: RESOURCE_DOES_NOT_EXIST")
    assert folder.startswith("folder elsewhere: cannot be read from Databricks: 404 Client Error")
    assert file.startswith("file missing.txt: cannot be read from Databricks: 404 Client Error")
    assert result["pending_later"] == 0
    # Mirrored again when everything can be read.
    assert result["sent"] == [1, 2] and result["note"] == ""
    assert sorted(result["files"]) == sorted(
        ["elsewhere/fine.txt", "fine.txt", "folder/fine.txt", "missing.txt", result["long"]]
    )
