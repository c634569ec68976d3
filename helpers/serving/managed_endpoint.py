"""A managed online endpoint of Azure Machine Learning, through the deployment client of `azureml-mlflow`."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from helpers.azureml.rest import AzureError
from helpers.azureml.workspace import API_VERSION, Workspace
from helpers.ownership import MARK, is_marked
from helpers.parameters import ParameterError
from helpers.serving.azure_answers import config_file, explained
from helpers.serving.endpoint import REQUEST_SECONDS, Deployment, Endpoint, EndpointState, ServingError

if TYPE_CHECKING:
    import requests
    from mlflow.entities.model_registry import ModelVersion

_LOG_LINES = 60
_LOOK_SECONDS = 5
_GOING_ON = ("", "Creating", "Updating", "Scaling")
_AUTH_MODES = {"key": "Key", "aad_token": "AADToken"}


class ManagedEndpoint(Endpoint):
    """A managed online endpoint.

    Parameters
    ----------
    name : str
    workspace : helpers.azureml.Workspace
    instance_type : str, default "Standard_DS3_v2"
    instance_count : int, default 1
    auth : str or None, default "key"
        How callers sign in, ``key`` or ``aad_token``; None if it is not to be asked anything.
    """

    def __init__(
        self,
        name: str,
        workspace: Workspace,
        instance_type: str = "Standard_DS3_v2",
        instance_count: int = 1,
        auth: str | None = "key",
    ) -> None:
        from mlflow.deployments import get_deploy_client

        super().__init__(name)
        self._workspace, self._auth = workspace, auth
        self._instance_type, self._instance_count = instance_type, instance_count
        self._client = get_deploy_client(workspace.tracking_uri)
        self._path = f"{workspace.resource_id}/onlineEndpoints/{name}"
        self._caller: tuple[str, dict[str, str]] | None = None

    def state(self) -> EndpointState | None:
        from azure.core.exceptions import ResourceNotFoundError

        with explained(f"Endpoint {self.name} cannot be read"):
            try:
                found = self._client.get_endpoint(self.name)
            except ResourceNotFoundError:
                return None
            deployments = [_deployment(entry) for entry in self._client.list_deployments(self.name)]
        properties, ours = found["properties"], is_marked(found.get("tags") or {})
        if ours and self._auth and properties["authMode"] != _AUTH_MODES[self._auth]:
            raise ParameterError(
                "endpoint_auth",
                self._auth,
                f"endpoint {self.name} has {properties['authMode']}, which cannot be changed; give another endpoint_name",
            )
        traffic = {name: percent for name, percent in (properties.get("traffic") or {}).items() if percent}
        by_name = {deployment.name: deployment for deployment in deployments}
        return EndpointState(properties.get("scoringUri", ""), ours, traffic, by_name)

    def create(self, model_name: str) -> None:
        # Without the property the plugin's own default has, too; a name taken in the region is told by Azure.
        wanted = {
            "auth_mode": self._auth,
            "identity": {"type": "system_assigned"},
            "tags": {MARK: model_name},
            "properties": {"azureml.mlflow_client_endpoint": "True"},
        }
        with explained(f"Endpoint {self.name} cannot be created"), config_file("endpoint", wanted) as config:
            self._client.create_endpoint(self.name, config)

    def deploy(self, deployment: str, version: ModelVersion, show: Callable[[str], Any] = print) -> None:
        wanted = {
            "instance_type": self._instance_type,
            "instance_count": self._instance_count,
            "properties": {MARK: version.name},
        }
        uri = f"models:/{version.name}/{version.version}"
        with (
            explained(f"Endpoint {self.name} has no deployment {deployment}", lambda: self.log(deployment)),
            config_file("deploy", wanted) as config,
            warnings.catch_warnings(),
        ):
            # The plugin asks MLflow for the names of stages.
            warnings.simplefilter("ignore", FutureWarning)
            pool = ThreadPoolExecutor(1)
            done = pool.submit(self._client.create_deployment, deployment, uri, config=config, endpoint=self.name)
            # Whoever interrupts this does not wait for Azure; the next rollout does.
            pool.shutdown(wait=False)
            self._watch(deployment, show, lambda _: bool(wait([done], _LOOK_SECONDS).done))
            done.result()

    def wait(self, deployment: str, show: Callable[[str], Any] = print) -> None:
        pause = threading.Event()
        state = self._watch(deployment, show, lambda state: pause.wait(_LOOK_SECONDS) or state not in _GOING_ON)
        if state != "Succeeded":
            raise ServingError(
                f"Endpoint {self.name} has deployment {deployment} in state {state}.", self.log(deployment)
            )

    def _watch(self, deployment: str, show: Callable[[str], Any], ended: Callable[[str], bool]) -> str:
        """Show the state and the container's log until the deployment is done; return its last state."""
        shown, state, is_last = 0, "", False
        while not is_last:
            is_last = ended(state)
            now = self._deployment_state(deployment)
            if now != state:
                show(f"  {deployment}: {now}")
                state = now
            lines = self._log_lines(deployment)
            for line in lines[shown:]:
                show(f"  {line}")
            shown = max(shown, len(lines))
        return state

    def _deployment_state(self, deployment: str) -> str:
        try:
            found = self._workspace.manager.get(f"{self._path}/deployments/{deployment}", api_version=API_VERSION)
        except AzureError as error:
            # It is not there yet, or is gone; whatever else keeps it from being read ends the deployment, too.
            return f"not there ({error.code or error.status})"
        return found["properties"]["provisioningState"]

    def set_traffic(self, traffic: dict[str, int]) -> None:
        wanted = {"traffic": traffic}
        with explained(f"Endpoint {self.name} does not take {wanted}"), config_file("endpoint", wanted) as config:
            self._client.update_endpoint(self.name, config)

    def delete_deployment(self, deployment: str) -> None:
        with explained(f"Endpoint {self.name} keeps deployment {deployment}"):
            self._client.delete_deployment(deployment, endpoint=self.name)

    def delete(self) -> None:
        with explained(f"Endpoint {self.name} was not deleted"):
            self._client.delete_endpoint(self.name)

    def log(self, deployment: str) -> str:
        return "\n".join(self._log_lines(deployment)[-_LOG_LINES:])

    def _log_lines(self, deployment: str) -> list[str]:
        # https://learn.microsoft.com/rest/api/azureml/online-deployments/get-logs
        wanted = {"containerType": "InferenceServer", "tail": 1_000}
        try:
            found = self._workspace.manager.post(
                f"{self._path}/deployments/{deployment}/getLogs", wanted, api_version=API_VERSION
            )
        except AzureError:
            # There is none before the container is there; it is no reason to fail.
            return []
        return (found.get("content") or "").splitlines()

    def _post(self, body: str, headers: dict[str, str]) -> requests.Response:
        import requests

        for attempt in range(2):
            if self._caller is None:
                self._caller = self._scoring_address()
            url, authorization = self._caller
            response = requests.post(url, data=body, headers=headers | authorization, timeout=REQUEST_SECONDS)
            if response.status_code != 401 or attempt:
                break
            # Keys are renewed, tokens expire.
            self._caller = None
        return response

    def _scoring_address(self) -> tuple[str, dict[str, str]]:
        with explained(f"Endpoint {self.name} gives no key"):
            found = self._workspace.manager.get(self._path, api_version=API_VERSION)
            if self._auth == "key":
                path, name = f"{self._path}/listKeys", "primaryKey"
            else:
                path, name = f"{self._path}/token", "accessToken"
            secret = self._workspace.manager.post(path, {}, api_version=API_VERSION)[name]
        return found["properties"]["scoringUri"], {"Authorization": f"Bearer {secret}"}


def _deployment(entry: dict[str, Any]) -> Deployment:
    properties = entry["properties"]
    *_, model, _, version = (properties.get("model") or "///").split("/")
    state = properties.get("provisioningState", "")
    return Deployment(entry["name"], f"{model}/{version}", state, is_marked(properties.get("properties") or {}))
