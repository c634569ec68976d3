"""Mirror an experiment: which of its runs are pending, and all of them in turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers.azureml.rest import first_line
from helpers.tracking.mirror import names
from helpers.tracking.mirror.run import Mirrored, MirrorError, mirror_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_PAGE = 500


@dataclass(frozen=True)
class Pair:
    """An experiment in Databricks and the one in Azure Machine Learning that mirrors it.

    Both servers are asked through clients of their own; what the process is pointed at does not
    matter, and is not changed.

    Attributes
    ----------
    source, target : mlflow.MlflowClient
    source_id, target_id : str
        The experiments' ids.
    source_server : str
        Address of the Databricks workspace.
    target_server : str
        Tracking URI of the AML workspace.
    """

    source: MlflowClient
    target: MlflowClient
    source_id: str
    target_id: str
    source_server: str
    target_server: str


@dataclass(frozen=True)
class Failure:
    """A run that is not mirrored, and why."""

    source_id: str
    reason: str


def pair(source_uri: str, source_name: str, source_server: str, target_uri: str, target_name: str) -> Pair:
    """Find the two experiments; the one in Azure Machine Learning is made if it is missing.

    Raises
    ------
    LookupError
        If there is no experiment of the name in Databricks, or if the other was deleted.
    """
    from mlflow import MlflowClient

    source, target = MlflowClient(tracking_uri=source_uri), MlflowClient(tracking_uri=target_uri)
    experiment = source.get_experiment_by_name(source_name)
    if experiment is None:
        raise LookupError(f"no experiment {source_name!r} on {source_server}")
    target_id = _experiment_id(target, target_name)
    return Pair(source, target, experiment.experiment_id, target_id, source_server, target_uri)


def _experiment_id(client: MlflowClient, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage != "active":
            raise LookupError(f"experiment {name!r} was deleted in Azure Machine Learning; restore it, or name another")
        return found.experiment_id
    try:
        return client.create_experiment(name)
    except MlflowException as error:
        # Another process, or this one with a lost answer, has made it.
        found = client.get_experiment_by_name(name) if error.error_code == "RESOURCE_ALREADY_EXISTS" else None
        if found is None:
            raise
        return found.experiment_id


def runs(pair: Pair) -> list[Run]:
    """Return the runs in Databricks, the oldest first, so that parents come before children."""
    return list(search(pair.source, pair.source_id))


def pending(pair: Pair) -> list[Run]:
    """Return the runs that have ended and whose copies have not, the oldest first.

    Known from the two servers: a copy's status is the last that is set, so a copy that has ended as
    its source did was complete then. What is added to a run after its end is found by mirroring it.
    """
    copies = {run.info.run_id: run for run in search(pair.target, pair.target_id)}

    def is_pending(run: Run) -> bool:
        if run.info.status in ("RUNNING", "SCHEDULED"):
            return False
        copy = copies.get(run.data.tags.get(names.COPY_RUN, ""))
        return copy is None or (copy.info.status, copy.info.end_time) != (run.info.status, run.info.end_time)

    return [run for run in runs(pair) if is_pending(run)]


def mirror_runs(pair: Pair, chosen: list[Run]) -> Iterator[Mirrored | Failure]:
    """Mirror runs in turn; one that fails does not keep the others, unless a server is gone."""
    from azure.core.exceptions import AzureError
    from mlflow.exceptions import MlflowException

    for number, run in enumerate(chosen):
        try:
            yield mirror_run(pair, run.info.run_id)
        # OSError: what the client of Databricks raises when it gets no answer.
        except (MlflowException, AzureError, MirrorError, OSError) as error:
            yield Failure(run.info.run_id, first_line(error)[:300])
            away = _away(pair)
            if away:
                yield from (Failure(other.info.run_id, f"{away} does not answer") for other in chosen[number + 1 :])
                return


def _away(pair: Pair) -> str:
    """Return which server does not answer, if one does not."""
    from mlflow.exceptions import MlflowException

    for name, client in (("Azure Machine Learning", pair.target), ("Databricks", pair.source)):
        try:
            client.search_experiments(max_results=1)
        except (MlflowException, OSError):
            return name
    return ""


def search(client: MlflowClient, experiment_id: str, deleted_too: bool = False) -> Iterator[Run]:
    """Return the runs of an experiment, the oldest first."""
    from mlflow.entities import ViewType

    view, token = ViewType.ALL if deleted_too else ViewType.ACTIVE_ONLY, None
    while True:
        page = client.search_runs(
            [experiment_id], "", view, _PAGE, order_by=["attributes.start_time ASC"], page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return
