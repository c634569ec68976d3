"""AML's artifact service: write-once artifacts of runs, and of uploads from a folder.

It has the three calls that azureml-mlflow makes (its ``_restclient/run_artifact`` and
``_restclient/artifact``): create an empty artifact, list artifacts, and get the address of the content. A fourth
one, which azureml-mlflow has but does not use, returns an address for writing the content of an existing path
(``Artifacts_GetSas`` in https://github.com/Azure/azure-rest-api-specs, machinelearningservices/data-plane,
artifact.json).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from flask import Blueprint, Response, request

from tests.stand_ins.azureml import names
from tests.stand_ins.azureml.blobs import BlobStorage
from tests.stand_ins.azureml.errors import aml_error, json_answer

_WORKSPACES = [names.workspace_resource_id(name) for name in (names.WORKSPACE, names.PROD_WORKSPACE)]
_RUNS = [f"/history/v1.0{workspace}/experiments/<experiment>/runs/<run>/artifacts" for workspace in _WORKSPACES]
_UPLOADS = [f"/artifact/v2.0{workspace}/artifacts/<origin>/<container>" for workspace in _WORKSPACES]


class Artifacts:
    """Artifacts by origin and container; their content is in the blob storage.

    Parameters
    ----------
    storage : BlobStorage
    run_exists : callable
        Whether there is a run with an id.
    """

    def __init__(self, storage: BlobStorage, run_exists: Callable[[str], bool]) -> None:
        self._storage = storage
        self._run_exists = run_exists
        self._created: dict[str, str] = {}
        self._lock = threading.Lock()
        self.blueprint = routes = Blueprint("artifacts", __name__)
        routes.before_request(self._missing_run)
        for prefix in (*_RUNS, *_UPLOADS):
            routes.get(prefix)(self._list)
            routes.get(f"{prefix}/contentinfo")(self._content)
            routes.post(f"{prefix}/batch/metadata")(self._create)
        for prefix in _UPLOADS:
            routes.get(f"{prefix}/write")(self._writable_content)

    def exist_under(self, prefix: str) -> bool:
        """Return whether there is an artifact under ``<origin>/<container>/<path>``."""
        return any(artifact.startswith(f"{prefix.rstrip('/')}/") for artifact in self._created)

    def _missing_run(self) -> Response | None:
        run = (request.view_args or {}).get("run")
        if run is not None and not self._run_exists(run):
            return aml_error(404, "UserError", f"Run {run} was not found")
        return None

    def _create(self, **where: str) -> Response:
        answer: dict[str, Any] = {"artifacts": {}, "artifactContentInformation": {}, "errors": {}}
        container = _container(where)
        for path in (item["path"] for item in request.get_json()["paths"]):
            artifact = f"{container}/{path}"
            with self._lock:
                conflict = artifact in self._created
                self._created.setdefault(artifact, datetime.now(timezone.utc).isoformat())
            if conflict:
                # The status is not 409: users see the text "UserError: Resource Conflict: …", which the
                # plugin makes of this dictionary. https://github.com/lightly-ai/lightly-train/issues/256
                message = f"Resource Conflict: ArtifactId {artifact} already exists."
                answer["errors"][path] = {"error": {"code": "UserError", "message": message}}
                continue
            answer["artifacts"][path] = self._description(artifact)
            content = {"contentUri": self._storage.signed_url(artifact, "cw")}
            answer["artifactContentInformation"][path] = content | _parts(artifact)
        return json_answer(answer)

    def _list(self, **where: str) -> Response:
        prefix = f"{_container(where)}/"
        with self._lock:
            artifacts = sorted(artifact for artifact in self._created if artifact.startswith(prefix))
        return json_answer({"value": [self._description(artifact) for artifact in artifacts]})

    def _content(self, **where: str) -> Response:
        return self._address(where, "r")

    def _writable_content(self, **where: str) -> Response:
        return self._address(where, "cw")

    def _address(self, where: dict[str, str], permissions: str) -> Response:
        path = request.args.get("path", "")
        artifact = f"{_container(where)}/{path}"
        if artifact not in self._created:
            return aml_error(404, "UserError", f"Artifact {artifact} was not found")
        return json_answer({"contentUri": self._storage.signed_url(artifact, permissions)} | _parts(artifact))

    def _description(self, artifact: str) -> dict[str, Any]:
        data_path = {"dataStoreName": "workspaceartifactstore", "relativePath": artifact}
        description = {"artifactId": artifact, "createdTime": self._created[artifact], "dataPath": data_path}
        return description | _parts(artifact)


def _container(where: dict[str, str]) -> str:
    return f"ExperimentRun/dcid.{where['run']}" if "run" in where else f"{where['origin']}/{where['container']}"


def _parts(artifact: str) -> dict[str, str]:
    origin, container, path = artifact.split("/", 2)
    return {"origin": origin, "container": container, "path": path}
