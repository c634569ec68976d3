"""Shared code of the two Azure kinds: MLflow's deployment client, plain errors for it, and its configuration files."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.azureml.rest import LIMITS, AzureError, first_line, retry_policy, with_details
from helpers.azureml.workspace import ROLES, Workspace
from helpers.ownership import MARK
from helpers.serving.endpoint import ServingError

if TYPE_CHECKING:
    from mlflow.deployments import BaseDeploymentClient

TROUBLESHOOTING = "https://learn.microsoft.com/azure/machine-learning/how-to-troubleshoot-online-endpoints"
QUOTAS = "https://learn.microsoft.com/azure/machine-learning/how-to-manage-quotas"


def online_client(workspace: Workspace) -> BaseDeploymentClient:
    """Return MLflow's deployment client for online endpoints, with the limits of this bundle's own requests.

    The plugin leaves azure-core's defaults: 10 retries with up to 120 s between them. So one request that Azure keeps
    answering with 500, 502, 503 or 504 takes over seven minutes, and a rollout sends several before it has put the traffic back.
    https://learn.microsoft.com/python/api/azure-core/azure.core.pipeline.policies.retrypolicy

    Parameters
    ----------
    workspace : helpers.azureml.workspace.Workspace
    """
    from mlflow.deployments import get_deploy_client

    client = get_deploy_client(workspace.tracking_uri)
    # The plugin has no argument for this. Its client of Azure's API is made anew, with the plugin's own arguments.
    online, context = client._mir_client, client.service_context
    online._client = type(online._client)(
        credential=context.auth,
        base_url=context.cloud.endpoints.resource_manager,
        subscription_id=context.subscription_id,
        credential_scopes=[context.cloud._get_default_scope()],
        retry_policy=retry_policy(**LIMITS),
        **LIMITS,
    )
    return client


@contextlib.contextmanager
def explained(problem: str, log: Callable[[], str] = str) -> Iterator[None]:
    """Turn errors of the deployment client in the block into a `ServingError`.

    Parameters
    ----------
    problem : str
        What failed.
    log : callable
        Returns the log of the model server, if there is one.
    """
    from azure.core.exceptions import AzureError as RequestFailed
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (RequestFailed, AzureError, MlflowException) as error:
        # The client wraps Azure's error in one of its own.
        cause = error.__cause__ if isinstance(error, MlflowException) and error.__cause__ else error
        status = getattr(cause, "status_code", None) or getattr(cause, "status", None)
        reason = _reason(cause)
        raise ServingError(f"{problem}: {reason.rstrip('.')}{_hint(status, reason)}.", log()) from None


def _reason(error: BaseException) -> str:
    details = getattr(getattr(error, "error", None), "details", None) or []
    return with_details(first_line(error), [detail.message for detail in details if detail.message])


def _hint(status: int | None, reason: str) -> str:
    if status == 403:
        return f"; the signed-in identity needs the role AzureML Data Scientist on the workspace, {ROLES}"
    if "quota" in reason.lower():
        return (
            "; choose a smaller instance_type or instance_count, delete what is no longer needed, or request more "
            f"quota, {QUOTAS}"
        )
    return f"; see {TROUBLESHOOTING}" if "container" in reason.lower() else ""


@contextlib.contextmanager
def config_file(kind: str, content: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Write configuration that the deployment client only reads from a file, and return its ``config``."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"{kind}.json")
        file.write_text(json.dumps(content))
        yield {f"{kind}-config-file": str(file)}


def marked_model(resource: Mapping[str, Any]) -> str | None:
    """Return the model for which this bundle made an endpoint or web service; None if somebody else made it."""
    mark = (resource.get("tags") or {}).get(MARK)
    # The mark of a web service has the version, too.
    return None if mark is None else mark.partition("/")[0]
