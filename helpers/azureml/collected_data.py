"""Where Azure ML collects the requests to an endpoint: https://learn.microsoft.com/azure/machine-learning/how-to-collect-production-data."""

from __future__ import annotations

from helpers.azureml.workspace import Workspace

INPUTS, OUTPUTS = COLLECTIONS = ("model_inputs", "model_outputs")
"""The collections that Azure ML's own scoring script fills."""
FOLDER = "modelDataCollector"
"""Below it: ``<endpoint>/<deployment>/<collection>/<year>/<month>/<day>/<hour>``."""
DATASTORE = "workspaceblobstore"


def collection_uri(workspace: Workspace, endpoint: str, deployment: str, collection: str) -> str:
    """Return the URI of the folder of a collection, as a datastore has it."""
    return workspace.datastore_uri(f"{DATASTORE}/paths/{FOLDER}/{endpoint}/{deployment}/{collection}")
