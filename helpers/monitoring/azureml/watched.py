"""The deployment whose data is watched: of the endpoints that this bundle made for a model, the one with most traffic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from helpers.azureml.collected_data import COLLECTIONS, collection_uri
from helpers.azureml.workspace import API_VERSION, Workspace
from helpers.ownership import MARK
from helpers.parameters import ParameterError


@dataclass(frozen=True)
class Watched:
    """A deployment of an endpoint, and where Azure ML collects its data.

    Attributes
    ----------
    endpoint, deployment : str
        Their names.
    deployment_id : str
        In Azure Resource Manager.
    version : str
        The version of the model that it serves, in Azure ML's registry.
    collected : dict of str to str
        The data's URI by collection: ``model_inputs`` and ``model_outputs``.
    """

    endpoint: str
    deployment: str
    deployment_id: str
    version: str
    collected: dict[str, str]


def watched_deployments(workspace: Workspace, model_name: str) -> list[Watched]:
    """Return the deployment with most traffic of each endpoint; usually a model has one endpoint.

    Raises
    ------
    ParameterError
        If the model has no endpoint, or if one has no traffic or does not collect inputs and outputs.
    """
    found = [_watched(workspace, endpoint) for endpoint in _endpoints(workspace, model_name)]
    if not found:
        raise _refused(
            f"the Azure ML workspace {workspace.name} has no managed endpoint of {model_name} that this bundle made. Run "
            "05_deploy_endpoint with endpoint_target=managed and collect_data=true"
        )
    return found


def _endpoints(workspace: Workspace, model_name: str) -> Iterator[dict[str, Any]]:
    for endpoint in workspace.manager.get_all(f"{workspace.resource_id}/onlineEndpoints", api_version=API_VERSION):
        if (endpoint.get("tags") or {}).get(MARK) == model_name:
            yield endpoint


def _watched(workspace: Workspace, endpoint: dict[str, Any]) -> Watched:
    name, traffic = endpoint["name"], endpoint["properties"].get("traffic") or {}
    deployment = max(traffic, key=lambda each: traffic[each], default="")
    if not traffic.get(deployment):
        raise _refused(f"endpoint {name} has no traffic. Run 05_deploy_endpoint first")
    path = f"{workspace.resource_id}/onlineEndpoints/{name}/deployments/{deployment}"
    properties = workspace.manager.get(path, api_version=API_VERSION)["properties"]
    collections = (properties.get("dataCollector") or {}).get("collections") or {}
    off = [
        collection
        for collection in COLLECTIONS
        if (collections.get(collection) or {}).get("dataCollectionMode") != "Enabled"
    ]
    if off:
        raise _refused(
            f"deployment {deployment} of endpoint {name} does not collect {' and '.join(off)}. Run 05_deploy_endpoint with "
            "collect_data=true"
        )
    collected = {collection: collection_uri(workspace, name, deployment, collection) for collection in COLLECTIONS}
    return Watched(name, deployment, path, properties["model"].rpartition("/")[2], collected)


def _refused(problem: str) -> ParameterError:
    return ParameterError("azureml_monitor", True, problem)
