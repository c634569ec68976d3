"""Ask an endpoint what it should know, and see whether it answers, rightly, and how fast."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import runtime, tracking
from helpers.serving.endpoint import Endpoint, ServingError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion

# Of a number's size: JSON keeps all digits, but another machine may add in another order.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Examples:
    """Rows, and what the new version answers for them when it is loaded directly.

    Attributes
    ----------
    rows : pandas.DataFrame
    predictions : list
        One a row, as JSON has them.
    """

    rows: pd.DataFrame
    predictions: list[Any]


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes
    ----------
    percent : int
        Of the requests that the new version got then.
    asked : str
        ``endpoint``, or the deployment that was asked whatever the traffic.
    requests, errors : int
    p50_ms, p95_ms : float
        Median and 95th percentile of the latency in milliseconds, of the requests that were answered.
    answered_by : str
        Number of answers by deployment.
    problem : str
        Why the check failed; empty if it passed.
    """

    percent: int
    asked: str
    requests: int
    errors: int
    p50_ms: float
    p95_ms: float
    answered_by: str
    problem: str

    def __str__(self) -> str:
        return (
            f"{self.percent:3} %, {self.asked}: {self.requests} requests, {self.errors} errors, p50 {self.p50_ms:.0f} ms, "
            f"p95 {self.p95_ms:.0f} ms" + (f": {self.problem}" if self.problem else "")
        )


def examples(version: ModelVersion, rows: pd.DataFrame) -> Examples:
    """Load a model version directly and have it answer.

    Parameters
    ----------
    version : mlflow.entities.model_registry.ModelVersion
        Of the registry that MLflow points at.
    rows : pandas.DataFrame
        With the columns of the model's signature, whatever others there are.
    """
    import mlflow

    with tempfile.TemporaryDirectory() as scratch:
        folder = tracking.download_model(f"models:/{version.name}/{version.version}", Path(scratch))
        # It warns of packages that the container needs, and this machine does not.
        with runtime.quiet("mlflow.pyfunc", "mlflow.utils.requirements_utils"):
            model = mlflow.pyfunc.load_model(str(folder))
        columns = [name for name in model.metadata.get_input_schema().input_names() if name in rows]
        return Examples(rows[columns], as_json(model.predict(rows[columns])))


def as_json(predictions: Any) -> list[Any]:
    """Return a model's predictions as a model server writes them, a value or a dict a row."""
    if hasattr(predictions, "to_dict") and getattr(predictions, "ndim", 1) == 2:
        return json.loads(predictions.to_json(orient="records", double_precision=15))
    return predictions.tolist() if hasattr(predictions, "tolist") else list(predictions)


def check(
    endpoint: Endpoint, new: str, percent: int, known: Examples, requests: int, latency_limit_ms: float, asked: str = ""
) -> Check:
    """Send single rows, one after the other.

    It fails if a request gets no answer, or from the new version one that is not the model's, and if the 95th
    percentile of the latencies is too great.

    Parameters
    ----------
    endpoint : Endpoint
    new : str
        The deployment of the new version.
    percent : int
        What it gets of the traffic now.
    known : Examples
    requests : int
        How many are sent.
    latency_limit_ms : float
    asked : str, default ""
        The deployment that is asked. Empty: as the traffic says.
    """
    seconds: list[float] = []
    answered: Counter[str] = Counter()
    problems = []
    for number in range(requests):
        place = number % len(known.rows)
        try:
            answer = endpoint.invoke(known.rows.iloc[place : place + 1], asked)
        except ServingError as error:
            problems.append(str(error))
            continue
        seconds.append(answer.seconds)
        answered[answer.deployment] += 1
        expected = known.predictions[place]
        if answer.deployment == new and not same(answer.predictions, [expected]):
            problems.append(f"{new} answers {answer.predictions} for a row where the model says {[expected]}")
    p50, p95 = percentiles([second * 1000 for second in seconds])
    problem = problems[0] if problems else ""
    if not problem and p95 > latency_limit_ms:
        problem = f"p95 is {p95:.0f} ms, over latency_limit_ms={latency_limit_ms:.0f}"
    by = ", ".join(f"{name}: {count}" for name, count in sorted(answered.items()))
    return Check(percent, asked or "endpoint", requests, len(problems), p50, p95, by, problem)


def check_all(endpoint: Endpoint, new: str, known: Examples) -> None:
    """Have the new version answer all examples at once, and compare.

    Raises
    ------
    ServingError
        If an answer is not the model's.
    """
    found = endpoint.invoke(known.rows, new).predictions
    if not same(found, known.predictions):
        number = 0
        while number < len(found) and same(found[number : number + 1], known.predictions[number : number + 1]):
            number += 1
        raise ServingError(
            f"{new} answers otherwise than the model that was loaded directly, at row {number} of {len(known.rows)}: "
            f"{found[number : number + 1]} where the model says {known.predictions[number : number + 1]}."
        )


def same(found: Any, expected: Any) -> bool:
    """Return whether two answers are equal, numbers within `TOLERANCE` of their size."""
    if isinstance(expected, dict):
        return isinstance(found, dict) and found.keys() == expected.keys() and all(
            same(found[key], value) for key, value in expected.items()
        )  # fmt: skip
    if isinstance(expected, list):
        return isinstance(found, list) and len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, float) and isinstance(found, (int, float)):
        return math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE) or found == expected
    return found == expected


def percentiles(values: list[float]) -> tuple[float, float]:
    """Return median and 95th percentile; NaN if there is no value."""
    if not values:
        return math.nan, math.nan
    if len(values) == 1:
        return values[0], values[0]
    return statistics.median(values), statistics.quantiles(values, n=20, method="inclusive")[-1]
