"""What Azure says when it refuses, in one line."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from helpers.azureml.rest import AzureError, first_line
from helpers.azureml.workspace import ROLES
from helpers.serving.endpoint import ServingError

TROUBLESHOOTING = "https://learn.microsoft.com/azure/machine-learning/how-to-troubleshoot-online-endpoints"
QUOTAS = "https://learn.microsoft.com/azure/machine-learning/how-to-manage-quotas"


@contextlib.contextmanager
def explained(problem: str, log: Callable[[], str] = str) -> Iterator[None]:
    """Make what the deployment client raises in the block a `ServingError`.

    Parameters
    ----------
    problem : str
        What was not done.
    log : callable
        Returns the log of the model server, if there is one.
    """
    from azure.core.exceptions import AzureError as RequestFailed
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (RequestFailed, AzureError, MlflowException) as error:
        # The client puts an error of its own around what it was told.
        cause = error.__cause__ if isinstance(error, MlflowException) and error.__cause__ else error
        status = getattr(cause, "status_code", None) or getattr(cause, "status", None)
        reason = _reason(cause)
        raise ServingError(f"{problem}: {reason.rstrip('.')}{_hint(status, reason)}.", log()) from None


def _reason(error: BaseException) -> str:
    """Return what is wrong with which property, which is in JSON within a detail; or else the first line."""
    found = [
        detail.message for detail in getattr(getattr(error, "error", None), "details", None) or [] if detail.message
    ]
    for detail in found:
        try:
            told = json.loads(detail)["errors"]
        except (ValueError, KeyError, TypeError):
            continue
        return "; ".join(f"{name}: {' '.join(texts)}" for name, texts in told.items())
    return " ".join([first_line(error), *found])


def _hint(status: int | None, reason: str) -> str:
    if status == 403:
        return f"; the signed-in identity needs the role AzureML Data Scientist on the workspace, {ROLES}"
    if "quota" in reason.lower():
        return (
            "; take a smaller instance_type or instance_count, delete what is not needed, or ask for more quota, "
            f"{QUOTAS}"
        )
    return f"; see {TROUBLESHOOTING}" if "container" in reason.lower() else ""


@contextlib.contextmanager
def config_file(kind: str, content: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Write what the deployment client reads from a file only, and return its ``config``."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"{kind}.json")
        file.write_text(json.dumps(content))
        yield {f"{kind}-config-file": str(file)}
