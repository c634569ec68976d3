"""The full history of a run's metrics, copied page by page; points that are there already are left out."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from helpers.tracking.mirror import limits, points
from helpers.tracking.mirror.points import Point

if TYPE_CHECKING:
    from mlflow.entities import Run

    from helpers.tracking.mirror.experiment import Pair

# https://learn.microsoft.com/azure/machine-learning/resource-limits-capacity, and MLflow's own 1,000 of all.
ROWS, ROWS_OF_ONE, NAMES = 1000, 250, 50
_THREADS = 8


def copy(pair: Pair, source: Run, target: Run) -> tuple[int, list[limits.LeftOut]]:
    """Copy the points that are missing.

    Points that are equal in name, step, time and value are one, as on MLflow's own server.

    Returns
    -------
    tuple of (int, list of LeftOut)
        How many points were sent, and which metrics were refused.
    """
    metrics = sorted(source.data.metrics)
    # A metric stays in one thread, so that its last point is also the last to arrive.
    shares = [metrics[number::_THREADS] for number in range(min(_THREADS, len(metrics)))]
    with ThreadPoolExecutor(_THREADS) as threads:
        done = list(threads.map(lambda share: _copy_some(pair, source, target, share), shares))
    refused: dict[str, tuple[int, str]] = {}
    for point, why in itertools.chain.from_iterable(refusals for _, refusals in done):
        refused[point.key] = (refused.get(point.key, (0, ""))[0] + 1, why)
    left_out = [
        limits.LeftOut("metric", key, f"{count} points refused: {why}") for key, (count, why) in refused.items()
    ]
    return sum(sent for sent, _ in done) - sum(count for count, _ in refused.values()), left_out


def _copy_some(pair: Pair, source: Run, target: Run, keys: list[str]) -> tuple[int, list[tuple[Point, str]]]:
    copy_id, sent, refused = target.info.run_id, 0, []
    for batch in batches(_missing(pair, source, target, key) for key in keys):
        refused += limits.send(batch, lambda part: points.log(pair.target, copy_id, part))
        sent += len(batch)
    return sent, _not_there(pair, copy_id, refused)


def _not_there(pair: Pair, copy_id: str, refused: list[tuple[Point, str]]) -> list[tuple[Point, str]]:
    """Return the refusals but those of points that are there: a request is repeated if its answer was lost."""
    there = {key: set(points.history(pair.target, copy_id, key)) for key in {point.key for point, _ in refused}}
    return [(point, why) for point, why in refused if point not in there[point.key]]


def batches(histories: Iterable[Iterator[Point]]) -> Iterator[list[Point]]:
    """Pack the points of many metrics into requests that the server takes, each metric's in order."""
    waiting = iter(histories)
    begun: collections.deque[Iterator[Point]] = collections.deque()
    while True:
        batch: list[Point] = []
        names, unfinished = 0, []
        while len(batch) < ROWS and names < NAMES:
            history = begun.popleft() if begun else next(waiting, None)
            if history is None:
                break
            room = min(ROWS_OF_ONE, ROWS - len(batch))
            rows = list(itertools.islice(history, room))
            batch += rows
            names += bool(rows)
            if len(rows) == room:
                unfinished.append(history)
        if not batch:
            return
        begun.extend(unfinished)
        yield batch


def _missing(pair: Pair, source: Run, target: Run, key: str) -> Iterator[Point]:
    """Yield the points of a metric that the copy does not have."""
    there: set[Point] = set()
    if key in target.data.metrics:
        there = set(points.history(pair.target, target.info.run_id, key))
    return (point for point in points.history(pair.source, source.info.run_id, key) if point not in there)
