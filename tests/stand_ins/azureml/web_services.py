"""AML's web services of version 1, on Azure Container Instances (ACI) and on Kubernetes (AKS).

Only those calls of the service called model management (MMS) exist that azureml-mlflow makes, in the form of
its ``_restclient/mms``. https://learn.microsoft.com/azure/machine-learning/v1/how-to-deploy-and-where
"""

from __future__ import annotations

import re
import secrets
import threading
import uuid
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, request

from tests.stand_ins.azureml import names, scoring
from tests.stand_ins.azureml.entra import Entra
from tests.stand_ins.azureml.errors import json_answer
from tests.stand_ins.azureml.long_running import RETRY_AFTER, Operation, OperationError, Operations
from tests.stand_ins.azureml.model_server import ModelFiles, ModelServer, ModelServerError, ModelServers

_API = f"/modelmanagement/v1.0{names.workspace_resource_id()}"
_SERVICES = f"{_API}/services"
_SERVICE = f"{_SERVICES}/<service>"
_SCORING = "/api/v1/service/<service>"
_STATES = {"InProgress": "Running", "Succeeded": "Succeeded", "Failed": "Failed"}


@dataclass
class WebService:
    """A web service: its description, keys, and the server that answers."""

    content: dict[str, Any]
    keys: dict[str, str]
    server: ModelServer | None = None


class WebServices:
    """The web services of the workspace, by name.

    Parameters
    ----------
    url : str
        Of the server.
    entra : Entra
    operations : Operations
    model_files : ModelFiles
    model_servers : ModelServers
    """

    def __init__(
        self, url: str, entra: Entra, operations: Operations, model_files: ModelFiles, model_servers: ModelServers
    ) -> None:
        self._url = url
        self._entra = entra
        self._operations = operations
        self._model_files = model_files
        self._model_servers = model_servers
        self._services: dict[str, WebService] = {}
        self._lock = threading.Lock()
        self.blueprint = routes = Blueprint("web_services", __name__)
        routes.get(_SERVICES)(self._list)
        routes.post(_SERVICES)(self._create)
        routes.get(_SERVICE)(self._get)
        routes.patch(_SERVICE)(self._patch)
        routes.delete(_SERVICE)(self._delete)
        routes.post(f"{_SERVICE}/listkeys")(self._list_keys)
        routes.post(f"{_SERVICE}/token")(self._token)
        routes.get(f"{_API}/operations/<operation>")(self._operation)
        self.scoring = Blueprint("web_service_scoring", __name__, url_prefix=_SCORING)
        self.scoring.post("/score")(self._score)
        self.scoring.get("/swagger.json")(self._swagger)

    def _list(self) -> Response:
        kind = request.args.get("computeType")
        contents = [item.content for item in self._services.values() if kind in (None, item.content["computeType"])]
        return json_answer({"value": contents, "nextLink": None})

    def _get(self, service: str) -> Response:
        existing = self._services.get(service)
        return json_answer(existing.content) if existing else _no_such_service(service)

    def _create(self) -> Response:
        sent = request.get_json()
        name = sent["name"]
        with self._lock:
            if name in self._services:
                return _error(409, "ServiceAlreadyExists", f"A service with name {name} already exists.")
            if not re.fullmatch(r"[a-z](?:[a-z0-9-]*[a-z0-9])?", name) or not 3 <= len(name) <= 32:
                rules = "lowercase letters, numbers and dashes, a letter first, between 3 and 32 characters"
                return _error(400, "BadRequest", f"Service name {name} is invalid: it must have {rules}.")
            compute = sent.get("computeName")
            if sent["computeType"] == "AKS" and compute != names.ATTACHED_COMPUTE:
                return _error(400, "ComputeNotFound", f"Compute target {compute} was not found in the workspace.")
            model = self._model(sent["environmentImageRequest"])
            if model is None:
                return _error(404, "ModelNotFound", "A model of the request was not found in the workspace.")
            given = sent.get("keys") or {}
            keys = {key: given.get(key) or secrets.token_urlsafe(24) for key in ("primaryKey", "secondaryKey")}
            service = WebService(self._content(name, sent), keys)
            self._services[name] = service
            return _accepted(self._operations.start(lambda: self._deploy(service, model)))

    def _patch(self, service: str) -> Response:
        with self._lock:
            existing = self._services.get(service)
            if existing is None:
                return _no_such_service(service)
            changes = {change["path"].strip("/"): change["value"] for change in request.get_json()}
            model = None
            if "environmentImageRequest" in changes:
                model = self._model(changes["environmentImageRequest"])
                if model is None:
                    return _error(404, "ModelNotFound", "A model of the request was not found in the workspace.")
            for path, value in changes.items():
                *parents, last = path.split("/")
                target = existing.content
                for parent in parents:
                    target = target.setdefault(parent, {})
                target[last] = value
            existing.content["updatedTime"] = _now()
            if model is None:
                return Response(status=200, headers=_operation_location(self._operations.start(_nothing)))
            existing.content["state"] = "Transitioning"
            return _accepted(self._operations.start(lambda: self._deploy(existing, model)))

    def _delete(self, service: str) -> Response:
        with self._lock:
            existing = self._services.pop(service, None)
        if existing is None:
            return Response(status=204)

        def work() -> None:
            if existing.server is not None:
                existing.server.stop()

        return _accepted(self._operations.start(work))

    def _deploy(self, service: WebService, model: Path) -> None:
        log_file = self._model_servers.new_log()
        try:
            # The environment in the request has the package that AML's scoring script needs.
            server = self._model_servers.start(model, log_file, {}, needs_aml=False)
        except ModelServerError:
            message = "Your container application crashed. This may be caused by errors in your scoring file's init()"
            failure = OperationError(f"{message} function: {log_file.read_text()[-2000:]}", "AciDeploymentFailed")
            service.content |= {"state": "Failed", "error": failure.error | {"statusCode": 400}}
            raise failure from None
        with self._lock:
            if self._services.get(service.content["name"]) is service:
                unused, service.server = service.server, server
                service.content |= {"state": "Healthy", "error": None}
            else:
                # The service was deleted in the meantime.
                unused = server
        if unused is not None:
            unused.stop()

    def _list_keys(self, service: str) -> Response:
        existing = self._services.get(service)
        return json_answer(existing.keys) if existing else _no_such_service(service)

    def _token(self, service: str) -> Response:
        if service not in self._services:
            return _no_such_service(service)
        token = self._entra.scoring_token(_token_scope(service))
        names_of_version_1 = {"expiryTimeUtc": "expiryOn", "refreshAfterTimeUtc": "refreshAfter"}
        return json_answer({names_of_version_1.get(key, key): value for key, value in token.items()}, 201)

    def _operation(self, operation: str) -> Response:
        started = self._operations.get(operation)
        if started is None:
            return _error(404, "NoSuchOperation", f"No operation with id {operation} was found.")
        state = _STATES[started.status()]
        content = {"id": operation, "operationType": "Service", "state": state, "createdTime": started.start_time}
        if state == "Failed":
            content |= {"error": started.error, "operationDetails": {"subOperationType": "DeployService"}}
        answer = json_answer(content)
        answer.headers["Retry-After"] = RETRY_AFTER
        return answer

    def _model(self, image_request: dict[str, Any]) -> Path | None:
        name, _, version = image_request["modelIds"][0].partition(":")
        return self._model_files.folder(name, version)

    def _content(self, name: str, sent: dict[str, Any]) -> dict[str, Any]:
        by_token = bool(sent.get("aadAuthEnabled"))
        by_key = sent.get("authEnabled")
        if by_key is None:
            # By default, a service on Kubernetes has keys, and one on a container instance does not.
            by_key = sent["computeType"] == "AKS" and not by_token
        address = f"{self._url}{_SCORING.replace('<service>', name)}"
        details = {key: value for key, value in sent.items() if key not in ("keys", "overwrite")}
        return details | {
            "id": name,
            "kvTags": sent.get("kvTags") or {},
            "properties": sent.get("properties") or {},
            "state": "Transitioning",
            "createdTime": _now(),
            "updatedTime": _now(),
            "createdBy": {"userName": names.CLIENT_ID, "userTenantId": names.TENANT},
            "location": names.REGION,
            # The plugin asks for a token only if the answer does not say whether there are keys.
            "authEnabled": None if by_token else by_key,
            "aadAuthEnabled": by_token,
            "scoringUri": f"{address}/score",
            "swaggerUri": f"{address}/swagger.json",
        }

    def _score(self, service: str) -> Response:
        refusal = self._scoring_refusal(service)
        if refusal is not None:
            return refusal
        with self._lock:
            server = self._services[service].server
            if server is None:
                return scoring.scoring_error(503, "ServiceUnavailable", f"Service {service} is not ready.")
            server.begin()
        try:
            # https://learn.microsoft.com/azure/machine-learning/v1/how-to-troubleshoot-deployment (HTTP status 502)
            return scoring.answer(server, request.get_data(), status_of_errors=502)
        finally:
            server.end()

    def _swagger(self, service: str) -> Response:
        return self._scoring_refusal(service) or json_answer(scoring.SWAGGER)

    def _scoring_refusal(self, service: str) -> Response | None:
        existing = self._services.get(service)
        if existing is None:
            return scoring.scoring_error(404, "NotFound", f"Service {service} was not found.")
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if existing.content["aadAuthEnabled"]:
            good = self._entra.is_scoring_token(given, _token_scope(service))
        else:
            good = not existing.content["authEnabled"] or given in existing.keys.values()
        return None if good else scoring.scoring_error(401, "Unauthorized", "The key or token is missing or wrong.")


def _token_scope(service: str) -> str:
    return f"{_SERVICES}/{service}"


def _accepted(operation: Operation) -> Response:
    return Response(status=202, headers=_operation_location(operation))


def _operation_location(operation: Operation) -> dict[str, str]:
    return {"Operation-Location": f"{_API}/operations/{operation.id}", "Retry-After": RETRY_AFTER}


def _nothing() -> None:
    pass


def _no_such_service(name: str) -> Response:
    return _error(404, "NoSuchService", f"No service with name {name} found.")


def _error(status: int, code: str, message: str) -> Response:
    """Return an error of model management: a ``ModelErrorResponse`` without a wrapper."""
    correlation = {"RequestId": str(uuid.uuid4())}
    content = {"code": code, "statusCode": status, "message": message, "details": [], "correlation": correlation}
    return json_answer(content, status)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()
