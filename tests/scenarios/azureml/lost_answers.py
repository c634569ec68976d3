"""Runs, models and versions in Azure ML while answers get lost, tokens are revoked, and the token service is busy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow

from helpers import registration, tracking
from helpers.data.names import quoted
from tests.scenarios.azureml.tracked_models import LABELS, ROWS, configure, log_classifier, log_run
from tests.scenarios.errors import error_of
from tests.stand_ins.azureml import names
from tests.stand_ins.azureml_workspace import AzureMLStandIn


class _Split:
    """What `tracking.log_split` needs of a split."""

    def log_input(self) -> None:
        mlflow.set_tag("input", quoted("rows"))

    def record(self) -> _Split:
        return self

    def as_text(self) -> str:
        return "{}"


def train_and_register(name: str, lost: list[str]) -> dict[str, Any]:
    """Log and register a run, promote it, and register it again; the first answer to some requests is lost."""
    session = configure(tracking_mode="azureml", experiment_name=name)
    faults = AzureMLStandIn.from_environment().faults
    for pattern in lost:
        faults.add(pattern, "lose_answer", times=1)
    with mlflow.start_run(run_name="one", tags={tracking.MODEL_NAME_TAG: name}) as active:
        tracking.log_split(_Split())
        log_classifier()
    run = mlflow.get_run(active.info.run_id)
    uri = tracking.logged_model_uri(session, run)
    first, is_new = registration.register(session, run, uri, name, {"n": "1"})
    tracking.promote(session, name, str(first.version))
    again, is_new_again = registration.register(session, run, uri, name, {"n": "2"})
    taken = [fault.taken for fault in faults.clear()]
    folder = tracking.download_model(session, f"models:/{name}/1", Path(f"downloaded_{name}"))
    return {
        "lost": taken,
        "versions": [str(version.version) for version in tracking.versions(session, name)],
        "new": [is_new, is_new_again],
        "same": str(first.version) == str(again.version),
        "champion": str(tracking.champion(session, name).version),
        "right": list(mlflow.pyfunc.load_model(str(folder)).predict(ROWS)) == LABELS,
        "statuses": sorted(run.info.status for run in mlflow.MlflowClient().search_runs([session.experiment_id])),
    }


def register_files(name: str, answer: int | str) -> dict[str, Any]:
    """Register a run of Databricks by its files, while the first answer of the registry is lost, or is an error."""
    session = configure(tracking_mode="databricks", model_registry="azureml", experiment_name=f"/Shared/{name}")
    run = log_run(name)
    faults = AzureMLStandIn.from_environment().faults
    faults.add("model-versions/create", answer, times=1 if isinstance(answer, str) else None)
    uri = tracking.logged_model_uri(session, run)
    error = error_of(registration.register, session, run, uri, name, {"n": "1"})
    (fault,) = faults.clear()
    versions = [] if error else [str(version.version) for version in tracking.versions(session, name)]
    return {"error": error, "versions": versions, "requests": fault.taken}


def log_a_model_twice(name: str) -> str | None:
    """Log two models under one name in one run; return the error of the second."""
    configure(tracking_mode="azureml", experiment_name=name)
    with mlflow.start_run():
        log_classifier()
        return error_of(log_classifier, ["c", "c", "d", "d"])


def configure_after_tokens_were_revoked(name: str) -> dict[str, Any]:
    """Use the workspace, lose all tokens, and use it again after `configure`."""
    stand_in = AzureMLStandIn.from_environment()
    configure(tracking_mode="azureml", experiment_name=name)
    mlflow.log_metric("loss", 0.5)
    mlflow.end_run()
    stand_in.revoke_tokens(names.OTHER_CLIENT_ID)
    refused = error_of(mlflow.search_runs)
    configure(tracking_mode="azureml", experiment_name=name)
    with mlflow.start_run():
        mlflow.log_metric("loss", 0.4)
        mlflow.log_text("note", "note.txt")
    return {"refused": refused, "runs": len(mlflow.search_runs())}


def configure_while_the_token_service_is_busy() -> str | None:
    """Return why the workspace cannot be used."""
    return error_of(configure, tracking_mode="azureml")
