"""Which kind of endpoint the parameters mean."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from helpers import azureml, runtime, tracking
from helpers.parameters import ParameterError
from helpers.serving.endpoint import Endpoint
from helpers.serving.endpoint_names import endpoint_name
from helpers.serving.local_endpoint import LocalEndpoint
from helpers.serving.managed_endpoint import ManagedEndpoint
from helpers.serving.web_service import WebService

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def open_endpoint(p: SimpleNamespace, version: ModelVersion) -> tuple[Endpoint, ModelVersion]:
    """Return the endpoint of a model, which need not exist yet, and the version that it can take.

    Azure Machine Learning takes models of its own registry: one of another is registered there first.

    Parameters
    ----------
    p : types.SimpleNamespace
        With `helpers.parameters.TRACKING` and the parameters of endpoints.
    version : mlflow.entities.model_registry.ModelVersion
        Of the registry that MLflow points at.

    Raises
    ------
    helpers.parameters.ParameterError
        If a parameter is missing or cannot be used.
    helpers.azureml.rest.AzureError
        If the Azure Machine Learning workspace cannot be used.
    """
    kind = target(p)
    if kind == "local":
        folder = runtime.local_dir() / "endpoints"
        return LocalEndpoint(p.endpoint_name or endpoint_name(version.name, str(folder)), folder), version
    if kind == "aks" and not p.aks_compute:
        raise ParameterError("aks_compute", "", "is needed for endpoint_target=aks: the name of the attached cluster")
    if kind != "managed" and p.endpoint_auth != "key":
        raise ParameterError("endpoint_auth", p.endpoint_auth, f"endpoint_target={kind} takes key only")
    workspace = azureml.connect(p)
    name = p.endpoint_name or endpoint_name(version.name, workspace.resource_id)
    there, _ = tracking.in_azureml(version, workspace.tracking_uri)
    if kind != "managed":
        return WebService(name, workspace, p.aks_compute if kind == "aks" else "", p.instance_count), there
    return ManagedEndpoint(name, workspace, p.instance_type, p.instance_count, p.endpoint_auth), there


def target(p: SimpleNamespace) -> str:
    """Return what ``endpoint_target`` means here."""
    if p.endpoint_target != "auto":
        return p.endpoint_target
    return "managed" if names_workspace(p) else "local"


def names_workspace(p: SimpleNamespace) -> bool:
    """Return whether the parameters name an Azure Machine Learning workspace."""
    return bool(p.azureml_workspace or p.azureml_tracking_uri)
