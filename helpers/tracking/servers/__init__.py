"""The kinds of MLflow servers, one file for each; `helpers.kinds.SERVERS` names them."""

from __future__ import annotations

import re
from dataclasses import replace

from helpers import kinds, parameters
from helpers.azureml import Connection
from helpers.tracking.servers.base import Server

__all__ = ["Server", "server_at", "server_of_mlflow"]


def server_at(address: str, connection: Connection, parameter: str) -> Server:
    """Return the server that a parameter names, without contacting it.

    Parameters
    ----------
    address : str
        One of `helpers.kinds.SERVERS`, or an address that ``model_registry`` or
        ``share_with`` accepts.
    connection : helpers.azureml.Connection
        The Azure ML workspace of the session; its sign-in is used for other workspaces and for registries, too.
    parameter : str
        Its name, for errors.
    """
    registry = re.fullmatch(parameters.REGISTRY_ADDRESS, address)
    if registry:
        from helpers.tracking.servers.azureml_registry import AzureMLRegistry

        return AzureMLRegistry(connection, registry["registry"], parameter)
    workspace = re.fullmatch(parameters.WORKSPACE_ADDRESS, address)
    if workspace:
        other = replace(
            connection.parameters,
            azureml_subscription_id=workspace["subscription"],
            azureml_resource_group=workspace["group"],
            azureml_workspace=workspace["workspace"],
            azureml_region="",
            azureml_tracking_uri="",
        )
        return kinds.load(kinds.SERVERS, "azureml")(Connection(other))
    return kinds.load(kinds.SERVERS, address.partition("/")[0])(connection)


def server_of_mlflow(tracking_uri: str) -> Server:
    """Return the server that a tracking URI of MLflow's means.

    Any server that is not one of `helpers.kinds.SERVERS`, such as ``http://…``, is like MLflow's own.
    """
    classes = [kinds.load(kinds.SERVERS, name) for name in kinds.SERVERS]
    server_class = next((kind for kind in classes if kind.owns(tracking_uri)), classes[0])
    return server_class(Connection(parameters.AzureML()))
