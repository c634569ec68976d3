"""A process that uses both stand-ins: its environment, and what it reads of it."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

from tests.azureml.databricks_stand_in import DatabricksStandIn
from tests.azureml.stand_in import AzureMLStandIn

WORKSPACE = ("azureml_subscription_id", "azureml_resource_group", "azureml_workspace")


def environment(aml: AzureMLStandIn, databricks: DatabricksStandIn) -> dict[str, str]:
    """Return the variables of a process that is signed in to both."""
    workspace = (aml.subscription_id, aml.resource_group, aml.workspace)
    return (
        aml.environment()
        | databricks.environment()
        | {name.upper(): value for name, value in zip(WORKSPACE, workspace, strict=True)}
        | {"TRACKING_URI": aml.tracking_uri, "STAND_IN": str(aml.folder), "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "1"}
    )


def stand_in() -> AzureMLStandIn:
    """Return the stand-in of this process's environment."""
    return AzureMLStandIn(Path(os.environ["STAND_IN"]), os.environ["AZURE_AUTHORITY_HOST"])


def parameters(**changes: object) -> SimpleNamespace:
    """Return the parameters of tracking: the defaults, with the stand-in's workspace and changes."""
    from helpers.parameters import FIELDS, TRACKING, parse

    defaults = {name: FIELDS[name].default for name in TRACKING}
    return parse(defaults | {name: os.environ[name.upper()] for name in WORKSPACE} | changes)
