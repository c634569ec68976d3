"""A process that is signed in to both stand-ins: its environment and its parameters."""

from __future__ import annotations

from typing import Any

from tests.stand_ins.azureml_workspace import AzureMLStandIn
from tests.stand_ins.databricks_tracking import DatabricksStandIn


def environment(aml: AzureMLStandIn, databricks: DatabricksStandIn) -> dict[str, str]:
    """Return the environment variables of a process that is signed in to both."""
    more = {"TRACKING_URI": aml.tracking_uri, "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "1"}
    return aml.environment() | databricks.environment() | more


def parameters(group: type | None = None, **changes: object) -> Any:
    """Return a group of parameters, by default tracking, with the stand-in's workspace and the given changes."""
    from helpers.parameters import Tracking, parse

    return parse(group or Tracking, AzureMLStandIn.workspace_parameters | changes)
