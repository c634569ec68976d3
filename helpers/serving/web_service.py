"""A web service of Azure Machine Learning's version 1, in Azure Container Instances or Kubernetes Service.

It has one model version, which the next one replaces. Microsoft advises managed endpoints in its place:
https://learn.microsoft.com/azure/machine-learning/migrate-to-v2-deploy-endpoints
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from helpers.azureml.workspace import Workspace
from helpers.ownership import MARK
from helpers.serving.azure_answers import config_file, explained
from helpers.serving.endpoint import REQUEST_SECONDS, Answer, Deployment, Endpoint, EndpointState, ServingError
from helpers.serving.endpoint_names import deployment_name

if TYPE_CHECKING:
    import pandas as pd
    import requests
    from mlflow.entities.model_registry import ModelVersion

_STATES = {"Healthy": "Succeeded", "Transitioning": "Updating"}


class WebService(Endpoint):
    """A web service.

    Parameters
    ----------
    name : str
    workspace : helpers.azureml.Workspace
    compute : str, default ""
        The attached Kubernetes cluster. Empty: Azure Container Instances.
    replicas : int, default 1
        On Kubernetes.
    """

    replaces = True

    def __init__(self, name: str, workspace: Workspace, compute: str = "", replicas: int = 1) -> None:
        from mlflow.deployments import get_deploy_client

        super().__init__(name)
        self._compute, self._replicas = compute, replicas
        self._client = get_deploy_client(workspace.tracking_uri)
        self._served = ""
        self._caller: tuple[str, str] | None = None

    def state(self) -> EndpointState | None:
        found = self._find()
        if found is None:
            return None
        model = (found.get("tags") or {}).get(MARK, "")
        state = _STATES.get(found["state"], found["state"])
        self._served = deployment_name(*model.rsplit("/", 1)) if model else self.name
        deployment = Deployment(self._served, model, state, is_ours=bool(model))
        return EndpointState(found["scoringUri"] or "", bool(model), {self._served: 100}, {self._served: deployment})

    def _find(self) -> dict[str, Any] | None:
        from mlflow.exceptions import MlflowException

        with explained(f"Web service {self.name} cannot be read"):
            try:
                return self._client.get_deployment(self.name)
            except MlflowException as error:
                if error.message != f"No deployment with name {self.name} found":
                    raise
                return None

    def _there(self) -> dict[str, Any]:
        found = self._find()
        if found is None:
            raise ServingError(f"Web service {self.name} is gone. Run this again, and it is made anew.")
        return found

    def create(self, model_name: str) -> None:
        """Do nothing: it comes into being with its model."""

    def deploy(self, deployment: str, version: ModelVersion, show: Callable[[str], Any] = print) -> None:
        wanted: dict[str, Any] = {"computeType": "aci", "authEnabled": True}
        if self._compute:
            wanted |= {"computeType": "aks", "computeTargetName": self._compute, "numReplicas": self._replicas}
        wanted["tags"] = {MARK: f"{version.name}/{version.version}"}
        is_new = self._find() is None
        change = self._client.create_deployment if is_new else self._client.update_deployment
        with explained(f"Web service {self.name} does not get {deployment}"), config_file("deploy", wanted) as config:
            change(self.name, f"models:/{version.name}/{version.version}", config=config)
            if is_new and self._compute:
                # The client creates it without its tags there.
                self._client.update_deployment(self.name, config=config)
        self._caller = None
        self.wait(deployment, show)

    def wait(self, deployment: str, show: Callable[[str], Any] = print) -> None:
        found = self._there()
        show(f"  {self.name}: {found['state']}")
        if found["state"] != "Healthy":
            raise ServingError(f"Web service {self.name} is {found['state']}: {found['error']}")
        self._served = deployment

    def set_traffic(self, traffic: dict[str, int]) -> None:
        """Do nothing: there is one version."""

    def delete_deployment(self, deployment: str) -> None:
        """Delete the web service, which is no more than its model version."""
        self.delete()

    def delete(self) -> None:
        with explained(f"Web service {self.name} was not deleted"):
            self._client.delete_deployment(self.name)

    def log(self, deployment: str) -> str:
        """Return nothing: the client has no call for it; `az ml service get-logs` of version 1 has."""
        return ""

    def invoke(self, rows: pd.DataFrame, deployment: str = "") -> Answer:
        return dataclasses.replace(super().invoke(rows), deployment=self._served)

    def _post(self, body: str, headers: dict[str, str]) -> requests.Response:
        import requests

        if self._caller is None:
            with explained(f"Web service {self.name} gives no key"):
                # Its public calls ask for the key with each request.
                key = self._client._mms_client.list_service_keys(self.name).primary_key
            self._caller = self._there()["scoringUri"], key
        url, key = self._caller
        return requests.post(
            url, data=body, headers=headers | {"Authorization": f"Bearer {key}"}, timeout=REQUEST_SECONDS
        )
