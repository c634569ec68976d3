"""Runs of Databricks mirrored to Azure ML, and compared with their copies through plain clients."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import LoggedModelOutput, Param, RunTag

from helpers import data, parameters, registration, runtime, tracking, training
from helpers import mirror as mirror_command
from helpers.tracking import dual, mirror
from tests.scenarios.azureml import mirror_faults, mirrored_runs, tracked_models
from tests.scenarios.errors import error_of
from tests.stand_ins import both_servers
from tests.stand_ins.azureml_workspace import AzureMLStandIn


def plain_clients() -> tuple[mlflow.MlflowClient, mlflow.MlflowClient]:
    """Return clients of Databricks and of Azure ML."""
    uri = AzureMLStandIn.from_environment().tracking_uri
    return mlflow.MlflowClient(tracking_uri="databricks"), mlflow.MlflowClient(tracking_uri=uri)


def mirrored_experiment(name: str) -> mirror.MirroredExperiment:
    """Return an experiment of Databricks, and the one in Azure ML that mirrors it."""
    p = both_servers.parameters(tracking_mode="dual", experiment_name=name)
    return dual.mirrored_experiment(tracking.configure(p, create=False))


def mirror_random_runs() -> dict[str, Any]:
    """Mirror random runs, continue those that have not ended, and mirror them twice more."""
    source, target = plain_clients()
    experiment_id = source.create_experiment("/Shared/random")
    runs = [mirrored_runs.log_random(source, experiment_id, seed) for seed in range(6)]
    experiment = mirrored_experiment("/Shared/random")
    # The mirror's clients do not use the process's tracking URI.
    mlflow.set_tracking_uri("sqlite:///elsewhere.db")
    outcomes = list(mirror.mirror_runs(experiment, mirror.source_runs(experiment)))
    before = [mirrored_runs.differences(source, target, run_id) for run_id in runs]
    pending = len(mirror.pending_runs(experiment))
    for run_id in runs:
        if source.get_run(run_id).info.status == "RUNNING":
            mirrored_runs.go_on_and_end(source, run_id)
    # Logged after the run has ended.
    source.log_metric(runs[0], "late", 1.0, step=3)
    source.log_text(runs[0], "late", "late.txt")
    still_pending = len(mirror.pending_runs(experiment))
    again = list(mirror.mirror_runs(experiment, mirror.source_runs(experiment)))
    once_more = list(mirror.mirror_runs(experiment, mirror.source_runs(experiment)))
    everything = outcomes + again + once_more
    return {
        "failures": [outcome.reason for outcome in everything if isinstance(outcome, mirror.Failure)],
        "before": before,
        "pending": [pending, still_pending],
        "statuses": sorted({source.get_run(run_id).info.status for run_id in runs}),
        "after": [mirrored_runs.differences(source, target, run_id) for run_id in runs],
        "copies": len(target.search_runs([experiment.target_id])),
        "tracking_uri": mlflow.get_tracking_uri(),
        "sent": [[outcome.points, outcome.files] for outcome in once_more],
        "omissions": sorted({str(item) for outcome in once_more for item in outcome.omissions}),
    }


def mirror_a_study() -> dict[str, Any]:
    """Tune in dual mode, and compare the study and its trials with their copies."""
    source, target = plain_clients()
    values = {"tracking_mode": "dual", "experiment_name": "/Shared/study", "tuning_trials": 2, "tuning_parallel": 1}
    p = both_servers.parameters(parameters.Train, **values, epochs=3, label_column="y")
    spark = runtime.spark()
    spark.range(100).selectExpr("id", "id % 7 AS a", "id % 3 = 0 AS y").write.saveAsTable("study")
    split = data.load_split(spark, "study", label_column="y", id_column="id", test_fraction=0.3, seed=1)
    session = tracking.configure(p)
    with mlflow.start_run() as run:
        tuned = training.tune(session, split, p)
    printed = tracking.mirror_pending(session)
    run_ids = [run.info.run_id, *tuned.trials["run_id"]]
    tags = source.get_run(run.info.run_id).data.tags
    copies = target.search_runs([target.get_experiment_by_name("study").experiment_id])
    return {
        "printed": printed,
        "differences": [mirrored_runs.differences(source, target, run_id) for run_id in run_ids],
        "copies": len(copies),
        "children": sum(copy.data.tags.get("mlflow.parentRunId") == tags["mirrored_to_run_id"] for copy in copies),
        "losses": sorted(copy.data.metrics["tuning_loss"] for copy in copies),
    }


def mirror_a_run_beyond_the_limits() -> dict[str, Any]:
    """Mirror a run that has more of everything than Azure ML accepts, with the function and with the command."""
    source, target = plain_clients()
    experiment_id = source.create_experiment("/Shared/limits")
    run = source.create_run(experiment_id, tags={"long": "v" * 3000, "k" * 120: "v"}, run_name="n" * 300)
    run_id = run.info.run_id
    source.log_batch(run_id, tags=[RunTag(f"tag{number:02}", str(number)) for number in range(60)])
    for first in (0, 100, 200):
        source.log_batch(run_id, params=[Param(f"p{number:03}", str(number)) for number in range(first, first + 70)])
    of_model = {"tags": {"team": "a"}, "params": {"depth": "3", "p000": "0"}}
    model = source.create_logged_model(experiment_id, "model", run_id, **of_model)
    source.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
    source.log_metric(run_id, "auc", 0.9, model_id=model.model_id)
    source.set_terminated(run_id)
    experiment = mirrored_experiment("/Shared/limits")
    first, second = (mirror.mirror_run(experiment, run_id) for _ in range(2))
    command = run_the_command("/Shared/limits")
    copy = target.get_run(first.copy_id)
    return command | {
        "items": [str(item) for item in first.omissions],
        "same": first.omissions == second.omissions,
        "tags": len(copy.data.tags),
        "long": len(copy.data.tags["long"]),
        "name": len(copy.info.run_name),
        "params": len(copy.data.params),
        "note": copy.data.tags["mirrored_without"],
        "pending": len(mirror.pending_runs(experiment)),
    }


def run_the_command(experiment_name: str) -> dict[str, Any]:
    """Mirror an experiment with the command, and call the command where it cannot work."""
    aml = AzureMLStandIn.from_environment()
    workspace = [f"--param={name}={value}" for name, value in aml.workspace_parameters.items()]
    printed, refused = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(refused):
        statuses = {
            "all": mirror_command.main([experiment_name, *workspace]),
            "pending only": mirror_command.main([experiment_name, "--pending", *workspace]),
            "no such experiment": mirror_command.main(["/Shared/no_such", *workspace]),
            "no workspace": mirror_command.main([experiment_name]),
        }
        databricks = os.environ["DATABRICKS_HOST"]
        os.environ["DATABRICKS_HOST"] = aml.front_of(databricks)
        aml.faults.add(" /api/", 503)
        statuses["Databricks is down"] = mirror_command.main([experiment_name, *workspace])
        os.environ["DATABRICKS_HOST"] = databricks
    return {"statuses": statuses, "printed": printed.getvalue(), "refused": refused.getvalue()}


def fail_at_some_requests() -> dict[str, Any]:
    """Try some of the faults of `mirror_faults`, and two mirrors of one run at the same time."""
    logging.disable(logging.WARNING)
    aml = AzureMLStandIn.from_environment()
    # Every request and every kind of fault: python -m tests.scenarios.azureml.mirror_faults.
    chosen = [
        ("killed after", 19, 3),
        ("killed before", 23, 9),
        ("answer lost, then retried", 31, 6),
        ("gone", 29, 12),
    ]
    outcomes = [outcome for kind, every, first in chosen for outcome in mirror_faults.sweep(aml, [kind], every, first)]
    return {"outcomes": [outcome._asdict() for outcome in outcomes], "race": mirror_faults.race(aml, 2)}


def train_while_azure_ml_is_away() -> dict[str, Any]:
    """Train in dual mode while Azure ML does not answer; mirror and register when it answers again."""
    source, target = plain_clients()
    aml = AzureMLStandIn.from_environment()
    settings = both_servers.parameters(tracking_mode="dual", model_registry="azureml", experiment_name="/Shared/dual")
    aml.faults.add(".", 503)
    session = tracking.configure(settings)
    with mlflow.start_run(tags={tracking.MODEL_NAME_TAG: "dual"}) as active:
        mlflow.log_metric("loss", 0.5)
        model_uri = tracked_models.log_classifier()
    away = tracking.mirror_pending(session)
    cannot_register = error_of(session.registered_model_name, "dual", "", "")
    table = session.table().to_dict("records")
    aml.faults.clear()

    with logging_meanwhile(session.experiment_id) as logged:
        session = tracking.configure(settings)
        back = tracking.mirror_pending(session)
    source.set_terminated(logged["run_id"])

    run = tracking.find_run(session, active.info.run_id, "dual")
    name = session.registered_model_name("dual", "", "")
    tracking.mirror_for_registry(session, run)
    registered = [registration.register(session, run, model_uri, name, {"n": "1"}) for _ in range(2)]
    version = tracking.versions(session, name)[0]
    uris = [mlflow.get_tracking_uri(), mlflow.get_registry_uri()]
    folder = tracking.download_model(session, f"models:/{name}/1", Path("downloaded"))
    return {
        "status": run.info.status,
        "away": away,
        "back": back,
        "cannot_register": cannot_register,
        "table": table,
        "uris": uris,
        "steps": logged["steps"],
        "points": len(source.get_metric_history(logged["run_id"], "step")),
        "texts": len(source.list_artifacts(logged["run_id"])),
        "copies": len(target.search_runs([target.get_experiment_by_name("dual").experiment_id])),
        "registered": [[str(version.version), is_new] for version, is_new in registered],
        "version_run_id": version.run_id,
        "version_tags": version.tags,
        "copy": source.get_run(run.info.run_id).data.tags["mirrored_to_run_id"],
        "run_id": run.info.run_id,
        "run_id_of_version": tracking.run_id(version),
        "predictions": list(mlflow.pyfunc.load_model(str(folder)).predict(tracked_models.ROWS)),
        "differences": mirrored_runs.differences(source, target, run.info.run_id),
    }


@contextlib.contextmanager
def logging_meanwhile(experiment_id: str) -> Iterator[dict[str, Any]]:
    """Log to Databricks from another thread while the block runs; yield the run, whose steps are known afterwards."""
    done = threading.Event()
    logged: dict[str, Any] = {"run_id": mlflow.MlflowClient().create_run(experiment_id).info.run_id, "steps": 0}

    def log() -> None:
        # At least one step, however slow this machine is.
        while not (logged["steps"] and done.is_set()):
            step = logged["steps"]
            # A client without its own address, so that each step goes where MLflow points at that moment.
            client = mlflow.MlflowClient()
            client.log_metric(logged["run_id"], "step", step, step=step)
            client.log_text(logged["run_id"], "text", f"{step}.txt")
            logged["steps"] += 1

    with ThreadPoolExecutor(1) as threads:
        logging_on = threads.submit(log)
        try:
            yield logged
        finally:
            done.set()
        logging_on.result()
