"""The schedule of Azure ML's own monitor: created, updated when its definition changes, and deleted by clean-up.

It is made through Azure Resource Manager, with the client that signs in to the workspace anyway. `azure-ai-ml` 1.35 would
add 26 packages, and it sends a preview version of the same request.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from helpers import tracking
from helpers.azureml.rest import AzureError, wait
from helpers.azureml.workspace import API_VERSION, Workspace
from helpers.monitoring.azureml.definition import definition
from helpers.monitoring.azureml.reference import Reference, Versions
from helpers.monitoring.azureml.watched import Watched, watched_deployments
from helpers.ownership import MARK, NOT_OURS, OTHER_MODEL, Item
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion
    from pyspark.sql import SparkSession

    from helpers.parameters import CleanUp, Monitor

# The digest of the definition that was sent last. Azure ML may add to a schedule and reorder it, so that it cannot be
# compared with a new definition.
_DIGEST = f"{MARK}_definition"
_LONGEST_WAIT_SECONDS = 10 * 60


@dataclass(frozen=True)
class AzureMLMonitor:
    """What `schedule_monitors` found or made.

    Attributes
    ----------
    name : str
        Of the schedule.
    change : str
        ``created``, ``updated`` or ``unchanged``.
    watched : Watched
    is_enabled : bool
        False if somebody has paused it.
    with_training_rows : bool
        Whether inputs are compared with training rows of the version, or with what was collected before.
    page : str
        Address of the monitors in Azure Machine Learning studio.
    """

    name: str
    change: str
    watched: Watched
    is_enabled: bool
    with_training_rows: bool
    page: str

    def __str__(self) -> str:
        next_step = "The first result comes after its first run" if self.change == "created" else "Results"
        if not self.is_enabled:
            next_step = "It is paused: no new results come before you enable it"
        compared = "training rows of its version" if self.with_training_rows else "those that were collected before"
        return (
            f"{self.name}: {self.change}, {'enabled' if self.is_enabled else 'paused'}; it compares the inputs of "
            f"deployment {self.watched.deployment} of endpoint {self.watched.endpoint} with {compared}. {next_step}: "
            f"{self.page}"
        )


def schedule_monitors(
    session: tracking.Session, p: Monitor, model_name: str, versions: Versions
) -> list[AzureMLMonitor]:
    """Create or update Azure ML's monitor of each managed endpoint that this bundle made for a model.

    It watches the deployment with most of the traffic. Training rows of the version are copied to its run in Azure ML, and
    the collected data is compared with them. Without such rows or without such a run, it is compared with data that was
    collected earlier. A schedule that somebody has paused stays paused.

    Parameters
    ----------
    session : helpers.tracking.Session
    p : helpers.parameters.Monitor
    model_name : str
        Name in the registry.
    versions : helpers.monitoring.azureml.reference.Versions
        What is known of the model's versions: `VersionsOnSpark`.

    Raises
    ------
    ParameterError
        If there is no workspace or endpoint, if the endpoint does not collect data, if the parameters turn off every
        measure, or if somebody else has a schedule of that name. In that case, nothing is written.
    helpers.azureml.rest.AzureError
        If the workspace cannot be used, or if Azure ML does not make the schedule.
    """
    if not session.connection.is_named:
        raise ParameterError(
            "azureml_monitor",
            True,
            "needs an Azure ML workspace. Give azureml_subscription_id, azureml_resource_group and azureml_workspace",
        )
    plans = [
        _Plan.make(session, p, model_name, versions, watched)
        for watched in watched_deployments(session.workspace, model_name)
    ]
    return [plan.carry_out(session.workspace) for plan in plans]


@dataclass(frozen=True)
class _Plan:
    """A schedule that is checked and not yet written."""

    name: str
    watched: Watched
    body: dict[str, Any]
    change: str
    reference: Reference | None
    # What is still to be uploaded to the reference.
    rows: pd.DataFrame | None

    @classmethod
    def make(
        cls, session: tracking.Session, p: Monitor, model_name: str, versions: Versions, watched: Watched
    ) -> _Plan:
        name = f"{watched.endpoint}-monitor"
        existing = _read(session.workspace, name) or {}
        known = existing.get("tags") or {}
        if existing and known.get(MARK) != model_name:
            raise ParameterError(
                "azureml_monitor",
                True,
                f"the workspace {session.workspace.name} has a schedule {name} that this bundle did not make for "
                f"{model_name}. Delete it there, or give the endpoint another name",
            )
        version = session.azureml_server.client().get_model_version(model_name, watched.version)
        number = _number_in_registry(session, version)
        baseline, reference, rows = versions.baseline(number), None, None
        if baseline and baseline.features and version.run_id:
            reference = Reference.of(session, version.run_id)
        if reference and not reference.exists():
            rows = versions.training_rows(number, list(baseline.features)) if baseline else None
            reference = None if rows is None else reference
        properties = definition(p, watched, baseline, reference.uri if reference else "")
        digest = hashlib.sha256(json.dumps(properties, sort_keys=True).encode()).hexdigest()[:16]
        is_same = known.get(_DIGEST) == digest and existing.get("provisioningState") == "Succeeded"
        return cls(
            name=name,
            watched=watched,
            # Who has paused the schedule wants it paused.
            body=properties
            | {"isEnabled": existing.get("isEnabled") is not False, "tags": {MARK: model_name, _DIGEST: digest}},
            change="unchanged" if is_same else "updated" if existing else "created",
            reference=reference,
            rows=rows,
        )

    def carry_out(self, workspace: Workspace) -> AzureMLMonitor:
        if self.reference is not None and self.rows is not None:
            self.reference.upload(self.rows)
        if self.change != "unchanged":
            workspace.manager.put(_path(workspace, self.name), {"properties": self.body}, api_version=API_VERSION)
            written = _settled(workspace, self.name)
            state = written["provisioningState"] if written else "missing"
            if state != "Succeeded":
                raise AzureError(f"Azure ML's monitor {self.name} was sent, and is in state {state}; run this again")
        return AzureMLMonitor(
            name=self.name,
            change=self.change,
            watched=self.watched,
            is_enabled=self.body["isEnabled"],
            with_training_rows=self.reference is not None,
            page=workspace.studio_url("monitoring"),
        )


def _number_in_registry(session: tracking.Session, version: ModelVersion) -> str:
    """Return the number that a version of Azure ML's registry has in the session's registry; empty if it has none."""
    if session.registry.in_azureml:
        return str(version.version)
    return version.tags.get(tracking.SOURCE_TAG, "").rpartition("/")[2]


def _path(workspace: Workspace, name: str = "") -> str:
    return f"{workspace.resource_id}/schedules/{name}".rstrip("/")


def _read(workspace: Workspace, name: str) -> dict[str, Any] | None:
    """Return the properties of a schedule, or None if there is none of that name."""
    try:
        return workspace.manager.get(_path(workspace, name), api_version=API_VERSION)["properties"]
    except AzureError as error:
        if error.status != 404:
            raise
        return None


def _settled(workspace: Workspace, name: str) -> dict[str, Any] | None:
    """Wait while Azure ML works on a schedule, and return its properties, or None if it is gone."""
    properties: dict[str, Any] | None = None

    def state() -> str:
        nonlocal properties
        properties = _read(workspace, name)
        return (properties or {}).get("provisioningState", "")

    wait(state, _LONGEST_WAIT_SECONDS)
    return properties


def items(spark: SparkSession, session: tracking.Session, p: CleanUp) -> Iterator[Item]:
    """Return the monitors in the Azure ML workspace that the parameters name, paused ones too, for clean-up."""
    del spark
    if not session.connection.is_named:
        return
    workspace = session.workspace
    model_name = session.registered_model_name(p.model_name, p.catalog, p.schema)
    # By default, Azure lists only those that are enabled.
    for resource in workspace.manager.get_all(_path(workspace), api_version=API_VERSION, listViewType="All"):
        properties = resource["properties"]
        if properties["action"]["actionType"] != "CreateMonitor":
            continue
        made_for = (properties.get("tags") or {}).get(MARK)
        reason = "" if made_for == model_name else NOT_OURS if made_for is None else OTHER_MODEL
        delete = partial(_delete, workspace, resource["name"])
        yield Item("monitors", resource["name"], f"Azure ML workspace {workspace.name}", delete, reason)


def _delete(workspace: Workspace, name: str) -> bool:
    if _read(workspace, name) is None:
        return False
    workspace.manager.delete(_path(workspace, name), api_version=API_VERSION)
    left = _settled(workspace, name)
    if left is not None:
        raise AzureError(f"Azure ML's monitor {name} was not deleted; it is in state {left.get('provisioningState')}")
    return True
