"""Models that go from one registry to another: local, Azure ML's workspaces and registry, Databricks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow

from helpers import parameters, registration, serving, tracking
from helpers.tracking import inventory
from helpers.tracking.versions import versions_in
from tests.scenarios.azureml.tracked_models import LABELS, ROWS, log_run
from tests.scenarios.errors import error_of
from tests.stand_ins import both_servers
from tests.stand_ins.azureml import names
from tests.stand_ins.azureml_workspace import AzureMLStandIn

REGISTRY = f"azureml://registries/{names.REGISTRY}"
PROD = f"azureml:/{names.workspace_resource_id(names.PROD_WORKSPACE)}"
CHECKS = {"check_threshold": "passed: 1 is at least 0.9", "metric_accuracy_score": "1"}


def session_of(name: str, **changes: str) -> tracking.Session:
    """Return a session of 03_register for a model."""
    values = {"tracking_mode": "local", "experiment_name": "shared", "model_name": name} | changes
    return tracking.configure(both_servers.parameters(parameters.Register, **values))


def champion_of(session: tracking.Session, name: str) -> Any:
    """Register a run's model and make it the champion; return its version."""
    run = log_run(name)
    version, _ = registration.register(session, run, tracking.logged_model_uri(session, run), name, CHECKS)
    tracking.promote(session, name, str(version.version))
    return version


def numbers_in(server: Any, name: str) -> list[str]:
    """Return the numbers of a model's versions in a registry."""
    versions = server.client().search_model_versions(f"name = '{name}'")
    return sorted(str(version.version) for version in versions)


def labels_of(session: tracking.Session, version: Any, folder: str) -> list[str]:
    """Load a version of the session's registry, and return its predictions."""
    files = tracking.download_model(session, f"models:/{version.name}/{version.version}", Path(folder))
    return list(mlflow.pyfunc.load_model(str(files)).predict(ROWS))


def clean_up(name: str) -> list[list[str]]:
    """Delete what this bundle made in the registry, as 07_clean_up does; return what was listed."""
    values = {"tracking_mode": "local", "model_registry": REGISTRY, "experiment_name": "empty", "model_name": name}
    p = both_servers.parameters(parameters.CleanUp, **values)
    listed = [
        item
        for item in inventory.items(None, tracking.configure(p, create=False), p)
        if item.where.endswith(names.REGISTRY)
    ]
    return [[item.name, item.keep_reason, "" if item.keep_reason else str(item.delete())] for item in listed]


def from_test_to_prod(name: str) -> dict[str, Any]:
    """Share a local champion with the registry, use it in the workspace of production, and copy it on."""
    test = session_of(name, share_with=REGISTRY)
    version = champion_of(test, name)
    said = [tracking.share_champion(test, version)]
    # 08_approve writes who approved it after it was shared.
    mlflow.MlflowClient().set_model_version_tag(name, version.version, tracking.APPROVED_BY_TAG, "Ada")
    said.append(tracking.share_champion(test, version))
    second = champion_of(test, name)
    said += [tracking.share_champion(test, version), tracking.share_champion(test, second)]
    prod = session_of(name, tracking_mode="azureml", azureml_workspace=names.PROD_WORKSPACE, model_registry=REGISTRY)
    shared = tracking.resolve_version(prod, name, "")
    first = tracking.resolve_version(prod, name, "1")
    deployed = [tracking.in_azureml(prod, shared) for _ in range(2)]
    databricks = tracking.server_at("databricks", prod.connection, "share_with")
    copied = [tracking.copy_version(prod.azureml_server, deployed[0][0], databricks) for _ in range(2)]
    local = tracking.server_at("local", prod.connection, "share_with")
    back = tracking.copy_version(databricks, copied[0][0], local)
    run = databricks.client().get_run(copied[0][0].run_id)
    return {
        "said": said,
        "numbers": {"shared": numbers_in(prod.registry, name), "prod": numbers_in(prod.azureml_server, name)},
        "tags": {"first": first.tags, "shared": shared.tags, "prod": deployed[0][0].tags, "copied": copied[0][0].tags},
        "new": [new for _, new in (*deployed, *copied, back)],
        "back": [back[0].version, tracking.run_id(back[0]) == tracking.run_id(second)],
        "addresses": {"local": test.registry.address, "prod": prod.azureml_server.address},
        "run_id": tracking.run_id(second),
        "labels": labels_of(prod, shared, f"shared_{name}") == LABELS,
        "copied_labels": list(mlflow.pyfunc.load_model(f"{run.info.artifact_uri}/model").predict(ROWS)) == LABELS,
        "deleted": clean_up(name),
        "left": numbers_in(prod.registry, name),
        "run_here": [
            tracking.run_of_version(it, version) is not None for it, version in ((prod, shared), (test, second))
        ],
        "examples": serving.example_rows(None, prod, None, shared).equals(ROWS),
        "page": prod.table().set_index("what").loc["model registry", "open"],
    }


def in_other_processes(work: Callable[[], Any], times: int = 1, prepare: Callable[[], Any] = lambda: None) -> list[int]:
    """Do something in processes of its own at the same time; return how they ended, 0 if well."""
    started = []
    for _ in range(times):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                prepare()
                work()
                status = 0
            finally:
                # The copy of the process must not go on with what the original does next.
                os._exit(status)
        started.append(pid)
    return [os.waitpid(pid, 0)[1] for pid in started]


def shared(session: tracking.Session, name: str) -> dict[str, Any]:
    """Return the versions of a model in the registry that it is shared with, and what the champion there predicts."""
    target = session.share_with
    champion = max(versions_in(target, name), key=lambda version: int(version.version))
    files = target.download(f"models:/{name}/{champion.version}", Path(f"checked_{name}"))
    return {
        "numbers": numbers_in(target, name),
        "is_champion": tracking.CHAMPION in champion.tags,
        "tags": CHECKS.items() <= champion.tags.items(),
        "labels": list(mlflow.pyfunc.load_model(str(files)).predict(ROWS)) == LABELS,
    }


def share_and_be_killed(
    session: tracking.Session, version: Any, steps: list[list[str]], look: Callable[[], Any]
) -> tuple[list[int], list[Any]]:
    """Share a champion in one process per step, which a fault kills; return how each ended, and what `look` then returned."""
    faults = AzureMLStandIn.from_environment().faults
    ends, seen = [], []
    for pattern, answer in steps:
        ends += in_other_processes(
            lambda: tracking.share_champion(session, version),
            prepare=lambda: faults.add(pattern, answer, times=1, pid=os.getpid()),  # noqa: B023
        )
        faults.clear()
        seen.append(look())
    return ends, seen


def be_killed(name: str, target: str, steps: list[list[str]]) -> dict[str, Any]:
    """Share a champion in processes that are killed at one request after the other, and then in one that is not.

    Parameters
    ----------
    name, target : str
    steps : list of (str, str)
        Pattern and answer of a fault: ``kill`` or ``kill_after``.
    """
    session = session_of(name, share_with=target)
    version = champion_of(session, name)
    ends, versions = share_and_be_killed(session, version, steps, lambda: numbers_in(session.share_with, name))
    last = tracking.share_champion(session, version)
    return {"ends": ends, "versions": versions, "last": last} | shared(session, name)


def share_at_once(name: str, target: str, pattern: str) -> dict[str, Any]:
    """Share a champion in two processes that send a request at the same time."""
    session = session_of(name, share_with=target)
    version = champion_of(session, name)
    faults = AzureMLStandIn.from_environment().faults
    faults.add(pattern, times=2, together=2)
    ends = in_other_processes(lambda: tracking.share_champion(session, version), times=2)
    return {"ends": ends, "raced": faults.clear()[0].taken} | shared(session, name)


def copy_two_versions_at_once(name: str) -> dict[str, Any]:
    """Copy two versions in two processes that choose the same number; delete the newer copy, and copy that one again."""
    session = session_of(name, share_with=REGISTRY)
    target, versions = session.share_with, [champion_of(session, name) for _ in range(2)]
    faults = AzureMLStandIn.from_environment().faults
    faults.add("POST .*/versions/1/startPendingUpload", times=2, together=2)
    pid = os.fork()
    if pid == 0:
        tracking.copy_version(session.registry, versions[0], target)
        os._exit(0)
    tracking.copy_version(session.registry, versions[1], target)
    end = os.waitpid(pid, 0)[1]
    copies, raced = versions_in(target, name), faults.clear()[0].taken
    target.client().delete_model_version(name, copies[1].version)
    again = [tracking.copy_version(session.registry, version, target) for version in versions]
    return {
        "end": end,
        "raced": raced,
        "again": sorted([copy.version, new] for copy, new in again),
        "numbers": [copy.version for copy in copies],
        "sources": sorted(copy.tags[tracking.SOURCE_TAG].rpartition("/")[2] for copy in copies),
    }


def share_while_the_registry_fails(name: str) -> dict[str, Any]:
    """Share a champion while the registry answers with errors, and again when it does not."""
    session = session_of(name, share_with=REGISTRY)
    version = champion_of(session, name)
    faults = AzureMLStandIn.from_environment().faults
    faults.add("PUT .*/registries/.*/versions/1", 503)
    failed = error_of(tracking.share_champion, session, version)
    faults.clear()
    left = numbers_in(session.share_with, name)
    faults.add("POST .*/startPendingUpload", 403)
    without_role = error_of(tracking.share_champion, session, version)
    faults.clear()
    said = tracking.share_champion(session, version)
    return {"failed": failed, "left": left, "without_role": without_role, "said": said} | shared(session, name)


def name_what_cannot_be_shared_with() -> dict[str, Any]:
    """Return the errors for registries that cannot be used, and the experiments that were made nevertheless."""
    wrong = {
        "unknown": {"share_with": "azureml://registries/nobodys"},
        "unknown_registry": {"model_registry": "azureml://registries/nobodys"},
        "itself": {"share_with": "local"},
        "name": {"share_with": REGISTRY, "model_name": "two words"},
        "form": {"share_with": "azureml://registry/shared-models"},
    }
    errors = {key: error_of(session_of, "wrong", experiment_name="never", **changes) for key, changes in wrong.items()}
    faults = AzureMLStandIn.from_environment().faults
    faults.add("GET .*/registries/shared-models/models/", 403)
    errors["role"] = error_of(session_of, "wrong", experiment_name="never", share_with=REGISTRY)
    faults.clear()
    return errors | {"made": mlflow.get_experiment_by_name("never") is not None}
