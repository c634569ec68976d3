"""A run in Databricks and its copy in Azure ML, compared field by field through plain clients."""

import pytest

from tests.azureml import both_servers
from tests.azureml.client import Client

SCRIPT = """
import logging, threading
import mlflow
from helpers.tracking import dual, mirror
from tests.azureml import both_servers, mirror_faults, mirrored_runs
from tests.azureml.both_servers import parameters as p

aml = both_servers.stand_in()
source = mlflow.MlflowClient(tracking_uri="databricks")
target = mlflow.MlflowClient(tracking_uri=os.environ["TRACKING_URI"])
"""


@pytest.fixture
def run(aml, databricks, tmp_path):
    """Run a script that mirrors, in a process of its own, signed in to both."""
    variables = both_servers.environment(aml, databricks) | {"BUNDLE_LOCAL_DIR": str(tmp_path / "local")}
    yield lambda *code, **more: Client(aml, tmp_path).run(SCRIPT, *code, **variables | more)
    aml.faults.clear()


def test_random_runs_have_copies_that_are_equal_in_every_field_and_are_completed_later(run):
    found = run(
        """
        experiment_id = source.create_experiment("/Shared/random")
        runs = [mirrored_runs.log_random(source, experiment_id, seed) for seed in range(6)]
        experiment = dual.experiments(p(experiment_name="/Shared/random"))
        outcomes = list(mirror.mirror_runs(experiment, mirror.source_runs(experiment)))
        before = [mirrored_runs.differences(source, target, run_id) for run_id in runs]
        pending = len(mirror.pending_runs(experiment))
        for run_id in runs:
            if source.get_run(run_id).info.status == "RUNNING":
                mirrored_runs.go_on_and_end(source, run_id)
        # Logged after the end.
        source.log_metric(runs[0], "late", 1.0, step=3)
        source.log_text(runs[0], "late", "late.txt")
        still_pending = len(mirror.pending_runs(experiment))
        again = list(mirror.mirror_runs(experiment, mirror.source_runs(experiment)))
        once_more = list(mirror.mirror_runs(experiment, mirror.source_runs(experiment)))
        answer(
            failures=[o.reason for o in outcomes + again + once_more if isinstance(o, mirror.Failure)],
            before=before, pending=[pending, still_pending],
            statuses=sorted({source.get_run(run_id).info.status for run_id in runs}),
            after=[mirrored_runs.differences(source, target, run_id) for run_id in runs],
            copies=len(target.search_runs([experiment.target_id])),
            sent=[[o.points, o.files] for o in once_more],
            left_out=sorted({str(item) for o in once_more for item in o.omissions}),
        )
        """
    )
    assert found["failures"] == []
    assert found["before"] == [[]] * 6 and found["pending"] == [0, 1]
    assert found["after"] == [[]] * 6 and found["copies"] == 6
    assert found["statuses"] == ["FAILED", "FINISHED", "KILLED"]
    assert found["sent"] == [[0, 0]] * 6
    assert found["left_out"] == []


def test_what_azure_ml_does_not_take_is_cut_or_left_out_and_each_item_is_named(run):
    found = run(
        """
        experiment_id = source.create_experiment("/Shared/limits")
        made = source.create_run(experiment_id, tags={"long": "v" * 3000, "k" * 120: "v"}, run_name="n" * 300)
        run_id = made.info.run_id
        source.log_batch(run_id, tags=[mlflow.entities.RunTag(f"tag{i:02}", str(i)) for i in range(60)])
        for first in (0, 100, 200):
            params = [mlflow.entities.Param(f"p{i:03}", str(i)) for i in range(first, first + 70)]
            source.log_batch(run_id, params=params)
        of_model = {"tags": {"team": "a"}, "params": {"depth": "3", "p000": "0"}}
        model = source.create_logged_model(experiment_id, "model", run_id, **of_model)
        source.log_outputs(run_id, [mlflow.entities.LoggedModelOutput(model.model_id, 0)])
        source.log_metric(run_id, "auc", 0.9, model_id=model.model_id)
        source.set_terminated(run_id)
        experiment = dual.experiments(p(experiment_name="/Shared/limits"))
        first, second = (mirror.mirror_run(experiment, run_id) for _ in range(2))
        # The command, as somebody types it.
        import contextlib, io
        from helpers import mirror as command
        given = [f"--param={name}={os.environ[name.upper()]}" for name in both_servers.WORKSPACE]
        printed, refused = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(refused):
            statuses = [command.main(["/Shared/limits", *given]), command.main(["/Shared/limits", "--pending", *given])]
            statuses += [command.main(["/Shared/no_such", *given]), command.main(["/Shared/limits"])]
            databricks = os.environ["DATABRICKS_HOST"]
            os.environ["DATABRICKS_HOST"] = aml.front_of(databricks)
            aml.faults.add(" /api/", 503)
            statuses.append(command.main(["/Shared/limits", *given]))
            os.environ["DATABRICKS_HOST"] = databricks
        copy = target.get_run(first.copy_id)
        answer(
            items=[str(item) for item in first.omissions], same=first.omissions == second.omissions,
            tags=len(copy.data.tags), long=len(copy.data.tags["long"]), name=len(copy.info.run_name),
            statuses=statuses, printed=printed.getvalue(), refused=refused.getvalue(),
            params=len(copy.data.params), note=copy.data.tags["mirrored_without"],
            pending=len(mirror.pending_runs(experiment)),
        )
        """,
        # Of the requests to Databricks; they take a second at least.
        MLFLOW_DATABRICKS_ENDPOINT_HTTP_RETRY_TIMEOUT="2",
    )
    assert found["same"] and found["pending"] == 0
    assert "tag long: cut from 3000 to 1000 characters" in found["items"] and found["long"] == 1000
    assert f"tag {'k' * 40}…: its name has 120 characters, the limit is 100" in found["items"]
    assert found["tags"] <= 50 and found["params"] == 200 and found["name"] == 256
    assert len([item for item in found["items"] if item.startswith("parameter p")]) == 10
    copied = found["tags"] - 3
    assert len([item for item in found["items"] if item.endswith("a run can have 50 tags")]) >= 61 - copied
    of_model = [item for item in found["items"] if item.startswith("logged model model: ")]
    assert [item.rpartition("not the ")[2] for item in of_model] == [
        "tags team",
        "parameters depth",
        "links from metrics auc",
    ]
    assert "run name nnn" in " ".join(found["items"])
    assert found["statuses"] == [0, 0, 2, 2, 2]
    assert "cannot be reached (The stand-in was told to answer 503.)" in found["refused"]
    assert (
        "not as in Databricks: tag long: cut from" in found["printed"]
        and "1 runs mirrored, 0 pending" in found["printed"]
    )
    assert "no experiment '/Shared/no_such'" in found["refused"] and "azureml_subscription_id" in found["refused"]
    assert found["note"].startswith(f"{len(found['items'])} items: ") and len(found["note"]) <= 1000


def test_any_request_may_fail_or_end_the_process_and_the_next_call_completes_one_copy(run):
    found = run(
        """
        logging.disable(logging.WARNING)
        # Every request and every kind of fault: python -m tests.azureml.mirror_faults.
        chosen = [
            ("killed after", 19, 3), ("killed before", 23, 9), ("answer lost, then retried", 31, 6), ("gone", 29, 12),
        ]
        outcomes = [o for kind, every, first in chosen for o in mirror_faults.sweep(aml, [kind], every, first)]
        answer(outcomes=outcomes, race=mirror_faults.race(aml, 2))
        """
    )
    assert len(found["outcomes"]) >= 7
    assert [outcome for outcome in found["outcomes"] if outcome[3]] == []
    # Without them the faults would have come too late to matter.
    assert sum(first_failed for _, _, first_failed, _ in found["outcomes"]) >= 5
    assert found["race"] == []


def test_training_ends_without_azure_ml_and_a_later_job_mirrors_and_registers_from_the_copy(run, aml, databricks):
    found = run(
        """
        import pandas as pd
        from sklearn.linear_model import LogisticRegression
        from helpers import registration, tracking
        from helpers.training import TrainedModel

        rows = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]})
        model = LogisticRegression().fit(rows, ["a", "a", "b", "b"])
        signature = mlflow.models.infer_signature(rows, pd.Series(model.predict(rows), name="prediction"))
        trained = TrainedModel(model, "sklearn", ["a", "b"], signature, rows, {}, {})
        settings = p(tracking_mode="dual", model_registry="azureml", experiment_name="/Shared/dual")
        aml.faults.add(".", 503)
        servers = tracking.configure(settings)
        with mlflow.start_run(tags={tracking.MODEL_NAME_TAG: "dual"}) as active:
            mlflow.log_metric("loss", 0.5)
            model_uri = tracking.log_model(trained)
        away = tracking.mirror_pending(settings)
        cannot_register = error(servers.registered_model_name, "dual", "", "")
        table = servers.table().to_dict("records")
        aml.faults.clear()

        # Another thread goes on logging to Databricks while the mirror uploads to Azure ML.
        done = threading.Event()
        def log_on():
            client = mlflow.MlflowClient()
            other = client.create_run(servers.experiment_id).info.run_id
            steps = 0
            while not done.is_set():
                client.log_metric(other, "step", steps, step=steps)
                client.log_text(other, "text", f"{steps}.txt")
                steps += 1
            return other, steps
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(1) as threads:
            logging_on = threads.submit(log_on)
            servers = tracking.configure(settings)
            back = tracking.mirror_pending(settings)
            done.set()
            other, steps = logging_on.result()
        source.set_terminated(other)
        run = tracking.find_run(servers, active.info.run_id, "dual")
        name = servers.registered_model_name("dual", "", "")
        mirrored = tracking.mirror_for_registry(settings, run)
        made = [registration.register(run, model_uri, name, {"n": "1"}) for _ in range(2)]
        version = tracking.versions(name)[0]
        uris = [mlflow.get_tracking_uri(), mlflow.get_registry_uri()]
        model_folder = tracking.download_model(f"models:/{name}/1", Path("downloaded"))
        scored = mlflow.pyfunc.load_model(str(model_folder)).predict(rows)
        answer(
            status=run.info.status, away=away, back=back, cannot_register=cannot_register, table=table, uris=uris,
            steps=[steps, len(source.get_metric_history(other, "step")), len(source.list_artifacts(other))],
            copies=len(target.search_runs([target.get_experiment_by_name("dual").experiment_id])),
            made=[[str(v.version), new] for v, new in made], version=[version.run_id, version.tags],
            copy=source.get_run(run.info.run_id).data.tags["mirrored_to_run_id"], run_id=run.info.run_id,
            named=tracking.run_id(version), scored=list(scored),
            different=mirrored_runs.differences(source, target, run.info.run_id),
        )
        """,
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="1",
    )
    assert found["status"] == "FINISHED" and found["different"] == []
    assert found["away"].startswith(
        "Mirroring to Azure ML is pending; the next job or `python -m helpers.mirror /Shared/dual`"
    )
    assert "503" in found["away"] and "503" in found["cannot_register"]
    assert any(row["what"] == "mirror" and row["where"].startswith("pending: ") for row in found["table"])
    assert found["back"].startswith(f"run {found['run_id']} (FINISHED) is run {found['copy']} in Azure ML")
    assert found["uris"] == ["databricks", aml.tracking_uri]
    steps, points, texts = found["steps"]
    assert steps == points == texts > 0 and found["copies"] == 1
    assert found["made"] == [["1", True], ["1", False]]
    run_id, tags = found["version"]
    assert run_id == found["copy"] and found["named"] == found["run_id"] == tags["run_id"]
    assert tags["tracking_server"] == databricks.url
    assert found["scored"] == ["a", "a", "b", "b"]
