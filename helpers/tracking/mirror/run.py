"""Mirror one run: its copy gets everything that the run has, or says what is left out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from helpers.tracking.mirror import copies, limits, names
from helpers.tracking.mirror.errors import MirrorError
from helpers.tracking.mirror.files import copy_files
from helpers.tracking.mirror.inputs import copy_inputs
from helpers.tracking.mirror.limits import Omission
from helpers.tracking.mirror.metrics import copy_metrics

if TYPE_CHECKING:
    from mlflow.entities import Run

    from helpers.tracking.mirror.mirrored_experiment import MirroredExperiment

_ATTEMPTS = 5
_RUNNING = ("RUNNING", "SCHEDULED")


@dataclass
class MirroredRun:
    """A run that was mirrored, and what was done for it.

    Attributes
    ----------
    source_id, copy_id : str
        The run in Databricks and its copy in Azure Machine Learning.
    status : str
        The status of the source.
    points, files : int
        How many metric points and files were sent.
    omissions : list of helpers.tracking.mirror.Omission
        What the copy lacks, or has in a shortened form.
    """

    source_id: str
    copy_id: str
    status: str
    points: int = 0
    files: int = 0
    omissions: list[Omission] = field(default_factory=list)


def mirror_run(experiment: MirroredExperiment, run_id: str) -> MirroredRun:
    """Bring the copy of a run up to date; create the copy if it is missing.

    The status of the copy is set last: a copy that has ended has everything that its source had at that time. What
    cannot be read from Databricks, or is refused by Azure Machine Learning, is left out and listed.

    Parameters
    ----------
    experiment : helpers.tracking.mirror.MirroredExperiment
    run_id : str
        The run in Databricks.

    Raises
    ------
    MirrorError
        If a file of the run cannot be read now, or if other processes keep choosing another copy.
    mlflow.exceptions.MlflowException, azure.core.exceptions.AzureError
        If a server cannot be reached, or refuses.
    """
    from azure.core.exceptions import AzureError
    from mlflow.exceptions import MlflowException

    for _ in range(_ATTEMPTS):
        source = experiment.source_client.get_run(run_id)
        copy = copies.find_or_create(experiment, source)
        try:
            mirrored = _copy(experiment, source, copy)
        except (MlflowException, AzureError):
            # Another process may have chosen another copy and deleted this one.
            if copies.is_copy(experiment, run_id, copy.info.run_id):
                raise
            continue
        if copies.settle(experiment, run_id, copy.info.run_id):
            return mirrored
    raise MirrorError(
        f"run {run_id}: its copy in {experiment.target_uri} was deleted or replaced {_ATTEMPTS} times in the meantime"
    )


def _copy(experiment: MirroredExperiment, source: Run, copy: Run) -> MirroredRun:
    mirrored = MirroredRun(source.info.run_id, copy.info.run_id, source.info.status)
    mirrored.omissions += _copy_parameters(experiment, source, copy)
    # Files in a thread of their own: while one thread waits for its server, the other can work.
    with ThreadPoolExecutor(1) as thread:
        files = thread.submit(copy_files, experiment, source, copy, unchanged=_have_same_end(source, copy))
        mirrored.points, omissions = copy_metrics(experiment, source, copy)
        mirrored.omissions += omissions + copy_inputs(experiment, source, copy)
        mirrored.files, omissions = files.result()
    mirrored.omissions += omissions
    # After everything else, because one of the tags lists the omissions.
    mirrored.omissions += _copy_tags(experiment, source, copy, mirrored.omissions)
    _copy_end(experiment, source, copy)
    return mirrored


def _copy_parameters(experiment: MirroredExperiment, source: Run, copy: Run) -> list[Omission]:
    from mlflow.entities import Param

    chosen, omissions = limits.parameters(source.data.params, copy.data.params)
    missing = [Param(key, value) for key, value in chosen.items() if copy.data.params.get(key) != value]
    refused = limits.send(missing, lambda part: experiment.target_client.log_batch(copy.info.run_id, params=part))
    return omissions + [Omission("parameter", item.key, reason) for item, reason in refused]


def _copy_tags(
    experiment: MirroredExperiment, source: Run, copy: Run, other_omissions: list[Omission]
) -> list[Omission]:
    from mlflow.entities import RunTag

    chosen, omissions = limits.tags(source.data.tags, copy.data.tags)
    parent = copies.copy_of_parent(experiment, source)
    if parent:
        chosen[copies.PARENT] = parent
    elif copies.PARENT in source.data.tags:
        omissions.append(Omission("parent", source.data.tags[copies.PARENT], "it has no copy"))
    missing = [RunTag(key, value) for key, value in chosen.items() if copy.data.tags.get(key) != value]
    refused = limits.send(missing, lambda part: experiment.target_client.log_batch(copy.info.run_id, tags=part))
    omissions += [Omission("tag", item.key, reason) for item, reason in refused]
    name = source.info.run_name or ""
    if len(name) > limits.RUN_NAME:
        reason = f"cut from {len(name)} to {limits.RUN_NAME} characters"
        omissions.append(Omission("run name", f"{name[:40]}…", reason))
    note = _note([*other_omissions, *omissions])
    if note != copy.data.tags.get(names.OMISSIONS, ""):
        experiment.target_client.set_tag(copy.info.run_id, names.OMISSIONS, note)
    return omissions


def _note(omissions: list[Omission]) -> str:
    """Return the text of the copy's tag that lists the omissions."""
    text = "; ".join(str(item) for item in omissions)
    if len(text) <= limits.TAG_VALUE:
        return text
    count = f"{len(omissions)} items: "
    return count + text[: limits.TAG_VALUE - len(count) - 1] + "…"


def _have_same_end(source: Run, copy: Run) -> bool:
    """Return whether both have ended; the copy was complete when it ended."""
    if source.info.status in _RUNNING:
        return False
    return (source.info.status, source.info.end_time) == (copy.info.status, copy.info.end_time)


def _copy_end(experiment: MirroredExperiment, source: Run, copy: Run) -> None:
    """Set status, end time and name in one request."""
    from mlflow.entities import RunStatus

    name = (source.info.run_name or "")[: limits.RUN_NAME]
    both_running = source.info.status in _RUNNING and source.info.status == copy.info.status
    if (both_running or _have_same_end(source, copy)) and name == (copy.info.run_name or ""):
        return
    # The client's own methods send several requests for this, and print the address of the run.
    experiment.target_client._tracking_client.store.update_run_info(
        copy.info.run_id, RunStatus.from_string(source.info.status), source.info.end_time, name or None
    )
