"""Azure Resource Manager and Entra ID, called with Azure's unpatched clients."""

from __future__ import annotations

import copy
import os
import time
from typing import Any

import requests
from azure.core.rest import HttpRequest
from azure.identity import ClientSecretCredential
from azure.mgmt.core import ARMPipelineClient
from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy

from tests.scenarios.errors import error_of
from tests.stand_ins.azureml_workspace import AzureMLStandIn

DATABRICKS = AzureMLStandIn.databricks_workspace_resource_id


def ask(
    method: str, path: str, body: Any = None, client_id: str | None = None, secret: str | None = None
) -> tuple[int, Any]:
    """Send a request as the service principal of the environment, or as another; return status and content."""
    url = os.environ["AZURE_AUTHORITY_HOST"]
    who = client_id or os.environ["AZURE_CLIENT_ID"], secret or os.environ["AZURE_CLIENT_SECRET"]
    credential = ClientSecretCredential("adfs", *who)
    policies = [ARMChallengeAuthenticationPolicy(credential, f"{url}/.default")]
    client = ARMPipelineClient(url, policies=policies)
    answer = client.send_request(HttpRequest(method, f"{url}{path}?api-version=2024-05-01", json=body))
    return answer.status_code, answer.json()


def find_workspaces() -> dict[str, tuple[int, Any]]:
    """Ask for the workspace, for resources that do not exist, and without permission."""
    workspace = AzureMLStandIn.workspace_resource_id
    return {
        "workspace": ask("GET", workspace),
        "no_workspace": ask("GET", workspace + "-2"),
        "no_group": ask("GET", workspace.replace("ml-group", "no-group")),
        "no_subscription": ask("GET", workspace.replace("22222222", "99999999")),
        "forbidden": ask("GET", workspace, client_id=AzureMLStandIn.client_id_without_role),
    }


def link_databricks_workspaces() -> dict[str, Any]:
    """Link both Databricks workspaces; the second one has a private endpoint."""
    resources = DATABRICKS, AzureMLStandIn.private_databricks_workspace_resource_id
    before = [ask("GET", resource)[1] for resource in resources]
    put = []
    for resource in before:
        changed = copy.deepcopy(resource)
        changed["properties"]["parameters"]["amlWorkspaceId"] = {"value": AzureMLStandIn.workspace_resource_id}
        put.append(ask("PUT", resource["id"], changed))
    return {
        "names": [item["name"] for item in ask("GET", resources[0].rpartition("/")[0])[1]["value"]],
        "before": before,
        "put": put,
        "after": ask("GET", resources[0])[1],
        "patched": ask("PATCH", resources[0], {"properties": {}}),
        "incomplete": ask("PUT", resources[0], {"location": "westeurope"}),
    }


def sign_in_wrongly() -> dict[str, str | None]:
    """Sign in with a wrong secret, with one that has expired, and as an unknown application."""
    path = AzureMLStandIn.workspace_resource_id
    return {
        "wrong": error_of(ask, "GET", path, secret="wrong"),
        "expired": error_of(ask, "GET", path, secret=AzureMLStandIn.expired_secret),
        "unknown": error_of(ask, "GET", path, client_id="99999999-0000-0000-0000-000000000000"),
    }


def ask_without_a_token() -> dict[str, Any]:
    """Call each service without a token and with an invalid one, and request a blob with a wrong signature."""
    url, workspace = os.environ["AZURE_AUTHORITY_HOST"], AzureMLStandIn.workspace_resource_id
    paths = [
        f"{workspace}?api-version=1",
        "/no/such",
        f"/mlflow/v2.0{workspace}/api/2.0/mlflow/experiments/get",
        f"/history/v1.0{workspace}/experiments/e/runs/r/artifacts",
    ]
    headers = [{}, {"Authorization": "Bearer nonsense"}]
    blob = requests.get(f"{url}/standin.blob.storage.stand-in/azureml/a/b/c?sp=r&se=9999999999&sig=bad")
    return {
        "statuses": [requests.get(url + path, headers=header).status_code for path in paths for header in headers],
        "blob": [blob.status_code, blob.headers["x-ms-error-code"]],
    }


def meet_a_delay_and_a_dropped_sign_in() -> dict[str, Any]:
    """Return how long the cloud's metadata took, and how a sign-in failed."""
    start = time.monotonic()
    requests.get(os.environ["ARM_CLOUD_METADATA_URL"])
    seconds = time.monotonic() - start
    credential = ClientSecretCredential("adfs", "id", "secret", retry_total=0)
    return {"seconds": seconds, "error": error_of(credential.get_token, "https://x/.default")}


def send_a_secret() -> None:
    """Put the client's secret into a tag, where it must never be."""
    ask("PATCH", DATABRICKS, {"tags": {"leak": os.environ["AZURE_CLIENT_SECRET"]}})
