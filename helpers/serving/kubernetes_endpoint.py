"""A Kubernetes online endpoint of Azure Machine Learning: as a managed one, on a cluster that is attached to the workspace.

https://learn.microsoft.com/azure/machine-learning/how-to-attach-kubernetes-anywhere
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helpers.azureml.workspace import API_VERSION
from helpers.parameters import ParameterError
from helpers.serving.managed_endpoint import ManagedEndpoint

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from helpers import parameters
    from helpers.tracking import Session


class KubernetesEndpoint(ManagedEndpoint):
    """A Kubernetes online endpoint. The requests differ from those of a managed one only in what names the compute."""

    kind = "kubernetes"
    # https://learn.microsoft.com/azure/machine-learning/how-to-safely-rollout-online-endpoints
    mirrors = False

    @classmethod
    def _check_parameters(cls, p: parameters.Endpoint) -> None:
        if not p.endpoint_compute:
            raise ParameterError(
                "endpoint_compute", "", "is needed for endpoint_target=kubernetes: the name of the attached cluster"
            )
        # https://learn.microsoft.com/azure/machine-learning/how-to-authenticate-online-endpoint
        if p.endpoint_auth != "key":
            raise ParameterError("endpoint_auth", p.endpoint_auth, "endpoint_target=kubernetes accepts only key")
        if p.public_network_access != "enabled":
            raise ParameterError(
                "public_network_access",
                p.public_network_access,
                "is for managed endpoints; on Kubernetes the cluster's network decides who reaches the endpoint",
            )
        if p.instance_type.startswith("Standard_"):
            raise ParameterError(
                "instance_type",
                p.instance_type,
                "is a virtual machine. endpoint_target=kubernetes needs the name of an instance type of the cluster, or "
                "nothing for its default: https://learn.microsoft.com/azure/machine-learning/how-to-manage-kubernetes-instance-types",
            )

    def check(self, session: Session, version: ModelVersion) -> None:
        # Clusters for the deprecated web services have the type AKS.
        # https://learn.microsoft.com/rest/api/azureml/compute/list
        computes = self._workspace.manager.get_all(f"{self._workspace.resource_id}/computes", api_version=API_VERSION)
        clusters = [each["name"] for each in computes if each["properties"]["computeType"] == "Kubernetes"]
        if self._p.endpoint_compute.lower() not in map(str.lower, clusters):
            there = f"it has {', '.join(clusters)}" if clusters else "it has none"
            raise ParameterError(
                "endpoint_compute",
                self._p.endpoint_compute,
                f"the workspace {self._workspace.name} has no Kubernetes cluster of that name; {there}. Attach one, "
                "https://learn.microsoft.com/azure/machine-learning/how-to-attach-kubernetes-to-workspace",
            )
        super().check(session, version)

    @property
    def _compute(self) -> str:
        return f"{self._workspace.resource_id}/computes/{self._p.endpoint_compute}"

    def _compute_of_endpoint(self) -> dict[str, Any]:
        return {"compute": self._compute}

    def _compute_of_deployment(self) -> dict[str, Any]:
        # Azure takes the cluster's default instance type where there is none.
        instance_type = {"instanceType": self._p.instance_type} if self._p.instance_type else {}
        return {"endpointComputeType": "Kubernetes"} | instance_type
