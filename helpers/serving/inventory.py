"""The endpoints and deployments that clean-up may delete, and the code and environments that they were made with."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from helpers import kinds, parameters, tracking
from helpers.ownership import NOT_OURS, OTHER_MODEL, Item
from helpers.serving import own_environment
from helpers.serving.endpoint import Endpoint, EndpointState, ExistingEndpoint
from helpers.serving.opening import endpoint_class

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def items(spark: SparkSession, session: tracking.Session, p: parameters.CleanUp) -> list[Item]:
    """Return the endpoints on this machine and, where the parameters name one, those and their assets in an AML workspace.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    session : helpers.tracking.Session
    p : helpers.parameters.CleanUp
        The model's endpoint may be deleted; with ``force`` also if it has traffic.

    Raises
    ------
    helpers.parameters.ParameterError, helpers.azureml.rest.AzureError, helpers.serving.ServingError
        If the endpoints of the workspace cannot be listed.
    """
    del spark
    model_name = session.registered_model_name(p.model_name, p.catalog, p.schema)
    found = [
        item
        for kind in kinds.ENDPOINTS
        for existing in endpoint_class(kind).existing(session)
        for item in _items(existing, model_name, p.force)
    ]
    if session.connection.is_named:
        found += own_environment.items(session.workspace, model_name, found)
    return found


def _items(existing: ExistingEndpoint, model_name: str, force: bool) -> Iterator[Item]:
    """Return an endpoint, and its deployments if they can be deleted on their own."""
    endpoint, where = existing.endpoint, existing.where
    state = endpoint.state() or EndpointState("", is_ours=True)
    reason = _keep_reason(existing, state, model_name)
    if not endpoint.single_version:
        for deployment in state.deployments.values():
            deployment_reason = reason if deployment.is_ours else NOT_OURS
            percent = state.traffic.get(deployment.name, 0)
            if not deployment_reason and percent and not force:
                deployment_reason = f"gets {percent} % of the requests; force=true deletes it"
            delete = partial(_delete_deployment, endpoint, deployment.name)
            yield Item("deployments", f"{endpoint.name}/{deployment.name}", where, delete, deployment_reason)
    if not reason and state.traffic and not force:
        shares = ", ".join(f"{name} gets {percent} %" for name, percent in state.traffic.items())
        reason = f"serves requests: {shares}; force=true deletes it"
    yield Item("endpoints", endpoint.name, where, endpoint.delete, reason)


def _keep_reason(existing: ExistingEndpoint, state: EndpointState, model_name: str) -> str:
    """Return why an endpoint is kept, whether it has traffic or not."""
    if existing.model_name is None:
        return NOT_OURS
    if existing.model_name != model_name:
        return OTHER_MODEL
    if not all(deployment.is_ours for deployment in state.deployments.values()):
        return "has deployments that this bundle did not make"
    return ""


def _delete_deployment(endpoint: Endpoint, deployment: str) -> bool:
    state = endpoint.state()
    if state is None or deployment not in state.deployments:
        return False
    if deployment in state.traffic:
        # Azure refuses traffic that does not add up to 100 % or 0 %.
        endpoint.set_traffic(dict.fromkeys(state.deployments, 0))
    if deployment in state.mirror:
        # A rollout was killed while requests were mirrored.
        endpoint.set_mirror(deployment, 0)
    endpoint.delete_deployment(deployment)
    return True
