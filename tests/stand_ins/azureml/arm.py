"""Azure Resource Manager: the AML workspaces and the Databricks workspaces."""

from __future__ import annotations

import copy
import threading
from typing import Any

from flask import Blueprint, Response, request

from tests.stand_ins.azureml import names
from tests.stand_ins.azureml.errors import arm_error, json_answer

_SUBSCRIPTION = "/subscriptions/<subscription>"
_GROUP = f"{_SUBSCRIPTION}/resourceGroups/<group>"
_AML = f"{_GROUP}/providers/Microsoft.MachineLearningServices/workspaces/<name>"
_DATABRICKS = "/providers/Microsoft.Databricks/workspaces"


class ResourceManager:
    """Resources by lower-case id, since Azure's are case-insensitive."""

    def __init__(self, url: str) -> None:
        host = url.removeprefix("https://")
        self._url = url
        self._lock = threading.Lock()
        resources = [
            _aml_workspace(url, host, names.WORKSPACE, private=False),
            _aml_workspace(url, host, names.PRIVATE_WORKSPACE, private=True),
            _aml_workspace(url, host, names.PROD_WORKSPACE, private=False),
            _default_datastore(names.WORKSPACE),
            # In Azure: adb-<number>.<number>.azuredatabricks.net, which a client's Databricks SDK would try to reach.
            _databricks_workspace(names.DATABRICKS_WORKSPACE, host, private=False),
            _databricks_workspace(
                names.PRIVATE_DATABRICKS_WORKSPACE, host.replace("127.0.0.1", "localhost"), private=True
            ),
        ]
        self._resources = {resource["id"].lower(): resource for resource in resources}
        self.blueprint = routes = Blueprint("arm", __name__)
        routes.before_request(missing)
        routes.get(_AML)(self._get)
        routes.get(f"{_AML}/datastores/<datastore>")(self._get)
        routes.get(f"{_AML}/data/<data>/versions/<version>")(self._get)
        routes.put(f"{_AML}/data/<data>/versions/<version>")(self._put_data)
        routes.get(f"{_GROUP}{_DATABRICKS}/<name>")(self._get)
        routes.put(f"{_GROUP}{_DATABRICKS}/<name>")(self._put_databricks)
        routes.patch(f"{_GROUP}{_DATABRICKS}/<name>")(self._patch_databricks)
        routes.get(f"{_GROUP}{_DATABRICKS}")(self._list_databricks)
        routes.get(f"{_SUBSCRIPTION}{_DATABRICKS}")(self._list_databricks_in_pages)

    def _get(self, **_: str) -> Response:
        resource = self._resources.get(request.path.lower())
        return json_answer(resource) if resource else not_found()

    def _list_databricks(self, **_: str) -> Response:
        workspaces = [resource for key, resource in self._resources.items() if _DATABRICKS.lower() in key]
        return json_answer({"value": workspaces})

    def _list_databricks_in_pages(self, **_: str) -> Response:
        """Return one workspace per page, so that a client has to follow ``nextLink``."""
        workspaces = [resource for key, resource in self._resources.items() if _DATABRICKS.lower() in key]
        skipped = int(request.args.get("$skiptoken", 0))
        page: dict[str, Any] = {"value": workspaces[skipped : skipped + 1]}
        if skipped + 1 < len(workspaces):
            version = request.args["api-version"]
            page["nextLink"] = f"{self._url}{request.path}?api-version={version}&%24skiptoken={skipped + 1}"
        return json_answer(page)

    def _put_data(self, data: str, version: str, **_: str) -> Response:
        """Register a version of a data asset: https://learn.microsoft.com/rest/api/azureml/data-versions/create-or-update.

        That a version's address cannot be changed is documented, the wording of the error is not:
        https://learn.microsoft.com/azure/machine-learning/how-to-create-data-assets
        """
        properties = request.get_json().get("properties") or {}
        if properties.get("dataType") not in ("uri_file", "uri_folder", "mltable") or not properties.get("dataUri"):
            return arm_error(400, "ValidationError", "A data asset needs dataType and dataUri.")
        with self._lock:
            known = self._resources.get(request.path.lower())
            if known and known["properties"]["dataUri"] != properties["dataUri"]:
                return arm_error(400, "UserError", f"The dataUri of {data} version {version} cannot be changed.")
            resource = {"id": request.path, "name": version, "properties": properties}
            self._resources[request.path.lower()] = resource
        return json_answer(resource, 200 if known else 201)

    def _put_databricks(self, **_: str) -> Response:
        """Replace a workspace, as the portal's button does to set ``amlWorkspaceId``.

        https://learn.microsoft.com/rest/api/databricks/workspaces/create-or-update
        """
        sent = request.get_json()
        with self._lock:
            resource = self._resources.get(request.path.lower())
            if resource is None:
                return not_found()
            if "location" not in sent or "managedResourceGroupId" not in sent.get("properties", {}):
                message = "Required properties 'location' and 'properties.managedResourceGroupId' were not found."
                return arm_error(400, "InvalidRequestContent", message)
            if _links(sent) and resource["properties"].get("requiredNsgRules") == "NoAzureDatabricksRules":
                # The documentation says that it is not supported, but not which error Azure returns:
                # https://learn.microsoft.com/azure/machine-learning/how-to-use-mlflow-azure-databricks
                message = "Linking an Azure Machine Learning workspace is not supported with private link."
                return arm_error(400, "InvalidWorkspaceLink", message)
            properties = resource["properties"]
            properties["parameters"] = sent["properties"].get("parameters", {})
            resource["tags"] = sent.get("tags", {})
            # Azure answers before the change is complete; asking again shows the result.
            answer = copy.deepcopy(resource)
            answer["properties"]["provisioningState"] = "Updating"
            return json_answer(answer)

    def _patch_databricks(self, **_: str) -> Response:
        """Change the tags; an update accepts nothing else (``WorkspaceUpdate`` in the REST specification).

        https://learn.microsoft.com/rest/api/databricks/workspaces/update
        """
        sent = request.get_json()
        with self._lock:
            resource = self._resources.get(request.path.lower())
            if resource is None:
                return not_found()
            if set(sent) - {"tags"}:
                message = f"Could not find member '{min(set(sent) - {'tags'})}' on object of type 'WorkspaceUpdate'."
                return arm_error(400, "InvalidRequestContent", message)
            resource["tags"] = sent["tags"]
            return json_answer(resource)


def _default_datastore(workspace: str) -> dict[str, Any]:
    """Return the datastore that each workspace has: https://learn.microsoft.com/rest/api/azureml/datastores/get."""
    return {
        "id": f"{names.workspace_resource_id(workspace)}/datastores/workspaceblobstore",
        "name": "workspaceblobstore",
        "type": "Microsoft.MachineLearningServices/workspaces/datastores",
        "properties": {
            "datastoreType": "AzureBlob",
            "accountName": "amlstorage",
            "containerName": "azureml-blobstore-1",
            "endpoint": "core.windows.net",
            "protocol": "https",
            "isDefault": True,
        },
    }


def missing() -> Response | None:
    """Return why a request's address is refused, in the order in which Azure looks."""
    arguments = request.view_args or {}
    subscription, group = arguments.get("subscription", ""), arguments.get("group", names.RESOURCE_GROUP)
    if "api-version" not in request.args:
        message = "The api-version query parameter (?api-version=) is required for all requests."
        return arm_error(400, "MissingApiVersionParameter", message)
    if subscription.lower() != names.SUBSCRIPTION_ID:
        return arm_error(404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found.")
    if group.lower() != names.RESOURCE_GROUP:
        return arm_error(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")
    return None


def not_found() -> Response:
    """Return that the resource of the current request does not exist."""
    resource = request.path.partition("/providers/")[2]
    group = f"under resource group '{names.RESOURCE_GROUP}' was not found."
    return arm_error(404, "ResourceNotFound", f"The Resource '{resource}' {group}")


def _links(resource: dict[str, Any]) -> bool:
    return bool(resource["properties"].get("parameters", {}).get("amlWorkspaceId", {}).get("value"))


def _aml_workspace(url: str, host: str, name: str, private: bool) -> dict[str, Any]:
    workspace = names.workspace_resource_id(name)
    return {
        "id": workspace,
        "name": name,
        "type": "Microsoft.MachineLearningServices/workspaces",
        "location": names.REGION,
        "tags": {},
        "kind": "Default",
        "sku": {"name": "Basic", "tier": "Basic"},
        "identity": {"type": "SystemAssigned"},
        "properties": {
            "friendlyName": name,
            "workspaceId": "33333333-cccc-4ccc-8ccc-000000000001",
            "provisioningState": "Succeeded",
            "publicNetworkAccess": "Disabled" if private else "Enabled",
            "discoveryUrl": f"{url}/discovery",
            "mlFlowTrackingUri": f"azureml://{host}/mlflow/v1.0{workspace}",
        },
    }


def _databricks_workspace(name: str, address: str, private: bool) -> dict[str, Any]:
    group = f"/subscriptions/{names.SUBSCRIPTION_ID}/resourceGroups/databricks-rg-{name}"
    return {
        "id": names.databricks_resource_id(name),
        "name": name,
        "type": "Microsoft.Databricks/workspaces",
        "location": names.REGION,
        "tags": {},
        "sku": {"name": "premium"},
        "properties": {
            "managedResourceGroupId": group,
            "parameters": {"enableNoPublicIp": {"type": "Bool", "value": private}},
            "provisioningState": "Succeeded",
            "publicNetworkAccess": "Disabled" if private else "Enabled",
            "requiredNsgRules": "NoAzureDatabricksRules" if private else "AllRules",
            "workspaceId": str(7405600000000001 + private),
            "workspaceUrl": address,
        },
    }
