"""Models in Unity Catalog: registered, loaded, shared to and from there, and cleaned up, with MLflow's unpatched client."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import mlflow
from sklearn.linear_model import LogisticRegression

from helpers import parameters, registration, tracking
from helpers.scoring.model import load_model
from helpers.tracking import inventory
from helpers.tracking.versions import champion_in, versions_in
from tests.scenarios.azureml.shared_models import (
    CHECKS,
    REGISTRY,
    champion_of,
    in_other_processes,
    labels_of,
    share_and_be_killed,
)
from tests.scenarios.azureml.tracked_models import LABELS, ROWS, log_run
from tests.scenarios.errors import error_of
from tests.stand_ins import both_servers
from tests.stand_ins.azureml_workspace import AzureMLStandIn
from tests.stand_ins.unity_catalog import IN_OWN_STORAGE

NAMESPACE = {"catalog": "main", "schema": "ml"}
PROD = "databricks-uc/prod.ml"


def session_of(name: str, group: type = parameters.Register, **changes: str) -> tracking.Session:
    """Return a session of 03_register whose runs are in Databricks and whose models are in Unity Catalog."""
    values = {"tracking_mode": "databricks", "experiment_name": f"/Shared/{name}", "model_name": name} | NAMESPACE
    return tracking.configure(both_servers.parameters(group, **values | changes))


def local_session(name: str, **changes: str) -> tracking.Session:
    """Return a session of 03_register whose runs and models are here."""
    return session_of(name, tracking_mode="local", experiment_name=name, **changes)


def all_versions(registry: Any, name: str) -> list[list[str]]:
    """Return number and status of each version in a registry, as MLflow's client lists them."""
    client, token, found = registry.client(), None, []
    while token is None or token:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        found += [[str(version.version), version.status] for version in page]
        token = page.token or ""
    return sorted(found)


def planned(name: str, **changes: str) -> list[Any]:
    """Return what clean-up lists in the registry."""
    values = {"tracking_mode": "databricks", "experiment_name": f"/Shared/{name}", "model_name": name} | NAMESPACE
    p = both_servers.parameters(parameters.CleanUp, **values | changes)
    items = inventory.items(None, tracking.configure(p, create=False), p)
    return [item for item in items if item.kind == "model_versions"]


def register_twice_and_score(name: str) -> dict[str, Any]:
    """Register two runs, one of them twice, each the champion of its time; approve, refuse, load, and clean up."""
    session = session_of(name)
    full_name = session.registered_model_name(name, **NAMESPACE)
    nothing = [error_of(tracking.resolve_version, session, full_name, ""), tracking.versions(session, full_name)]
    runs, registered, champions = [log_run(name), log_run(name)], [], []
    client = mlflow.MlflowClient()
    client.set_tag(runs[0].info.run_id, "mlflow.databricks.jobID", "7")
    for run in (*runs, runs[0]):
        uri = tracking.logged_model_uri(session, run)
        version, is_new = registration.register(session, run, uri, full_name, CHECKS)
        registered.append([str(version.version), version.status, is_new])
        if is_new:
            registration.take_place(session, version, "", "auto")
            champions.append(str(tracking.resolve_version(session, full_name, "").version))
    champion = tracking.resolve_version(session, full_name, "")
    by_alias = mlflow.pyfunc.load_model(f"models:/{full_name}@champion")
    loaded = load_model(session, f"models:/{full_name}/{champion.version}")
    registration.take_place(session, tracking.resolve_version(session, full_name, "1"), "", "challenger")
    waiting = registration.waiting_version(session, full_name, "")
    said = registration.decide(session, waiting, "refuse", "Ada")
    # 05_deploy_endpoint deploys from the workspace of Azure ML.
    deployed = [tracking.in_azureml(session, champion) for _ in range(2)]
    return {
        "nothing": nothing,
        "registered": registered,
        "champions": champions,
        "champion_tags": champion.tags,
        "run_id": [runs[1].info.run_id, champion.run_id, tracking.run_of_version(session, champion).info.run_id],
        "by_alias": list(by_alias.predict(ROWS)) == LABELS,
        "loaded": list(loaded.estimator.predict(ROWS)) == LABELS,
        "waiting": [str(waiting.version), said],
        "deployed": [[version.name, str(version.version), new] for version, new in deployed],
        "page": session.table().set_index("what").loc["model registry", "where"],
        "stages": error_of(client.get_latest_versions, full_name),
    }


def clean_up(name: str) -> dict[str, Any]:
    """List and delete what was made in Unity Catalog under a name, keeping the champion, and then by force."""
    full_name = f"main.ml.{name}"
    kept = [[item.name, item.keep_reason] for item in planned(name)]
    forced = {}
    for item in planned(name, force="true"):
        forced[item.name] = item.delete()
    left = tracking.server_at("databricks-uc", session_of(name).connection, "share_with").registered_model(full_name)
    return {"kept": kept, "forced": forced, "left": left is not None, "again": planned(name, force="true")}


def checked(target: Any, name: str, folder: str) -> dict[str, Any]:
    """Return what is under a model's name in a registry, and whether its champion can be used and is the only copy."""
    (copy,), champion = versions_in(target, name), champion_in(target, name)
    files = Path(folder)
    files.mkdir()
    labels = mlflow.pyfunc.load_model(str(target.download(f"models:/{name}/{copy.version}", files))).predict(ROWS)
    return {
        "all": all_versions(target, name),
        "champion": str(champion.version) if champion else None,
        "tags": copy.tags,
        "labels": list(labels) == LABELS,
    }


def share_from_azure_ml_and_back(name: str) -> dict[str, Any]:
    """Share a champion of Azure ML with Unity Catalog, twice, and copy it from there to a registry of Azure ML."""
    session = session_of(name, tracking_mode="azureml", experiment_name=name, share_with=PROD)
    version = champion_of(session, name)
    mlflow.MlflowClient().set_model_version_tag(name, version.version, "team.name", "t" * 1_001)
    said = [tracking.share_champion(session, version)]
    # 08_approve writes who approved it after it was shared.
    mlflow.MlflowClient().set_model_version_tag(name, version.version, tracking.APPROVED_BY_TAG, "Ada")
    said.append(tracking.share_champion(session, version))
    (copy,) = versions_in(session.share_with, f"prod.ml.{name}")
    registry = tracking.server_at(REGISTRY, session.connection, "share_with")
    on = [tracking.copy_version(session.share_with, copy, registry) for _ in range(2)]
    back = tracking.copy_version(session.share_with, copy, session.registry)
    return {
        "said": said,
        "address": session.registry.address,
        "on": [[version.name, str(version.version), new] for version, new in (*on, back)],
        "on_tags": on[0][0].tags,
        "requests": ways_of_upload(),
    } | checked(session.share_with, f"prod.ml.{name}", f"checked_{name}")


def ways_of_upload() -> list[str]:
    """Return the ways in which files of models were sent."""
    sent = AzureMLStandIn.from_environment().requests("/MLmodel")
    return sorted({request.path.partition("/Models/")[0] for request in sent if request.method == "PUT"})


def be_killed(name: str, steps: list[list[str]]) -> dict[str, Any]:
    """Share a local champion in processes that are killed at one request after the other, and then in one that is not."""
    session = local_session(name, model_registry="local", share_with=PROD)
    version, target, full_name = champion_of(session, name), session.share_with, f"prod.ml.{name}"
    ends, found = share_and_be_killed(
        session, version, steps, lambda: [len(all_versions(target, full_name)), len(versions_in(target, full_name))]
    )
    said = [tracking.share_champion(session, version) for _ in range(2)]
    prod = local_session(name, model_registry="databricks-uc", **dict(zip(NAMESPACE, ("prod", "ml"), strict=True)))
    champion = tracking.resolve_version(prod, full_name, "")
    deleted = [[item.name, item.delete()] for item in planned(name, catalog="prod", force="true")]
    return {
        "ends": ends,
        "found": found,
        "said": said,
        "champion": [str(champion.version), tracking.run_id(champion) == tracking.run_id(version)],
        "deleted": deleted,
    }


def register_and_be_killed(name: str) -> dict[str, Any]:
    """Register a run's model in a process that is killed during the upload, and then again."""
    session, faults = session_of(name), AzureMLStandIn.from_environment().faults
    full_name, run = f"main.ml.{name}", log_run(name)

    def register() -> tuple[Any, bool]:
        return registration.register(session, run, tracking.logged_model_uri(session, run), full_name, CHECKS)

    ends = in_other_processes(
        register, prepare=lambda: faults.add("PUT /storage/.*model.skops", "kill", times=1, pid=os.getpid())
    )
    left = all_versions(session.registry, full_name)
    unfinished = [error_of(tracking.resolve_version, session, full_name, number) for number in ("", "1")]
    version, is_new = register()
    registration.take_place(session, version, "", "auto")
    return {
        "ends": ends,
        "left": left,
        "unfinished": unfinished,
        "registered": [str(version.version), is_new],
        "again": register()[1],
        "labels": labels_of(session, tracking.resolve_version(session, full_name, ""), f"files_of_{name}") == LABELS,
        "first": error_of(tracking.resolve_version, session, full_name, "1"),
        "planned": [[item.name, item.keep_reason] for item in planned(name)],
    }


def finish_in_the_other_order(name: str) -> dict[str, Any]:
    """Share a champion in two processes, of which the one that made the first version finishes last."""
    faults = AzureMLStandIn.from_environment().faults
    session = local_session(name, model_registry="local", share_with=PROD)
    version, full_name = champion_of(session, name), f"prod.ml.{name}"
    # The first one waits here until the fault is switched off.
    faults.add("POST .*/model-versions/finalize", times=1, together=2)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            tracking.share_champion(session, version)
            status = 0
        finally:
            os._exit(status)
    while not faults.all()[0].taken:
        # Waits for ever only if the other process does.
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "the other process ended before it finished its version"
        time.sleep(0.05)
    said = tracking.share_champion(session, version)
    faults.clear()
    end = os.waitpid(pid, 0)[1]
    return {"said": said, "end": end} | checked(session.share_with, full_name, f"checked_{name}")


def share_what_cannot_be_stored(name: str) -> dict[str, Any]:
    """Share models that Unity Catalog does not accept, and one for whose files a package is missing here."""
    session = local_session(name, model_registry="local", share_with=PROD)
    with mlflow.start_run():
        uri = mlflow.sklearn.log_model(
            LogisticRegression().fit(ROWS, LABELS), name="model", pip_requirements=[]
        ).model_uri
    unsigned = mlflow.register_model(uri, f"{name}_unsigned")
    elsewhere = local_session(name, model_registry="local", share_with=f"databricks-uc/{IN_OWN_STORAGE}.ml")
    version = champion_of(elsewhere, name)
    errors = [
        error_of(tracking.copy_version, session.registry, unsigned, session.share_with, "prod", "ml"),
        error_of(tracking.share_champion, elsewhere, version),
    ]
    names = [f"prod.ml.{name}_unsigned", f"{IN_OWN_STORAGE}.ml.{name}"]
    return {"errors": errors, "usable": [len(versions_in(session.share_with, full_name)) for full_name in names]}
