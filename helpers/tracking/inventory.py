"""List and delete what this bundle made on the tracking servers and in the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from helpers.ownership import MARK, NOT_OURS, Item, is_marked
from helpers.tracking.mirror import names
from helpers.tracking.mirror.experiment import search_runs
from helpers.tracking.runs import MONITORING_TAG, TRIAL_TAG
from helpers.tracking.versions import (
    CHALLENGER,
    CHAMPION,
    RUN_ID_TAG,
    challenger,
    champion,
    registered_model,
    versions_in,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run
    from mlflow.entities.model_registry import ModelVersion
    from pyspark.sql import SparkSession

    from helpers import parameters
    from helpers.tracking.servers import Server
    from helpers.tracking.session import Session

# How servers answer for something that does not exist; the second is a 404 without a body.
_GONE = ("RESOURCE_DOES_NOT_EXIST", "ENDPOINT_NOT_FOUND")


def items(spark: SparkSession, session: Session, p: parameters.CleanUp) -> list[Item]:
    """Return what exists in the experiment and under the model's name, with the reasons to keep some of it.

    If a version is kept, so is the run of its model; if a run is kept, so is its experiment.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    session : helpers.tracking.Session
        With ``tracking_mode=dual`` the copies in Azure ML are listed, too.
    p : helpers.parameters.CleanUp
        Runs of other models in the experiment are kept. Without ``force`` champion and challenger are kept.

    Returns
    -------
    list of helpers.ownership.Item
        Of the kinds ``model_versions`` (and the registered model itself), ``runs`` and ``experiments``.

    Raises
    ------
    mlflow.exceptions.MlflowException, ConnectionError, helpers.azureml.rest.AzureError
        If a server cannot be reached.
    """
    del spark
    model_name = p.model_name
    registered_name = session.registered_model_name(model_name, p.catalog, p.schema)
    listed, needed = _model(session, registered_name, p.force)
    listed += _copies(session, registered_name, needed)
    for server, name in _experiment_names(session):
        where, client = server.place, server.client()
        for experiment in _experiments(client, server, name):
            runs = [
                _run_item(client, run, where, model_name, needed)
                for run in search_runs(client, experiment.experiment_id)
            ]
            listed += [*runs, _experiment_item(client, server, experiment, name, runs)]
    return listed


def _experiment_names(session: Session) -> list[tuple[Server, str]]:
    """Return tracking server and experiment: first of the runs, then of their copies, which mirroring would recreate."""
    experiments: list[tuple[Server, str]] = [(session.tracking, session.experiment_name)]
    if session.is_mirrored:
        experiments.append((session.azureml_server, session.mirror_name))
    return experiments


def _model(session: Session, model_name: str, force: bool) -> tuple[list[Item], dict[str, str]]:
    """Return versions and model, and the reasons to keep the runs of the versions that are kept."""
    where, client, used = session.registry.place, session.registry.client(), _in_use(session, model_name)
    listed: list[Item] = []
    needed: dict[str, str] = {}
    for version in versions_in(session.registry, model_name, unfinished=True):
        item = _version_item(session, client, version, where, force, used)
        listed.append(item)
        if item.keep_reason:
            reason = f"its model is {item.name}, which stays ({item.keep_reason})"
            needed |= {run_id: reason for run_id in (version.run_id, version.tags.get(RUN_ID_TAG)) if run_id}
    model = registered_model(session, model_name)
    # Azure Machine Learning deletes versions, not a model as a whole:
    # https://learn.microsoft.com/azure/machine-learning/how-to-manage-models-mlflow#limitations
    if model is not None and session.registry.deletes_whole_models:
        keep_reason = "" if is_marked(model.tags) else NOT_OURS
        delete = partial(_delete_model, session, client, model_name)
        listed.append(
            Item("model_versions", f"{model_name} (the registered model)", where, delete, keep_reason, tuple(listed))
        )
    return listed, needed


def _in_use(session: Session, model_name: str) -> dict[str, str]:
    """Return what the versions are that something or somebody waits for, by their number."""
    holders = {CHALLENGER: challenger(session, model_name), CHAMPION: champion(session, model_name)}
    return {str(version.version): mark for mark, version in holders.items() if version is not None}


def _copies(session: Session, model_name: str, needed: dict[str, str]) -> list[Item]:
    """Return the copies of versions in the registry that the endpoints use."""
    if not session.uses_azureml or session.registry.in_azureml:
        return []
    client, listed = session.azureml_server.client(), []
    for version in versions_in(session.azureml_server, session.registry.plain_model_name(model_name)):
        item = _version_item(session, client, version, session.azureml_server.place, True, {})
        listed.append(replace(item, keep_reason=item.keep_reason or needed.get(version.tags.get(RUN_ID_TAG, ""), "")))
    return listed


def _version_item(
    session: Session, client: MlflowClient, version: ModelVersion, where: str, force: bool, used: dict[str, str]
) -> Item:
    keep_reason = "" if is_marked(version.tags) else NOT_OURS
    name, number = version.name, str(version.version)
    if not keep_reason and not force and number in used:
        keep_reason = f"the {used[number]}, unless force=true"
    return Item(
        "model_versions",
        f"{name} version {number}",
        where,
        partial(_delete_version, session, client, name, number, force),
        keep_reason,
    )


def _delete_version(session: Session, client: MlflowClient, name: str, number: str, force: bool) -> bool:
    used = {} if force else _in_use(session, name)
    if number in used:
        raise RuntimeError(f"it has become the {used[number]} meanwhile")
    return _existing(client.get_model_version, name, number) is not None and _deleted(
        client.delete_model_version, name, number
    )


def _delete_model(session: Session, client: MlflowClient, name: str) -> bool:
    if registered_model(session, name) is None:
        return False
    # Deleting a model deletes all of its versions, whoever made them.
    left = versions_in(session.registry, name, unfinished=True)
    if left:
        raise RuntimeError(f"it has versions: {', '.join(str(version.version) for version in left)}")
    return _deleted(client.delete_registered_model, name)


def _run_item(client: MlflowClient, run: Run, where: str, model_name: str, needed: dict[str, str]) -> Item:
    tags = run.data.tags
    # A copy gets the mark of its source only when it is complete.
    if not _is_ours(run):
        keep_reason = NOT_OURS
    elif (trained := tags.get(MARK, tags.get(TRIAL_TAG, tags.get(MONITORING_TAG, model_name)))) != model_name:
        keep_reason = f"trained {trained}, not {model_name}"
    else:
        related = (run.info.run_id, tags.get(names.SOURCE_RUN), tags.get(names.COPY_RUN))
        keep_reason = next((needed[run_id] for run_id in related if run_id in needed), "")
    name = f"{run.info.run_name} ({run.info.run_id})"
    return Item("runs", name, where, partial(_delete_run, client, run.info.run_id), keep_reason)


def _is_ours(run: Run) -> bool:
    tags = run.data.tags
    return is_marked(tags) or TRIAL_TAG in tags or MONITORING_TAG in tags or names.SOURCE_RUN in tags


def _delete_run(client: MlflowClient, run_id: str) -> bool:
    run = _existing(client.get_run, run_id)
    if run is None or run.info.lifecycle_stage != "active":
        return False
    # Before MLflow 3 a run has no outputs, and its model is among its artifacts.
    outputs = getattr(run, "outputs", None)
    for output in outputs.model_outputs if outputs else []:
        _deleted(client.delete_logged_model, output.model_id)
    return _deleted(client.delete_run, run_id)


def _experiments(client: MlflowClient, server: Server, name: str) -> list[Experiment]:
    """Return the experiment, if it exists, and those that were renamed for deletion but then not deleted."""
    experiment = client.get_experiment_by_name(name)
    listed = [experiment] if experiment is not None and experiment.lifecycle_stage == "active" else []
    if server.keeps_experiment_tags:
        quote = '"' if "'" in name else "'"
        renamed = client.search_experiments(filter_string=f"name LIKE {quote}{name} (deleted %{quote}")
        listed += [other for other in renamed if other.name == _deleted_name(name, other.experiment_id)]
    return listed


def _experiment_item(client: MlflowClient, server: Server, experiment: Experiment, name: str, runs: list[Item]) -> Item:
    renames = server.keeps_experiment_tags
    keep_reason = ""
    if renames and not is_marked(experiment.tags):
        keep_reason = NOT_OURS
    elif not renames:
        # This server is not documented to keep an experiment's tags: there, the experiment's runs decide.
        held = list(search_runs(client, experiment.experiment_id, include_deleted=True))
        if not held or not all(map(_is_ours, held)):
            keep_reason = "not known to be made by this bundle: it has other runs, or none"
    delete = partial(_delete_experiment, client, experiment.experiment_id, name, renames)
    return Item("experiments", experiment.name, server.place, delete, keep_reason, tuple(runs))


def _deleted_name(name: str, experiment_id: str) -> str:
    return f"{name} (deleted {experiment_id})"


def _delete_experiment(client: MlflowClient, experiment_id: str, name: str, rename: bool) -> bool:
    experiment = _existing(client.get_experiment, experiment_id)
    if experiment is None or experiment.lifecycle_stage != "active":
        return False
    # Deleting an experiment deletes all of its runs, whoever made them; Azure Machine Learning refuses it.
    if client.search_runs([experiment_id], max_results=1):
        raise RuntimeError("it has runs")
    if rename and experiment.name == name:
        # As long as a deleted experiment has a name, MLflow does not create a new one, so nobody could use the name.
        client.rename_experiment(experiment_id, _deleted_name(name, experiment_id))
    return _deleted(client.delete_experiment, experiment_id)


def _existing(get: Callable[..., Any], *arguments: str) -> Any:
    """Return an object of a server, or None if it does not exist."""
    from mlflow.exceptions import MlflowException

    try:
        return get(*arguments)
    except MlflowException as error:
        if error.error_code not in _GONE:
            raise
        return None


def _deleted(delete: Callable[..., Any], *arguments: str) -> bool:
    """Delete something, and return whether it existed."""
    from mlflow.exceptions import MlflowException

    try:
        delete(*arguments)
    except MlflowException as error:
        if error.error_code not in _GONE:
            raise
        return False
    return True
