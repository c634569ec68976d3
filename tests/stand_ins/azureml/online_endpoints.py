"""Azure Resource Manager's online endpoints and their deployments, and the addresses where they score.

https://learn.microsoft.com/rest/api/azureml/online-endpoints and online-deployments next to it
"""

from __future__ import annotations

import copy
import json
import random
import re
import secrets
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, request

from tests.stand_ins.azureml import endpoint_rules, names, scoring
from tests.stand_ins.azureml.arm import missing, not_found
from tests.stand_ins.azureml.assets import Assets
from tests.stand_ins.azureml.endpoint_rules import Refusal
from tests.stand_ins.azureml.entra import Entra
from tests.stand_ins.azureml.errors import arm_error, json_answer
from tests.stand_ins.azureml.long_running import OperationError, Operations
from tests.stand_ins.azureml.model_server import ModelFiles, ModelServer, ModelServerError, ModelServers, OwnCode
from tests.stand_ins.azureml.pages import page

_WORKSPACE = (
    "/subscriptions/<subscription>/resourceGroups/<group>/providers/Microsoft.MachineLearningServices/workspaces/<name>"
)
_ENDPOINTS = f"{_WORKSPACE}/onlineEndpoints"
_ENDPOINT = f"{_ENDPOINTS}/<endpoint>"
_DEPLOYMENTS = f"{_ENDPOINT}/deployments"
_DEPLOYMENT = f"{_DEPLOYMENTS}/<deployment>"
_TYPE = "Microsoft.MachineLearningServices/workspaces/onlineEndpoints"
_CHANGING = ("Creating", "Updating", "Deleting")
# Small, so that clients have to follow ``nextLink``.
_PAGE = 2
# In a request, names the deployment that should answer; in the answer, the one that did.
DEPLOYMENT_HEADER = "azureml-model-deployment"
# The only API version whose PATCH accepts more than tags, identity and sku.
_PATCHES_PROPERTIES = "2022-02-01-preview"


@dataclass
class Deployment:
    """A deployment: its resource, the server that answers, and the newest server's log."""

    resource: dict[str, Any]
    log_file: Path
    server: ModelServer | None = None

    @property
    def state(self) -> str:
        """The provisioning state."""
        return self.resource["properties"]["provisioningState"]


@dataclass
class Endpoint:
    """An endpoint: its resource, keys, and deployments by lower-case name."""

    resource: dict[str, Any]
    keys: dict[str, str]
    deployments: dict[str, Deployment] = field(default_factory=dict)

    @property
    def properties(self) -> dict[str, Any]:
        """The properties that PUT and PATCH change."""
        return self.resource["properties"]

    def ready(self) -> set[str]:
        """Return the deployments that can get traffic."""
        return {name for name, deployment in self.deployments.items() if deployment.state == "Succeeded"}


class OnlineEndpoints:
    """The endpoints of all workspaces, by lower-case resource id.

    Parameters
    ----------
    url : str
        Of the server.
    entra : Entra
    operations : Operations
    model_files : ModelFiles
    model_servers : ModelServers
    assets : Assets
    """

    def __init__(
        self,
        url: str,
        entra: Entra,
        operations: Operations,
        model_files: ModelFiles,
        model_servers: ModelServers,
        assets: Assets,
    ) -> None:
        self._assets = assets
        self._url = url
        self._entra = entra
        self._operations = operations
        self._model_files = model_files
        self._model_servers = model_servers
        # Reentrant, because one change may call another.
        self._lock = threading.RLock()
        self._endpoints: dict[str, Endpoint] = {}
        # Sends the copies of requests, whose answers nobody gets.
        self._copies = ThreadPoolExecutor(2)
        self.blueprint = routes = Blueprint("online_endpoints", __name__)
        routes.before_request(lambda: missing() or self._missing_workspace())
        routes.get(_ENDPOINTS)(self._list)
        routes.get(_ENDPOINT)(self._get)
        routes.put(_ENDPOINT)(self._put)
        routes.patch(_ENDPOINT)(self._patch)
        routes.delete(_ENDPOINT)(self._delete)
        routes.post(f"{_ENDPOINT}/listKeys")(self._list_keys)
        routes.post(f"{_ENDPOINT}/token")(self._token)
        routes.get(_DEPLOYMENTS)(self._list_deployments)
        routes.get(_DEPLOYMENT)(self._get_deployment)
        routes.put(_DEPLOYMENT)(self._put_deployment)
        routes.patch(_DEPLOYMENT)(self._patch_deployment)
        routes.delete(_DEPLOYMENT)(self._delete_deployment)
        routes.post(f"{_DEPLOYMENT}/getLogs")(self._get_logs)
        self.scoring = Blueprint("online_scoring", __name__, url_prefix="/online/<endpoint>")
        self.scoring.post("/score")(self._score)
        self.scoring.get("/swagger.json")(self._swagger)

    def _missing_workspace(self) -> Response | None:
        known = (names.WORKSPACE, names.PRIVATE_WORKSPACE, names.PROD_WORKSPACE)
        return None if (request.view_args or {}).get("name", "").lower() in known else not_found()

    def _endpoint(self) -> Endpoint | None:
        resource_id = re.match(r".*/onlineendpoints/[^/]+", request.path.lower())
        return self._endpoints.get(resource_id[0]) if resource_id else None

    def _list(self, **_: str) -> Response:
        with self._lock:
            prefix = f"{request.path.lower()}/"
            endpoints = [item.resource for key, item in self._endpoints.items() if key.startswith(prefix)]
            return self._page(endpoints)

    def _page(self, resources: list[dict[str, Any]]) -> Response:
        return page(self._url, resources, int(request.args.get("count", _PAGE)))

    def _get(self, **_: str) -> Response:
        endpoint = self._endpoint()
        return json_answer(endpoint.resource) if endpoint else not_found()

    def _put(self, endpoint: str, **_: str) -> Response:
        sent = request.get_json()
        properties = sent.get("properties") or {}
        with self._lock:
            existing = self._endpoint()
            if existing and existing.properties["provisioningState"] in _CHANGING:
                return _conflict(existing.resource)
            known_mode = existing.properties["authMode"] if existing else None
            refusal = endpoint_rules.name("Endpoint", endpoint)
            refusal = refusal or endpoint_rules.auth_mode(properties.get("authMode"), known_mode)
            ready = existing.ready() if existing else set()
            refusal = refusal or endpoint_rules.traffic(properties.get("traffic") or {}, ready)
            compute = properties.get("compute")
            refusal = refusal or _refusal_of_mirror(existing, properties, ready, bool(compute))
            if refusal:
                return _refused(refusal)
            if compute and not self._assets.is_cluster(compute):
                refusal = Refusal("Compute", f"The specified compute '{compute}' was not found.")
                return _refused(refusal)
            if "location" not in sent:
                return arm_error(400, "LocationRequired", "The location property is required for this definition.")
            if not existing and self._by_name(endpoint):
                message = "There is already an endpoint with this name. Endpoint name needs to be unique in a region."
                return arm_error(400, "UserError", message)
            if existing is None:
                existing = Endpoint(self._new_resource(endpoint, sent), _keys(properties.get("keys") or {}))
                self._endpoints[request.path.lower()] = existing
                return self._changed(existing.resource, "Creating", 201)
            self._update(existing, sent)
            return self._changed(existing.resource, "Updating", 200)

    def _patch(self, **_: str) -> Response:
        """Change an endpoint; the API version decides which properties can change.

        ``PartialOnlineEndpoint`` has traffic and mirrorTraffic in 2022-02-01-preview, which azureml-mlflow uses. Later versions
        have only identity and tags there (``PartialMinimalTrackedResourceWithIdentity``), and change traffic by PUT.
        """
        sent = request.get_json()
        with self._lock:
            endpoint = self._endpoint()
            if endpoint is None:
                return not_found()
            if endpoint.properties["provisioningState"] in _CHANGING:
                return _conflict(endpoint.resource)
            refusal = _refusal_of_patch(sent)
            traffic = (sent.get("properties") or {}).get("traffic")
            refusal = refusal or endpoint_rules.traffic(traffic or {}, endpoint.ready())
            on_cluster = bool(endpoint.properties.get("compute"))
            refusal = refusal or _refusal_of_mirror(
                endpoint, sent.get("properties") or {}, endpoint.ready(), on_cluster
            )
            if refusal:
                return _refused(refusal)
            self._update(endpoint, sent)
            return self._changed(endpoint.resource, "Updating", 202)

    def _update(self, endpoint: Endpoint, sent: dict[str, Any]) -> None:
        properties = sent.get("properties") or {}
        known = ("description", "traffic", "mirrorTraffic", "properties")
        changes = {key: value for key, value in properties.items() if key in known}
        endpoint.properties.update({key: value for key, value in changes.items() if value is not None})
        if sent.get("tags") is not None:
            endpoint.resource["tags"] = sent["tags"]

    def _delete(self, **_: str) -> Response:
        with self._lock:
            endpoint = self._endpoint()
            if endpoint is None:
                return Response(status=204)
            for resource in (endpoint.resource, *(item.resource for item in endpoint.deployments.values())):
                if resource["properties"]["provisioningState"] in _CHANGING:
                    return _conflict(resource)
            key = request.path.lower()
            endpoint.properties["provisioningState"] = "Deleting"
            for deployment in endpoint.deployments.values():
                deployment.resource["properties"]["provisioningState"] = "Deleting"

        def work() -> None:
            for deployment in endpoint.deployments.values():
                _stop(deployment.server)
            with self._lock:
                del self._endpoints[key]

        return self._operations.accepted(None, 202, self._operations.start(work))

    def _list_keys(self, **_: str) -> Response:
        endpoint = self._endpoint()
        if endpoint is None:
            return not_found()
        if endpoint.properties["authMode"] != "Key":
            return _refused(Refusal("AuthMode", "Keys are not supported for endpoints with token authentication."))
        return json_answer(endpoint.keys)

    def _token(self, **_: str) -> Response:
        """Return a token for scoring; for AADToken endpoints, a token of the caller.

        https://learn.microsoft.com/azure/machine-learning/how-to-authenticate-online-endpoint
        """
        endpoint = self._endpoint()
        if endpoint is None:
            return not_found()
        mode = endpoint.properties["authMode"]
        if mode == "Key":
            return _refused(Refusal("AuthMode", "Tokens are not supported for endpoints with key authentication."))
        token = self._entra.scoring_token(None if mode == "AADToken" else endpoint.resource["id"])
        return json_answer(token)

    def _list_deployments(self, endpoint: str, **_: str) -> Response:
        with self._lock:
            parent = self._endpoint()
            if parent is None:
                # azureml-mlflow looks for this code where it lists deployments.
                return arm_error(404, "NoSuchEndpoint", f"Endpoint '{endpoint}' was not found.")
            return self._page([deployment.resource for deployment in parent.deployments.values()])

    def _deployment(self, deployment: str) -> Deployment | None:
        endpoint = self._endpoint()
        return endpoint.deployments.get(deployment.lower()) if endpoint else None

    def _get_deployment(self, deployment: str, **_: str) -> Response:
        existing = self._deployment(deployment)
        return json_answer(existing.resource) if existing else not_found()

    def _put_deployment(self, deployment: str, **_: str) -> Response:
        return self._deploy(deployment, request.get_json(), None)

    def _patch_deployment(self, deployment: str, **_: str) -> Response:
        """Change a deployment: only sku and tags, except in the API version that azureml-mlflow uses.

        Its client sends the whole deployment. The specification does not list that; it is accepted here.
        """
        with self._lock:
            existing = self._deployment(deployment)
            if existing is None:
                return not_found()
            sent = request.get_json()
            refusal = _refusal_of_patch(sent)
            if refusal:
                return _refused(refusal)
            merged = copy.deepcopy(existing.resource)
            for key in ("properties", "sku"):
                merged[key].update({name: value for name, value in (sent.get(key) or {}).items() if value is not None})
            merged["tags"] = sent.get("tags") or merged["tags"]
            return self._deploy(deployment, merged, 202)

    def _deploy(self, name: str, sent: dict[str, Any], status: int | None) -> Response:
        """Check a deployment, and start the server that will answer its requests."""
        with self._lock:
            endpoint, existing = self._endpoint(), self._deployment(name)
            if endpoint is None:
                parent = request.path.partition("/deployments/")[0].partition("/providers/")[2]
                message = f"Failed to perform 'write' on resource(s) of type '{_TYPE.partition('/')[2]}/deployments',"
                message += f" because the parent resource '{parent}' could not be found."
                return arm_error(404, "ParentResourceNotFound", message)
            if existing and existing.state in _CHANGING:
                return _conflict(existing.resource)
            resource = self._deployment_resource(name, sent)
            model, refusal = self._model(resource["properties"].get("model"))
            refusal = _refusal_of_deployment(name, endpoint, existing) or refusal
            on_cluster = bool(endpoint.properties.get("compute"))
            refusal = refusal or endpoint_rules.compute_type(resource, on_cluster)
            if not on_cluster:
                refusal = refusal or endpoint_rules.size(resource, self._cores_used(existing))
            own, refusal_of_code = self._own_code(resource["properties"])
            refusal = refusal or refusal_of_code
            if refusal:
                return _refused(refusal)
            deployment = existing or Deployment(resource, Path())
            deployment.resource = resource
            deployment.log_file = self._model_servers.new_log()
            endpoint.deployments[name.lower()] = deployment
            resource["properties"]["provisioningState"] = "Updating" if existing else "Creating"
            answer = copy.deepcopy(resource)
            operation = self._operations.start(lambda: self._start_server(deployment, model, own))
            return self._operations.accepted(answer, status or (200 if existing else 201), operation)

    def _own_code(self, properties: dict[str, Any]) -> tuple[OwnCode | None, Refusal | None]:
        """Return the user's scoring script and environment, which a deployment has both or neither of."""
        code, environment = properties.get("codeConfiguration"), properties.get("environmentId")
        if not code and not environment:
            return None, None
        folder, conda = self._assets.code((code or {}).get("codeId", "")), self._assets.conda_file(environment or "")
        if folder is None or conda is None:
            return None, Refusal("Asset", "The specified code or environment was not found.")
        script = folder / code["scoringScript"]
        if not script.is_file():
            return None, Refusal("Code", f"The scoring script {code['scoringScript']} was not found in the code asset.")
        with_pip = [each["pip"] for each in conda["dependencies"] if isinstance(each, dict)]
        return OwnCode(script, with_pip[0] if with_pip else []), None

    def _start_server(self, deployment: Deployment, model: Path, own: OwnCode | None) -> None:
        properties = deployment.resource["properties"]
        environment = properties.get("environmentVariables") or {}
        server = None
        try:
            server = self._model_servers.start(model, deployment.log_file, environment, needs_aml=True, own=own)
        except ModelServerError:
            # Without a code, and with the wording that https://github.com/Azure/mlops-v2/issues/120 quotes.
            message = "ResourceNotReady: User container has crashed or terminated: Liveness probe failed: HTTP probe"
            message += " failed with statuscode: 502. Please see troubleshooting guide, available here:"
            raise OperationError(f"{message} https://aka.ms/oe-tsg#error-resourcenotready") from None
        finally:
            if server is None:
                properties["provisioningState"] = "Failed"
        with self._lock:
            replaced, deployment.server = deployment.server, server
            properties["provisioningState"] = "Succeeded"
        _stop(replaced)

    def _delete_deployment(self, deployment: str, **_: str) -> Response:
        with self._lock:
            endpoint, existing = self._endpoint(), self._deployment(deployment)
            if endpoint is None or existing is None:
                return Response(status=204)
            if existing.state in _CHANGING:
                return _conflict(existing.resource)
            traffic = {name.lower(): share for name, share in endpoint.properties["traffic"].items()}
            if traffic.get(deployment.lower()):
                message = f"Deployment '{deployment}' has traffic. Set its traffic to 0 before you delete it."
                return _refused(Refusal("Traffic", message))
            mirrored = {name.lower(): share for name, share in endpoint.properties["mirrorTraffic"].items()}
            if mirrored.get(deployment.lower()):
                # Not documented; the stricter of what Azure may do.
                return _refused(Refusal("MirrorTraffic", f"Deployment '{deployment}' has mirrored traffic."))
            existing.resource["properties"]["provisioningState"] = "Deleting"

        def work() -> None:
            _stop(existing.server)
            with self._lock:
                del endpoint.deployments[deployment.lower()]
                for key in ("traffic", "mirrorTraffic"):
                    kept = {k: v for k, v in endpoint.properties[key].items() if k.lower() != deployment.lower()}
                    endpoint.properties[key] = kept

        return self._operations.accepted(None, 202, self._operations.start(work))

    def _get_logs(self, deployment: str, **_: str) -> Response:
        existing = self._deployment(deployment)
        if existing is None:
            return not_found()
        options = request.get_json()
        # The other container only downloads the model.
        is_server = options.get("containerType", "InferenceServer") == "InferenceServer"
        lines = existing.log_file.read_text(errors="replace").splitlines(keepends=True) if is_server else []
        return json_answer({"content": "".join(lines[-(options.get("tail") or len(lines) or 1) :])})

    def _changed(self, resource: dict[str, Any], state: str, status: int) -> Response:
        """Start to change an endpoint, and answer that the change is in progress."""
        resource["properties"]["provisioningState"] = state
        answer = copy.deepcopy(resource)

        def work() -> None:
            resource["properties"]["provisioningState"] = "Succeeded"

        return self._operations.accepted(answer, status, self._operations.start(work))

    def _by_name(self, name: str) -> Endpoint | None:
        endpoints = (endpoint for key, endpoint in self._endpoints.items() if key.endswith(f"/{name.lower()}"))
        return next(endpoints, None)

    def _cores_used(self, replaced: Deployment | None) -> int:
        deployments = [item for endpoint in self._endpoints.values() for item in endpoint.deployments.values()]
        managed = [item for item in deployments if item.resource["properties"]["endpointComputeType"] == "Managed"]
        return sum(endpoint_rules.cores(item.resource) for item in managed if item is not replaced)

    def _model(self, model_id: str | None) -> tuple[Path, Refusal | None]:
        form = rf"(?:azureml:)?{re.escape(names.workspace_resource_id())}/models/([^/]+)/versions/([^/]+)"
        parts = re.fullmatch(form, model_id or "", re.IGNORECASE)
        folder = self._model_files.folder(parts[1], parts[2]) if parts else None
        if folder is None:
            return Path(), Refusal("Model", f"The specified model '{model_id}' was not found.")
        return folder, None

    def _new_resource(self, name: str, sent: dict[str, Any]) -> dict[str, Any]:
        properties = sent["properties"]
        address = f"{self._url}/online/{name}"
        identity = sent.get("identity") or {"type": "SystemAssigned"}
        return _resource(name, _TYPE, sent) | {
            "identity": identity | {"principalId": str(uuid.uuid4()), "tenantId": names.TENANT},
            "kind": "Managed",
            "properties": {
                "authMode": properties["authMode"],
                "description": properties.get("description"),
                "properties": properties.get("properties") or {},
                "provisioningState": "Creating",
                "publicNetworkAccess": properties.get("publicNetworkAccess") or "Enabled",
                "compute": properties.get("compute"),
                "scoringUri": f"{address}/score",
                "swaggerUri": f"{address}/swagger.json",
                "traffic": properties.get("traffic") or {},
                "mirrorTraffic": properties.get("mirrorTraffic") or {},
            },
        }

    def _deployment_resource(self, name: str, sent: dict[str, Any]) -> dict[str, Any]:
        properties = sent.get("properties") or {}
        on_cluster = properties.get("endpointComputeType") == "Kubernetes"
        defaults = {
            "endpointComputeType": "Managed",
            "instanceType": names.CLUSTER_INSTANCE_TYPES[0] if on_cluster else endpoint_rules.DEFAULT_INSTANCE_TYPE,
            "appInsightsEnabled": False,
            "properties": {},
            "scaleSettings": {"scaleType": "Default"},
        }
        given = {key: value for key, value in properties.items() if value is not None}
        capacity = (sent.get("sku") or {}).get("capacity", 1)
        return _resource(name, f"{_TYPE}/deployments", sent) | {
            "kind": "Managed",
            "sku": {"name": "Default", "tier": "Standard", "capacity": capacity},
            "properties": defaults | given,
        }

    def _score(self, endpoint: str) -> Response:
        existing = self._by_name(endpoint)
        if existing is None:
            return scoring.scoring_error(404, "NotFound", f"Endpoint '{endpoint}' was not found.")
        refusal = self._scoring_refusal(existing)
        if refusal is not None:
            return refusal
        requested = request.headers.get(DEPLOYMENT_HEADER)
        with self._lock:
            name, server = _chosen(existing, requested)
            if server is None:
                return _no_deployment(requested)
            server.begin()
            shadow = None if requested else _mirrored(existing)
            if shadow is not None:
                shadow.begin()
                self._copies.submit(_copy, shadow, request.get_data())
        try:
            # https://learn.microsoft.com/azure/machine-learning/how-to-troubleshoot-online-endpoints
            answer = scoring.answer(server, request.get_data(), status_of_errors=424)
        finally:
            server.end()
        answer.headers[DEPLOYMENT_HEADER] = name
        answer.headers["x-request-id"] = str(uuid.uuid4())
        return answer

    def _swagger(self, endpoint: str) -> Response:
        existing = self._by_name(endpoint)
        if existing is None:
            return scoring.scoring_error(404, "NotFound", f"Endpoint '{endpoint}' was not found.")
        return self._scoring_refusal(existing) or json_answer(scoring.SWAGGER)

    def _scoring_refusal(self, endpoint: Endpoint) -> Response | None:
        """Return why a request is refused; its key or token is in the header ``Authorization``."""
        mode = endpoint.properties["authMode"]
        if mode == "AADToken":
            return self._entra.refusal()
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        if mode == "Key":
            good = any(secrets.compare_digest(given.encode(), key.encode()) for key in endpoint.keys.values())
        else:
            good = self._entra.is_scoring_token(given, endpoint.resource["id"])
        if kind == "Bearer" and good:
            return None
        # The code is documented, the wording is not.
        message = "Access denied due to an invalid or expired key or token in the Authorization header."
        return scoring.scoring_error(401, "Unauthorized", message)


def _resource(name: str, kind: str, sent: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": request.path,
        "name": name,
        "type": kind,
        "location": sent.get("location") or names.REGION,
        "tags": sent.get("tags") or {},
        "systemData": {"createdAt": datetime.now(timezone.utc).isoformat(), "createdByType": "Application"},
    }


def _keys(given: dict[str, str]) -> dict[str, str]:
    return {name: given.get(name) or secrets.token_urlsafe(24) for name in ("primaryKey", "secondaryKey")}


def _chosen(endpoint: Endpoint, requested: str | None) -> tuple[str, ModelServer | None]:
    """Return the deployment that should answer: the one that the request names, or one by its share of traffic."""
    running = {
        name: deployment
        for name, deployment in endpoint.deployments.items()
        if deployment.server is not None and deployment.state != "Deleting"
    }
    if requested is not None:
        deployment = running.get(requested.lower())
        return requested, deployment.server if deployment else None
    shares = {name: share for name, share in endpoint.properties["traffic"].items() if share}
    shares = {name: share for name, share in shares.items() if name.lower() in running}
    if not shares:
        return "", None
    name = random.choices(list(shares), list(shares.values()))[0]
    return name, running[name.lower()].server


def _mirrored(endpoint: Endpoint) -> ModelServer | None:
    """Return the server that gets a copy of this request, if it is one of the share that is mirrored.

    https://learn.microsoft.com/azure/machine-learning/how-to-safely-rollout-online-endpoints: only of requests that do not name
    a deployment.
    """
    for name, share in endpoint.properties["mirrorTraffic"].items():
        deployment = endpoint.deployments.get(name.lower())
        if deployment is not None and deployment.state == "Succeeded" and random.random() * 100 < share:
            return deployment.server
    return None


def _copy(server: ModelServer, body: bytes) -> None:
    try:
        scoring.answer(server, body, status_of_errors=424)
    finally:
        server.end()


def _refusal_of_mirror(
    endpoint: Endpoint | None, sent: dict[str, Any], ready: set[str], on_cluster: bool
) -> Refusal | None:
    """Check traffic and mirror as they will be: those that are not sent stay."""
    now = endpoint.properties if endpoint else {}
    mirror, traffic = (sent.get(key) or now.get(key) or {} for key in ("mirrorTraffic", "traffic"))
    return endpoint_rules.mirror(mirror, traffic, ready, on_cluster)


def _no_deployment(requested: str | None) -> Response:
    if requested is not None:
        return scoring.scoring_error(404, "NotFound", f"The specified deployment '{requested}' was not found.")
    message = "No valid deployments to route to. Please check that the endpoint has at least one deployment with"
    message += " positive weight values or use a deployment specific header to route."
    return scoring.scoring_error(404, "NotFound", message)


def _refusal_of_patch(sent: dict[str, Any]) -> Refusal | None:
    if "properties" not in sent or request.args["api-version"] == _PATCHES_PROPERTIES:
        return None
    return Refusal("Properties", "Could not find member 'properties' on the object of a PATCH; use PUT.")


def _refusal_of_deployment(name: str, endpoint: Endpoint, existing: Deployment | None) -> Refusal | None:
    """Check the state of what a deployment depends on; users have quoted AML's wording for both states."""
    if endpoint.properties["provisioningState"] not in ("Succeeded", "Updating"):
        message = "This endpoint has not been created successfully or is in deleting provisioning state. Please"
        return Refusal("", f"{message} recreate endpoint and then try again to create deployment.")
    if existing and existing.state == "Failed" and existing.server is None:
        message = f"Specified deployment [{name}] failed during initial provisioning and is in an unrecoverable state."
        return Refusal("", f"{message} Delete and re-create.")
    return endpoint_rules.name("Deployment", name)


def _refused(refusal: Refusal) -> Response:
    """Return AML's error, which quotes another service's error.

    https://github.com/Azure/azure-cli-extensions/issues/7107 shows the form.
    """
    content = {"errors": {refusal.field: [refusal.message]}, "title": "One or more validation errors occurred."}
    detail = {"code": "InferencingClientCallFailed", "message": json.dumps(content), "details": []}
    error = {"code": "BadRequest", "message": "The request is invalid.", "details": [detail]}
    return json_answer({"error": error}, 400)


def _conflict(resource: dict[str, Any]) -> Response:
    """Refuse a change while another one is in progress.

    https://learn.microsoft.com/azure/machine-learning/how-to-troubleshoot-online-endpoints (status code 409)
    """
    state = resource["properties"]["provisioningState"]
    message = f"There is already an operation in progress on '{resource['name']}', whose provisioning state is {state}."
    return arm_error(409, "Conflict", message)


def _stop(server: ModelServer | None) -> None:
    if server is not None:
        server.stop()
