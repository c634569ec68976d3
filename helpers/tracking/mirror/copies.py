"""Find or create the copy of a run in Azure Machine Learning, and choose among several candidates.

The server gives a new run its id. So two processes, or one process whose answer was lost, may create two runs for
one source. Each has a tag with its source from the start, and can be found again. A tag of the source decides which
of them is the copy. At the end of mirroring, each process checks that its choice still stands, and deletes the other
candidates; after a deletion it checks again. So the last process to check has seen a copy that is named, active,
complete and the only one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.tracking.mirror import names
from helpers.tracking.mirror.limits import RUN_NAME

if TYPE_CHECKING:
    from mlflow.entities import Run

    from helpers.tracking.mirror.mirrored_experiment import MirroredExperiment

PARENT = "mlflow.parentRunId"
# How servers answer for a run that does not exist or is deleted; the last is a 404 without a body.
_GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "ENDPOINT_NOT_FOUND")


def find_or_create(experiment: MirroredExperiment, source: Run, children: tuple[str, ...] = ()) -> Run:
    """Return the copy of a run; create it if it is missing, and the copy of the run's parent, too.

    Parameters
    ----------
    experiment : helpers.tracking.mirror.MirroredExperiment
    source : mlflow.entities.Run
    children : tuple of str
        The runs for which this run is a parent, so that a circle of parents ends.

    Returns
    -------
    mlflow.entities.Run
        The run that the source's tag names.
    """
    named = source.data.tags.get(names.COPY_RUN, "")
    if named:
        copy = _active_copy(experiment, source.info.run_id, named)
        if copy is not None:
            return copy
    candidates = _candidates(experiment, source.info.run_id)
    if candidates:
        copy = min(candidates, key=lambda run: run.info.run_id)
    else:
        tags = {names.SOURCE_RUN: source.info.run_id, names.SOURCE_SERVER: experiment.source_server}
        # Studio nests a run by the parent tag that the run was created with.
        parent = copy_of_parent(experiment, source, children)
        if parent:
            tags[PARENT] = parent
        name = (source.info.run_name or "")[:RUN_NAME] or None
        copy = experiment.target_client.create_run(experiment.target_id, source.info.start_time, tags, run_name=name)
        # Another process may have been faster.
        now_named = _named_copy(experiment, source.info.run_id)
        if now_named != named:
            other = _active_copy(experiment, source.info.run_id, now_named)
            if other is not None:
                return other
    _name_copy(experiment, source.info.run_id, copy)
    return copy


def copy_of_parent(experiment: MirroredExperiment, source: Run, children: tuple[str, ...] = ()) -> str:
    """Return the id of the copy of a run's parent, which is created if it is missing; empty if there is no parent."""
    from mlflow.exceptions import MlflowException

    parent_id = source.data.tags.get(PARENT, "")
    children += (source.info.run_id,)
    if not parent_id or parent_id in children:
        return ""
    try:
        parent = experiment.source_client.get_run(parent_id)
    except MlflowException as error:
        if error.error_code not in _GONE:
            raise
        return ""
    named = parent.data.tags.get(names.COPY_RUN, "")
    if parent.info.experiment_id != experiment.source_id or parent.info.lifecycle_stage != "active":
        return named
    return find_or_create(experiment, parent, children).info.run_id


def settle(experiment: MirroredExperiment, source_id: str, copy_id: str) -> bool:
    """Delete the other candidates of a run; return whether `copy_id` is still the copy."""
    while is_copy(experiment, source_id, copy_id):
        others = [run for run in _candidates(experiment, source_id) if run.info.run_id != copy_id]
        if not others:
            return True
        for run in others:
            _delete(experiment, run)
    return False


def is_copy(experiment: MirroredExperiment, source_id: str, copy_id: str) -> bool:
    """Return whether the source names a run as its copy, and that run exists."""
    if _named_copy(experiment, source_id) != copy_id:
        return False
    return _active_copy(experiment, source_id, copy_id) is not None


def _named_copy(experiment: MirroredExperiment, source_id: str) -> str:
    return experiment.source_client.get_run(source_id).data.tags.get(names.COPY_RUN, "")


def _name_copy(experiment: MirroredExperiment, source_id: str, copy: Run) -> None:
    from mlflow.entities import RunTag

    tags = {names.COPY_RUN: copy.info.run_id, names.COPY_SERVER: experiment.target_uri}
    experiment.source_client.log_batch(source_id, tags=[RunTag(key, value) for key, value in tags.items()])


def _active_copy(experiment: MirroredExperiment, source_id: str, copy_id: str) -> Run | None:
    """Return a run of Azure Machine Learning if it exists and is a copy of the source."""
    from mlflow.exceptions import MlflowException

    try:
        run = experiment.target_client.get_run(copy_id)
    except MlflowException as error:
        # The run is in a workspace that was used before, or was deleted permanently.
        if error.error_code not in _GONE:
            raise
        return None
    of_source = run.data.tags.get(names.SOURCE_RUN) == source_id
    return run if of_source and run.info.lifecycle_stage == "active" else None


def _candidates(experiment: MirroredExperiment, source_id: str) -> list[Run]:
    condition = f"tags.{names.SOURCE_RUN} = '{source_id}'"
    return list(experiment.target_client.search_runs([experiment.target_id], condition))


def _delete(experiment: MirroredExperiment, run: Run) -> None:
    from mlflow.exceptions import MlflowException

    try:
        experiment.target_client.delete_run(run.info.run_id)
    except MlflowException as error:
        # Another process has deleted it in the meantime.
        if error.error_code not in _GONE:
            raise
