"""The link from a Databricks workspace to the Azure ML workspace, shown and set by `helpers.azureml`."""

from __future__ import annotations

import dataclasses
import os
from http.server import HTTPServer, SimpleHTTPRequestHandler
from threading import Thread
from typing import Any

from helpers import azureml
from tests.scenarios.azureml import resource_manager
from tests.scenarios.errors import error_of
from tests.stand_ins import both_servers
from tests.stand_ins.azureml_workspace import AzureMLStandIn

link = azureml.workspace_link
DATABRICKS = AzureMLStandIn.databricks_workspace_resource_id
OTHER_WORKSPACE = AzureMLStandIn.workspace_resource_id.replace(AzureMLStandIn.workspace, "others")


def connected(**changes: str) -> azureml.Connection:
    """Return a connection to the Azure ML workspace, like the one of a session.

    Parameters
    ----------
    **changes : str
        Fields of `helpers.azureml.Workspace` to change, for another workspace.
    """
    uri = AzureMLStandIn.from_environment().tracking_uri
    connection = azureml.Connection(both_servers.parameters(azureml_tracking_uri=uri))
    # Replaces the workspace that the connection would look up at first use.
    connection.workspace = dataclasses.replace(connection.workspace, **changes)
    return connection


def set_link(aml_workspace: str | None) -> None:
    """Link the Databricks workspace without the helpers; None removes the link."""
    resource = resource_manager.ask("GET", DATABRICKS)[1]
    resource["properties"]["parameters"].pop("amlWorkspaceId", None)
    if aml_workspace:
        resource["properties"]["parameters"]["amlWorkspaceId"] = {"value": aml_workspace}
    resource_manager.ask("PUT", DATABRICKS, resource)


def show_set_and_set_again() -> dict[str, Any]:
    """Show the link, set it and set it again, and return the resource before and after."""
    connection = connected()
    set_link(None)
    resource_manager.ask("PATCH", DATABRICKS, {"tags": {"team": "blue"}})
    before = resource_manager.ask("GET", DATABRICKS)[1]
    shown = link(connection)
    unchanged = resource_manager.ask("GET", DATABRICKS)[1] == before
    linked = link(connection, link=True)
    return {
        "before": before,
        "shown": shown,
        "unchanged": unchanged,
        "linked": linked,
        "after": resource_manager.ask("GET", DATABRICKS)[1],
        "again": link(connection, link=True),
        "shown_again": link(connection, DATABRICKS),
    }


def link_where_it_is_not_supported() -> dict[str, Any]:
    """Try workspaces with private endpoints, a cloud without links, and a link that Azure itself refuses."""
    connection = connected()
    set_link(None)
    china = connected(cloud="AzureChinaCloud")
    private = connected(resource_id=AzureMLStandIn.private_workspace_resource_id)
    cases = {
        # The workspace is found by its address, on the second page of the list.
        "private Databricks": (connection, ""),
        "private Azure ML": (private, DATABRICKS),
        "21Vianet": (china, DATABRICKS),
    }
    known = {name: [link(*case), error_of(link, *case, True)] for name, case in cases.items()}
    AzureMLStandIn.from_environment().faults.add("PUT .*Microsoft.Databricks", 400)
    return {"known": known, "refused_by_azure": error_of(link, connection, DATABRICKS, True)}


def replace_the_link_of_another_workspace() -> dict[str, Any]:
    """Show and set the link if another Azure ML workspace is already linked."""
    connection = connected()
    set_link(OTHER_WORKSPACE)
    shown, refused = link(connection, DATABRICKS), error_of(link, connection, DATABRICKS, True)
    parameters = resource_manager.ask("GET", DATABRICKS)[1]["properties"]["parameters"]
    return {"shown": shown, "refused": refused, "after": parameters}


def link_without_a_workspace() -> dict[str, Any]:
    """Show and set the link if one of the two workspaces is missing or unknown."""
    connection = connected()
    no_databricks = [link(connection), error_of(link, connection, link=True)]
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as elsewhere:
        Thread(target=elsewhere.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{elsewhere.server_port}"
        os.environ |= {"DATABRICKS_HOST": f"http://{address}", "DATABRICKS_TOKEN": "dapi-stand-in-token"}
        unknown_address = [link(connection), error_of(link, connection, link=True)]
        elsewhere.shutdown()
    return {
        "no_databricks": no_databricks,
        "address": address,
        "unknown_address": unknown_address,
        "no_azureml": [link(None), error_of(link, None, link=True)],
        "unknown_id": [error_of(link, connection, DATABRICKS + "-2", asked) for asked in (False, True)],
    }


def link_without_a_role() -> dict[str, Any]:
    """Try to set the link without permission to write, and to show it without permission to read."""
    connection = connected()
    set_link(None)
    faults = AzureMLStandIn.from_environment().faults
    faults.add("PUT .*Microsoft.Databricks", 403)
    unwritten = error_of(link, connection, DATABRICKS, True)
    faults.add("GET .*Microsoft.Databricks", 403)
    return {
        "unwritten": unwritten,
        "unseen": link(connection, DATABRICKS),
        "unread": error_of(link, connection, DATABRICKS, True),
    }
