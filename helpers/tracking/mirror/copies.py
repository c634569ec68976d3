"""Which run in Azure Machine Learning is the copy of a run: found, made, or chosen among several.

The server gives a new run its id, so that two processes, or one whose answer was lost, may make two
runs for one. Each is tagged with its source when it is created, hence found again. The source's tag
decides which of them is the copy. Whoever mirrors looks at the end whether its choice still stands,
and deletes the others; whoever deleted something looks again. So the last one to look has seen a
copy that is named, active, complete and alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.tracking.mirror import names
from helpers.tracking.mirror.limits import RUN_NAME

if TYPE_CHECKING:
    from mlflow.entities import Run

    from helpers.tracking.mirror.experiment import Pair

PARENT = "mlflow.parentRunId"
# How servers answer for a run that is not there, or is deleted; the last is a 404 without a body.
_GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "ENDPOINT_NOT_FOUND")


def find_or_make(pair: Pair, source: Run, children: tuple[str, ...] = ()) -> Run:
    """Return the copy of a run, which is made if it is missing, as is its parent's.

    Parameters
    ----------
    pair : helpers.tracking.mirror.experiment.Pair
    source : mlflow.entities.Run
    children : tuple of str
        Runs on whose behalf this is the parent, so that a circle of parents comes to an end.

    Returns
    -------
    mlflow.entities.Run
        Named by the source's tags.
    """
    named = source.data.tags.get(names.COPY_RUN, "")
    if named:
        copy = _active(pair, source.info.run_id, named)
        if copy is not None:
            return copy
    candidates = _candidates(pair, source.info.run_id)
    if candidates:
        copy = min(candidates, key=lambda run: run.info.run_id)
    else:
        tags = {names.SOURCE_RUN: source.info.run_id, names.SOURCE_SERVER: pair.source_server}
        # Studio nests a run by the tag that it was created with.
        parent = copy_of_parent(pair, source, children)
        if parent:
            tags[PARENT] = parent
        copy = pair.target.create_run(
            pair.target_id, source.info.start_time, tags, run_name=(source.info.run_name or "")[:RUN_NAME] or None
        )
        # Somebody else may have been quicker.
        now_named = _named(pair, source.info.run_id)
        if now_named != named:
            other = _active(pair, source.info.run_id, now_named)
            if other is not None:
                return other
    _name(pair, source.info.run_id, copy)
    return copy


def copy_of_parent(pair: Pair, source: Run, children: tuple[str, ...] = ()) -> str:
    """Return the id of the copy of a run's parent, made if it is missing; empty if there is none."""
    from mlflow.exceptions import MlflowException

    parent_id = source.data.tags.get(PARENT, "")
    children += (source.info.run_id,)
    if not parent_id or parent_id in children:
        return ""
    try:
        parent = pair.source.get_run(parent_id)
    except MlflowException as error:
        if error.error_code not in _GONE:
            raise
        return ""
    named = parent.data.tags.get(names.COPY_RUN, "")
    if parent.info.experiment_id != pair.source_id or parent.info.lifecycle_stage != "active":
        return named
    return find_or_make(pair, parent, children).info.run_id


def settled(pair: Pair, source_id: str, copy_id: str) -> bool:
    """Return whether a run is the copy for good, after deleting what else was made for it."""
    while still_the_copy(pair, source_id, copy_id):
        others = [run for run in _candidates(pair, source_id) if run.info.run_id != copy_id]
        if not others:
            return True
        for run in others:
            _delete(pair, run)
    return False


def still_the_copy(pair: Pair, source_id: str, copy_id: str) -> bool:
    """Return whether the source names a run as its copy, and the run exists."""
    return _named(pair, source_id) == copy_id and _active(pair, source_id, copy_id) is not None


def _named(pair: Pair, source_id: str) -> str:
    return pair.source.get_run(source_id).data.tags.get(names.COPY_RUN, "")


def _name(pair: Pair, source_id: str, copy: Run) -> None:
    from mlflow.entities import RunTag

    tags = {names.COPY_RUN: copy.info.run_id, names.COPY_SERVER: pair.target_server}
    pair.source.log_batch(source_id, tags=[RunTag(key, value) for key, value in tags.items()])


def _active(pair: Pair, source_id: str, copy_id: str) -> Run | None:
    """Return a run of Azure Machine Learning if it is there and a copy of the source."""
    from mlflow.exceptions import MlflowException

    try:
        run = pair.target.get_run(copy_id)
    except MlflowException as error:
        # Of another workspace, which was used before, or deleted for good.
        if error.error_code not in _GONE:
            raise
        return None
    is_copy = run.data.tags.get(names.SOURCE_RUN) == source_id
    return run if is_copy and run.info.lifecycle_stage == "active" else None


def _candidates(pair: Pair, source_id: str) -> list[Run]:
    return list(pair.target.search_runs([pair.target_id], f"tags.{names.SOURCE_RUN} = '{source_id}'"))


def _delete(pair: Pair, run: Run) -> None:
    from mlflow.exceptions import MlflowException

    try:
        pair.target.delete_run(run.info.run_id)
    except MlflowException as error:
        # Somebody else has deleted it in the meantime.
        if error.error_code not in _GONE:
            raise
