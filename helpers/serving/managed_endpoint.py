"""A managed online endpoint of Azure Machine Learning, through the deployment client of `azureml-mlflow`."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from helpers import tracking
from helpers.azureml import artifacts
from helpers.azureml.collected_data import COLLECTIONS, DATASTORE, FOLDER, INPUTS, collection_uri
from helpers.azureml.rest import AzureError, wait
from helpers.azureml.workspace import API_VERSION, Workspace
from helpers.ownership import MARK, is_marked
from helpers.parameters import ParameterError
from helpers.serving import no_code, own_environment
from helpers.serving.deploy_client import TROUBLESHOOTING, explained, marked_model, online_client
from helpers.serving.endpoint import (
    REQUEST_SECONDS,
    Deployment,
    Endpoint,
    EndpointState,
    ExistingEndpoint,
    MirrorCounts,
    ServingError,
)
from helpers.serving.endpoint_names import endpoint_name

if TYPE_CHECKING:
    import requests
    from mlflow.entities.model_registry import ModelVersion

    from helpers import parameters
    from helpers.tracking import Session

_LOG_LINES = 60
_LOG_TAIL = 1_000
# How Azure ML's server logs the answer to a request:
# https://learn.microsoft.com/azure/machine-learning/how-to-inference-server-http
_ANSWERED = re.compile(r"azmlinfsrv - POST /score\S* (\d{3}) ")
_PROBE_SECONDS = 10
# A deployment usually takes 5 to 15 minutes. This ends the wait for one that hangs.
_LONGEST_WAIT_SECONDS = 3 * 60 * 60
# A change of the traffic usually takes less than a minute.
_LONGEST_CHANGE_SECONDS = 30 * 60
# The last one whose PATCH has traffic; azureml-mlflow uses it, too. Later ones replace the whole endpoint by PUT:
# https://github.com/Azure/azure-rest-api-specs, machinelearningservices, PartialOnlineEndpoint
_API_OF_CHANGES = "2022-02-01-preview"
_INSTANCE_TYPE = "Standard_DS3_v2"
_AUTH_MODES = {"key": "Key", "aad_token": "AADToken"}


class ManagedEndpoint(Endpoint):
    """A managed online endpoint.

    Parameters
    ----------
    name : str
    workspace : helpers.azureml.Workspace
    p : helpers.parameters.Endpoint, optional
        Needed to create, to deploy and to send requests.
    session : helpers.tracking.Session, optional
        Needed to deploy with ``endpoint_environment=own``.

    Attributes
    ----------
    kind : str
        The key in `helpers.kinds.ENDPOINTS`.
    """

    in_azureml = True
    collects_data = True
    takes_own_environment = True
    makes_environment = True
    mirrors = True
    kind: ClassVar[str] = "managed"

    def __init__(
        self,
        name: str,
        workspace: Workspace,
        p: parameters.Endpoint | None = None,
        session: Session | None = None,
    ) -> None:
        super().__init__(name)
        self._workspace, self._parameters, self._session = workspace, p, session
        self._client = online_client(workspace)
        self._path = f"{workspace.resource_id}/onlineEndpoints/{name}"
        self._caller: tuple[str, dict[str, str]] | None = None
        self._operation = ""
        self._log_before_mirror = 0

    @property
    def _p(self) -> parameters.Endpoint:
        if self._parameters is None:
            raise ServingError(f"Endpoint {self.name} was opened to be listed or deleted only")
        return self._parameters

    @classmethod
    def open(cls, session: Session, p: parameters.Endpoint, model_name: str) -> ManagedEndpoint:
        cls._check_parameters(p)
        workspace = session.workspace
        name = p.endpoint_name or endpoint_name(model_name, workspace.resource_id)
        return cls(name, workspace, p, session)

    @classmethod
    def _check_parameters(cls, p: parameters.Endpoint) -> None:
        """Check what only this kind needs, before signing in."""
        if p.instance_type and not p.instance_type.startswith("Standard_"):
            raise ParameterError(
                "instance_type", p.instance_type, "is not a virtual machine, whose names begin with Standard_"
            )

    @classmethod
    def existing(cls, session: Session) -> Iterator[ExistingEndpoint]:
        if not session.connection.is_named:
            return
        workspace = session.workspace
        with explained(f"The endpoints of {workspace.name} cannot be listed"):
            entries = online_client(workspace).list_endpoints()
        for entry in entries:
            if _kind(entry) != cls.kind:
                continue
            endpoint = cls(entry["name"], workspace)
            yield ExistingEndpoint(endpoint, f"Azure ML workspace {workspace.name}", marked_model(entry))

    def check(self, session: Session, version: ModelVersion) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            folder = tracking.download_model(session, f"models:/{version.name}/{version.version}", Path(scratch))
            if self._p.endpoint_environment == "own":
                own_environment.conda_file(self._p, folder)
            elif problem := no_code.problem_of(folder):
                raise ParameterError(
                    "endpoint_target",
                    self.kind,
                    f"Azure ML cannot serve {version.name} version {version.version}: {problem}",
                )

    def state(self) -> EndpointState | None:
        resource = self._read()
        if resource is None:
            return None
        properties, is_ours = resource["properties"], is_marked(resource.get("tags") or {})
        wanted = self._compute_of_endpoint().get("compute", "") if self._parameters else properties.get("compute") or ""
        if (properties.get("compute") or "").lower() != wanted.lower():
            raise ParameterError(
                "endpoint_target",
                self.kind,
                f"endpoint {self.name} is on {(properties.get('compute') or 'managed compute').rpartition('/')[2]}, which "
                "cannot be changed; give another endpoint_name",
            )
        if is_ours and self._parameters and properties["authMode"] != _AUTH_MODES[self._p.endpoint_auth]:
            raise ParameterError(
                "endpoint_auth",
                self._p.endpoint_auth,
                f"endpoint {self.name} has {properties['authMode']}, which cannot be changed; give another endpoint_name",
            )
        with explained(f"Endpoint {self.name} cannot be read"):
            deployments = [_deployment(entry) for entry in self._client.list_deployments(self.name)]
        traffic = {name: percent for name, percent in (properties.get("traffic") or {}).items() if percent}
        by_name = {deployment.name: deployment for deployment in deployments}
        mirror = {name: percent for name, percent in (properties.get("mirrorTraffic") or {}).items() if percent}
        return EndpointState(properties.get("scoringUri", ""), is_ours, traffic, by_name, mirror)

    def _read(self) -> dict[str, Any] | None:
        from azure.core.exceptions import ResourceNotFoundError

        with explained(f"Endpoint {self.name} cannot be read"):
            try:
                return self._client.get_endpoint(self.name)
            except ResourceNotFoundError:
                return None

    # Neither is created by the deployment client: its API of 2022 has no data collector and no public network access.
    # https://learn.microsoft.com/rest/api/azureml/online-endpoints/create-or-update, and online-deployments next to it
    def create(self, model_name: str) -> None:
        with explained(f"Endpoint {self.name} cannot be created"):
            body = {
                "location": self._resource(self._workspace.resource_id)["location"],
                "identity": {"type": "SystemAssigned"},
                "tags": {MARK: model_name},
                "properties": {
                    "authMode": _AUTH_MODES[self._p.endpoint_auth],
                    # The deployment client sets it, too.
                    "properties": {"azureml.mlflow_client_endpoint": "True"},
                }
                | self._compute_of_endpoint(),
            }
            self._start(self._path, body)
            state = wait(lambda: self._resource(self._path)["properties"]["provisioningState"], _LONGEST_WAIT_SECONDS)
        if state != "Succeeded":
            raise ServingError(f"Endpoint {self.name} is in state {state}{self._reason()}; see {TROUBLESHOOTING}.")

    def deploy(self, deployment: str, version: ModelVersion, show: Callable[[str], Any] = print) -> None:
        p = self._p
        probe = {
            "initialDelay": "PT10S",
            "period": f"PT{_PROBE_SECONDS}S",
            "timeout": f"PT{_PROBE_SECONDS}S",
            "successThreshold": 1,
            "failureThreshold": -(-p.start_timeout_s // _PROBE_SECONDS),
        }
        properties = {
            "model": f"{self._workspace.resource_id}/models/{version.name}/versions/{version.version}",
            "livenessProbe": probe,
            "readinessProbe": probe,
            "requestSettings": {
                "requestTimeout": f"PT{p.request_timeout_s}S",
                "maxConcurrentRequestsPerInstance": p.max_concurrent_requests,
            },
            # Otherwise the server has one process, and lets requests wait that Azure sends it at once.
            # https://learn.microsoft.com/azure/machine-learning/reference-yaml-deployment-managed-online
            "environmentVariables": {"WORKER_COUNT": str(p.max_concurrent_requests)},
            "properties": {MARK: version.name},
        } | self._compute_of_deployment()
        with explained(f"Endpoint {self.name}, deployment {deployment} failed", lambda: self.log(deployment)):
            if p.endpoint_environment == "own":
                properties |= self._own_environment(version)
            if p.collect_data:
                properties["dataCollector"] = self._data_collector(deployment)
            body = {
                "location": self._resource(self._path)["location"],
                "sku": {"name": "Default", "capacity": p.instance_count},
                "properties": properties,
            }
            self._start(f"{self._path}/deployments/{deployment}", body)
        self.wait(deployment, show)

    def _compute_of_endpoint(self) -> dict[str, Any]:
        """Return the properties of the endpoint that say where it runs."""
        return {"publicNetworkAccess": self._p.public_network_access.capitalize()}

    def _compute_of_deployment(self) -> dict[str, Any]:
        """Return the properties of a deployment that say where it runs."""
        return {
            "endpointComputeType": "Managed",
            "instanceType": self._p.instance_type or _INSTANCE_TYPE,
            "egressPublicNetworkAccess": self._p.public_network_access.capitalize(),
        }

    def _own_environment(self, version: ModelVersion) -> dict[str, Any]:
        """Make the code and the environment of a version, and return the properties of its deployment that name them."""
        if self._session is None:
            raise ServingError(f"Endpoint {self.name} was opened without a session, so it cannot deploy.")
        uri = self._session.azureml_server.client().get_model_version_download_uri(version.name, version.version)
        with tempfile.TemporaryDirectory() as scratch:
            artifacts.download_folder(self._workspace.tracking_uri, uri, Path(scratch), own_environment.READ)
            conda = own_environment.conda_file(self._p, Path(scratch))
        return own_environment.settings(self._workspace, self._p, version.name, conda)

    def _data_collector(self, deployment: str) -> dict[str, Any]:
        """Register the folders that requests are collected in, and return the setting of the deployment.

        The client has to see to it that each collection has a data asset, as the vendor's own, `azure-ai-ml`, does:
        https://learn.microsoft.com/rest/api/azureml/online-deployments/create-or-update#collection
        """
        collections = {}
        for collection in COLLECTIONS:
            folder = collection_uri(self._workspace, self.name, deployment, collection)
            asset = f"{self._workspace.resource_id}/data/{self.name}-{deployment}-{collection}/versions/1"
            properties = {"dataType": "uri_folder", "dataUri": folder}
            self._workspace.manager.put(asset, {"properties": properties}, api_version=API_VERSION)
            # Azure's package draws for each collection on its own, so with the rate on both, few answers would have their
            # inputs: azureml/ai/monitoring/collector_json.py of azureml-ai-monitoring 1.0.0.
            rate = self._p.collect_data_rate if collection == INPUTS else 1.0
            collections[collection] = {"dataCollectionMode": "Enabled", "samplingRate": rate, "dataId": asset}
        return {"collections": collections, "rollingRate": "Hour"}

    def _start(self, path: str, body: dict[str, Any]) -> None:
        # A reason that an earlier deployment failed for is not one of this deployment.
        self._operation = ""
        try:
            self._operation = self._workspace.manager.start(path, body, api_version=API_VERSION)
        except AzureError as error:
            # An earlier attempt, whose answer was lost, is in progress.
            if error.status != 409:
                raise

    def _resource(self, path: str) -> dict[str, Any]:
        return self._workspace.manager.get(path, api_version=API_VERSION)

    def collected_data(self) -> str:
        with explained(f"The workspace's datastore {DATASTORE} cannot be read"):
            store = self._resource(f"{self._workspace.resource_id}/datastores/{DATASTORE}")["properties"]
        host = f"{store['accountName']}.dfs.{store['endpoint']}"
        return f"abfss://{store['containerName']}@{host}/{FOLDER}/{self.name}"

    def wait(self, deployment: str, show: Callable[[str], Any] = print) -> None:
        state = wait(_Progress(self, deployment, show).update, _LONGEST_WAIT_SECONDS)
        if state != "Succeeded":
            raise ServingError(
                f"Endpoint {self.name} has deployment {deployment} in state {state}{self._reason()}; see "
                f"{TROUBLESHOOTING}.",
                self.log(deployment),
            )

    def _reason(self) -> str:
        """Return why the deployment that `deploy` has started failed, in Azure's words; nothing if Azure does not say."""
        if not self._operation:
            return ""
        operation: dict[str, Any] = {}

        def status() -> str:
            operation.update(self._workspace.manager.get(self._operation))
            return operation.get("status", "")

        try:
            # The operation may end a moment after the deployment.
            wait(status, _LONGEST_WAIT_SECONDS)
        except AzureError:
            # The state is known, and a missing reason must not hide it.
            return ""
        error = operation.get("error") or {}
        return f" ({' '.join(str(error.get('message') or error.get('code')).split())})" if error else ""

    def deployment_state(self, deployment: str) -> str:
        """Return Azure's name for the state of a deployment, or why it cannot be read."""
        try:
            return self.resource(deployment)["properties"]["provisioningState"]
        except AzureError as error:
            # It does not exist yet, or no longer. Any other error here would also make the deployment fail.
            return f"not found ({error.code or error.status})"

    def resource(self, deployment: str) -> dict[str, Any]:
        """Return a deployment as Azure Resource Manager has it."""
        return self._resource(f"{self._path}/deployments/{deployment}")

    def set_traffic(self, traffic: dict[str, int]) -> None:
        self._update({"traffic": traffic}, f"The traffic of endpoint {self.name} cannot be set to {traffic}")

    def set_mirror(self, deployment: str, percent: int) -> None:
        if percent:
            self._log_before_mirror = len(self.log_lines(deployment))
        # 0 is how Azure's own example stops it:
        # https://learn.microsoft.com/azure/machine-learning/how-to-safely-rollout-online-endpoints
        problem = (
            f"The share of requests that endpoint {self.name} mirrors to {deployment} cannot be set to {percent} %"
        )
        self._update({"mirrorTraffic": {deployment: percent}}, problem)

    def mirror_counts(self, deployment: str) -> MirrorCounts | None:
        lines = self.log_lines(deployment)
        # A log as long as this has lost its first lines.
        statuses = _statuses(lines if len(lines) == _LOG_TAIL else lines[self._log_before_mirror :])
        failed = sum(status >= 500 for status in statuses)
        if failed and any(status >= 500 for each in self._serving() for status in _statuses(self.log_lines(each))):
            # Azure ML's own script answers 500 to rows that do not fit, and callers send such rows to all deployments.
            failed = 0
        error = f"the log of {deployment} has answers with a status of 500 or more" if failed else ""
        return MirrorCounts(len(statuses) - failed, failed, error=error)

    def _serving(self) -> list[str]:
        """Return the deployments that get requests."""
        resource = self._read() or {"properties": {}}
        return [name for name, percent in (resource["properties"].get("traffic") or {}).items() if percent]

    # The deployment client changes and deletes, too. But it waits for 12 minutes, and then returns as if Azure had ended:
    # azureml/mlflow/deploy/_mir/mir_deployment_client.py. And before it deletes a deployment, it sends the traffic that it has
    # read once more, and may undo what another rollout did.

    def _update(self, properties: dict[str, Any], problem: str) -> None:
        with explained(problem):
            operation = self._workspace.manager.start_change(
                self._path, {"properties": properties}, api_version=_API_OF_CHANGES
            )
            self._finish(operation, "change", _LONGEST_CHANGE_SECONDS)

    def delete_deployment(self, deployment: str) -> None:
        with explained(f"Deployment {deployment} of endpoint {self.name} was not deleted"):
            self._delete(f"{self._path}/deployments/{deployment}")

    def delete(self) -> bool:
        if self._read() is None:
            return False
        with explained(f"Endpoint {self.name} was not deleted"):
            self._delete(self._path)
        return True

    def _delete(self, path: str) -> None:
        operation = self._workspace.manager.start_deletion(path, api_version=API_VERSION)
        self._finish(operation, "deletion", _LONGEST_WAIT_SECONDS)

    def _finish(self, operation: str, what: str, longest_s: float) -> None:
        """Wait until an operation of Azure has ended well; raise an `AzureError` if it does not."""
        ended: dict[str, Any] = {"status": "Succeeded"}

        def status() -> str:
            ended.update(self._workspace.manager.get(operation))
            return ended["status"]

        if not operation or wait(status, longest_s) == "Succeeded":
            return
        reason = (ended.get("error") or {}).get("message", "")
        if not reason and ended["status"] not in ("Failed", "Canceled"):
            reason = f"Azure has not ended it after {longest_s / 60:g} minutes. Run this again when the studio shows that it has"
        raise AzureError(f"the {what} is {ended['status']}. {reason}".strip())

    def log(self, deployment: str) -> str:
        return "\n".join(self.log_lines(deployment)[-_LOG_LINES:])

    def log_lines(self, deployment: str) -> list[str]:
        """Return what the deployment's container has logged, up to the last 1,000 lines."""
        # https://learn.microsoft.com/rest/api/azureml/online-deployments/get-logs
        question = {"containerType": "InferenceServer", "tail": _LOG_TAIL}
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
            resource = self._resource(self._path)
            if self._p.endpoint_auth == "key":
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


def _statuses(log: list[str]) -> list[int]:
    """Return the statuses of the answers in a log."""
    return [int(status) for status in _ANSWERED.findall("\n".join(log))]


def _kind(endpoint: dict[str, Any]) -> str:
    """Return the kind of an online endpoint: one on a cluster names its compute."""
    return "kubernetes" if endpoint["properties"].get("compute") else "managed"


def _deployment(entry: dict[str, Any]) -> Deployment:
    properties = entry["properties"]
    *_, model, _, version = (properties.get("model") or "///").split("/")
    state = properties.get("provisioningState", "")
    return Deployment(entry["name"], f"{model}/{version}", state, is_marked(properties.get("properties") or {}))
