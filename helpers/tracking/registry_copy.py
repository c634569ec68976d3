"""Copy a registered model to Azure Machine Learning's registry, because its endpoints only deploy from there."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.ownership import MARK
from helpers.tracking.models import download_model
from helpers.tracking.versions import versions_in

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from helpers.tracking.session import Session

SOURCE_TAG = "registered_from"


def in_azureml(session: Session, version: ModelVersion) -> tuple[ModelVersion, bool]:
    """Return the version in Azure Machine Learning's registry that has a version's model.

    If the version is in another registry, its files are registered in Azure Machine Learning once, under the same
    name. The tag ``registered_from`` names the original registry, model and version; the other tags (run, tracking
    server, metrics, checks) are copied.

    Parameters
    ----------
    session : helpers.tracking.Session
    version : mlflow.entities.model_registry.ModelVersion
        From the session's registry.

    Returns
    -------
    tuple of (mlflow.entities.model_registry.ModelVersion, bool)
        The version in Azure Machine Learning, and whether it was created now.
    """
    from mlflow.exceptions import MlflowException

    if session.registry.in_azureml:
        return version, False
    source = f"{session.registry.address} {version.name}/{version.version}"
    client = session.azureml_server.client()
    try:
        client.get_registered_model(version.name)
        # That registry cannot be searched by tag.
        for copy in versions_in(session.azureml_server, version.name):
            if copy.tags.get(SOURCE_TAG) == source:
                return copy, False
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(version.name)
    with tempfile.TemporaryDirectory() as scratch:
        folder = download_model(session, f"models:/{version.name}/{version.version}", Path(scratch))
        tags = dict(version.tags) | {SOURCE_TAG: source, MARK: version.name}
        return client.create_model_version(version.name, folder.as_uri(), tags=tags), True
