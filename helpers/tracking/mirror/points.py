"""Read and log the points of a run's metrics as the JSON of MLflow's REST API.

MLflow's client converts each point to a message and to an object, which takes ten times as long.
https://mlflow.org/docs/latest/api_reference/rest-api.html
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PAGE = 5000


class Point(NamedTuple):
    """A point of a metric. Two points are equal if the servers treat them as the same.

    Attributes
    ----------
    key : str
        The name of the metric.
    value : float or str
        ``NaN``, ``Infinity`` or ``-Infinity`` where JSON has no number. The largest number is infinity, too, because
        servers on SQL store infinity as that number.
    timestamp : int
        Milliseconds.
    step : int
    """

    key: str
    value: float | str
    timestamp: int
    step: int


def history(client: MlflowClient, run_id: str, key: str) -> Iterator[Point]:
    """Yield the points of a metric, page by page."""
    arguments = {"run_id": run_id, "metric_key": key, "max_results": _PAGE}
    while True:
        page = _ask(client, "GET", "metrics/get-history", params=arguments)
        for point in page.get("metrics", []):
            # The server may omit zeros, and may send 64-bit numbers as text.
            value, timestamp, step = (point.get(name, 0) for name in ("value", "timestamp", "step"))
            yield Point(key, _value(value), int(timestamp), int(step))
        if not page.get("next_page_token"):
            return
        arguments["page_token"] = page["next_page_token"]


def log(client: MlflowClient, run_id: str, points: Iterable[Point]) -> None:
    """Log points without their links to logged models and datasets, which some servers do not have.

    Raises
    ------
    mlflow.exceptions.RestException
        If the server refuses them.
    """
    _ask(client, "POST", "runs/log-batch", json={"run_id": run_id, "metrics": [point._asdict() for point in points]})


def _value(value: float | str) -> float | str:
    number = float(value)
    if math.isnan(number):
        return "NaN"
    if abs(number) >= sys.float_info.max:
        return "Infinity" if number > 0 else "-Infinity"
    return number


def _ask(client: MlflowClient, method: str, endpoint: str, **content: Any) -> dict[str, Any]:
    from mlflow.utils.rest_utils import http_request, verify_rest_response

    path = f"/api/2.0/mlflow/{endpoint}"
    answer = http_request(client._tracking_client.store.get_host_creds(), path, method, **content)
    return verify_rest_response(answer, path).json()
