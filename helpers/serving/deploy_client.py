"""Shared code of the two Azure kinds: plain errors for MLflow's deployment client, and its configuration files."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from helpers.azureml.rest import AzureError, first_line, with_details
from helpers.azureml.workspace import ROLES
from helpers.ownership import MARK
from helpers.serving.endpoint import ServingError

TROUBLESHOOTING = "https://learn.microsoft.com/azure/machine-learning/how-to-troubleshoot-online-endpoints"
QUOTAS = "https://learn.microsoft.com/azure/machine-learning/how-to-manage-quotas"


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
