"""Show or set the link from a Databricks workspace to an Azure Machine Learning workspace.

The link is the property ``amlWorkspaceId`` of the Databricks workspace's resource in Azure. The button
*Link Azure Machine Learning workspace* of the portal sets it:
https://learn.microsoft.com/azure/machine-learning/how-to-use-mlflow-azure-databricks
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

from helpers import runtime
from helpers.azureml.connection import Connection
from helpers.azureml.rest import AzureError
from helpers.azureml.workspace import API_VERSION, Workspace
from helpers.parameters import ParameterError

DATABRICKS_API_VERSION = "2024-05-01"
DOCUMENTATION = "https://learn.microsoft.com/azure/machine-learning/how-to-use-mlflow-azure-databricks"
INSTEAD = "use tracking_mode=azureml or model_registry=azureml, which need no link"
# A changed workspace is in the state `Updating` for a while; its state is read every 5 s, for at most 5 minutes.
POLL_SECONDS, MOST_SECONDS = 5, 300
# The REST specification marks these as read-only, so Azure's own clients do not send them either:
# https://github.com/Azure/azure-rest-api-specs (specification/databricks, 2024-05-01, databricks.json)
READ_ONLY = {"id", "name", "type", "systemData"}
READ_ONLY_PROPERTIES = {
    "provisioningState", "workspaceId", "workspaceUrl", "diskEncryptionSetId", "privateEndpointConnections",
    "isUcEnabled", "createdBy", "updatedBy", "createdDateTime", "storageAccountIdentity", "managedDiskIdentity",
}  # fmt: skip
READ_ONLY_PARAMETERS = {"resourceTags"}


class _NotFound(LookupError):
    """The Databricks workspace whose link is to be shown cannot be found."""


def workspace_link(connection: Connection | None, databricks_resource_id: str = "", link: bool = False) -> str:
    """Say whether the Databricks workspace is linked to the AML workspace, and link them if requested.

    An existing link is not sent again. A link to another AML workspace is never replaced.

    Parameters
    ----------
    connection : helpers.azureml.Connection or None
        None if no AML workspace is used.
    databricks_resource_id : str, default ""
        Resource id of the Databricks workspace. If it is empty, the workspace with the address
        `helpers.runtime.workspace_url` is searched in the AML workspace's subscription.
    link : bool, default False
        Set the link, and wait for at most 5 minutes until Azure has done so.

    Returns
    -------
    str
        One line. Without `link` it may also say why the link cannot be shown.

    Raises
    ------
    ParameterError
        If Azure does not know `databricks_resource_id`. With `link`, also if there is nothing to
        link, if linking is not supported, or if there is a link to another AML workspace.
    helpers.azureml.rest.AzureError
        With `link`, if Azure cannot be reached or refuses.
    """
    if connection is None:
        if link:
            raise _refused(
                "no Azure ML workspace is used here; set tracking_mode=azureml or model_registry=azureml, "
                "or link_workspaces=false"
            )
        return "No Azure ML workspace is used (tracking_mode, model_registry), so there is nothing to link."
    try:
        workspace = connection.workspace
        return _show_or_link(workspace, _databricks_workspace(workspace, databricks_resource_id), link)
    except _NotFound as missing:
        if link:
            raise _refused(f"{missing}; set databricks_resource_id (portal, JSON view)") from None
        return f"The link cannot be shown: {missing}; set databricks_resource_id."
    except AzureError as error:
        if not link:
            hint = ". This needs the role Reader on the Databricks workspace" if error.status == 403 else ""
            return f"The link cannot be shown: {error}{hint}"
        if error.status == 403:
            raise AzureError(
                f"No permission to link the Databricks workspace (403 {error.code}): assign the role Contributor on "
                f"it, and Reader on the Azure ML workspace; or {INSTEAD}. {DOCUMENTATION}",
                403,
                error.code,
            ) from None
        if error.status == 400:
            # Serverless workspaces cannot be linked, and this version of the API does not show which are serverless:
            # https://learn.microsoft.com/javascript/api/@azure/arm-databricks/workspacecustomparameters
            raise AzureError(f"{error}. Where Azure refuses the link, {INSTEAD}", 400, error.code) from None
        raise


def _show_or_link(workspace: Workspace, resource: dict[str, Any], link: bool) -> str:
    name, other = resource["name"], _linked_to(resource)
    if other.lower() == workspace.resource_id.lower():
        already = "already " if link else ""
        return f"The Databricks workspace {name} is {already}linked to {workspace.resource_id}."
    if other:
        if link:
            raise _refused(
                f"the Databricks workspace {name} is linked to another Azure ML workspace, {other}, and this is not "
                f"replaced; work with that one (azureml_workspace={other.rsplit('/', 1)[1]}), or {INSTEAD}"
            )
        return f"The Databricks workspace {name} is linked to another Azure ML workspace: {other}."
    obstacle = _obstacle(workspace, resource)
    if obstacle:
        if link:
            raise _refused(f"linking is not supported {obstacle}; {INSTEAD}. {DOCUMENTATION}")
        return f"The Databricks workspace {name} is not linked, and cannot be {obstacle}; {INSTEAD}."
    if not link:
        return f"The Databricks workspace {name} is not linked to {workspace.resource_id}."
    return _link(workspace, resource)


def _databricks_workspace(workspace: Workspace, resource_id: str) -> dict[str, Any]:
    """Return the resource of the Databricks workspace from Azure Resource Manager."""
    if resource_id:
        try:
            return workspace.manager.get(resource_id, api_version=DATABRICKS_API_VERSION)
        except AzureError as error:
            if error.status == 404 or error.code == "InvalidSubscriptionId":
                raise ParameterError(
                    "databricks_resource_id",
                    resource_id,
                    f"Azure does not know it ({error.code}); copy it from the portal's JSON view of the Databricks "
                    "workspace, or leave it empty to have it found",
                ) from None
            raise
    try:
        host = urlsplit(runtime.workspace_url()).netloc.lower()
    except ParameterError:
        raise _NotFound("no Databricks workspace is configured here") from None
    # https://learn.microsoft.com/rest/api/databricks/workspaces/list-by-subscription
    subscription = workspace.resource_id.split("/")[2]
    path = f"/subscriptions/{subscription}/providers/Microsoft.Databricks/workspaces"
    for resource in workspace.manager.get_all(path, api_version=DATABRICKS_API_VERSION):
        if resource["properties"].get("workspaceUrl", "").lower() == host:
            return resource
    raise _NotFound(f"no Databricks workspace {host} can be read in the subscription {subscription}")


def _linked_to(resource: dict[str, Any]) -> str:
    return resource["properties"].get("parameters", {}).get("amlWorkspaceId", {}).get("value", "")


def _obstacle(workspace: Workspace, resource: dict[str, Any]) -> str:
    """Return why this bundle does not link, or an empty string.

    The documentation names Azure ML workspaces with private link, and 21Vianet. It does not say what happens with a
    Databricks workspace that has private link, so that one is not tried.

    https://learn.microsoft.com/azure/machine-learning/how-to-use-mlflow-azure-databricks
    """
    if workspace.cloud == "AzureChinaCloud":
        return "in Azure operated by 21Vianet"
    if _is_private(resource):
        return (
            f"with private link, which the Databricks workspace {resource['name']} has (the documentation says so of "
            "Azure ML workspaces, and nothing of Databricks workspaces)"
        )
    if _is_private(workspace.manager.get(workspace.resource_id, api_version=API_VERSION)):
        return f"with private link, which the Azure ML workspace {workspace.name} has"
    return ""


def _is_private(resource: dict[str, Any]) -> bool:
    properties = resource["properties"]
    return properties.get("publicNetworkAccess") == "Disabled" or bool(properties.get("privateEndpointConnections"))


def _link(workspace: Workspace, resource: dict[str, Any]) -> str:
    """Send the whole resource again, with the link, because a PATCH can only change tags.

    https://learn.microsoft.com/rest/api/databricks/workspaces/create-or-update
    """
    name, path = resource["name"], resource["id"]
    body = {key: value for key, value in resource.items() if key not in READ_ONLY}
    body["properties"] = {
        key: value for key, value in resource["properties"].items() if key not in READ_ONLY_PROPERTIES
    }
    parameters = {
        key: {field: value for field, value in parameter.items() if field != "type"}
        for key, parameter in body["properties"].get("parameters", {}).items()
        if key not in READ_ONLY_PARAMETERS
    }
    body["properties"]["parameters"] = parameters | {"amlWorkspaceId": {"value": workspace.resource_id}}
    workspace.manager.put(path, body, api_version=DATABRICKS_API_VERSION)
    end = time.monotonic() + MOST_SECONDS
    while True:
        resource = workspace.manager.get(path, api_version=DATABRICKS_API_VERSION)
        state = resource["properties"]["provisioningState"]
        if state in ("Succeeded", "Failed", "Canceled"):
            break
        if time.monotonic() > end:
            return f"The link of {name} is set; Azure still says {state} after {MOST_SECONDS} s. Run this again to see."
        time.sleep(POLL_SECONDS)
    if state != "Succeeded" or _linked_to(resource).lower() != workspace.resource_id.lower():
        raise AzureError(f"Azure did not link the Databricks workspace {name} (it says {state}): {DOCUMENTATION}")
    return f"The Databricks workspace {name} is now linked to {workspace.resource_id}."


def _refused(problem: str) -> ParameterError:
    return ParameterError("link_workspaces", True, problem)
