"""Runs, versions and the champion with `helpers.tracking` and `helpers.registration`, in Azure ML and Databricks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from sklearn.linear_model import LogisticRegression

from helpers import registration, tracking
from tests.scenarios.azureml import mirrored_runs
from tests.scenarios.errors import error_of
from tests.stand_ins import both_servers
from tests.stand_ins.azureml_workspace import AzureMLStandIn

ROWS = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]})
LABELS = ["a", "a", "b", "b"]


def configure(**changes: str) -> tracking.Session:
    """Use the servers of these parameters."""
    return tracking.configure(both_servers.parameters(**changes))


def log_classifier(labels: Sequence[str] = LABELS, **options: Any) -> str:
    """Fit a small classifier and log it to the active run; return its URI.

    Parameters
    ----------
    labels : sequence of str
        The label of each of `ROWS`.
    **options
        Of `tracking.log_model`.
    """
    model = LogisticRegression().fit(ROWS, labels)
    signature = mlflow.models.infer_signature(ROWS, pd.Series(model.predict(ROWS), name="prediction"))
    options = {"input_example": ROWS, "classes": model.classes_} | options
    return tracking.log_model(model, flavor="sklearn", signature=signature, **options)


def log_run(model_name: str) -> mlflow.entities.Run:
    """Log a run with a metric and a model."""
    with mlflow.start_run(tags={tracking.MODEL_NAME_TAG: model_name}) as run:
        mlflow.log_metric("loss", 0.5, step=1)
        log_classifier()
    return mlflow.get_run(run.info.run_id)


def register_and_promote(name: str, tracking_mode: str) -> dict[str, Any]:
    """Register two runs, one of them twice, and promote their versions in turn."""
    session = configure(tracking_mode=tracking_mode, model_registry="azureml", experiment_name=f"/Shared/{name}")
    runs = [log_run(name), log_run(name)]
    registered = [
        registration.register(session, run, tracking.logged_model_uri(session, run), name, {"n": str(number)})
        for number, run in enumerate([*runs, runs[0]])
    ]
    champions = [tracking.champion(session, name), tracking.champion(session, "nobody")]
    for number in ("1", "2", "1", "1"):
        tracking.promote(session, name, number)
        champions.append(str(tracking.resolve_version(session, name, "").version))
    # The state after a promotion that was killed before it removed the tag from the previous champion.
    mlflow.MlflowClient().set_model_version_tag(name, "2", tracking.CHAMPION, str(time.time_ns()))
    champions.append(str(tracking.champion(session, name).version))
    tracking.promote(session, name, "1")
    champions.append(str(tracking.champion(session, name).version))
    folder = tracking.download_model(session, f"models:/{name}/2", Path(f"downloaded_{name}"))
    return {
        "runs": [run.info.run_id for run in runs],
        "registered": [[str(version.version), tracking.run_id(version), new] for version, new in registered],
        "tags": {str(version.version): version.tags for version in tracking.versions(session, name)},
        "champions": champions,
        "predictions": list(mlflow.pyfunc.load_model(str(folder)).predict(ROWS)),
        "missing_version": error_of(tracking.resolve_version, session, name, "3"),
        "missing_model": error_of(tracking.resolve_version, session, "nobody", ""),
        "newest_run": tracking.find_run(session, "", name).info.run_id,
        "approval": _decide_about(session, name),
        "table": session.table().to_dict("records"),
        "page": session.run_page(runs[0].info.run_id),
    }


def _decide_about(session: tracking.Session, name: str) -> dict[str, Any]:
    """Approve version 2, the challenger of version 1, and then refuse version 1; return who was what after each step."""
    client, steps = session.client(), {}

    def note(step: str) -> None:
        holders = (tracking.champion(session, name), tracking.challenger(session, name))
        steps[step] = [str(holder.version) if holder else None for holder in holders]

    def version(number: str) -> ModelVersion:
        client.set_model_version_tag(name, number, "check_threshold", "passed: 0.99")
        return client.get_model_version(name, number)

    registration.take_place(session, version("2"), "", "challenger")
    # The state after version 2 took the place of another challenger and was killed before that one lost its tag.
    client.set_model_version_tag(name, "1", tracking.CHALLENGER, "1")
    note("waiting")
    registration.decide(session, registration.waiting_version(session, name, ""), "approve", "Ada", "r" * 1_000)
    note("approved")
    registration.take_place(session, version("1"), "", "challenger")
    note("waiting again")
    registration.decide(session, registration.waiting_version(session, name, ""), "refuse", "Ada")
    note("refused")
    registration.take_place(session, version("1"), "", "challenger")
    note("registered again")
    tags = {number: client.get_model_version(name, number).tags for number in "12"}
    approvals = {number: {key: of[key] for key in of if key.startswith("approv")} for number, of in tags.items()}
    return {"steps": steps, "tags": approvals}


def register_one_of_three(name: str) -> dict[str, Any]:
    """Log three models to one run, look for its model, and register the second one under a name."""
    session = configure(tracking_mode="azureml", experiment_name=name)
    labels = {"first": LABELS, "second": ["c", "c", "d", "d"], "third": ["e", "e", "f", "f"]}
    with mlflow.start_run() as active:
        uris = {model: log_classifier(labels[model], name=model) for model in labels}
    run = mlflow.get_run(active.info.run_id)
    unnamed = error_of(tracking.logged_model_uri, session, run)
    unknown = error_of(tracking.logged_model_uri, session, run, f"runs:/{run.info.run_id}/fourth")
    version = tracking.create_version(session, run, tracking.logged_model_uri(session, run, uris["second"]), name, {})
    registered = tracking.download_model(session, f"models:/{name}/{version.version}", Path(f"{name}_registered"))
    logged = {model: tracking.download_model(session, uri, Path(f"{name}_{model}")) for model, uri in uris.items()}
    return {
        "uris": uris,
        "unnamed": unnamed,
        "unknown": unknown,
        "run_id": run.info.run_id,
        "version_run_id": version.run_id,
        "registered": mirrored_runs.contents(registered),
        "logged": {model: mirrored_runs.contents(folder) for model, folder in logged.items()},
        "predictions": list(mlflow.pyfunc.load_model(str(registered)).predict(ROWS)),
    }


def find_a_model_that_was_logged_by_hand() -> dict[str, Any]:
    """Log a model's files without this bundle, and a folder without a model, and look for the run's model."""
    session = configure(tracking_mode="azureml", experiment_name="by_hand")
    with mlflow.start_run() as active:
        mlflow.log_text("flavors: {}", "by/hand/MLmodel")
        mlflow.log_text("text", "notes/text.txt")
    run = mlflow.get_run(active.info.run_id)
    return {"run_id": run.info.run_id, "uri": tracking.logged_model_uri(session, run)}


def autolog() -> dict[str, Any]:
    """Fit a classifier while MLflow logs it."""
    configure(tracking_mode="azureml", experiment_name="autolog")
    tracking.autolog(silent=True)
    with mlflow.start_run() as active:
        LogisticRegression(C=0.5).fit(ROWS, LABELS)
    mlflow.autolog(disable=True)
    run = mlflow.get_run(active.info.run_id)
    return {"status": run.info.status, "c": run.data.params["C"], "metrics": sorted(run.data.metrics)}


def lose_the_server() -> dict[str, Any]:
    """Log a complete run, and one during which the server goes away."""
    faults = AzureMLStandIn.from_environment().faults
    session = configure(tracking_mode="azureml", experiment_name="lost")
    complete = log_run("small")

    def log_until_the_server_is_gone() -> None:
        with mlflow.start_run(tags={tracking.MODEL_NAME_TAG: "small"}):
            mlflow.log_metric("loss", 0.5, step=1)
            faults.add("/mlflow/", 503)
            mlflow.log_metric("loss", 0.4, step=2)

    refused = error_of(log_until_the_server_is_gone)
    faults.clear()
    lost = mlflow.last_active_run()
    return {
        "refused": refused,
        "complete": complete.info.run_id,
        "lost": lost.info.run_id,
        "status": mlflow.get_run(lost.info.run_id).info.status,
        "newest": tracking.find_run(session, "", "small").info.run_id,
        "named": error_of(tracking.find_run, session, lost.info.run_id, "small"),
    }
