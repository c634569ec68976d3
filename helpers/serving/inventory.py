"""Which endpoints and deployments there are, for clean-up."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

from helpers import azureml, runtime
from helpers.ownership import MARK, NOT_OURS, Item
from helpers.serving.azure_answers import explained
from helpers.serving.endpoint import Endpoint
from helpers.serving.local_endpoint import LocalEndpoint
from helpers.serving.managed_endpoint import ManagedEndpoint
from helpers.serving.targets import names_workspace
from helpers.serving.web_service import WebService

OF_OTHERS = "made by this bundle, and not named by these parameters"


def items(p: SimpleNamespace, model_name: str, force: bool) -> list[Item]:
    """Return the endpoints on this machine and, where `p` names one, in an Azure Machine Learning workspace.

    Parameters
    ----------
    p : types.SimpleNamespace
        With `helpers.parameters.TRACKING`.
    model_name : str
        Name in the registry of the model whose endpoint may be deleted.
    force : bool
        Whether what gets requests may be deleted.

    Raises
    ------
    helpers.parameters.ParameterError, helpers.azureml.rest.AzureError, helpers.serving.ServingError
        If the workspace cannot be asked.
    """
    found: list[Item] = []
    for endpoint in LocalEndpoint.all(runtime.local_dir() / "endpoints"):
        kept = "" if endpoint.model_name == model_name else OF_OTHERS
        found += _items(endpoint, "this machine", kept, force)
    if names_workspace(p):
        found += _in_azureml(azureml.connect(p), model_name, force)
    return found


def _in_azureml(workspace: azureml.Workspace, model_name: str, force: bool) -> Iterator[Item]:
    from mlflow.deployments import get_deploy_client

    client = get_deploy_client(workspace.tracking_uri)
    with explained(f"The endpoints of {workspace.name} cannot be listed"):
        endpoints = client.list_endpoints()
        # The deployments of endpoints are among them, without a kind of compute.
        services = [one for one in client.list_deployments() if "computeType" in one]
    where = f"Azure ML workspace {workspace.name}"
    for one in endpoints:
        endpoint = ManagedEndpoint(one["name"], workspace, auth=None)
        yield from _items(endpoint, where, _kept(one, model_name), force)
    for one in services:
        yield from _items(WebService(one["name"], workspace), where, _kept(one, model_name), force)


def _kept(resource: dict, model_name: str) -> str:
    mark = (resource.get("tags") or {}).get(MARK)
    if mark is None:
        return NOT_OURS
    # A web service's says the version, too.
    return "" if mark.partition("/")[0] == model_name else OF_OTHERS


def _items(endpoint: Endpoint, where: str, kept: str, force: bool) -> Iterator[Item]:
    """Return an endpoint, and its deployments if they can be deleted by themselves."""
    state = endpoint.state()
    traffic = state.traffic if state else {}
    deployments = state.deployments.values() if state else ()
    if not kept and not all(deployment.is_ours for deployment in deployments):
        kept = "has deployments that this bundle did not make"
    serving = ", ".join(f"{name} gets {percent} %" for name, percent in traffic.items())
    if not endpoint.replaces:
        for deployment in deployments:
            reason = kept if deployment.is_ours else NOT_OURS
            if not reason and not force and deployment.name in traffic:
                reason = f"gets {traffic[deployment.name]} % of the requests; force=true deletes it"
            delete = partial(_delete_deployment, endpoint, deployment.name)
            yield Item("deployments", f"{endpoint.name}/{deployment.name}", where, delete, reason)
    reason = kept or (f"serves requests: {serving}; force=true deletes it" if serving and not force else "")
    yield Item("endpoints", endpoint.name, where, partial(_delete, endpoint), reason)


def _delete_deployment(endpoint: Endpoint, deployment: str) -> bool:
    state = endpoint.state()
    if state is None or deployment not in state.deployments:
        return False
    if deployment in state.traffic:
        # What is left would not be a whole, which Azure refuses.
        endpoint.set_traffic(dict.fromkeys(state.deployments, 0))
    endpoint.delete_deployment(deployment)
    return True


def _delete(endpoint: Endpoint) -> bool:
    if endpoint.state() is None and not isinstance(endpoint, LocalEndpoint):
        return False
    endpoint.delete()
    return True
