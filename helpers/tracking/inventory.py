"""What this bundle made on the tracking servers and in the registry: listed, and deleted again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from helpers.ownership import MARK, NOT_OURS, Item, is_marked
from helpers.tracking.mirror import names
from helpers.tracking.mirror.experiment import search
from helpers.tracking.session import Tracking
from helpers.tracking.versions import RUN_ID_TAG, champion, registered_model, versions

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run
    from mlflow.entities.model_registry import ModelVersion

# How servers answer for what is not there; the second is a 404 without a body.
_GONE = ("RESOURCE_DOES_NOT_EXIST", "ENDPOINT_NOT_FOUND")


def items(servers: Tracking, model_name: str, registered_name: str, force: bool) -> list[Item]:
    """Return what is in the experiment and under the model's name, with why some of it has to stay.

    A run whose model is a version that is kept is kept, too, and so is an experiment with a run that is kept.

    Parameters
    ----------
    servers : Tracking
        Of `configure`, which MLflow points at; with ``dual`` the copies in Azure Machine Learning are listed, too.
    model_name : str
        As runs are marked with it; other models' runs in the experiment stay.
    registered_name : str
        The model in the registry.
    force : bool
        Whether the champion may be deleted.

    Returns
    -------
    list of helpers.ownership.Item
        Of the kinds ``model_versions`` (and the registered model itself), ``runs`` and ``experiments``.

    Raises
    ------
    mlflow.exceptions.MlflowException, ConnectionError, helpers.azureml.rest.AzureError
        If a server cannot be asked.
    """
    import mlflow

    if servers.azureml_error:
        raise servers.azureml_error
    found, needed = _model(servers, registered_name, force)
    found += _copies(servers, registered_name, needed)
    for tracking_uri, name in _places(servers):
        where, client = place(servers, tracking_uri), mlflow.MlflowClient(tracking_uri=tracking_uri)
        for experiment in _experiments(client, tracking_uri, name):
            runs = [
                _run_item(client, run, where, model_name, needed) for run in search(client, experiment.experiment_id)
            ]
            found += [*runs, _experiment_item(client, experiment, where, name, runs)]
    return found


def place(servers: Tracking, uri: str) -> str:
    """Return the name of a server, as it is called in a sentence."""
    if servers.workspace and uri.startswith("azureml"):
        return f"Azure ML workspace {servers.workspace.name}"
    return {"databricks": "Databricks", "databricks-uc": "Unity Catalog"}.get(uri, uri)


def _places(servers: Tracking) -> list[tuple[str, str]]:
    """Return tracking URI and experiment: first the runs, then their copies, which would be made again."""
    found = [(servers.tracking_uri, servers.experiment_name)]
    if servers.workspace and servers.mirror_name:
        found.append((servers.workspace.tracking_uri, servers.mirror_name))
    return found


def _model(servers: Tracking, model_name: str, force: bool) -> tuple[list[Item], dict[str, str]]:
    """Return versions and model, and why the runs are needed that the versions which stay were made of."""
    import mlflow

    where, client, best = place(servers, servers.registry_uri), mlflow.MlflowClient(), champion(model_name)
    found: list[Item] = []
    needed: dict[str, str] = {}
    for version in versions(model_name):
        item = _version_item(client, version, where, force, best)
        found.append(item)
        if item.keep_reason:
            reason = f"its model is {item.name}, which stays ({item.keep_reason})"
            needed |= {run_id: reason for run_id in (version.run_id, version.tags.get(RUN_ID_TAG)) if run_id}
    model = registered_model(model_name)
    # Azure Machine Learning deletes versions, not a model as a whole:
    # https://learn.microsoft.com/azure/machine-learning/how-to-manage-models-mlflow#limitations
    if model is not None and not servers.registry_uri.startswith("azureml"):
        kept = "" if is_marked(model.tags) else NOT_OURS
        delete = partial(_delete_model, client, model_name)
        found.append(Item("model_versions", f"{model_name} (the registered model)", where, delete, kept, tuple(found)))
    return found, needed


def _copies(servers: Tracking, model_name: str, needed: dict[str, str]) -> list[Item]:
    """Return the versions that were made of others in the registry beside the endpoints."""
    import mlflow

    if servers.workspace is None or servers.registry_uri.startswith("azureml"):
        return []
    uri = servers.workspace.tracking_uri
    client, found = mlflow.MlflowClient(uri, uri), []
    there = client.search_model_versions(f"name = '{model_name}'")
    for version in sorted(there, key=lambda version: int(version.version)):
        item = _version_item(client, version, place(servers, uri), True, None)
        found.append(replace(item, keep_reason=item.keep_reason or needed.get(version.tags.get(RUN_ID_TAG, ""), "")))
    return found


def _version_item(
    client: MlflowClient, version: ModelVersion, where: str, force: bool, best: ModelVersion | None
) -> Item:
    kept = "" if is_marked(version.tags) else NOT_OURS
    if not kept and not force and best is not None and str(best.version) == str(version.version):
        kept = "the champion, unless force=true"
    name, number = version.name, str(version.version)
    return Item(
        "model_versions", f"{name} version {number}", where, partial(_delete_version, client, name, number, force), kept
    )


def _delete_version(client: MlflowClient, name: str, number: str, force: bool) -> bool:
    best = None if force else champion(name)
    if best is not None and str(best.version) == number:
        raise RuntimeError("it has become the champion meanwhile")
    return _found(client.get_model_version, name, number) is not None and _deleted(
        client.delete_model_version, name, number
    )


def _delete_model(client: MlflowClient, name: str) -> bool:
    if registered_model(name) is None:
        return False
    # Deleting a model deletes all of its versions, whoever made them.
    left = versions(name)
    if left:
        raise RuntimeError(f"it has versions: {', '.join(str(version.version) for version in left)}")
    return _deleted(client.delete_registered_model, name)


def _run_item(client: MlflowClient, run: Run, where: str, model_name: str, needed: dict[str, str]) -> Item:
    tags = run.data.tags
    # A copy has the mark of its source only when all of it is copied.
    if not _is_ours(run):
        kept = NOT_OURS
    elif tags.get(MARK, model_name) != model_name:
        kept = f"trained {tags[MARK]}, not {model_name}"
    else:
        related = (run.info.run_id, tags.get(names.SOURCE_RUN), tags.get(names.COPY_RUN))
        kept = next((needed[run_id] for run_id in related if run_id in needed), "")
    name = f"{run.info.run_name} ({run.info.run_id})"
    return Item("runs", name, where, partial(_delete_run, client, run.info.run_id), kept)


def _is_ours(run: Run) -> bool:
    return is_marked(run.data.tags) or names.SOURCE_RUN in run.data.tags


def _delete_run(client: MlflowClient, run_id: str) -> bool:
    run = _found(client.get_run, run_id)
    if run is None or run.info.lifecycle_stage != "active":
        return False
    # Before MLflow 3 a run has no outputs, and its model is among its artifacts.
    outputs = getattr(run, "outputs", None)
    for output in outputs.model_outputs if outputs else []:
        _deleted(client.delete_logged_model, output.model_id)
    return _deleted(client.delete_run, run_id)


def _experiments(client: MlflowClient, tracking_uri: str, name: str) -> list[Experiment]:
    """Return the experiment, if there is one, and those that were renamed to be deleted, and then were not."""
    experiment = client.get_experiment_by_name(name)
    found = [experiment] if experiment is not None and experiment.lifecycle_stage == "active" else []
    if _renames(tracking_uri):
        quote = '"' if "'" in name else "'"
        renamed = client.search_experiments(filter_string=f"name LIKE {quote}{name} (deleted %{quote}")
        found += [other for other in renamed if other.name == _deleted_name(name, other.experiment_id)]
    return found


def _experiment_item(client: MlflowClient, experiment: Experiment, where: str, name: str, runs: list[Item]) -> Item:
    renames = _renames(client.tracking_uri)
    kept = ""
    if renames and not is_marked(experiment.tags):
        kept = NOT_OURS
    elif not renames:
        # It is not documented that this server keeps an experiment's tags: there, what it held has to tell.
        held = list(search(client, experiment.experiment_id, deleted_too=True))
        if not held or not all(map(_is_ours, held)):
            kept = "not known to be made by this bundle: it has other runs, or none"
    delete = partial(_delete_experiment, client, experiment.experiment_id, name, renames)
    return Item("experiments", experiment.name, where, delete, kept, tuple(runs))


def _renames(tracking_uri: str) -> bool:
    """Return whether experiments can be renamed and tagged: on all servers but Azure Machine Learning's.

    https://learn.microsoft.com/azure/machine-learning/how-to-track-experiments-mlflow
    """
    return not tracking_uri.startswith("azureml")


def _deleted_name(name: str, experiment_id: str) -> str:
    return f"{name} (deleted {experiment_id})"


def _delete_experiment(client: MlflowClient, experiment_id: str, name: str, rename: bool) -> bool:
    experiment = _found(client.get_experiment, experiment_id)
    if experiment is None or experiment.lifecycle_stage != "active":
        return False
    # Deleting an experiment deletes all of its runs, whoever made them; Azure Machine Learning refuses it.
    if client.search_runs([experiment_id], max_results=1):
        raise RuntimeError("it has runs")
    if rename and experiment.name == name:
        # MLflow makes no new experiment of the name as long as the deleted one has it, and nobody could go on under it.
        client.rename_experiment(experiment_id, _deleted_name(name, experiment_id))
    return _deleted(client.delete_experiment, experiment_id)


def _found(get: Callable[..., Any], *arguments: str) -> Any:
    """Return what a server has, or None if it is not there."""
    from mlflow.exceptions import MlflowException

    try:
        return get(*arguments)
    except MlflowException as error:
        if error.error_code not in _GONE:
            raise
        return None


def _deleted(delete: Callable[..., Any], *arguments: str) -> bool:
    """Delete something and return whether it was there."""
    from mlflow.exceptions import MlflowException

    try:
        delete(*arguments)
    except MlflowException as error:
        if error.error_code not in _GONE:
            raise
        return False
    return True
