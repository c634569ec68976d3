"""The kinds of endpoint, and which of them the parameters ask for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from helpers import azureml, tracking
from helpers.serving.endpoint import Endpoint
from helpers.serving.local_endpoint import LocalEndpoint
from helpers.serving.managed_endpoint import ManagedEndpoint
from helpers.serving.web_service import ContainerInstanceService, KubernetesService

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

KINDS: dict[str, type[Endpoint]] = {
    "managed": ManagedEndpoint,
    "aci": ContainerInstanceService,
    "aks": KubernetesService,
    "local": LocalEndpoint,
}
"""Class of each kind, by its value of ``endpoint_target``."""


def open_endpoint(p: SimpleNamespace, version: ModelVersion) -> tuple[Endpoint, ModelVersion]:
    """Return the endpoint of a model, and the model version in a registry that the endpoint deploys from.

    The endpoint need not exist yet. Azure Machine Learning deploys models of its own registry only, so a version of
    another registry is registered there first.

    Parameters
    ----------
    p : types.SimpleNamespace
        With `helpers.parameters.TRACKING` and `helpers.parameters.ENDPOINT`.
    version : mlflow.entities.model_registry.ModelVersion
        From the registry that MLflow points at.

    Raises
    ------
    helpers.parameters.ParameterError
        If a parameter is missing or does not go with the kind of endpoint.
    helpers.azureml.rest.AzureError
        If the Azure Machine Learning workspace cannot be used.
    """
    endpoint = KINDS[requested_kind(p)].open(p, version.name, lambda: azureml.connect(p))
    if endpoint.registry_uri:
        version, _ = tracking.in_azureml(version, endpoint.registry_uri)
    return endpoint, version


def requested_kind(p: SimpleNamespace) -> str:
    """Return the key in `KINDS` that ``endpoint_target`` stands for."""
    if p.endpoint_target != "auto":
        return p.endpoint_target
    return "managed" if names_workspace(p) else "local"


def names_workspace(p: SimpleNamespace) -> bool:
    """Return whether the parameters name an Azure Machine Learning workspace."""
    return bool(p.azureml_workspace or p.azureml_tracking_uri)
