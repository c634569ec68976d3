"""Azure Resource Manager's code and environment assets of a workspace, and its computes.

https://learn.microsoft.com/rest/api/azureml/code-versions, environment-versions and compute; the requests that `azure-ai-ml`
1.35 sends, and the specification 2024-10-01 in https://github.com/Azure/azure-rest-api-specs, which also has the deletions.
"""

from __future__ import annotations

import threading
import uuid
from pathlib import Path
from typing import Any

import yaml
from flask import Blueprint, Response, request

from tests.stand_ins.azureml import names
from tests.stand_ins.azureml.arm import missing, not_found
from tests.stand_ins.azureml.blobs import BlobStorage
from tests.stand_ins.azureml.errors import arm_error, json_answer
from tests.stand_ins.azureml.pages import page

_WORKSPACE = (
    "/subscriptions/<subscription>/resourceGroups/<group>/providers/Microsoft.MachineLearningServices/workspaces/<name>"
)
_COMPUTES = {names.ATTACHED_COMPUTE: "AKS", names.CLUSTER: "Kubernetes", "cpu-cluster": "AmlCompute"}


class Assets:
    """Versions of codes and environments, by lower-case resource id.

    Parameters
    ----------
    url : str
        Of the server.
    storage : BlobStorage
        Gets the uploaded code.
    blobs : pathlib.Path
        Its folder.
    """

    def __init__(self, url: str, storage: BlobStorage, blobs: Path) -> None:
        self._url, self._storage, self._blobs = url, storage, blobs
        self._lock = threading.Lock()
        self._versions: dict[str, dict[str, Any]] = {}
        self.blueprint = routes = Blueprint("assets", __name__)
        routes.before_request(missing)
        for kind, put in (("codes", self._put_code), ("environments", self._put_environment)):
            versions = f"{_WORKSPACE}/{kind}/<asset>/versions"
            routes.get(versions, endpoint=f"list_{kind}")(self._list)
            routes.get(f"{versions}/<version>", endpoint=f"get_{kind}")(self._get)
            routes.put(f"{versions}/<version>", endpoint=f"put_{kind}")(put)
            routes.delete(f"{versions}/<version>", endpoint=f"delete_{kind}")(self._delete)
        routes.post(f"{_WORKSPACE}/codes/<asset>/versions/<version>/startPendingUpload")(self._start_upload)
        routes.get(f"{_WORKSPACE}/computes")(self._list_computes)

    def code(self, code_id: str) -> Path | None:
        """Return the folder of a code asset, or None if there is no such asset."""
        known = self._versions.get(code_id.lower())
        if known is None:
            return None
        container, _, folder = known["properties"]["codeUri"].removeprefix(self._storage.uri("")).partition("/")
        return self._blobs / container / folder

    def conda_file(self, environment_id: str) -> dict[str, Any] | None:
        """Return the content of an environment's conda file, or None if there is no such environment."""
        known = self._versions.get(environment_id.lower())
        return yaml.safe_load(known["properties"]["condaFile"]) if known else None

    @staticmethod
    def is_cluster(compute_id: str) -> bool:
        """Return whether a compute is a Kubernetes cluster that is attached for online endpoints."""
        return compute_id.lower() == f"{names.workspace_resource_id()}/computes/{names.CLUSTER}".lower()

    def _get(self, **_: str) -> Response:
        known = self._versions.get(request.path.lower())
        return json_answer(known) if known else not_found()

    def _list(self, **_: str) -> Response:
        with self._lock:
            found = [value for key, value in self._versions.items() if key.startswith(f"{request.path.lower()}/")]
        return page(self._url, found)

    def _list_computes(self, **_: str) -> Response:
        return page(
            self._url, [{"name": name, "properties": {"computeType": kind}} for name, kind in _COMPUTES.items()]
        )

    def _start_upload(self, **_: str) -> Response:
        """Return a new container for an upload: each call makes another one, as `azure-ai-ml` says of Azure's."""
        if request.get_json().get("pendingUploadType") != "TemporaryBlobReference":
            return arm_error(400, "ValidationError", "The pendingUploadType has to be TemporaryBlobReference.")
        container = f"upload-{uuid.uuid4()}"
        credential = {"credentialType": "SAS", "sasUri": self._storage.signed_container(container, "rcwl")}
        reference = {"blobUri": self._storage.uri(container), "credential": credential}
        return json_answer({"pendingUploadId": container, "blobReferenceForConsumption": reference})

    def _put_code(self, **_: str) -> Response:
        uri = (request.get_json().get("properties") or {}).get("codeUri") or ""
        if not uri.startswith(self._storage.uri("upload-")):
            return arm_error(400, "ValidationError", f"The codeUri '{uri}' is not in the workspace's storage.")
        return self._put("codeUri")

    def _put_environment(self, **_: str) -> Response:
        properties = request.get_json().get("properties") or {}
        if not properties.get("image") or "dependencies" not in yaml.safe_load(properties.get("condaFile") or "{}"):
            return arm_error(400, "ValidationError", "The environment needs an image and a conda file.")
        return self._put("condaFile")

    def _put(self, content: str) -> Response:
        """Make a version; what it consists of cannot be changed.

        `azure-ai-ml` quotes Azure's wording for codes: its constant ASSET_PATH_ERROR.
        """
        properties = request.get_json()["properties"]
        with self._lock:
            known = self._versions.get(request.path.lower())
            if known and known["properties"][content] != properties[content]:
                return arm_error(400, "UserError", "Asset paths cannot be updated.")
            resource = {"id": request.path, "name": request.path.rpartition("/")[2], "properties": properties}
            self._versions[request.path.lower()] = resource
        return json_answer(resource, 200 if known else 201)

    def _delete(self, **_: str) -> Response:
        with self._lock:
            known = self._versions.pop(request.path.lower(), None)
        return Response(status=200 if known else 204)
