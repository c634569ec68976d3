"""Copy the full history of a run's metrics, page by page, without the points that the copy already has."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from helpers.tracking.mirror import limits, points
from helpers.tracking.mirror.errors import unreadable
from helpers.tracking.mirror.limits import Omission
from helpers.tracking.mirror.points import Point

if TYPE_CHECKING:
    from mlflow.entities import Run

    from helpers.tracking.mirror.mirrored_experiment import MirroredExperiment

# https://learn.microsoft.com/azure/machine-learning/resource-limits-capacity, and MLflow's own limit of 1,000 points.
ROWS, ROWS_OF_ONE, NAMES = 1000, 250, 50
_THREADS = 8


def copy_metrics(experiment: MirroredExperiment, source: Run, copy: Run) -> tuple[int, list[Omission]]:
    """Copy the points that are missing.

    Points with the same name, step, time and value count as one, as on MLflow's own server.

    Returns
    -------
    tuple of (int, list of Omission)
        How many points were sent, and which metrics are left out.
    """
    metrics = sorted(source.data.metrics)
    # One thread sends all points of a metric, so that its last point is also the last to arrive.
    shares = [metrics[number::_THREADS] for number in range(min(_THREADS, len(metrics)))]
    with ThreadPoolExecutor(_THREADS) as threads:
        results = list(threads.map(lambda keys: _copy_share(experiment, source, copy, keys), shares))
    omissions = [omission for _, share_omissions in results for omission in share_omissions]
    return sum(sent for sent, _ in results), sorted(omissions, key=str)


def _copy_share(experiment: MirroredExperiment, source: Run, copy: Run, keys: list[str]) -> tuple[int, list[Omission]]:
    """Copy some metrics; return how many points were sent, and which metrics are left out."""
    sent = 0
    omissions: list[Omission] = []
    refused: list[tuple[Point, str]] = []
    for batch in batches(_missing(experiment, source, copy, key, omissions) for key in keys):
        refused += limits.send(batch, lambda part: points.log(experiment.target_client, copy.info.run_id, part))
        sent += len(batch)
    refused = _without_copied(experiment, copy.info.run_id, refused)
    reasons: dict[str, list[str]] = {}
    for point, reason in refused:
        reasons.setdefault(point.key, []).append(reason)
    omissions += [
        Omission("metric", key, f"{len(of_points)} points refused: {of_points[-1]}")
        for key, of_points in reasons.items()
    ]
    return sent - len(refused), omissions


def _without_copied(
    experiment: MirroredExperiment, copy_id: str, refused: list[tuple[Point, str]]
) -> list[tuple[Point, str]]:
    """Return the refused points that the copy does not have: a repeated request is refused if the first succeeded."""
    client = experiment.target_client
    copied = {key: set(points.history(client, copy_id, key)) for key in {point.key for point, _ in refused}}
    return [(point, reason) for point, reason in refused if point not in copied[point.key]]


def batches(histories: Iterable[Iterator[Point]]) -> Iterator[list[Point]]:
    """Pack the points of many metrics into requests of the size that the server accepts; each metric keeps its order."""
    waiting = iter(histories)
    begun: collections.deque[Iterator[Point]] = collections.deque()
    while True:
        batch: list[Point] = []
        metrics, unfinished = 0, []
        while len(batch) < ROWS and metrics < NAMES:
            history = begun.popleft() if begun else next(waiting, None)
            if history is None:
                break
            room = min(ROWS_OF_ONE, ROWS - len(batch))
            rows = list(itertools.islice(history, room))
            batch += rows
            metrics += bool(rows)
            if len(rows) == room:
                unfinished.append(history)
        if not batch:
            return
        begun.extend(unfinished)
        yield batch


def _missing(
    experiment: MirroredExperiment, source: Run, copy: Run, key: str, omissions: list[Omission]
) -> Iterator[Point]:
    """Yield the points of a metric that the copy does not have."""
    from mlflow.exceptions import MlflowException

    copied: set[Point] = set()
    if key in copy.data.metrics:
        copied = set(points.history(experiment.target_client, copy.info.run_id, key))
    history = points.history(experiment.source_client, source.info.run_id, key)
    try:
        yield from (point for point in history if point not in copied)
    except MlflowException as error:
        reason = unreadable(error)
        if not reason:
            raise
        omissions.append(Omission("metric", key, reason))
