"""Mirror the runs of an experiment, and find those that are pending."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers.tracking.mirror import names
from helpers.tracking.mirror.errors import MirrorError, one_line
from helpers.tracking.mirror.run import MirroredRun, mirror_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from helpers.tracking.mirror.mirrored_experiment import MirroredExperiment

_PAGE = 500


@dataclass(frozen=True)
class Failure:
    """A run that could not be mirrored and stays pending, and the reason."""

    source_id: str
    reason: str


def source_runs(experiment: MirroredExperiment) -> list[Run]:
    """Return the runs in Databricks, the oldest first, so that parents come before their children."""
    return list(search_runs(experiment.source_client, experiment.source_id))


def pending_runs(experiment: MirroredExperiment) -> list[Run]:
    """Return the runs that have ended and whose copies have not, the oldest first.

    The status of a copy is set last, so a copy that has ended as its source did was complete at that time.
    What is added to a run after its end is not noticed here; `mirror_run` finds it.
    """
    copies = {run.info.run_id: run for run in search_runs(experiment.target_client, experiment.target_id)}

    def is_pending(run: Run) -> bool:
        if run.info.status in ("RUNNING", "SCHEDULED"):
            return False
        copy = copies.get(run.data.tags.get(names.COPY_RUN, ""))
        return copy is None or (copy.info.status, copy.info.end_time) != (run.info.status, run.info.end_time)

    return [run for run in source_runs(experiment) if is_pending(run)]


def mirror_runs(experiment: MirroredExperiment, runs: list[Run]) -> Iterator[MirroredRun | Failure]:
    """Mirror runs one after the other.

    A run that fails does not stop the others, unless one of the servers no longer answers.
    """
    from azure.core.exceptions import AzureError
    from mlflow.exceptions import MlflowException

    for number, run in enumerate(runs, start=1):
        try:
            yield mirror_run(experiment, run.info.run_id)
        # The client of Databricks raises OSError if it gets no answer.
        except (MlflowException, AzureError, MirrorError, OSError) as error:
            yield Failure(run.info.run_id, str(error) if isinstance(error, MirrorError) else one_line(error))
            unavailable = _unavailable_server(experiment)
            if unavailable:
                yield from (Failure(other.info.run_id, f"{unavailable} does not answer") for other in runs[number:])
                return


def _unavailable_server(experiment: MirroredExperiment) -> str:
    """Return the name of a server that does not answer; empty if both do."""
    from mlflow.exceptions import MlflowException

    clients = {"Azure Machine Learning": experiment.target_client, "Databricks": experiment.source_client}
    for name, client in clients.items():
        try:
            client.search_experiments(max_results=1)
        except (MlflowException, OSError):
            return name
    return ""


def search_runs(client: MlflowClient, experiment_id: str, include_deleted: bool = False) -> Iterator[Run]:
    """Return all runs of an experiment, page by page, the oldest first."""
    from mlflow.entities import ViewType

    view, token = ViewType.ALL if include_deleted else ViewType.ACTIVE_ONLY, None
    while True:
        page = client.search_runs(
            [experiment_id], "", view, _PAGE, order_by=["attributes.start_time ASC"], page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return
