"""An Azure ML registry in Azure Resource Manager: models, their versions, and access to their files.

Paths, bodies and answers: https://github.com/Azure/azure-rest-api-specs, machinelearningservices/resource-manager,
Microsoft.MachineLearningServices/stable/2024-10-01, examples/Registry/ModelVersion and examples/DataReference. The
address by a registry's name: ``RegistryDiscoveryDto`` in azureml-mlflow, ``_restclient/registry_discovery``.
"""

from __future__ import annotations

import copy
import re
import threading
import uuid
from datetime import datetime, timezone
from typing import Any

import jsonschema
from flask import Blueprint, Response, request

from tests.stand_ins.azureml import names
from tests.stand_ins.azureml.blobs import RegistryStorage
from tests.stand_ins.azureml.errors import aml_error, arm_error, json_answer
from tests.stand_ins.azureml.long_running import Operations
from tests.stand_ins.azureml.pages import page

_DISCOVERY = "/registrymanagement/v1.0/registries/<registry>/discovery"
_REGISTRY = names.registry_resource_id()
_VERSION = f"{_REGISTRY}/models/<model>/versions/<version>"
_MODEL_NAME = r"[a-zA-Z0-9][a-zA-Z0-9\-_]{0,254}"


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


_TEXT, _FLAG = {"type": "string"}, {"type": "boolean"}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
# ``ModelVersion``, ``PendingUploadRequestDto`` and ``GetBlobReferenceSASRequestDto`` of the specification.
_MODEL_VERSION = _object(
    ("properties",),
    properties=_object(
        description=_TEXT, tags=_TEXTS, properties=_TEXTS, isAnonymous=_FLAG, isArchived=_FLAG,
        flavors={"type": "object"}, jobName=_TEXT, modelType=_TEXT, modelUri=_TEXT, stage=_TEXT,
    ),
)  # fmt: skip
_PENDING_UPLOAD = _object(
    pendingUploadId=_TEXT, pendingUploadType={"enum": ["None", "TemporaryBlobReference"]}
)  # fmt: skip
_BLOB_REFERENCE = _object(assetId=_TEXT, blobUri=_TEXT)


class Registries:
    """The registry.

    Parameters
    ----------
    url : str
        Of the server.
    operations : Operations
    storage : RegistryStorage
    """

    def __init__(self, url: str, operations: Operations, storage: RegistryStorage) -> None:
        self._url, self._operations, self._storage = url, operations, storage
        self._versions: dict[tuple[str, str], dict[str, Any]] = {}
        self._deleted: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self.blueprint = routes = Blueprint("registries", __name__)
        routes.before_request(_missing)
        routes.get(_DISCOVERY)(self._discover)
        routes.get(f"{_REGISTRY}/models/<model>")(self._get_model)
        routes.get(f"{_REGISTRY}/models/<model>/versions")(self._list)
        routes.get(_VERSION)(self._get)
        routes.put(_VERSION)(self._put)
        routes.delete(_VERSION)(self._delete)
        routes.post(f"{_VERSION}/startPendingUpload")(self._start_upload)
        routes.post(f"{_REGISTRY}/datareferences/<model>/versions/<version>")(self._readable)

    def _discover(self, registry: str) -> Response:
        if registry != names.REGISTRY:
            return aml_error(404, "UserError", f"Registry {registry} was not found")
        return json_answer(
            {
                "registryName": registry,
                "primaryRegion": names.REGION,
                "regions": [names.REGION],
                "subscriptionId": names.SUBSCRIPTION_ID,
                "resourceGroup": names.REGISTRY_GROUP,
                "primaryRegionResourceProviderUri": f"{self._url}/",
            }
        )

    def _get_model(self, model: str) -> Response:
        with self._lock:
            known = [int(number) for name, number in (*self._versions, *self._deleted) if name == model]
            highest = max((int(number) for name, number in self._versions if name == model), default=0)
        if not known:
            return _not_found()
        # Whether numbers of deleted versions count is not documented; here they do not.
        numbers = {"latestVersion": str(highest), "nextVersion": str(highest + 1)}
        return json_answer({"id": request.path, "name": model, "properties": numbers | {"tags": {}}})

    def _list(self, model: str) -> Response:
        with self._lock:
            found = [version for (name, _), version in self._versions.items() if name == model]
        # The newest first, as Azure's own order is.
        found.reverse()
        return page(self._url, found)

    def _get(self, model: str, version: str) -> Response:
        found = self._versions.get((model, version))
        return json_answer(found) if found else _not_found()

    def _put(self, model: str, version: str) -> Response:
        """Create a version, or replace what is not fixed of it.

        "You can't change the files of a version", only its tags and description:
        https://learn.microsoft.com/azure/machine-learning/how-to-manage-models. The wording of the error is an assumption.
        """
        sent = request.get_json()
        refusal = _invalid(sent, _MODEL_VERSION)
        if refusal or not re.fullmatch(_MODEL_NAME, model):
            return arm_error(400, "ValidationError", refusal or f"{model} is not a valid name.")
        properties = sent["properties"]
        container, _, folder = properties.get("modelUri", "").removeprefix(self._storage.uri("")).partition("/")
        if not any(name.startswith(f"{folder}/") for name in self._storage.names(container)):
            return arm_error(400, "UserError", f"No files were found at {properties.get('modelUri')}.")
        now = datetime.now(timezone.utc).isoformat()
        with self._lock:
            existing = self._versions.get((model, version))
            if (model, version) in self._deleted:
                return _was_deleted(model, version)
            if existing and existing["properties"]["modelUri"] != properties["modelUri"]:
                return arm_error(409, "UserError", f"Model {model}:{version} exists, and its modelUri is immutable.")
            created = existing["systemData"]["createdAt"] if existing else now
            resource = {
                "id": request.path,
                "name": version,
                "type": "Microsoft.MachineLearningServices/registries/models/versions",
                "properties": {"tags": {}} | properties | {"provisioningState": "Succeeded"},
                "systemData": {"createdAt": created, "lastModifiedAt": now},
            }
            self._versions[model, version] = resource
            answer = copy.deepcopy(resource)
        return self._operations.accepted(answer, 200 if existing else 201, self._operations.start(lambda: None))

    def _delete(self, model: str, version: str) -> Response:
        with self._lock:
            existing = self._versions.pop((model, version), None)
            if existing is not None:
                self._deleted.add((model, version))
        if existing is None:
            return Response(status=204)
        return self._operations.accepted(None, 202, self._operations.start(lambda: None))

    def _start_upload(self, model: str, version: str) -> Response:
        """Return a container to write to; the same one for the same id ("create or get")."""
        sent = request.get_json()
        refusal = _invalid(sent, _PENDING_UPLOAD)
        if refusal:
            return arm_error(400, "ValidationError", refusal)
        if (model, version) in self._deleted:
            return _was_deleted(model, version)
        if (model, version) in self._versions:
            return arm_error(409, "UserError", f"Model {model}:{version} exists.")
        upload = str(uuid.UUID(sent.get("pendingUploadId") or str(uuid.uuid4())))
        container = str(uuid.uuid5(uuid.UUID(upload), f"{model}:{version}"))
        place = self._place(container, container, "rcwl")
        content = {"pendingUploadId": upload, "pendingUploadType": "TemporaryBlobReference"}
        return json_answer({"blobReferenceForConsumption": place} | content)

    def _readable(self, model: str, version: str) -> Response:
        sent = request.get_json()
        refusal = _invalid(sent, _BLOB_REFERENCE)
        if refusal:
            return arm_error(400, "ValidationError", refusal)
        found = self._versions.get((model, version))
        asset = f"azureml://registries/{names.REGISTRY}/models/{model}/versions/{version}"
        if found is None or sent.get("assetId") != asset or sent.get("blobUri") != found["properties"]["modelUri"]:
            return _not_found()
        path = sent["blobUri"].removeprefix(self._storage.uri(""))
        return json_answer({"blobReferenceForConsumption": self._place(path, path.partition("/")[0], "rl")})

    def _place(self, path: str, container: str, permissions: str) -> dict[str, Any]:
        credential = {"credentialType": "SAS", "sasUri": self._storage.signed_container(container, permissions)}
        return {"blobUri": self._storage.uri(path), "storageAccountArmId": "registry", "credential": credential}


def _missing() -> Response | None:
    if request.path.startswith("/registrymanagement/") or "api-version" in request.args:
        return None
    return arm_error(400, "MissingApiVersionParameter", "The api-version query parameter is required for all requests.")


def _invalid(content: Any, schema: dict[str, Any]) -> str:
    try:
        jsonschema.validate(content, schema)
    except jsonschema.ValidationError as error:
        return f"{'/'.join(map(str, error.absolute_path))}: {error.message}"
    return ""


def _was_deleted(model: str, version: str) -> Response:
    """Refuse a version in the words that https://github.com/Azure/azureml-assets/pull/3439 quotes; the status is an assumption."""
    asset = f"azureml://registries/{names.REGISTRY}/models/{model}/versions/{version}"
    message = f"Asset {asset} was deleted at 08/16/2024 16:27:49 +00:00, it cannot be recreated. Please try again with a different"
    return arm_error(400, "UserError", f"{message} version.")


def _not_found() -> Response:
    return arm_error(404, "NotFound", f"{request.path} was not found.")
