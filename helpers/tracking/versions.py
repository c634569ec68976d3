"""Versions of a registered model and its champion, in whichever registry MLflow points at.

Some have no aliases; Azure Machine Learning's wants the files of a model whose run is elsewhere.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import runtime
from helpers.ownership import MARK
from helpers.tracking.mirror import model_in_copy
from helpers.tracking.models import MODEL, download_model

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

CHAMPION = "champion"
RUN_ID_TAG = "run_id"


def versions(model_name: str) -> list[ModelVersion]:
    """Return all versions of a model, the oldest first; none if there is no such model."""
    import mlflow

    client = mlflow.MlflowClient()
    found = list(client.search_model_versions(f"name = '{model_name}'"))
    if mlflow.get_registry_uri() == "databricks-uc":
        # Those that Unity Catalog's search finds have no tags: mlflow.entities.model_registry.ModelVersionSearch.
        found = [client.get_model_version(model_name, version.version) for version in found]
    return sorted(found, key=lambda version: int(version.version))


def registered_model(model_name: str) -> RegisteredModel | None:
    """Return a registered model, or None if there is none of the name."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return mlflow.MlflowClient().get_registered_model(model_name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def model_names() -> list[str] | None:
    """Return registered models of the registry, 20 at most; None if it cannot tell.

    Azure Machine Learning refuses the tag filter that MLflow's client adds to each such search
    (https://github.com/Azure/azure-sdk-for-python/issues/42155).
    """
    import mlflow

    if mlflow.get_registry_uri().startswith("azureml"):
        return None
    return [model.name for model in mlflow.MlflowClient().search_registered_models(max_results=20)]


def run_id(version: ModelVersion) -> str:
    """Return the id of the run whose model a version is; it may be another server's than the registry's."""
    # A registry that cannot read the run's server has the id in the tags only, or its copy's beside it.
    return version.tags.get(RUN_ID_TAG) or version.run_id or ""


def version_of_run(model_name: str, run: Run) -> ModelVersion | None:
    """Return the version that was made of a run's model, or None."""
    return next((version for version in versions(model_name) if run_id(version) == run.info.run_id), None)


def create_version(run: Run, model_uri: str, model_name: str, tags: dict[str, str]) -> ModelVersion:
    """Make a run's model the next version of a registered model; a new name makes version 1.

    Parameters
    ----------
    run : mlflow.entities.Run
        Of the tracking server that MLflow points at.
    model_uri : str
        The model that it logged.
    model_name : str
    tags : dict of str to str
        Set together with the version, so that one without them never exists; ``run_id``,
        ``tracking_server`` and the bundle's mark are added to them.

    Returns
    -------
    mlflow.entities.model_registry.ModelVersion
    """
    import mlflow

    tracking_uri, registry_uri = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    server = runtime.workspace_url() if tracking_uri == "databricks" else tracking_uri
    tags = tags | {RUN_ID_TAG: run.info.run_id, "tracking_server": server, MARK: model_name}
    client = mlflow.MlflowClient()
    in_azureml = registry_uri.startswith("azureml")
    if registered_model(model_name) is None:
        try:
            # Marked where it can be deleted again.
            client.create_registered_model(model_name, tags=None if in_azureml else {MARK: model_name})
        except mlflow.exceptions.MlflowException as error:
            # Somebody else was quicker.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    if not in_azureml:
        return mlflow.register_model(model_uri, model_name, tags=tags)
    if tracking_uri == registry_uri:
        # `register_model("runs:/…")` asks for a logged model first, which this server answers with 404.
        source = f"{run.info.artifact_uri}/{MODEL}"
        return client.create_model_version(model_name, source, run_id=run.info.run_id, tags=tags)
    copy = model_in_copy(run, model_uri, registry_uri)
    if copy is not None:
        copy_id, source = copy
        own = mlflow.MlflowClient(tracking_uri=registry_uri, registry_uri=registry_uri)
        return own.create_model_version(model_name, source, run_id=copy_id, tags=tags)
    # Azure Machine Learning cannot read another server's runs: it gets the files, and the tags say
    # where they come from. It refuses a run_id with them.
    with tempfile.TemporaryDirectory() as scratch:
        folder = download_model(model_uri, Path(scratch))
        return client.create_model_version(model_name, folder.as_uri(), tags=tags)


def champion(model_name: str) -> ModelVersion | None:
    """Return the version that is the champion, or None.

    It has the alias ``champion``; where there are no aliases, the tag ``champion`` with the latest
    time.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    if not _has_aliases():
        promoted = [version for version in versions(model_name) if CHAMPION in version.tags]
        return max(promoted, key=lambda version: int(version.tags[CHAMPION]), default=None)
    try:
        return mlflow.MlflowClient().get_model_version_by_alias(model_name, CHAMPION)
    except MlflowException as error:
        # Neither the model nor the alias need exist yet; registries name the second either way.
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def promote(model_name: str, version: str) -> None:
    """Make a version the champion."""
    import mlflow

    client = mlflow.MlflowClient()
    if _has_aliases():
        client.set_registered_model_alias(model_name, CHAMPION, version)
        return
    before = [old for old in versions(model_name) if CHAMPION in old.tags and str(old.version) != str(version)]
    # The new tag first: with both, the later one counts, and at no time is there no champion.
    client.set_model_version_tag(model_name, version, CHAMPION, str(time.time_ns()))
    for old in before:
        client.delete_model_version_tag(model_name, old.version, CHAMPION)


def _has_aliases() -> bool:
    """Return whether the registry has aliases: neither Azure ML's nor a Databricks workspace's own has.

    https://learn.microsoft.com/azure/databricks/machine-learning/manage-model-lifecycle/workspace-model-registry
    """
    import mlflow

    registry_uri = mlflow.get_registry_uri()
    return not registry_uri.startswith("azureml") and registry_uri != "databricks"
