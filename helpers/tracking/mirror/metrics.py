"""The full history of a run's metrics, copied page by page; points that are there already are left out."""

from __future__ import annotations

import collections
import itertools
import math
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from helpers.tracking.mirror import limits

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

    from helpers.tracking.mirror.experiment import Pair

# https://learn.microsoft.com/azure/machine-learning/resource-limits-capacity, and MLflow's own 1,000 of all.
ROWS, ROWS_OF_ONE, NAMES = 1000, 250, 50
_PAGE = 5000
_THREADS = 4


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
    for metric, why in itertools.chain.from_iterable(refusals for _, refusals in done):
        refused[metric.key] = (refused.get(metric.key, (0, ""))[0] + 1, why)
    left_out = [
        limits.LeftOut("metric", key, f"{count} points refused: {why}") for key, (count, why) in refused.items()
    ]
    return sum(sent for sent, _ in done) - sum(count for count, _ in refused.values()), left_out


def _copy_some(pair: Pair, source: Run, target: Run, keys: list[str]) -> tuple[int, list[tuple[Metric, str]]]:
    store, copy_id = pair.target._tracking_client.store, target.info.run_id
    sent, refused = 0, []
    for batch in batches(_missing(pair, source, target, key) for key in keys):
        # The client's own log_batch would add the model that is active in this process.
        refused += limits.send(batch, lambda part: store.log_batch(copy_id, metrics=part, params=[], tags=[]))
        sent += len(batch)
    return sent, _not_there(pair, copy_id, refused)


def _not_there(pair: Pair, copy_id: str, refused: list[tuple[Metric, str]]) -> list[tuple[Metric, str]]:
    """Return the refusals but those of points that are there: a request is repeated if its answer was lost."""
    there = {
        key: {_point(metric) for metric in history(pair.target, copy_id, key)}
        for key in {item.key for item, _ in refused}
    }
    return [(item, why) for item, why in refused if _point(item) not in there[item.key]]


def batches(histories: Iterable[Iterator[Metric]]) -> Iterator[list[Metric]]:
    """Pack the points of many metrics into requests that the server takes, each metric's in order."""
    waiting, begun = iter(histories), collections.deque()
    while True:
        batch, names, unfinished = [], 0, []
        while len(batch) < ROWS and names < NAMES:
            points = begun.popleft() if begun else next(waiting, None)
            if points is None:
                break
            room = min(ROWS_OF_ONE, ROWS - len(batch))
            rows = list(itertools.islice(points, room))
            batch += rows
            names += bool(rows)
            if len(rows) == room:
                unfinished.append(points)
        if not batch:
            return
        begun.extend(unfinished)
        yield batch


def _missing(pair: Pair, source: Run, target: Run, key: str) -> Iterator[Metric]:
    """Yield the points of a metric that the copy does not have."""
    from mlflow.entities import Metric

    there = set()
    if key in target.data.metrics:
        there = {_point(metric) for metric in history(pair.target, target.info.run_id, key)}
    for metric in history(pair.source, source.info.run_id, key):
        if _point(metric) not in there:
            # Without its links to a logged model and a dataset, for which the other server has no field.
            yield Metric(key, metric.value, metric.timestamp, metric.step)


def history(client: MlflowClient, run_id: str, key: str) -> Iterator[Metric]:
    """Yield the points of a metric, page by page: the client's own method has all of them in memory at once."""
    store, token = client._tracking_client.store, None
    while True:
        page = store.get_metric_history(run_id=run_id, metric_key=key, max_results=_PAGE, page_token=token)
        yield from page
        token = getattr(page, "token", None)
        if not token:
            return


def _point(metric: Metric) -> tuple[int, int, float | str]:
    if math.isnan(metric.value):
        return metric.step, metric.timestamp, "nan"
    # Servers on SQL keep infinity as the largest number.
    largest = sys.float_info.max
    return metric.step, metric.timestamp, min(max(metric.value, -largest), largest)
