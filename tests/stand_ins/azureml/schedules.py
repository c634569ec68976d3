"""Azure Resource Manager's schedules, of which this stand-in takes those that create a monitor.

https://learn.microsoft.com/rest/api/azureml/schedules
"""

from __future__ import annotations

import copy
import json
import re
import threading
from datetime import datetime, timezone
from typing import Any

import jsonschema
from flask import Blueprint, Response, request

from tests.stand_ins.azureml import names
from tests.stand_ins.azureml.arm import missing, not_found
from tests.stand_ins.azureml.errors import arm_error, json_answer
from tests.stand_ins.azureml.long_running import Operations
from tests.stand_ins.azureml.monitor_schema import NAME, SCHEDULE
from tests.stand_ins.azureml.pages import page

_WORKSPACE = (
    "/subscriptions/<subscription>/resourceGroups/<group>/providers/Microsoft.MachineLearningServices/workspaces/<name>"
)
_CHANGING = ("Creating", "Updating", "Deleting")


class Schedules:
    """The schedules of all workspaces, by lower-case resource id.

    Parameters
    ----------
    url : str
        Of the server.
    operations : Operations
    """

    def __init__(self, url: str, operations: Operations) -> None:
        self._url, self._operations = url, operations
        self._lock = threading.Lock()
        self._schedules: dict[str, dict[str, Any]] = {}
        self.blueprint = routes = Blueprint("schedules", __name__)
        routes.before_request(lambda: missing() or self._missing_workspace())
        routes.get(f"{_WORKSPACE}/schedules")(self._list)
        routes.get(f"{_WORKSPACE}/schedules/<schedule>")(self._get)
        routes.put(f"{_WORKSPACE}/schedules/<schedule>")(self._put)
        routes.delete(f"{_WORKSPACE}/schedules/<schedule>")(self._delete)

    def _missing_workspace(self) -> Response | None:
        known = (names.WORKSPACE, names.PRIVATE_WORKSPACE, names.PROD_WORKSPACE)
        return None if (request.view_args or {}).get("name", "").lower() in known else not_found()

    def _list(self, **_: str) -> Response:
        """Return one schedule per page, and only enabled ones unless ``listViewType`` says otherwise."""
        view = request.args.get("listViewType", "EnabledOnly")
        shown = {"All": (True, False), "EnabledOnly": (True,), "DisabledOnly": (False,)}[view]
        with self._lock:
            found = [
                schedule
                for key, schedule in self._schedules.items()
                if key.startswith(f"{request.path.lower()}/") and schedule["properties"]["isEnabled"] in shown
            ]
        return page(self._url, found)

    def _get(self, **_: str) -> Response:
        schedule = self._schedules.get(request.path.lower())
        return json_answer(schedule) if schedule else not_found()

    def _put(self, schedule: str, **_: str) -> Response:
        sent, key = request.get_json(), request.path.lower()
        refusal = _refusal(schedule, sent)
        if refusal:
            return arm_error(400, "UserError", refusal)
        with self._lock:
            existing = self._schedules.get(key)
            if existing and existing["properties"]["provisioningState"] in _CHANGING:
                return arm_error(409, "Conflict", f"There is already an operation in progress on '{schedule}'.")
            state = "Updating" if existing else "Creating"
            resource = {
                "id": request.path,
                "name": schedule,
                "type": "Microsoft.MachineLearningServices/workspaces/schedules",
                "properties": {"isEnabled": True, "tags": {}} | sent["properties"] | {"provisioningState": state},
                "systemData": {"createdAt": datetime.now(timezone.utc).isoformat(), "createdByType": "Application"},
            }
            self._schedules[key] = resource
            answer = copy.deepcopy(resource)

        def work() -> None:
            resource["properties"]["provisioningState"] = "Succeeded"

        return self._operations.accepted(answer, 200 if existing else 201, self._operations.start(work))

    def _delete(self, **_: str) -> Response:
        key = request.path.lower()
        with self._lock:
            existing = self._schedules.get(key)
            if existing is None:
                return Response(status=204)
            existing["properties"]["provisioningState"] = "Deleting"

        def work() -> None:
            with self._lock:
                del self._schedules[key]

        return self._operations.accepted(None, 202, self._operations.start(work))


def _refusal(name: str, sent: dict[str, Any]) -> str | None:
    """Check a schedule against the specification, and what it says of the deployment's data; the wording is not AML's."""
    if not re.fullmatch(NAME, name):
        return f"The schedule name '{name}' does not match {NAME}."
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(SCHEDULE).iter_errors(sent))
    return f"{error.json_path}: {error.message}" if error else _refusal_of_json(sent)


def _refusal_of_json(sent: dict[str, Any]) -> str | None:
    """Refuse Infinity and NaN, which Python's client would send although JSON does not have them."""
    try:
        json.dumps(sent, allow_nan=False)
    except ValueError as error:
        return str(error)
    return None
