"""Copy registered models between registries: once per version, with tags that lead back to the run."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.ownership import MARK
from helpers.tracking.runs import find_run
from helpers.tracking.versions import (
    CHALLENGER,
    CHAMPION,
    TRACKING_SERVER_TAG,
    champion_in,
    make_model,
    promote_in,
    run_id,
    versions_in,
)

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

    from helpers.tracking.servers import Server
    from helpers.tracking.session import Session

SOURCE_TAG = "registered_from"
"""Name of the tag of a copy that says which version it was made of: registry, model and version."""
FIRST_SOURCE_TAG = "first_registered_from"
"""Name of the tag of a copy, and of copies of it, that says which version was the first one."""


def in_azureml(session: Session, version: ModelVersion) -> tuple[ModelVersion, bool]:
    """Return the version in the Azure Machine Learning workspace that has a version's model.

    Endpoints of a workspace only deploy from there. See `copy_version`.

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
    if session.registry.in_azureml:
        return version, False
    return copy_version(session.registry, version, session.azureml_server)


def copy_version(
    source: Server, version: ModelVersion, target: Server, catalog: str = "", schema: str = ""
) -> tuple[ModelVersion, bool]:
    """Register a version's files in another registry, once.

    The copy has all tags of the version: its run and tracking server, metrics, checks and approval. Tags that the version
    got after it was copied are added when this is called again. The tag ``registered_from`` names the version that was
    copied, and ``first_registered_from`` the one that this one was made of, over any number of registries.

    A killed call leaves no version without its files and tags that would be used: the next one makes it. Two calls at the
    same time end in one version: if both have made one, the later version is deleted.

    Parameters
    ----------
    source : helpers.tracking.servers.Server
        The version's registry.
    version : mlflow.entities.model_registry.ModelVersion
    target : helpers.tracking.servers.Server
        Another registry.
    catalog, schema : str, optional
        Where a plain name is put in Unity Catalog. In other registries the name is the plain one.

    Returns
    -------
    tuple of (mlflow.entities.model_registry.ModelVersion, bool)
        The version in the other registry, and whether it was created now.

    Raises
    ------
    helpers.parameters.ParameterError
        If the other registry does not accept the model's name.
    helpers.azureml.rest.AzureError, mlflow.exceptions.MlflowException
        If a registry cannot be used.
    """
    name = target.registered_model_name(source.plain_model_name(version.name), catalog, schema)
    target.prepare()
    tags = target.version_tags(_tags(source, version, name))
    copies = _copies(source, version, target, name)
    if copies:
        return _with_new_tags(target, copies[0], tags), False
    with tempfile.TemporaryDirectory() as scratch:
        folder = source.download(f"models:/{version.name}/{version.version}", Path(scratch))
        # MLflow writes the name and number that the model has in the registry it comes from.
        (folder / "registered_model_meta").unlink(missing_ok=True)
        make_model(target, name)
        made = target.add_version(name, folder, tags, uuid.uuid5(uuid.NAMESPACE_URL, tags[SOURCE_TAG]).hex)
    # Most registries number versions themselves, so another process may have made one meanwhile; the first one stays.
    first = next(iter(_copies(source, version, target, name)), made)
    if int(first.version) < int(made.version):
        _delete(target, made)
        return first, False
    if target.has_unfinished_versions:
        # The other process finished a later version before this one was there, so it does not know of this one.
        for later in _copies(source, version, target, name):
            if int(later.version) > int(made.version) and later.tags.get(SOURCE_TAG) == tags[SOURCE_TAG]:
                _delete(target, later)
    return made, True


def run_of_version(session: Session, version: ModelVersion) -> Run | None:
    """Return the run that a version's model comes from; None for a copy whose run is on another server than the session's.

    Parameters
    ----------
    session : helpers.tracking.Session
    version : mlflow.entities.model_registry.ModelVersion
        From the session's registry.

    Raises
    ------
    helpers.parameters.ParameterError
        If the run should be on the session's server, and is not there or not finished.
    """
    if SOURCE_TAG in version.tags and version.tags.get(TRACKING_SERVER_TAG) != session.tracking.address:
        return None
    return find_run(session, run_id(version), version.name)


def share_champion(session: Session, version: ModelVersion) -> str:
    """Copy the champion to the registry that ``share_with`` names, and make the copy the champion there.

    The copy becomes the champion after all its files and tags are there.

    Parameters
    ----------
    session : helpers.tracking.Session
    version : mlflow.entities.model_registry.ModelVersion
        From the session's registry. Any other version than its champion is not shared.

    Returns
    -------
    str
        What was done, in words.

    Raises
    ------
    helpers.azureml.rest.AzureError, mlflow.exceptions.MlflowException
        If a registry cannot be used. Run it again.
    """
    target = session.share_with
    if target is None:
        return "share_with is empty: the champion is not shared"
    # Read again: it may have got tags meanwhile, such as the approval.
    champion = champion_in(session.registry, version.name)
    if champion is None or str(champion.version) != str(version.version):
        return f"{version.name} version {version.version} is not the champion, so it is not shared with {target.place}"
    shared, is_new = copy_version(session.registry, champion, target, *session.share_namespace)
    number = str(shared.version)
    before = champion_in(target, shared.name)
    if before is None or str(before.version) != number:
        promote_in(target, shared.name, number)
    done = "was shared" if is_new else "was shared before"
    return f"{version.name} version {version.version} {done}: {shared.name} version {number} in {target.place}, its champion"


def _address(registry: Server, version: ModelVersion) -> str:
    return f"{registry.address} {version.name}/{version.version}"


def _lineage(registry: Server, version: ModelVersion) -> set[str]:
    """Return the versions that are known to have the same files as a version, itself among them."""
    before = {version.tags.get(tag, "") for tag in (SOURCE_TAG, FIRST_SOURCE_TAG)}
    return {_address(registry, version)} | before - {""}


def _copies(source: Server, version: ModelVersion, target: Server, name: str) -> list[ModelVersion]:
    """Return the versions of a registry with the files of a version, oldest first."""
    lineage = _lineage(source, version)
    # Not every registry can be searched by tag.
    return [copy for copy in versions_in(target, name) if lineage & _lineage(target, copy)]


def _delete(target: Server, version: ModelVersion) -> None:
    from mlflow.exceptions import MlflowException

    try:
        target.client().delete_model_version(version.name, version.version)
    except MlflowException as error:
        # The other process has deleted it.
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _tags(source: Server, version: ModelVersion, name: str) -> dict[str, str]:
    tags = {key: value for key, value in version.tags.items() if key not in (CHAMPION, CHALLENGER)}
    own = _address(source, version)
    first = tags.get(FIRST_SOURCE_TAG) or tags.get(SOURCE_TAG) or own
    return tags | {SOURCE_TAG: own, FIRST_SOURCE_TAG: first, MARK: name}


def _with_new_tags(target: Server, copy: ModelVersion, tags: dict[str, str]) -> ModelVersion:
    """Add the tags that a version got after it was copied to its copy."""
    if copy.tags.get(SOURCE_TAG) != tags[SOURCE_TAG]:
        # It was copied another way, or it is the version that all are copies of.
        return copy
    new = {key: value for key, value in tags.items() if copy.tags.get(key) != value and key != FIRST_SOURCE_TAG}
    client = target.client()
    for key, value in new.items():
        client.set_model_version_tag(copy.name, copy.version, key, value)
    return client.get_model_version(copy.name, copy.version) if new else copy
