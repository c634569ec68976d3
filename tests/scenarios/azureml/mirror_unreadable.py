"""Runs mirrored to Azure ML although some of their models, metrics or files cannot be read from Databricks."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import mlflow

from helpers.tracking import mirror
from tests.scenarios.azureml import mirrored_runs
from tests.scenarios.azureml.mirror import mirrored_experiment, plain_clients
from tests.scenarios.errors import error_of
from tests.stand_ins.azureml_workspace import AzureMLStandIn


def log_model(client: mlflow.MlflowClient, experiment_id: str, run_id: str, name: str, chance: random.Random) -> str:
    """Log a model to a run, and return the model's id."""
    before = _models(client, run_id)
    mirrored_runs.log_model(client, experiment_id, run_id, name, chance)
    (model_id,) = _models(client, run_id) - before
    return model_id


def _models(client: mlflow.MlflowClient, run_id: str) -> set[str]:
    return {output.model_id for output in client.get_run(run_id).outputs.model_outputs}


def mirror_what_is_deleted_or_refused() -> dict[str, Any]:
    """Mirror a run with a deleted model, and with a file whose name the server refuses."""
    source, target = plain_clients()
    experiment_id = source.create_experiment("/Shared/unreadable")
    run_id = source.create_run(experiment_id).info.run_id
    deleted = log_model(source, experiment_id, run_id, "deleted", random.Random(0))
    source.delete_logged_model(deleted)
    source.log_text(run_id, "text", "notes/fine.txt")
    source.log_text(run_id, "text", "notes/a#b.txt")
    source.set_terminated(run_id)
    experiment = mirrored_experiment("/Shared/unreadable")
    (outcome,) = mirror.mirror_runs(experiment, mirror.pending_runs(experiment))
    failure = outcome.reason if isinstance(outcome, mirror.Failure) else ""
    assert not failure, failure
    copy = target.get_run(outcome.copy_id)
    return {
        "deleted": deleted,
        "omissions": [str(item) for item in outcome.omissions],
        "note": copy.data.tags["mirrored_without"],
        "status": copy.info.status,
        "files": list(mirrored_runs.files(target, copy)),
        "pending": len(mirror.pending_runs(experiment)),
    }


def delete_older_models_of_the_same_names() -> dict[str, Any]:
    """Mirror a run with several models of one name; delete the older ones, log more, and mirror it again."""
    source, target = plain_clients()
    uri = AzureMLStandIn.from_environment().tracking_uri
    experiment_id = source.create_experiment("/Shared/checkpoints")
    run_id = source.create_run(experiment_id).info.run_id
    chance = random.Random(0)

    def log(name: str) -> str:
        return log_model(source, experiment_id, run_id, name, chance)

    def files() -> dict[str, str]:
        return mirrored_runs.files(target, target.get_run(copy_id))

    first, second, replaced = log("checkpoint"), log("checkpoint"), log("replaced")
    source.set_terminated(run_id)
    experiment = mirrored_experiment("/Shared/checkpoints")
    copy_id = mirror.mirror_run(experiment, run_id).copy_id
    before = files()
    source.delete_logged_model(first)
    run = source.get_run(run_id)
    _, address = mirror.model_in_copy(source, run, f"models:/{second}", uri)
    refused = error_of(mirror.model_in_copy, source, run, f"models:/{first}", uri)
    sent = mirror.mirror_run(experiment, run_id).files
    unchanged = files()
    third = log("checkpoint")
    source.delete_logged_model(replaced)
    # Its files have the same sizes as those that it replaces.
    replacement = log("replaced")
    mirror.mirror_run(experiment, run_id)
    location = source.get_logged_model(replacement).artifact_location.removeprefix("file://")
    return {
        "second": second,
        "third": third,
        "before": before,
        "address": address,
        "refused": refused,
        "first": first,
        "sent": sent,
        "unchanged": unchanged,
        "after": files(),
        "replacement": mirrored_runs.content(Path(location, "data", "weights.bin")),
    }


def read_over_http_with_faults() -> dict[str, Any]:
    """Mirror a run while the server does not find some items and one file fails for now, and again without faults."""
    aml = AzureMLStandIn.from_environment()
    source, target = plain_clients()
    host = os.environ["DATABRICKS_HOST"] = aml.front_of(os.environ["DATABRICKS_HOST"])
    experiment_id = source.create_experiment("/Shared/http", f"{host}/api/2.0/mlflow-artifacts/artifacts/http")
    run_id = source.create_run(experiment_id).info.run_id
    long = f"{'folder/' * 50}late.txt"
    for name in ("fine.txt", "missing.txt", "folder/fine.txt", "elsewhere/fine.txt", long):
        source.log_text(run_id, "text", name)
    for key in ("fine", "missing"):
        source.log_metric(run_id, key, 0.5)
    source.set_terminated(run_id)
    experiment = mirrored_experiment("/Shared/http")

    def mirror_with_faults(late: bool) -> mirror.MirroredRun | mirror.Failure:
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
    pending_later = len(mirror.pending_runs(experiment))
    complete = mirror.mirror_run(experiment, run_id)
    copy = target.get_run(complete.copy_id)
    return {
        "run_id": run_id,
        "long": long,
        "reason": failure.reason,
        "pending": pending,
        "pending_later": pending_later,
        "omissions": [str(item) for item in mirrored.omissions],
        "sent": [complete.points, complete.files],
        "note": copy.data.tags["mirrored_without"],
        "files": sorted(mirrored_runs.files(target, copy)),
    }
