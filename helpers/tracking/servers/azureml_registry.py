"""An Azure Machine Learning registry, which several workspaces share, as a model registry."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.azureml import Connection, Registry
from helpers.azureml.rest import AzureError
from helpers.azureml.workspace import STUDIO
from helpers.tracking.servers.azureml import AzureMLServer
from helpers.tracking.servers.base import Page, Server

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.store.entities import PagedList

SCHEME = "azureml://registries/"
# Of versions that are made at the same time, under names that others take meanwhile.
_ATTEMPTS = 5
# In Azure's words.
_WAS_DELETED = "cannot be recreated"


class AzureMLRegistry(AzureMLServer):
    """A registry, reached with the sign-in to the session's workspace; it keeps models, and no runs.

    Parameters
    ----------
    connection : helpers.azureml.Connection
    name : str
    parameter : str
        The parameter that names it, for errors.
    """

    # Endpoints of the session's workspace deploy from that workspace.
    in_azureml = False

    def __init__(self, connection: Connection, name: str, parameter: str = "model_registry") -> None:
        super().__init__(connection)
        self._name, self._parameter = name, parameter

    @property
    def uri(self) -> str:
        """``azureml://registries/<name>``, as the vendor's tools call it."""
        return f"{SCHEME}{self._name}"

    @property
    def place(self) -> str:
        """The registry as a sentence names it."""
        return f"Azure ML registry {self._name}"

    @classmethod
    def owns(cls, uri: str) -> bool:
        """Return whether a URI is a registry's."""
        return uri.startswith(SCHEME)

    @cached_property
    def registry(self) -> Registry:
        """The registry, found by its name.

        Raises
        ------
        helpers.parameters.ParameterError, helpers.azureml.rest.AzureError
            If it does not exist, or cannot be used.
        """
        return Registry.find(self._connection.workspace, self._name, self._parameter)

    def client(self) -> Any:
        """Return an object with the calls of MLflow's client for registered models."""
        return RegistryClient(self.registry)

    def check_is_on(self) -> None:
        """Find the registry."""
        _ = self.registry

    def registered_model_name(self, model_name: str, catalog: str, schema: str) -> str:
        """Return the model's name, if the registry can be used."""
        self.check_model_name(model_name)
        self.check_is_on()
        return model_name

    def page(self, page: Page, experiment_id: str = "", run_id: str = "") -> str:
        """Return the address of the registry's page in Azure Machine Learning studio; it has no runs."""
        if page != "models":
            return ""
        return f"{STUDIO.get(self._connection.workspace.cloud, 'https://ml.azure.com')}/registries/{self._name}/models"

    def download(self, model_uri: str, folder: Path) -> Path:
        """Download the files of a version."""
        _, name, number = model_uri.split("/")
        with _errors_of_mlflow():
            self.registry.download(name, number, folder)
        return folder

    def create_version(
        self, tracking: Server, run: Run, model_uri: str, model_name: str, tags: dict[str, str], files: Callable
    ) -> ModelVersion:
        """Register a run's model by its files, whatever its server; the tags say where they come from."""
        key = uuid.uuid5(uuid.NAMESPACE_URL, f"{tracking.address} {run.info.run_id} {model_uri}")
        with files() as folder:
            return self.add_version(model_name, folder, tags, key.hex)

    def add_version(self, model_name: str, folder: Path, tags: dict[str, str], key: str) -> ModelVersion:
        """Create a version of a model's files.

        The version's number is chosen here. If somebody else takes it meanwhile, the next one is tried; if it was taken
        for the same model, by another process or by a request whose answer was lost, that is the version. The number of a
        deleted version cannot be taken again (https://github.com/Azure/azureml-assets/pull/3439).
        """
        client, attempts, lowest = self.client(), 0, 0
        while attempts < _ATTEMPTS:
            number = str(max(lowest, int(self.registry.next_number(model_name))))
            try:
                self.registry.create(model_name, number, folder, tags, str(uuid.UUID(key)))
            except AzureError as error:
                made = self.registry.version(model_name, number)
                if made is None and _WAS_DELETED in str(error):
                    lowest = int(number) + 1
                    continue
                if made is None or attempts == _ATTEMPTS - 1:
                    raise
            attempts += 1
            version = client.get_model_version(model_name, number)
            if tags.items() <= version.tags.items():
                return version
        raise AzureError(f"{_ATTEMPTS} versions of {model_name} were made in {self.place} meanwhile; run this again")


class RegistryClient:
    """The calls of ``mlflow.MlflowClient`` for registered models that this bundle uses.

    Parameters
    ----------
    registry : helpers.azureml.Registry
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def get_registered_model(self, name: str) -> RegisteredModel:
        """Return a model."""
        from mlflow.entities.model_registry import RegisteredModel

        with _errors_of_mlflow():
            model = _existing(self._registry.model(name), f"model {name}")
        return RegisteredModel(name, description=model["properties"].get("description"))

    def create_registered_model(self, name: str, tags: dict[str, str] | None = None) -> None:
        """Do nothing: the first version makes the model."""

    def search_model_versions(self, filter_string: str, page_token: str | None = None) -> PagedList[ModelVersion]:
        """Return all versions of a model, for a filter ``name = '…'``."""
        from mlflow.store.entities import PagedList

        del page_token
        name = re.fullmatch(r"name = '(.*)'", filter_string)
        if name is None:
            raise ValueError(f"{filter_string!r}: only a model's name can be searched for")
        with _errors_of_mlflow():
            found = self._registry.versions(name[1])
        # Others may name versions in words.
        return PagedList([_version(name[1], item) for item in found if item["name"].isdecimal()], None)

    def get_model_version(self, name: str, version: str) -> ModelVersion:
        """Return a version."""
        with _errors_of_mlflow():
            return _version(name, _existing(self._registry.version(name, str(version)), f"{name} version {version}"))

    def set_model_version_tag(self, name: str, version: str, key: str, value: Any) -> None:
        """Set a tag of a version."""
        with _errors_of_mlflow():
            self._registry.change_tags(name, str(version), {key: str(value)})

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        """Remove a tag of a version."""
        with _errors_of_mlflow():
            self._registry.change_tags(name, str(version), {key: None})

    def delete_model_version(self, name: str, version: str) -> None:
        """Delete a version."""
        with _errors_of_mlflow():
            self._registry.delete(name, str(version))


def _existing(resource: dict[str, Any] | None, what: str) -> dict[str, Any]:
    if resource is None:
        raise AzureError(f"The registry has no {what}", 404)
    return resource


def _version(model_name: str, resource: dict[str, Any]) -> ModelVersion:
    """Return a version of the registry as MLflow describes versions."""
    from mlflow.entities.model_registry import ModelVersion, ModelVersionTag

    properties, times = resource["properties"], resource.get("systemData") or {}
    tags = [ModelVersionTag(key, value) for key, value in (properties.get("tags") or {}).items()]
    created = _milliseconds(times.get("createdAt"))
    return ModelVersion(
        model_name,
        resource["name"],
        created,
        _milliseconds(times.get("lastModifiedAt")) or created,
        description=properties.get("description"),
        source=properties["modelUri"],
        tags=tags,
    )


def _milliseconds(time: str | None) -> int:
    # Azure's has up to seven digits after the point, of which Python 3.10 reads six.
    return int(datetime.fromisoformat(f"{time[:19]}+00:00").timestamp() * 1000) if time else 0


@contextmanager
def _errors_of_mlflow() -> Iterator[None]:
    """Say in MLflow's way that something does not exist, which callers of its client wait for."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

    try:
        yield
    except AzureError as error:
        if error.status != 404:
            raise
        raise MlflowException(str(error), RESOURCE_DOES_NOT_EXIST) from None
