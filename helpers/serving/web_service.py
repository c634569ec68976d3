"""Web services of Azure Machine Learning's version 1, in Azure Container Instances or Kubernetes Service.

A web service holds one model version, which the next one replaces. Microsoft recommends managed endpoints instead:
https://learn.microsoft.com/azure/machine-learning/migrate-to-v2-deploy-endpoints
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from helpers.azureml.workspace import Workspace
from helpers.ownership import MARK
from helpers.parameters import ParameterError
from helpers.serving.deploy_client import config_file, explained, marked_model
from helpers.serving.endpoint import (
    REQUEST_SECONDS,
    Answer,
    Deployment,
    Endpoint,
    EndpointState,
    ExistingEndpoint,
    ServingError,
)
from helpers.serving.endpoint_names import deployment_name, endpoint_name

if TYPE_CHECKING:
    import pandas as pd
    import requests
    from mlflow.entities.model_registry import ModelVersion

    from helpers import parameters
    from helpers.tracking import Session

_MIGRATION = "https://learn.microsoft.com/azure/machine-learning/migrate-to-v2-deploy-endpoints"
_STATES = {"Healthy": "Succeeded", "Transitioning": "Updating"}


class WebService(Endpoint):
    """A web service on one kind of compute.

    Parameters
    ----------
    name : str
    workspace : helpers.azureml.Workspace

    Attributes
    ----------
    compute_type : str
        Azure's name for the kind of compute.
    successor : str
        The ``endpoint_target`` that Microsoft has in its place.
    loses_tags : bool
        Whether the deployment client creates a service without its tags, so that an update has to set them.
    """

    in_azureml = True
    single_version = True
    compute_type: ClassVar[str]
    successor: ClassVar[str] = "managed"
    loses_tags: ClassVar[bool] = False

    def __init__(self, name: str, workspace: Workspace) -> None:
        from mlflow.deployments import get_deploy_client

        super().__init__(name)
        self._client = get_deploy_client(workspace.tracking_uri)
        self._deployment = ""
        self._caller: tuple[str, str] | None = None

    @classmethod
    def existing(cls, session: Session) -> Iterator[ExistingEndpoint]:
        from mlflow.deployments import get_deploy_client

        if not session.connection.is_named:
            return
        workspace = session.workspace
        with explained(f"The web services of {workspace.name} cannot be listed"):
            # Deployments of managed endpoints are in this list, too. They have no compute type.
            entries = get_deploy_client(workspace.tracking_uri).list_deployments()
        for entry in entries:
            if entry.get("computeType", "").upper() == cls.compute_type:
                service = cls(entry["name"], workspace)
                yield ExistingEndpoint(service, f"Azure ML workspace {workspace.name}", marked_model(entry))

    def state(self) -> EndpointState | None:
        service = self._read()
        if service is None:
            return None
        model = (service.get("tags") or {}).get(MARK, "")
        state = _STATES.get(service["state"], service["state"])
        self._deployment = deployment_name(*model.rsplit("/", 1)) if model else self.name
        deployment = Deployment(self._deployment, model, state, is_ours=bool(model))
        url = service["scoringUri"] or ""
        return EndpointState(url, bool(model), {deployment.name: 100}, {deployment.name: deployment})

    def _read(self) -> dict[str, Any] | None:
        from mlflow.exceptions import MlflowException

        with explained(f"Web service {self.name} cannot be read"):
            try:
                return self._client.get_deployment(self.name)
            except MlflowException as error:
                if error.message != f"No deployment with name {self.name} found":
                    raise
                return None

    def _require(self) -> dict[str, Any]:
        service = self._read()
        if service is None:
            raise ServingError(f"Web service {self.name} no longer exists. Run this again to create it anew.")
        return service

    def create(self, model_name: str) -> None:
        """Do nothing: `deploy` creates the service together with its model."""

    def _compute_settings(self) -> dict[str, Any]:
        # The client recognises the compute type again only if it is in lower case.
        return {"computeType": self.compute_type.lower()}

    def deploy(self, deployment: str, version: ModelVersion, show: Callable[[str], Any] = print) -> None:
        show(
            f"  endpoint_target={self.compute_type.lower()} is deprecated, and its SDK has had no support since 2026-06-30: use "
            f"endpoint_target={self.successor}, {_MIGRATION}"
        )
        tags = {MARK: f"{version.name}/{version.version}"}
        settings = self._compute_settings() | {"authEnabled": True, "tags": tags}
        is_new = self._read() is None
        create_or_update = self._client.create_deployment if is_new else self._client.update_deployment
        with (
            explained(f"Web service {self.name}: {deployment} was not deployed"),
            config_file("deploy", settings) as config,
        ):
            create_or_update(self.name, f"models:/{version.name}/{version.version}", config=config)
            if is_new and self.loses_tags:
                self._client.update_deployment(self.name, config=config)
        self._caller = None
        self.wait(deployment, show)

    def wait(self, deployment: str, show: Callable[[str], Any] = print) -> None:
        # The client's calls have waited already.
        service = self._require()
        show(f"  {self.name}: {service['state']}")
        if service["state"] != "Healthy":
            raise ServingError(f"Web service {self.name} is {service['state']}: {service['error']}")
        self._deployment = deployment

    def set_traffic(self, traffic: dict[str, int]) -> None:
        """Do nothing: the one version gets all requests."""

    def delete_deployment(self, deployment: str) -> None:
        """Delete the web service, which is the same as its one deployment."""
        self.delete()

    def delete(self) -> bool:
        if self._read() is None:
            return False
        with explained(f"Web service {self.name} was not deleted"):
            self._client.delete_deployment(self.name)
        return True

    def log(self, deployment: str) -> str:
        """Return nothing: the deployment client cannot read the log. `az ml service get-logs` of version 1 can."""
        return ""

    def invoke(self, rows: pd.DataFrame, deployment: str = "") -> Answer:
        return dataclasses.replace(super().invoke(rows), deployment=self._deployment)

    def _post(self, body: str, headers: dict[str, str]) -> requests.Response:
        import requests

        if self._caller is None:
            with explained(f"The key of web service {self.name} cannot be read"):
                # The client's public calls would read the key again for each request.
                key = self._client._mms_client.list_service_keys(self.name).primary_key
            self._caller = self._require()["scoringUri"], key
        url, key = self._caller
        return requests.post(
            url, data=body, headers=headers | {"Authorization": f"Bearer {key}"}, timeout=REQUEST_SECONDS
        )


class ContainerInstanceService(WebService):
    """A web service in Azure Container Instances."""

    compute_type = "ACI"

    @classmethod
    def open(cls, session: Session, p: parameters.Endpoint, model_name: str) -> ContainerInstanceService:
        _require_key(p, "aci")
        workspace = session.workspace
        return cls(p.endpoint_name or endpoint_name(model_name, workspace.resource_id), workspace)


class KubernetesService(WebService):
    """A web service in Azure Kubernetes Service.

    Parameters
    ----------
    name : str
    workspace : helpers.azureml.Workspace
    cluster : str, default ""
        The Kubernetes cluster that is attached to the workspace; only needed to deploy.
    replicas : int, default 1
    """

    compute_type = "AKS"
    successor = "kubernetes"
    loses_tags = True

    def __init__(self, name: str, workspace: Workspace, cluster: str = "", replicas: int = 1) -> None:
        super().__init__(name, workspace)
        self._cluster, self._replicas = cluster, replicas

    @classmethod
    def open(cls, session: Session, p: parameters.Endpoint, model_name: str) -> KubernetesService:
        if not p.aks_compute:
            raise ParameterError(
                "aks_compute", "", "is needed for endpoint_target=aks: the name of the attached cluster"
            )
        _require_key(p, "aks")
        workspace = session.workspace
        name = p.endpoint_name or endpoint_name(model_name, workspace.resource_id)
        return cls(name, workspace, p.aks_compute, p.instance_count)

    def _compute_settings(self) -> dict[str, Any]:
        settings = {"computeTargetName": self._cluster, "numReplicas": self._replicas}
        return super()._compute_settings() | settings


def _require_key(p: parameters.Endpoint, kind: str) -> None:
    if p.endpoint_auth != "key":
        raise ParameterError("endpoint_auth", p.endpoint_auth, f"endpoint_target={kind} accepts only key")
