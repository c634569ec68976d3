"""An Azure Machine Learning registry, which several workspaces share: the versions of its models, and their files.

The vendor's MLflow plugin is not used here, since "organizational registries aren't supported for model management with
MLflow" (https://learn.microsoft.com/azure/machine-learning/how-to-manage-models-mlflow#limitations). The calls are those of
https://learn.microsoft.com/rest/api/azureml/registry-model-versions, with which the SDK ``azure-ai-ml`` works, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from helpers.azureml.blobs import signed_container
from helpers.azureml.rest import AzureError, AzureRest, wait
from helpers.azureml.workspace import API_VERSION, ROLES, Workspace
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

ROLE = "AzureML Registry User"
# Of a container for one version's files, in which the plugin and the SDK make a folder, too.
_FOLDER = "model"
_MLFLOW_MODEL = "mlflow_model"
_LONGEST_WAIT_SECONDS = 600


class Registry:
    """A registry that exists.

    Parameters
    ----------
    name : str
    resource_id : str
        ``/subscriptions/…/registries/<name>``.
    manager : helpers.azureml.rest.AzureRest
        Azure Resource Manager, signed in.
    """

    def __init__(self, name: str, resource_id: str, manager: AzureRest) -> None:
        self.name, self.resource_id, self._manager = name, resource_id, manager

    @classmethod
    def find(cls, workspace: Workspace, name: str, parameter: str) -> Registry:
        """Find a registry by its name, which is unique in Azure: it may be in another subscription, or region.

        The service that is asked is the one of ``azure-ai-ml`` and ``azureml-mlflow``
        (azureml/mlflow/_restclient/registry_discovery), in the workspace's region.

        Parameters
        ----------
        workspace : helpers.azureml.Workspace
        name : str
        parameter : str
            The parameter that names it, for the error.

        Raises
        ------
        helpers.parameters.ParameterError
            If the registry does not exist.
        helpers.azureml.rest.AzureError
            If it may not be read.
        """
        region = workspace.manager.at(f"https://{workspace.tracking_uri.split('/')[2]}")
        try:
            with _permitted(name):
                discovery = region.get(f"/registrymanagement/v1.0/registries/{name}/discovery")
        except AzureError as error:
            if error.status == 404:
                raise ParameterError(
                    parameter,
                    f"azureml://registries/{name}",
                    f"Azure has no registry of that name, or {workspace.name} is not in a region of it. `az ml registry "
                    "list` shows those of a subscription",
                ) from None
            raise
        group = f"/subscriptions/{discovery['subscriptionId']}/resourceGroups/{discovery['resourceGroup']}"
        resource_id = f"{group}/providers/Microsoft.MachineLearningServices/registries/{name}"
        return cls(name, resource_id, workspace.manager)

    def model(self, name: str) -> dict[str, Any] | None:
        """Return the properties of a model, or None if it does not exist."""
        return self._read(f"/models/{name}")

    def versions(self, name: str) -> list[dict[str, Any]]:
        """Return all versions of a model, also archived ones. The list is empty if the model does not exist."""
        path = f"{self.resource_id}/models/{name}/versions"
        try:
            with _permitted(self.name):
                return list(self._manager.get_all(path, api_version=API_VERSION, listViewType="All"))
        except AzureError as error:
            if error.status == 404:
                return []
            raise

    def version(self, name: str, number: str) -> dict[str, Any] | None:
        """Return a version, or None if it does not exist."""
        return self._read(f"/models/{name}/versions/{number}")

    def next_number(self, name: str) -> str:
        """Return the number of a model's next version: Azure's, or the one after the highest if Azure does not say."""
        model = self.model(name)
        number = (model or {}).get("properties", {}).get("nextVersion")
        numbers = (int(item["name"]) for item in self.versions(name) if item["name"].isdecimal())
        return str(number or 1 + max(numbers, default=0))

    def create(self, name: str, number: str, folder: Path, tags: Mapping[str, str], upload_id: str) -> None:
        """Create a version with all of its files, or none.

        Parameters
        ----------
        name, number : str
            A version that exists is refused, because its files cannot be replaced.
        folder : pathlib.Path
            An MLflow model.
        tags : mapping of str to str
        upload_id : str
            A GUID. With the same one, a killed upload goes on in the same container.

        Raises
        ------
        helpers.azureml.rest.AzureError
            If the registry refuses it.
        """
        path = f"/models/{name}/versions/{number}"
        pending = self._post(
            f"{path}/startPendingUpload", {"pendingUploadId": upload_id, "pendingUploadType": "TemporaryBlobReference"}
        )
        place = pending["blobReferenceForConsumption"]
        with signed_container(
            place["credential"]["sasUri"], f"{name} version {number} cannot be uploaded to"
        ) as container:
            _upload(container, folder)
        uri = f"{place['blobUri'].rstrip('/')}/{_FOLDER}"
        self._put(path, {"modelType": _MLFLOW_MODEL, "modelUri": uri, "tags": dict(tags), "isAnonymous": False})

    def change_tags(self, name: str, number: str, changes: Mapping[str, str | None]) -> None:
        """Set tags of a version, or remove those whose value is None.

        Azure replaces all tags at once: of two changes at the same time, one can be lost.
        """
        path = f"/models/{name}/versions/{number}"
        properties = self._get(path)["properties"]
        tags = {**(properties.get("tags") or {}), **changes}
        unchanged = (
            "description",
            "properties",
            "flavors",
            "isAnonymous",
            "isArchived",
            "modelType",
            "modelUri",
            "stage",
        )
        body = {key: properties[key] for key in unchanged if properties.get(key) is not None}
        self._put(path, body | {"tags": {key: value for key, value in tags.items() if value is not None}})

    def delete(self, name: str, number: str) -> None:
        """Delete a version; one that does not exist is deleted already."""
        path = f"{self.resource_id}/models/{name}/versions/{number}"
        with _permitted(self.name):
            self._manager.delete(path, api_version=API_VERSION)
        _wait(lambda: "Deleting" if self.version(name, number) else "Succeeded", path)

    def download(self, name: str, number: str, folder: Path) -> None:
        """Download the files of a version.

        Raises
        ------
        FileNotFoundError
            If it has no files.
        """
        uri = self._get(f"/models/{name}/versions/{number}")["properties"]["modelUri"]
        asset = f"azureml://registries/{self.name}/models/{name}/versions/{number}"
        # https://learn.microsoft.com/rest/api/azureml/registry-data-references/get-blob-reference-sas
        answer = self._post(f"/datareferences/{name}/versions/{number}", {"assetId": asset, "blobUri": uri})
        signed = answer["blobReferenceForConsumption"]["credential"].get("sasUri")
        if not signed:
            raise AzureError(f"The registry {self.name} gives no access to the files of {name} version {number}")
        inside = unquote(urlsplit(signed).path).rstrip("/")
        prefix = unquote(urlsplit(uri).path).removeprefix(f"{inside}/").rstrip("/")
        with signed_container(signed, f"{name} version {number} cannot be downloaded from") as container:
            blobs = [blob.name for blob in container.list_blobs(name_starts_with=f"{prefix}/")]
            if not blobs:
                raise FileNotFoundError(f"{asset} has no files")
            for blob in blobs:
                target = folder / blob.removeprefix(f"{prefix}/")
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    container.download_blob(blob).readinto(file)

    def _read(self, path: str) -> dict[str, Any] | None:
        try:
            return self._get(path)
        except AzureError as error:
            if error.status == 404:
                return None
            raise

    def _get(self, path: str) -> dict[str, Any]:
        with _permitted(self.name):
            return self._manager.get(self.resource_id + path, api_version=API_VERSION)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        with _permitted(self.name):
            return self._manager.post(self.resource_id + path, body, api_version=API_VERSION)

    def _put(self, path: str, properties: dict[str, Any]) -> None:
        """Create or update a resource, and wait until it is there."""
        path = self.resource_id + path
        with _permitted(self.name):
            operation = self._manager.start(path, {"properties": properties}, api_version=API_VERSION)
        if operation:
            _wait(lambda: self._status(operation, path), path)

    def _status(self, operation: str, path: str) -> str:
        answer = self._manager.get(operation)
        error = answer.get("error") or {}
        if error:
            reason = error.get("message") or error.get("code")
            raise AzureError(f"Azure could not write {path}: {reason}", 400, str(error.get("code") or ""))
        return answer.get("status", "InProgress")


def _wait(state_now: Callable[[], str], path: str) -> None:
    state = wait(state_now, _LONGEST_WAIT_SECONDS)
    if state != "Succeeded":
        raise AzureError(
            f"{path} is {state}, where it should have been written or deleted within {_LONGEST_WAIT_SECONDS} s; run this again"
        )


@contextmanager
def _permitted(name: str) -> Iterator[None]:
    """Say which role is needed if a request in the block is refused for a missing permission."""
    try:
        yield
    except AzureError as error:
        if error.status != 403:
            raise
        raise AzureError(
            f"No permission for the Azure ML registry {name} (403 {error.code}): give who signs in the role {ROLE} on the "
            f"registry, {ROLES} (a new role takes some minutes)",
            403,
            error.code,
        ) from None


def _upload(container: ContainerClient, folder: Path) -> None:
    """Upload the files of a folder; a repeated upload replaces what a killed one has left."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        with file.open("rb") as stream:
            name = f"{_FOLDER}/{file.relative_to(folder).as_posix()}"
            container.upload_blob(name, stream, length=file.stat().st_size, overwrite=True)
