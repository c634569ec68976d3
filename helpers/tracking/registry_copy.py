"""Bring a registered model to Azure Machine Learning's registry, from which its endpoints take models."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import runtime
from helpers.ownership import MARK
from helpers.tracking.models import download_model

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

SOURCE_TAG = "registered_from"


def in_azureml(version: ModelVersion, tracking_uri: str) -> tuple[ModelVersion, bool]:
    """Return the version in Azure Machine Learning's registry that has a version's model.

    From another registry the model's files are registered there, under the same name, once: the tag
    ``registered_from`` names registry, model and version that it was made of, and its other tags (run, tracking
    server, metrics, checks) go with it.

    Parameters
    ----------
    version : mlflow.entities.model_registry.ModelVersion
        Of the registry that MLflow points at.
    tracking_uri : str
        ``azureml://…`` of the workspace.

    Returns
    -------
    tuple of (mlflow.entities.model_registry.ModelVersion, bool)
        The version there, and whether it was made now.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    registry = mlflow.get_registry_uri()
    if registry.startswith("azureml"):
        return version, False
    server = runtime.workspace_url() if registry.startswith("databricks") else registry
    source = f"{server} {version.name}/{version.version}"
    client = mlflow.MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    try:
        client.get_registered_model(version.name)
        # Tags cannot be searched for there.
        for there in client.search_model_versions(f"name = '{version.name}'"):
            if there.tags.get(SOURCE_TAG) == source:
                return there, False
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(version.name)
    with tempfile.TemporaryDirectory() as scratch:
        folder = download_model(f"models:/{version.name}/{version.version}", Path(scratch))
        tags = dict(version.tags) | {SOURCE_TAG: source, MARK: version.name}
        return client.create_model_version(version.name, folder.as_uri(), tags=tags), True
