"""Mirror one run: its copy holds all that it holds, or says what is left out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from helpers.tracking.mirror import copies, files, inputs, limits, metrics, names

if TYPE_CHECKING:
    from mlflow.entities import Run

    from helpers.tracking.mirror.experiment import Pair

_ATTEMPTS = 5
_RUNNING = ("RUNNING", "SCHEDULED")


class MirrorError(RuntimeError):
    """A run could not be mirrored now; what was copied stays, and the next call goes on from there."""


@dataclass
class Mirrored:
    """What was done for a run.

    Attributes
    ----------
    source_id, copy_id : str
        The run in Databricks and its copy in Azure Machine Learning.
    status : str
        Of the source.
    points, files : int
        Metric points and files that were sent.
    left_out : list of helpers.tracking.mirror.limits.LeftOut
        What the copy does not have as the source has it.
    """

    source_id: str
    copy_id: str
    status: str
    points: int = 0
    files: int = 0
    left_out: list[limits.LeftOut] = field(default_factory=list)


def mirror_run(pair: Pair, run_id: str) -> Mirrored:
    """Bring the copy of a run up to date; make it if it is missing.

    The copy's status is set last: a copy that has ended has all that its source had then.

    Parameters
    ----------
    pair : helpers.tracking.mirror.experiment.Pair
    run_id : str
        In Databricks.

    Raises
    ------
    MirrorError
        If other processes keep choosing another copy.
    mlflow.exceptions.MlflowException, azure.core.exceptions.AzureError
        If a server cannot be reached, or refuses.
    """
    from azure.core.exceptions import AzureError
    from mlflow.exceptions import MlflowException

    for _ in range(_ATTEMPTS):
        source = pair.source.get_run(run_id)
        copy = copies.find_or_make(pair, source)
        try:
            done = _copy(pair, source, copy)
        except (MlflowException, AzureError):
            # Another process may have chosen another copy and deleted this one.
            if copies.still_the_copy(pair, run_id, copy.info.run_id):
                raise
            continue
        if copies.settled(pair, run_id, copy.info.run_id):
            return done
    raise MirrorError(
        f"run {run_id}: its copy in {pair.target_server} was deleted or replaced {_ATTEMPTS} times meanwhile"
    )


def _copy(pair: Pair, source: Run, copy: Run) -> Mirrored:
    done = Mirrored(source.info.run_id, copy.info.run_id, source.info.status)
    done.left_out += _copy_parameters(pair, source, copy)
    # At the same time: while one waits for its server, the other has work to do.
    with ThreadPoolExecutor(1) as thread:
        of_files = thread.submit(files.copy, pair, source, copy, unchanged=_same_end(source, copy))
        done.points, left_out = metrics.copy(pair, source, copy)
        done.left_out += left_out + inputs.copy(pair, source, copy)
        done.files, left_out = of_files.result()
    done.left_out += left_out
    # After all else, because these say what is left out of it.
    done.left_out += _copy_tags(pair, source, copy, done.left_out)
    _copy_end(pair, source, copy)
    return done


def _copy_parameters(pair: Pair, source: Run, copy: Run) -> list[limits.LeftOut]:
    from mlflow.entities import Param

    wanted, left_out = limits.parameters(source.data.params, copy.data.params)
    missing = [Param(key, value) for key, value in wanted.items() if copy.data.params.get(key) != value]
    refused = limits.send(missing, lambda part: pair.target.log_batch(copy.info.run_id, params=part))
    return left_out + [limits.LeftOut("parameter", item.key, why) for item, why in refused]


def _copy_tags(pair: Pair, source: Run, copy: Run, so_far: list[limits.LeftOut]) -> list[limits.LeftOut]:
    from mlflow.entities import RunTag

    wanted, left_out = limits.tags(source.data.tags, copy.data.tags)
    parent = copies.copy_of_parent(pair, source)
    if parent:
        wanted[copies.PARENT] = parent
    elif copies.PARENT in source.data.tags:
        left_out.append(limits.LeftOut("parent", source.data.tags[copies.PARENT], "it has no copy"))
    missing = _different(wanted, copy)
    refused = limits.send(
        [RunTag(key, value) for key, value in missing.items()],
        lambda part: pair.target.log_batch(copy.info.run_id, tags=part),
    )
    left_out += [limits.LeftOut("tag", item.key, why) for item, why in refused]
    name = source.info.run_name or ""
    if len(name) > limits.RUN_NAME:
        left_out.append(
            limits.LeftOut("run name", f"{name[:40]}…", f"cut from {len(name)} to {limits.RUN_NAME} characters")
        )
    note = _note([*so_far, *left_out])
    if note != copy.data.tags.get(names.LEFT_OUT, ""):
        pair.target.set_tag(copy.info.run_id, names.LEFT_OUT, note)
    return left_out


def _different(wanted: dict[str, str], copy: Run) -> dict[str, str]:
    return {key: value for key, value in wanted.items() if copy.data.tags.get(key) != value}


def _note(left_out: list[limits.LeftOut]) -> str:
    """Return what a copy's tag says of what is left out of it."""
    text = "; ".join(str(item) for item in left_out)
    if len(text) <= limits.TAG_VALUE:
        return text
    count = f"{len(left_out)} items: "
    return count + text[: limits.TAG_VALUE - len(count) - 1] + "…"


def _same_end(source: Run, copy: Run) -> bool:
    """Return whether both have ended, the copy after it was complete."""
    if source.info.status in _RUNNING:
        return False
    return (source.info.status, source.info.end_time) == (copy.info.status, copy.info.end_time)


def _copy_end(pair: Pair, source: Run, copy: Run) -> None:
    """Set status, end and name, in one request."""
    from mlflow.entities import RunStatus

    name = (source.info.run_name or "")[: limits.RUN_NAME]
    same_end = _same_end(source, copy) or (source.info.status in _RUNNING and source.info.status == copy.info.status)
    if same_end and name == (copy.info.run_name or ""):
        return
    # The client's own methods take several requests for it, and print the run's address.
    pair.target._tracking_client.store.update_run_info(
        copy.info.run_id, RunStatus.from_string(source.info.status), source.info.end_time, name or None
    )
