"""Azure ML's own monitor of an endpoint, by `helpers.monitoring`."""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from helpers import cleanup, kinds, monitoring, parameters, tracking
from helpers.azureml import artifacts
from helpers.monitoring.azureml.schedule import items
from helpers.monitoring.baseline import Baseline
from helpers.monitoring.bins import CategoryBins, Counted, NumberBins
from helpers.ownership import MARK
from tests.scenarios.azureml import deploying
from tests.scenarios.errors import error_of
from tests.stand_ins import both_servers
from tests.stand_ins.azureml_workspace import AzureMLStandIn

MODEL, ENDPOINT = "watched", "watched-endpoint"
SCHEDULE = f"{ENDPOINT}-monitor"
COLLECTS = {name: {"dataCollectionMode": "Enabled"} for name in ("model_inputs", "model_outputs")}
_NUMBERS = Counted(NumberBins((1.0,), 0.0, 2.0), [0, 5, 5, 0, 0])
_TEXTS = Counted(CategoryBins(("a", "b")), [5, 5, 0, 0])
BASELINE = Baseline(
    "training rows", {"x": _NUMBERS, "colour": _TEXTS}, "regressor", "r2_score", {}, None, None, (0.0, 0.0, 1)
)
ROWS = pd.DataFrame({"label": [1, 2], "colour": ["a", None], "x": [0.5, 1.5]})


class Versions:
    """Versions with a baseline, and with training rows if there are any."""

    def __init__(self, baseline: Baseline | None, rows: pd.DataFrame | None) -> None:
        self._baseline, self._rows = baseline, rows

    def baseline(self, number: str) -> Baseline | None:
        """Return the baseline, which only version 1 has."""
        return self._baseline if number == "1" else None

    def training_rows(self, number: str, columns: list[str]) -> pd.DataFrame | None:
        """Return the rows of version 1."""
        assert number == "1"
        return None if self._rows is None else self._rows[columns]


def deploy() -> None:
    """Make the endpoint and two deployments, of which the second collects data; somebody else has an endpoint, too."""
    warnings.filterwarnings("ignore")
    logging.getLogger("mlflow").setLevel("ERROR")
    version = deploying.register(MODEL, deploying.save_model(2, *deploying.FOR_AML))
    for name, tags in ((ENDPOINT, {MARK: MODEL}), ("somebodys", {})):
        body = {"location": "westeurope", "tags": tags, "properties": {"authMode": "Key"}}
        deploying.wait_for(deploying.arm("PUT", f"/{name}", body))
    starting = []
    for name, more in (("silent", {}), ("telling", {"dataCollector": {"collections": COLLECTS}})):
        body = deploying.deployment(f"{MODEL}/{version}", **more)
        starting.append(deploying.arm("PUT", f"/{ENDPOINT}/deployments/{name}", body))
    for answer in starting:
        deploying.wait_for(answer)


def copied_from(source: str) -> None:
    """Mark version 1 in Azure ML as a copy of another registry's version, or, with an empty text, as none."""
    client = _session(parameters.Monitor)[0].client()
    client.set_model_version_tag(MODEL, "1", tracking.SOURCE_TAG, source)


def set_traffic(**traffic: int) -> None:
    """Divide the endpoint's requests among its deployments."""
    body = {"location": "westeurope", "tags": {MARK: MODEL}, "properties": {"authMode": "Key", "traffic": traffic}}
    deploying.wait_for(deploying.arm("PUT", f"/{ENDPOINT}", body))


def delete_endpoints() -> None:
    """Delete the endpoints: other tests need the same quota and list what there is."""
    for ending in [deploying.arm("DELETE", f"/{name}") for name in (ENDPOINT, "somebodys")]:
        deploying.wait_for(ending)


def _session(group: type, **changes: Any) -> tuple[tracking.Session, Any]:
    names = {"tracking_mode": "azureml", "model_name": MODEL, "experiment_name": "monitors"}
    p = both_servers.parameters(group, **names | changes)
    return tracking.configure(p, create=False), p


def schedule(
    model: str = MODEL, baseline: Baseline | None = BASELINE, with_rows: bool = False, **changes: Any
) -> list[str]:
    """Create or update the monitor; return what is said of it, with its studio page."""
    session, p = _session(parameters.Monitor, **{"azureml_monitor": "true", "model_name": model} | changes)
    versions = Versions(baseline, ROWS if with_rows else None)
    return [str(made) for made in monitoring.schedule_monitors(session, p, model, versions)]


def reference(uri: str) -> dict[str, Any]:
    """Return the files that a URI of the monitor's training rows names, by name, and the rows."""
    run_id = re.fullmatch(r".*/paths/ExperimentRun/dcid\.([^/]+)/monitor_reference", uri)[1]
    session, _ = _session(parameters.Monitor)
    run = session.client().get_run(run_id)
    folder = Path("downloaded")
    artifacts.download_folder(session.workspace.tracking_uri, f"{run.info.artifact_uri}/monitor_reference", folder)
    rows = pd.read_parquet(folder / "DATA.parquet")
    return {
        "files": sorted(file.name for file in folder.iterdir()),
        "mltable": (folder / "MLTable").read_text(),
        "rows": rows.to_dict("list"),
    }


def schedule_without_baseline(**changes: Any) -> list[str]:
    """Create or update the monitor of a version that has no baseline."""
    return schedule(baseline=None, **changes)


def error_of_schedule(**changes: Any) -> str | None:
    """Return why the monitor is not made."""
    return error_of(schedule, **changes)


def read() -> dict[str, Any] | None:
    """Return the schedule's resource as Azure Resource Manager has it, or None."""
    manager = _session(parameters.Monitor)[0].workspace.manager
    path = f"{AzureMLStandIn.workspace_resource_id}/schedules"
    found = manager.get_all(path, api_version="2024-10-01", listViewType="All")
    return next((resource for resource in found if resource["name"] == SCHEDULE), None)


def put(name: str = SCHEDULE, tags: dict[str, str] | None = None, **changes: Any) -> str | None:
    """Write a schedule as somebody else does in studio; return the error, or None."""
    manager = _session(parameters.Monitor)[0].workspace.manager
    properties = {key: value for key, value in read()["properties"].items() if key != "provisioningState"}
    properties |= {"tags": properties["tags"] if tags is None else tags} | changes
    path = f"{AzureMLStandIn.workspace_resource_id}/schedules/{name}"
    return error_of(manager.put, path, {"properties": properties}, api_version="2024-10-01")


def clean_up(requested: str = "monitors", **changes: Any) -> list[list[str]]:
    """List and delete the monitors; return name, place and result of each."""
    session, p = _session(parameters.CleanUp, **changes)
    planned = cleanup.plan(list(items(None, session, p)), requested.split(", "))
    outcomes = list(cleanup.delete(planned))
    assert {outcome.item.kind for outcome in outcomes} <= set(kinds.CLEAN_UP)
    return [[outcome.item.name, outcome.item.where, outcome.result] for outcome in outcomes]


def delete_schedules() -> None:
    """Delete all schedules, whoever made them."""
    manager = _session(parameters.Monitor)[0].workspace.manager
    path = f"{AzureMLStandIn.workspace_resource_id}/schedules"
    while found := list(manager.get_all(path, api_version="2024-10-01", listViewType="All")):
        for resource in found:
            manager.delete(f"{path}/{resource['name']}", api_version="2024-10-01")
