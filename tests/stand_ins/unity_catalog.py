"""Unity Catalog's model registry, and the files of its models, at the address of a Databricks tracking server.

    with UnityCatalogStandIn.start(folder, databricks.url) as unity_catalog:
        subprocess.run([...], env=os.environ | databricks.environment() | {"DATABRICKS_HOST": unity_catalog.url})

MLflow's client is unpatched. Requests and answers are the messages of its own protocol
(mlflow/protos/databricks_uc_registry_messages.proto), so a field that the registry does not have is an error here.
Everything else is passed on to the tracking server.

There are three ways to a model's files (mlflow/store/_unity_catalog/registry/rest_store.py, ``_get_artifact_repo``), and
the server chooses one of them:

- signed addresses, for catalogs in Databricks' own storage (``DEFAULT_STORAGE``): as here, without any setting
- the Files API through Databricks' SDK, where the workspace says so; here with the environment variable
  ``MLFLOW_USE_DATABRICKS_SDK_MODEL_ARTIFACTS_REPO_FOR_UC=true``
- the storage account itself, with a signature for it. Here the catalog `IN_OWN_STORAGE` answers with one. That the files
  are uploaded there is not tested: its client accepts only HTTPS addresses of Azure's form.

Not imitated: which catalogs and schemas exist, and who may use them.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message
from mlflow.protos import databricks_uc_registry_messages_pb2 as messages
from mlflow.protos.databricks_uc_registry_service_pb2 import UcModelRegistryService
from mlflow.utils.proto_json_utils import message_to_json
from mlflow.utils.rest_utils import extract_all_api_info_for_service
from werkzeug.serving import ThreadedWSGIServer
from werkzeug.wrappers import Request, Response

from tests.stand_ins.azureml.databricks_front import passed_on
from tests.stand_ins.azureml.https import KeepAliveHandler
from tests.stand_ins.databricks_tracking import DatabricksStandIn

IN_OWN_STORAGE = "own_storage"
WORKSPACE_ID = "1234567890123456"
# Smaller than the service's, so that clients must ask for the next page.
_PAGE = 2
# https://learn.microsoft.com/azure/databricks/database-objects/tags#constraints
_MOST_TAGS, _LONGEST_KEY, _LONGEST_VALUE, _NOT_IN_KEYS = 50, 255, 1000, re.compile(r"[.,\-=/:]|^ | $")
# https://docs.databricks.com/aws/en/data-governance/unity-catalog/requirements#securable-object-naming-requirements
_LEVEL = r"[^\x00-\x20\x7f/.]{1,255}"
_STATUS = {"RESOURCE_DOES_NOT_EXIST": 404, "NOT_FOUND": 404, "PERMISSION_DENIED": 403, "RESOURCE_ALREADY_EXISTS": 409}


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class UnityCatalogStandIn:
    """A running stand-in.

    Parameters
    ----------
    folder : pathlib.Path
        Gets the models' files.
    tracking_url : str
        Of the tracking server.

    Attributes
    ----------
    url : str
    lineage : list of dict
        What the header of each new version said about the job or notebook that made it.
    """

    def __init__(self, folder: Path, tracking_url: str) -> None:
        self._folder, self._tracking_url = folder, tracking_url
        self._lock = threading.RLock()
        self._models: dict[str, messages.RegisteredModel] = {}
        self._versions: dict[str, dict[int, messages.ModelVersion]] = {}
        self._numbers: dict[str, int] = {}
        self.lineage: list[dict[str, Any]] = []
        self._session = requests.Session()
        self._session.trust_env = False
        # Paths and methods, from MLflow's protocol.
        self._routes: dict[tuple[str, str], Callable[[dict[str, Any], Request], Message]] = {}
        for message, addresses in extract_all_api_info_for_service(UcModelRegistryService, "/api/2.0").items():
            answer = getattr(self, re.sub(r"(?<=[a-z])(?=[A-Z])", "_", message.__name__[:-7]).lower(), None)
            for path, method in addresses if answer else ():
                self._routes[method, path] = self._parsed(message, answer)
        self._server = ThreadedWSGIServer("127.0.0.1", 0, Request.application(self._answer), handler=KeepAliveHandler)
        self.url = f"http://127.0.0.1:{self._server.port}"

    @classmethod
    @contextmanager
    def start(cls, folder: Path, tracking_url: str) -> Iterator[UnityCatalogStandIn]:
        """Start the stand-in in a thread, and end it after the block."""
        stand_in = cls(folder, tracking_url)
        thread = threading.Thread(target=stand_in._server.serve_forever, daemon=True)
        thread.start()
        yield stand_in
        stand_in._server.shutdown()
        thread.join()

    def _answer(self, request: Request) -> Response:
        try:
            if request.path.startswith("/storage/"):
                # The address itself is the permission: https://docs.databricks.com/api/workspace/files
                return self._blob(request)
            is_ours = (request.method, request.path) in self._routes or request.path.startswith("/api/2.0/fs/")
            if is_ours and request.headers.get("Authorization") != f"Bearer {DatabricksStandIn.token}":
                raise Refused("PERMISSION_DENIED", "Invalid access token.")
            if request.path.startswith("/api/2.0/fs/"):
                return self._file(request)
            if is_ours:
                content = request.args.to_dict() if request.method == "GET" else json.loads(request.get_data() or "{}")
                with self._lock:
                    answer = message_to_json(self._routes[request.method, request.path](content, request))
                return Response(answer, mimetype="application/json")
        except Refused as error:
            body = json.dumps({"error_code": error.code, "message": str(error)})
            return Response(body, _STATUS.get(error.code, 400), mimetype="application/json")
        passed = self._session.request(
            request.method,
            f"{self._tracking_url}{request.full_path}",
            data=request.get_data(),
            headers=passed_on(request.headers.items()),
            allow_redirects=False,
        )
        # mlflow/store/_unity_catalog/lineage/constants.py
        headers = passed_on(passed.headers.items()) | {"x-databricks-org-id": WORKSPACE_ID}
        return Response(passed.content, passed.status_code, headers)

    @staticmethod
    def _parsed(
        message: type, answer: Callable[[Any, Request], Message]
    ) -> Callable[[dict[str, Any], Request], Message]:
        def parse(content: dict[str, Any], request: Request) -> Message:
            try:
                return answer(ParseDict(content, message()), request)
            except ParseError as error:
                raise Refused("INVALID_PARAMETER_VALUE", str(error)) from None

        return parse

    # Registered models

    def create_registered_model(self, asked: Any, _: Request) -> Message:
        """Create a model, whose name must have three levels: mlflow/store/_unity_catalog/registry/rest_store.py."""
        if not re.fullmatch(rf"{_LEVEL}\.{_LEVEL}\.{_LEVEL}", asked.name):
            raise Refused(
                "INVALID_PARAMETER_VALUE", f"{asked.name} is not a valid name. Please specify all three levels of it."
            )
        if asked.name in self._models:
            raise Refused("RESOURCE_ALREADY_EXISTS", f"Function or Model '{asked.name}' already exists")
        _check_tags(asked.tags)
        model = messages.RegisteredModel(name=asked.name, description=asked.description, tags=asked.tags)
        model.creation_timestamp = model.last_updated_timestamp = _now()
        self._models[asked.name], self._versions[asked.name] = model, {}
        return messages.CreateRegisteredModelResponse(registered_model=model)

    def get_registered_model(self, asked: Any, _: Request) -> Message:
        """Return a model with its tags and aliases."""
        return messages.GetRegisteredModelResponse(registered_model=self._model(asked.name))

    def search_registered_models(self, asked: Any, _: Request) -> Message:
        """Return a page of all models, without tags and aliases: mlflow/utils/_unity_catalog_utils.py."""
        names, token = _page(sorted(self._models), asked)
        found = [messages.RegisteredModel(name=name) for name in names]
        return messages.SearchRegisteredModelsResponse(registered_models=found, next_page_token=token)

    def delete_registered_model(self, asked: Any, _: Request) -> Message:
        """Delete a model and all its versions: https://docs.databricks.com/api/workspace/registeredmodels/delete."""
        self._model(asked.name)
        del self._models[asked.name], self._versions[asked.name]
        return messages.DeleteRegisteredModelResponse()

    def set_registered_model_alias(self, asked: Any, _: Request) -> Message:
        """Let an alias mean a version."""
        model = self._model(asked.name)
        self._version(asked)
        _remove(model.aliases, "alias", asked.alias)
        model.aliases.add(alias=asked.alias, version=asked.version)
        return messages.SetRegisteredModelAliasResponse()

    def delete_registered_model_alias(self, asked: Any, _: Request) -> Message:
        """Delete an alias."""
        _remove(self._model(asked.name).aliases, "alias", asked.alias)
        return messages.DeleteRegisteredModelAliasResponse()

    def get_model_version_by_alias(self, asked: Any, _: Request) -> Message:
        """Return the version that an alias means."""
        for alias in self._model(asked.name).aliases:
            if alias.alias == asked.alias:
                version = self._with_aliases(self._versions[asked.name][int(alias.version)])
                return messages.GetModelVersionByAliasResponse(model_version=version)
        raise Refused("RESOURCE_DOES_NOT_EXIST", f"Alias '{asked.alias}' does not exist in '{asked.name}'.")

    # Versions

    def create_model_version(self, asked: Any, request: Request) -> Message:
        """Create a version without its files: its status is PENDING_REGISTRATION until it is finalized."""
        self._model(asked.name)
        _check_tags(asked.tags)
        header = request.headers.get("X-Databricks-Lineage-Identifier")
        if header:
            lineage = ParseDict(json.loads(base64.b64decode(header)), messages.LineageHeaderInfo())
            self.lineage.append(json.loads(message_to_json(lineage)))
        number = self._numbers[asked.name] = self._numbers.get(asked.name, 0) + 1
        version = messages.ModelVersion(
            name=asked.name,
            version=str(number),
            description=asked.description,
            source=asked.source,
            run_id=asked.run_id,
            run_tracking_server_id=asked.run_tracking_server_id,
            status=messages.PENDING_REGISTRATION,
            storage_location=f"abfss://models@storage.dfs.core.windows.net/{asked.name}/{number}",
            tags=asked.tags,
        )
        version.creation_timestamp = version.last_updated_timestamp = _now()
        self._versions[asked.name][number] = version
        return messages.CreateModelVersionResponse(model_version=version)

    def finalize_model_version(self, asked: Any, _: Request) -> Message:
        """End the upload. Only this stand-in checks whether the model is there."""
        version = self._version(asked)
        if not (self._path(f"/Models/{asked.name.replace('.', '/')}/{asked.version}") / "MLmodel").exists():
            raise Refused("INVALID_PARAMETER_VALUE", f"{asked.name} version {asked.version} has no MLmodel file.")
        version.status = messages.READY
        return messages.FinalizeModelVersionResponse(model_version=version)

    def get_model_version(self, asked: Any, _: Request) -> Message:
        """Return a version with its tags and aliases."""
        return messages.GetModelVersionResponse(model_version=self._with_aliases(self._version(asked)))

    def search_model_versions(self, asked: Any, _: Request) -> Message:
        """Return a page of the versions of a model, without their tags: mlflow/utils/_unity_catalog_utils.py.

        Only a name or a run's id can be searched for (rest_store.py, ``search_model_versions``).
        """
        condition = re.fullmatch(r"\s*(name|run_id)\s*=\s*(['\"])(.*)\2\s*", asked.filter)
        if condition is None:
            raise Refused("INVALID_PARAMETER_VALUE", f"Unsupported filter query: {asked.filter!r}")
        if condition[1] == "name":
            self._model(condition[3])
            found = list(self._versions[condition[3]].values())
        else:
            found = [one for all_of in self._versions.values() for one in all_of.values() if one.run_id == condition[3]]
        # The newest first, as in the UI; clients must not rely on it.
        chosen, token = _page(sorted(found, key=lambda version: -int(version.version)), asked)
        versions = [messages.ModelVersion() for _ in chosen]
        for copy, version in zip(versions, chosen, strict=True):
            copy.CopyFrom(version)
            copy.ClearField("tags")
        return messages.SearchModelVersionsResponse(model_versions=versions, next_page_token=token)

    def delete_model_version(self, asked: Any, _: Request) -> Message:
        """Delete a version, with its aliases: https://docs.databricks.com/api/workspace/modelversions/delete."""
        version = self._version(asked)
        del self._versions[asked.name][int(version.version)]
        _remove(self._models[asked.name].aliases, "version", version.version)
        return messages.DeleteModelVersionResponse()

    def set_model_version_tag(self, asked: Any, _: Request) -> Message:
        """Set a tag of a version."""
        version = self._version(asked)
        tags = [tag for tag in version.tags if tag.key != asked.key]
        tags.append(messages.ModelVersionTag(key=asked.key, value=asked.value))
        _check_tags(tags)
        _remove(version.tags, "key", asked.key)
        version.tags.append(tags[-1])
        return messages.SetModelVersionTagResponse()

    def delete_model_version_tag(self, asked: Any, _: Request) -> Message:
        """Delete a tag of a version."""
        _remove(self._version(asked).tags, "key", asked.key)
        return messages.DeleteModelVersionTagResponse()

    def get_model_version_download_uri(self, asked: Any, _: Request) -> Message:
        """Return the place of a version's files."""
        return messages.GetModelVersionDownloadUriResponse(artifact_uri=self._version(asked).storage_location)

    def generate_temporary_model_version_credentials(self, asked: Any, _: Request) -> Message:
        """Say how a version's files are reached: by signed addresses, or in the catalog's own storage account."""
        self._version(asked)
        if asked.name.startswith(f"{IN_OWN_STORAGE}."):
            sas = messages.AzureUserDelegationSAS(sas_token="sig=stand-in")
            credentials = messages.TemporaryCredentials(azure_user_delegation_sas=sas)
        else:
            credentials = messages.TemporaryCredentials(storage_mode=messages.DEFAULT_STORAGE)
        return messages.GenerateTemporaryModelVersionCredentialsResponse(credentials=credentials)

    def is_databricks_sdk_models_artifact_repository_enabled(self, *_: Any) -> Message:
        """Say no; clients can say yes with an environment variable."""
        return messages.IsDatabricksSdkModelsArtifactRepositoryEnabledResponse()

    def emit_model_version_lineage(self, asked: Any, _: Request) -> Message:
        """Take note that a version was downloaded."""
        self._version(asked)
        return messages.EmitModelVersionLineageResponse()

    # Files

    def _file(self, request: Request) -> Response:
        """Answer the Files API: https://docs.databricks.com/api/workspace/files."""
        kind, _, rest = request.path.removeprefix("/api/2.0/fs/").partition("/")
        if kind in ("create-upload-url", "create-download-url"):
            path = (request.get_json(silent=True) or request.args)["path"]
            if kind == "create-download-url" and not self._path(path).is_file():
                raise Refused("NOT_FOUND", f"{path} does not exist.")
            # The address at which the client reaches this server.
            host = request.headers.get("X-Forwarded-Host", request.host)
            return Response(
                json.dumps({"url": f"http://{host}/storage{path}", "headers": []}), mimetype="application/json"
            )
        if kind == "files":
            return self._blob(request, rest)
        folder = self._path(f"/{rest}")
        if not folder.is_dir():
            raise Refused("NOT_FOUND", f"/{rest} is not a directory.")
        contents = [
            {
                "path": f"/{rest.rstrip('/')}/{item.name}",
                "name": item.name,
                "is_directory": item.is_dir(),
                "file_size": item.stat().st_size,
            }
            for item in sorted(folder.iterdir())
        ]
        return Response(json.dumps({"contents": contents}), mimetype="application/json")

    def _blob(self, request: Request, path: str = "") -> Response:
        file = self._path(f"/{path or request.path.removeprefix('/storage/')}")
        if request.method == "PUT":
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(request.get_data())
            return Response(status=204)
        if not file.is_file():
            raise Refused("NOT_FOUND", f"{request.path} does not exist.")
        return Response(file.read_bytes(), mimetype="application/octet-stream")

    def _path(self, path: str) -> Path:
        """Return where a file of ``/Models/<catalog>/<schema>/<model>/<version>/…`` is kept."""
        if not re.fullmatch(r"/Models(/(?!\.\.?(/|$))[^/]+)+/?", path):
            raise Refused("INVALID_PARAMETER_VALUE", f"{path} is not a path of a model.")
        return self._folder / path.strip("/")

    # What exists

    def _model(self, name: str) -> messages.RegisteredModel:
        if name not in self._models:
            raise Refused("RESOURCE_DOES_NOT_EXIST", f"Registered model '{name}' does not exist.")
        return self._models[name]

    def _version(self, asked: Any) -> messages.ModelVersion:
        self._model(asked.name)
        version = self._versions[asked.name].get(int(asked.version))
        if version is None:
            raise Refused("RESOURCE_DOES_NOT_EXIST", f"'{asked.name}' version {asked.version} does not exist.")
        return version

    def _with_aliases(self, version: messages.ModelVersion) -> messages.ModelVersion:
        complete = messages.ModelVersion()
        complete.CopyFrom(version)
        complete.aliases.extend(it for it in self._models[version.name].aliases if it.version == version.version)
        return complete


def _now() -> int:
    return time.time_ns() // 1_000_000


def _page(items: list[Any], asked: Any) -> tuple[list[Any], str]:
    start = int(asked.page_token or 0)
    end = start + min(asked.max_results or _PAGE, _PAGE)
    return items[start:end], str(end) if end < len(items) else ""


def _remove(items: Any, field: str, value: str) -> None:
    kept = [item for item in items if getattr(item, field) != value]
    del items[:]
    items.extend(kept)


def _check_tags(tags: Any) -> None:
    """Check tags by the rules of securable objects, of which registered models and their versions are two kinds."""
    if len(tags) > _MOST_TAGS:
        raise Refused("INVALID_PARAMETER_VALUE", f"{len(tags)} tags: at most {_MOST_TAGS} are allowed.")
    for tag in tags:
        if _NOT_IN_KEYS.search(tag.key) or not 0 < len(tag.key) <= _LONGEST_KEY:
            raise Refused("INVALID_PARAMETER_VALUE", f"Tag key {tag.key!r} is not valid.")
        if len(tag.value) > _LONGEST_VALUE:
            raise Refused("INVALID_PARAMETER_VALUE", f"The value of tag {tag.key!r} is longer than {_LONGEST_VALUE}.")
