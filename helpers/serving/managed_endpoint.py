"""A managed online endpoint of Azure Machine Learning, through the deployment client of `azureml-mlflow`."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import TYPE_CHECKING, Any

from helpers.azureml.rest import AzureError
from helpers.azureml.workspace import API_VERSION, Workspace
from helpers.ownership import MARK, is_marked
from helpers.parameters import ParameterError
from helpers.serving.deploy_client import config_file, explained, marked_model
from helpers.serving.endpoint import (
    REQUEST_SECONDS,
    Deployment,
    Endpoint,
    EndpointState,
    ExistingEndpoint,
    ServingError,
)
from helpers.serving.endpoint_names import endpoint_name

if TYPE_CHECKING:
    import requests
    from mlflow.entities.model_registry import ModelVersion

    from helpers import parameters
    from helpers.tracking import Session

_LOG_LINES = 60
_POLL_SECONDS = 5
# A deployment usually takes 5 to 15 minutes. This ends the wait for one that hangs.
_LONGEST_WAIT_SECONDS = 3 * 60 * 60
_IN_PROGRESS = ("Creating", "Updating", "Scaling")
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
        How callers sign in: ``key`` or ``aad_token``. None if no request is sent to the endpoint.
    """

    in_azureml = True

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

    @classmethod
    def open(cls, session: Session, p: parameters.Endpoint, model_name: str) -> ManagedEndpoint:
        workspace = session.workspace
        name = p.endpoint_name or endpoint_name(model_name, workspace.resource_id)
        return cls(name, workspace, p.instance_type, p.instance_count, p.endpoint_auth)

    @classmethod
    def existing(cls, session: Session) -> Iterator[ExistingEndpoint]:
        from mlflow.deployments import get_deploy_client

        if not session.connection.is_named:
            return
        workspace = session.workspace
        with explained(f"The endpoints of {workspace.name} cannot be listed"):
            entries = get_deploy_client(workspace.tracking_uri).list_endpoints()
        for entry in entries:
            endpoint = cls(entry["name"], workspace, auth=None)
            yield ExistingEndpoint(endpoint, f"Azure ML workspace {workspace.name}", marked_model(entry))

    def state(self) -> EndpointState | None:
        resource = self._read()
        if resource is None:
            return None
        properties, is_ours = resource["properties"], is_marked(resource.get("tags") or {})
        if is_ours and self._auth and properties["authMode"] != _AUTH_MODES[self._auth]:
            raise ParameterError(
                "endpoint_auth",
                self._auth,
                f"endpoint {self.name} has {properties['authMode']}, which cannot be changed; give another endpoint_name",
            )
        with explained(f"Endpoint {self.name} cannot be read"):
            deployments = [_deployment(entry) for entry in self._client.list_deployments(self.name)]
        traffic = {name: percent for name, percent in (properties.get("traffic") or {}).items() if percent}
        by_name = {deployment.name: deployment for deployment in deployments}
        return EndpointState(properties.get("scoringUri", ""), is_ours, traffic, by_name)

    def _read(self) -> dict[str, Any] | None:
        from azure.core.exceptions import ResourceNotFoundError

        with explained(f"Endpoint {self.name} cannot be read"):
            try:
                return self._client.get_endpoint(self.name)
            except ResourceNotFoundError:
                return None

    def create(self, model_name: str) -> None:
        settings = {
            "auth_mode": self._auth,
            "identity": {"type": "system_assigned"},
            "tags": {MARK: model_name},
            # The plugin's own default has this property, too.
            "properties": {"azureml.mlflow_client_endpoint": "True"},
        }
        with explained(f"Endpoint {self.name} cannot be created"), config_file("endpoint", settings) as config:
            self._client.create_endpoint(self.name, config)

    def deploy(self, deployment: str, version: ModelVersion, show: Callable[[str], Any] = print) -> None:
        settings = {
            "instance_type": self._instance_type,
            "instance_count": self._instance_count,
            "properties": {MARK: version.name},
        }
        uri = f"models:/{version.name}/{version.version}"
        with (
            explained(f"Endpoint {self.name}, deployment {deployment} failed", lambda: self.log(deployment)),
            config_file("deploy", settings) as config,
            warnings.catch_warnings(),
        ):
            # The plugin asks MLflow for stages, which are deprecated.
            warnings.simplefilter("ignore", FutureWarning)
            pool = futures.ThreadPoolExecutor(1)
            creation = pool.submit(self._client.create_deployment, deployment, uri, config=config, endpoint=self.name)
            # An interrupt ends this call at once. The next rollout waits for the deployment.
            pool.shutdown(wait=False)
            progress, is_done = _Progress(self, deployment, show), False
            while not is_done:
                is_done = bool(futures.wait([creation], _POLL_SECONDS).done)
                progress.update()
            creation.result()

    def wait(self, deployment: str, show: Callable[[str], Any] = print) -> None:
        progress, deadline = _Progress(self, deployment, show), time.monotonic() + _LONGEST_WAIT_SECONDS
        state = progress.update()
        while state in _IN_PROGRESS and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            state = progress.update()
        if state != "Succeeded":
            raise ServingError(
                f"Endpoint {self.name} has deployment {deployment} in state {state}.", self.log(deployment)
            )

    def deployment_state(self, deployment: str) -> str:
        """Return Azure's name for the state of a deployment, or why it cannot be read."""
        try:
            resource = self._workspace.manager.get(f"{self._path}/deployments/{deployment}", api_version=API_VERSION)
        except AzureError as error:
            # It does not exist yet, or no longer. Any other error here would also make the deployment fail.
            return f"not found ({error.code or error.status})"
        return resource["properties"]["provisioningState"]

    def set_traffic(self, traffic: dict[str, int]) -> None:
        settings = {"traffic": traffic}
        with (
            explained(f"The traffic of endpoint {self.name} cannot be set to {traffic}"),
            config_file("endpoint", settings) as config,
        ):
            self._client.update_endpoint(self.name, config)

    def delete_deployment(self, deployment: str) -> None:
        with explained(f"Deployment {deployment} of endpoint {self.name} was not deleted"):
            self._client.delete_deployment(deployment, endpoint=self.name)

    def delete(self) -> bool:
        if self._read() is None:
            return False
        with explained(f"Endpoint {self.name} was not deleted"):
            self._client.delete_endpoint(self.name)
        return True

    def log(self, deployment: str) -> str:
        return "\n".join(self.log_lines(deployment)[-_LOG_LINES:])

    def log_lines(self, deployment: str) -> list[str]:
        """Return what the deployment's container has logged, up to the last 1,000 lines."""
        # https://learn.microsoft.com/rest/api/azureml/online-deployments/get-logs
        question = {"containerType": "InferenceServer", "tail": 1_000}
        try:
            answer = self._workspace.manager.post(
                f"{self._path}/deployments/{deployment}/getLogs", question, api_version=API_VERSION
            )
        except AzureError:
            # There is no log before there is a container, and a missing log is not a reason to fail.
            return []
        return (answer.get("content") or "").splitlines()

    def _post(self, body: str, headers: dict[str, str]) -> requests.Response:
        import requests

        for attempt in range(2):
            if self._caller is None:
                self._caller = self._scoring_address()
            url, authorization = self._caller
            response = requests.post(url, data=body, headers=headers | authorization, timeout=REQUEST_SECONDS)
            if response.status_code != 401 or attempt:
                break
            # Keys are regenerated and tokens expire: read them again, once.
            self._caller = None
        return response

    def _scoring_address(self) -> tuple[str, dict[str, str]]:
        with explained(f"The key or token of endpoint {self.name} cannot be read"):
            resource = self._workspace.manager.get(self._path, api_version=API_VERSION)
            if self._auth == "key":
                path, name = f"{self._path}/listKeys", "primaryKey"
            else:
                path, name = f"{self._path}/token", "accessToken"
            secret = self._workspace.manager.post(path, {}, api_version=API_VERSION)[name]
        return resource["properties"]["scoringUri"], {"Authorization": f"Bearer {secret}"}


class _Progress:
    """Shows the state of a deployment and the log of its container, each line once."""

    def __init__(self, endpoint: ManagedEndpoint, deployment: str, show: Callable[[str], Any]) -> None:
        self._endpoint, self._deployment, self._show = endpoint, deployment, show
        self._state, self._lines_shown = "", 0

    def update(self) -> str:
        """Show what is new, and return the state."""
        state = self._endpoint.deployment_state(self._deployment)
        if state != self._state:
            self._show(f"  {self._deployment}: {state}")
            self._state = state
        lines = self._endpoint.log_lines(self._deployment)
        for line in lines[self._lines_shown :]:
            self._show(f"  {line}")
        self._lines_shown = max(self._lines_shown, len(lines))
        return state


def _deployment(entry: dict[str, Any]) -> Deployment:
    properties = entry["properties"]
    *_, model, _, version = (properties.get("model") or "///").split("/")
    state = properties.get("provisioningState", "")
    return Deployment(entry["name"], f"{model}/{version}", state, is_marked(properties.get("properties") or {}))
