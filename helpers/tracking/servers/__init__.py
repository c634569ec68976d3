"""The kinds of MLflow servers, one file for each; `helpers.kinds.SERVERS` names them."""

from __future__ import annotations

from helpers import kinds, parameters
from helpers.azureml import Connection
from helpers.tracking.servers.base import Server

__all__ = ["Server", "server_of_mlflow"]


def server_of_mlflow(tracking_uri: str) -> Server:
    """Return the server that a tracking URI of MLflow's means.

    Any server that is not one of `helpers.kinds.SERVERS`, such as ``http://…``, is like MLflow's own.
    """
    classes = [kinds.load(kinds.SERVERS, name) for name in kinds.SERVERS]
    server_class = next((kind for kind in classes if kind.owns(tracking_uri)), classes[0])
    return server_class(Connection(parameters.AzureML()))
