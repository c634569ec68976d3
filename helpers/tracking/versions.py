"""Versions of a registered model and its champion, in the session's registry."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.ownership import MARK
from helpers.parameters import ParameterError
from helpers.tracking.models import download_model

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

    from helpers.tracking.servers import Server
    from helpers.tracking.session import Session

CHAMPION = "champion"
CHALLENGER = "challenger"
RUN_ID_TAG = "run_id"
MODEL_URI_TAG = "model_uri"
TRACKING_SERVER_TAG = "tracking_server"
CHECK_TAG = "check_"
"""Start of the name of a tag with the outcome of a check of the gate."""
PASSED = "passed"
"""Start of such a tag's value if the version passed the check."""
# The names have no dots, which Unity Catalog does not accept:
# https://learn.microsoft.com/azure/databricks/database-objects/tags#constraints
APPROVAL_TAG = "approval"
"""Name of the tag that says what somebody decided about a version: `APPROVED` or `REFUSED`."""
APPROVED, REFUSED = "approved", "refused"
APPROVED_BY_TAG = "approved_by"
APPROVAL_REASON_TAG = "approval_reason"
APPROVAL_TIME_TAG = "approval_time"
_MOST_DESCRIBED = 5


def versions(session: Session, model_name: str) -> list[ModelVersion]:
    """Return the versions of a model in the session's registry, oldest first; see `versions_in`."""
    return versions_in(session.registry, model_name)


def versions_in(registry: Server, model_name: str, unfinished: bool = False) -> list[ModelVersion]:
    """Return the versions of a model in a registry, oldest first. The list is empty if no model has the name.

    Parameters
    ----------
    registry : helpers.tracking.servers.Server
    model_name : str
    unfinished : bool, default False
        Whether versions whose upload has not ended, or was killed, are among them. Nobody can load those.
    """
    from mlflow.exceptions import MlflowException

    client = registry.client()
    all_versions: list[ModelVersion] = []
    token: str | None = None
    while True:
        try:
            page = client.search_model_versions(f"name = '{model_name}'", page_token=token)
        except MlflowException as error:
            # For an unknown model, MLflow's own server returns an empty list, and Unity Catalog may return an error.
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return []
        all_versions += page
        token = page.token
        if not token:
            break
    if registry.has_unfinished_versions and not unfinished:
        all_versions = [version for version in all_versions if version.status == "READY"]
    if not registry.search_returns_tags:
        all_versions = [client.get_model_version(model_name, version.version) for version in all_versions]
    return sorted(all_versions, key=lambda version: int(version.version))


def registered_model(session: Session, model_name: str) -> RegisteredModel | None:
    """Return a registered model, or None if it does not exist."""
    return session.registry.registered_model(model_name)


def model_names(session: Session) -> list[str] | None:
    """Return the names of at most 20 registered models; None if the registry cannot be searched."""
    if not session.registry.searches_models:
        return None
    return [model.name for model in session.registry.client().search_registered_models(max_results=20)]


def run_id(version: ModelVersion) -> str:
    """Return the id of the run that a version's model comes from; it may be on another server than the registry."""
    # A registry that cannot read the run's server has the id in the tags only, or its copy's beside it.
    return version.tags.get(RUN_ID_TAG) or version.run_id or ""


def version_of_model(session: Session, model_name: str, run: Run, model_uri: str) -> ModelVersion | None:
    """Return the version that was created from a model of a run, or None."""
    for version in versions(session, model_name):
        if run_id(version) == run.info.run_id and _made_of(version, model_uri) == model_uri:
            return version
    return None


def _made_of(version: ModelVersion, only_model: str) -> str:
    """Return the URI of the model that a version was made of."""
    if MODEL_URI_TAG in version.tags:
        return version.tags[MODEL_URI_TAG]
    # MLflow made it, for instance by `log_model(…, registered_model_name=…)`. MLflow 2 names a folder of its server.
    source = version.source or ""
    return source if source.startswith("models:/") else only_model


def create_version(session: Session, run: Run, model_uri: str, model_name: str, tags: dict[str, str]) -> ModelVersion:
    """Make a run's model the next version of a registered model; a new name makes version 1.

    Parameters
    ----------
    session : helpers.tracking.Session
    run : mlflow.entities.Run
        Of the session's tracking server.
    model_uri : str
        The model that it logged.
    model_name : str
    tags : dict of str to str
        Set together with the version, so that one without them never exists; ``run_id``, ``model_uri``,
        ``tracking_server`` and the bundle's mark are added to them.

    Returns
    -------
    mlflow.entities.model_registry.ModelVersion
    """
    tags = tags | {
        RUN_ID_TAG: run.info.run_id,
        MODEL_URI_TAG: model_uri,
        TRACKING_SERVER_TAG: session.tracking.address,
        MARK: model_name,
    }
    make_model(session.registry, model_name)

    @contextmanager
    def files() -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as scratch:
            yield download_model(session, model_uri, Path(scratch))

    return session.registry.create_version(session.tracking, run, model_uri, model_name, tags, files)


def make_model(registry: Server, model_name: str) -> None:
    """Create a registered model if it does not exist."""
    from mlflow.exceptions import MlflowException

    if registry.registered_model(model_name) is not None:
        return
    try:
        # Marked where it can be deleted again.
        marks = {MARK: model_name} if registry.deletes_whole_models else None
        registry.client().create_registered_model(model_name, tags=marks)
    except MlflowException as error:
        # Another process was faster.
        if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
            raise


def champion(session: Session, model_name: str) -> ModelVersion | None:
    """Return the version that is the champion, or None.

    It has the alias ``champion``; where there are no aliases, the tag ``champion`` with the latest time.
    """
    return champion_in(session.registry, model_name)


def champion_in(registry: Server, model_name: str) -> ModelVersion | None:
    """Return the version of a registry that is the champion, or None."""
    return _holder(registry, model_name, CHAMPION)


def challenger(session: Session, model_name: str) -> ModelVersion | None:
    """Return the version that waits for approval, or None.

    It has the alias ``challenger``; where there are no aliases, the tag ``challenger`` with the latest time.
    """
    return _holder(session.registry, model_name, CHALLENGER)


def promote(session: Session, model_name: str, version: str) -> None:
    """Make a version the champion."""
    promote_in(session.registry, model_name, version)


def promote_in(registry: Server, model_name: str, version: str) -> None:
    """Make a version the champion of a registry."""
    _give(registry, model_name, version, CHAMPION)


def make_challenger(session: Session, model_name: str, version: str) -> None:
    """Make a version the challenger, in place of another one that waits."""
    _give(session.registry, model_name, version, CHALLENGER)


def end_challenge(session: Session, model_name: str, version: str) -> None:
    """Take the name challenger from a version, if it is the challenger."""
    holder = challenger(session, model_name)
    if holder is None or str(holder.version) != str(version):
        return
    client = session.registry.client()
    if session.registry.has_aliases:
        client.delete_registered_model_alias(model_name, CHALLENGER)
        return
    # The latest one last: a version that it has replaced, and that has kept its tag, must not take its place.
    for old in sorted(_tagged(session.registry, model_name, CHALLENGER), key=lambda old: int(old.tags[CHALLENGER])):
        client.delete_model_version_tag(model_name, old.version, CHALLENGER)


def _holder(registry: Server, model_name: str, mark: str) -> ModelVersion | None:
    """Return the version that has an alias; where there are no aliases, the tag with the latest time."""
    from mlflow.exceptions import MlflowException

    if not registry.has_aliases:
        tagged = _tagged(registry, model_name, mark)
        return max(tagged, key=lambda version: int(version.tags[mark]), default=None)
    try:
        return registry.client().get_model_version_by_alias(model_name, mark)
    except MlflowException as error:
        # The model or the alias may not exist yet; registries then answer with one of these codes.
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def _give(registry: Server, model_name: str, version: str, mark: str) -> None:
    client = registry.client()
    if registry.has_aliases:
        client.set_registered_model_alias(model_name, mark, version)
        return
    before = [old for old in _tagged(registry, model_name, mark) if str(old.version) != str(version)]
    # The new tag first: with both, the later one counts, and at no time is there none.
    client.set_model_version_tag(model_name, version, mark, str(time.time_ns()))
    for old in before:
        client.delete_model_version_tag(model_name, old.version, mark)


def _tagged(registry: Server, model_name: str, mark: str) -> list[ModelVersion]:
    return [version for version in versions_in(registry, model_name) if mark in version.tags]


def failed_checks(version: ModelVersion) -> str | None:
    """Return in words which checks of the gate a version failed; empty if it passed all, None if it was never judged."""
    checks = {key.removeprefix(CHECK_TAG): value for key, value in version.tags.items() if key.startswith(CHECK_TAG)}
    if not checks:
        return None
    failed = {name: value for name, value in checks.items() if not value.startswith(PASSED)}
    return "; ".join(f"check {name!r} {value}" for name, value in sorted(failed.items()))


def refusal(version: ModelVersion) -> str:
    """Return by whom, when and why a version was refused; empty if it was not."""
    if version.tags.get(APPROVAL_TAG, "").lower() != REFUSED:
        return ""
    reason = version.tags.get(APPROVAL_REASON_TAG, "")
    by, when = version.tags.get(APPROVED_BY_TAG, "somebody"), version.tags.get(APPROVAL_TIME_TAG, "an unknown time")
    return f"refused by {by} at {when}" + (f": {reason}" if reason else "")


def resolve_version(session: Session, model_name: str, model_version: str) -> ModelVersion:
    """Return the version that a name and a version parameter mean now.

    Parameters
    ----------
    session : helpers.tracking.Session
    model_name : str
        Name in the session's registry.
    model_version : str
        Empty for the champion.

    Raises
    ------
    helpers.parameters.ParameterError
        If there is no such model, no such version or no champion.
    """
    by_number = {str(version.version): version for version in versions(session, model_name)}
    if not by_number:
        if registered_model(session, model_name) is not None:
            raise ParameterError(
                "model_name",
                model_name,
                f"has no version in {session.registry.uri}: all were deleted, or none was made. Run 03_register",
            )
        others = model_names(session)
        known = "" if others is None else f"; models there: {', '.join(others) or 'none'}"
        raise ParameterError(
            "model_name",
            model_name,
            f"no registered version of it in {session.registry.uri}{known}. Run 03_register first.",
        )
    if model_version:
        if model_version not in by_number:
            existing = ", ".join(by_number)
            raise ParameterError(
                "model_version", model_version, f"{model_name} has no such version; it has: {existing}"
            )
        return by_number[model_version]
    version = champion(session, model_name)
    if version is None:
        raise ParameterError(
            "model_version",
            model_version,
            f"{model_name} has no champion; when one is deleted, there is none until another version is promoted. "
            f"{_outcomes(session, by_number)} Give a version, or register another run with 03_register.",
        )
    return version


def _outcomes(session: Session, by_number: dict[str, ModelVersion]) -> str:
    """Return the gate's results for the newest versions, and the numbers that are missing."""
    newest = max(map(int, by_number))
    missing = "was deleted, or its upload did not end" if session.registry.has_unfinished_versions else "was deleted"
    sentences = []
    for number in range(newest, max(newest - _MOST_DESCRIBED, 0), -1):
        version = by_number.get(str(number))
        sentences.append(f"Version {number} {_outcome(version) if version else missing}.")
    return " ".join(sentences)


def _outcome(version: ModelVersion) -> str:
    """Return the gate's result for a version, starting with a verb."""
    failed = failed_checks(version)
    if failed is None:
        return "never went through the gate of 03_register"
    if failed:
        return f"did not pass the gate: {failed}"
    if refusal(version):
        return f"passed the gate and was {refusal(version)}"
    return "passed the gate, and waits for approval (08_approve), or its promotion was undone or did not happen"
