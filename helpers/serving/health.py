"""Health checks: send rows with known predictions to an endpoint, and compare its answers and latencies."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import data, output, parameters, tracking
from helpers.scoring import schema
from helpers.scoring.trust import check_trust
from helpers.serving.endpoint import Answer, Endpoint, ServingError, by_row, payload, plain

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion
    from pyspark.sql import SparkSession

# Relative difference at which numbers count as equal: JSON keeps all digits, but machines may add in different orders.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Examples:
    """Rows, and the predictions of the new version for them.

    Attributes
    ----------
    rows : pandas.DataFrame
    predictions : list
        One value per row, as in JSON.
    """

    rows: pd.DataFrame
    predictions: list[Any]


@dataclass(frozen=True)
class HealthCheck:
    """The result of one health check.

    Attributes
    ----------
    percent : int
        Percentage of the requests that the new version got at that time.
    target : str
        ``endpoint`` if the traffic decided which deployment answers, or the name of the deployment.
    requests, errors : int
        Number of requests, and of those without a correct answer.
    p50_ms, p95_ms : float
        Median and 95th percentile of the latency in milliseconds, of the requests that were answered.
    answered_by : str
        Number of answers by deployment.
    problem : str
        Why the check failed; empty if it passed.
    mirrored : int, default 0
        Percentage of the requests of which the new version got a copy at that time.
    """

    percent: int
    target: str
    requests: int
    errors: int
    p50_ms: float
    p95_ms: float
    answered_by: str
    problem: str
    mirrored: int = 0

    def __str__(self) -> str:
        mirrored = f", {self.mirrored} % mirrored" if self.mirrored else ""
        return (
            f"{self.percent:3} %{mirrored}, {self.target}: {self.requests} requests, {self.errors} errors, "
            f"p50 {self.p50_ms:.0f} ms, p95 {self.p95_ms:.0f} ms" + (f": {self.problem}" if self.problem else "")
        )


def example_rows(
    spark: SparkSession, session: tracking.Session, run: Run | None, version: ModelVersion
) -> pd.DataFrame:
    """Return up to 100 rows to try a model version on: see `helpers.data.example_rows`.

    A version whose run is on another server has none of its tables here; its rows are those of the model's input example.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    session : helpers.tracking.Session
    run : mlflow.entities.Run or None
        From `helpers.tracking.run_of_version`.
    version : mlflow.entities.model_registry.ModelVersion

    Raises
    ------
    helpers.parameters.ParameterError
        If there are no rows.
    """
    if run is not None:
        return data.example_rows(spark, run, version.tags).limit(100).toPandas()
    import pandas as pd
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as scratch:
        folder = tracking.download_model(session, f"models:/{version.name}/{version.version}", Path(scratch))
        rows = Model.load(str(folder)).load_input_example(str(folder))
    if not isinstance(rows, pd.DataFrame):
        raise parameters.ParameterError(
            "model_version",
            str(version.version),
            f"the run of {version.name} version {version.version} is on another server, and the model has no table as its input "
            "example to check an endpoint with; log the model with input_example=…",
        )
    return rows


def examples(
    session: tracking.Session, version: ModelVersion, rows: pd.DataFrame, allow_pickle: bool = False
) -> Examples:
    """Load a model version here and predict rows with it.

    Parameters
    ----------
    session : helpers.tracking.Session
    version : mlflow.entities.model_registry.ModelVersion
        From the session's registry.
    rows : pandas.DataFrame
        With the columns of the model's signature, as ``toPandas`` gives them. Other columns are left out.
    allow_pickle : bool, default False
        See `helpers.scoring.trust.check_trust`.

    Raises
    ------
    helpers.parameters.ParameterError
        If the version brings code and was not registered by this bundle.
    ServingError
        If the model cannot score one of the rows: it raises an error, or predicts nothing, NaN or infinity.
    """
    import mlflow

    name = f"{version.name} version {version.version}"
    with tempfile.TemporaryDirectory() as scratch:
        folder = tracking.download_model(session, f"models:/{version.name}/{version.version}", Path(scratch))
        check_trust(version, folder, allow_pickle)
        # MLflow warns about packages that the container of an endpoint needs and this machine does not.
        with output.quiet("mlflow.pyfunc", "mlflow.utils.requirements_utils"):
            model = mlflow.pyfunc.load_model(str(folder))
        columns = (model.metadata.metadata or {}).get(tracking.COLUMNS, [])
        inputs = schema.as_inputs(rows, model.metadata.get_input_schema(), columns)
        try:
            predictions = as_json(model.predict(inputs))
        except Exception as error:  # noqa: BLE001 - whatever a model raises for a value
            raise ServingError(f"{name} cannot score the rows that are to check it: {error}") from None
    for number, prediction in enumerate(predictions):
        if not _is_prediction(prediction):
            raise ServingError(
                f"{name} cannot score a row that is to check it: it predicts {prediction} for "
                f"{payload(inputs.iloc[number : number + 1])}. Have the model deal with such rows."
            )
    return Examples(inputs, predictions)


def as_json(predictions: Any) -> list[Any]:
    """Return predictions as a model server writes them: one value or one dict per row."""
    import pandas as pd

    if isinstance(predictions, pd.Series):
        predictions = predictions.to_frame()
    if isinstance(predictions, pd.DataFrame):
        predictions = predictions.to_dict("records")
    # With Python's names for NaN and infinity, which JSON does not have.
    return by_row(json.loads(json.dumps(predictions, default=plain)))


def _is_prediction(value: Any) -> bool:
    """Return whether a prediction, or one of the outputs that it has, is neither missing nor NaN nor infinite."""
    if isinstance(value, dict):
        return all(map(_is_prediction, value.values()))
    if isinstance(value, list):
        return all(map(_is_prediction, value))
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def check_requests(
    endpoint: Endpoint,
    new: str,
    percent: int,
    examples: Examples,
    requests: int,
    latency_limit_ms: float,
    deployment: str = "",
    mirrored: int = 0,
    answered: list[Answer] | None = None,
) -> HealthCheck:
    """Send single rows, one after the other.

    The check fails if a request gets no answer, if the new version answers with another prediction than the model's,
    or if the 95th percentile of the latencies is over the limit.

    Parameters
    ----------
    endpoint : Endpoint
    new : str
        The deployment of the new version.
    percent : int
        The percentage of the requests that it gets now.
    examples : Examples
        With the predictions of the new version.
    requests : int
        How many requests are sent.
    latency_limit_ms : float
    deployment : str, default ""
        The deployment that answers. Empty: the traffic decides.
    mirrored : int, default 0
        The percentage of the requests of which the new version gets a copy now.
    answered : list of helpers.serving.endpoint.Answer, optional
        Gets the answers, in the order of the requests.
    """
    seconds: list[float] = []
    answers: Counter[str] = Counter()
    problems = []
    for number in range(requests):
        row = number % len(examples.rows)
        try:
            answer = endpoint.invoke(examples.rows.iloc[row : row + 1], deployment)
        except ServingError as error:
            problems.append(str(error))
            continue
        seconds.append(answer.seconds)
        answers[answer.deployment] += 1
        if answered is not None:
            answered.append(answer)
        expected = [examples.predictions[row]]
        if answer.deployment == new and not all(map(_is_prediction, answer.predictions)):
            problems.append(
                f"{new} cannot score a row: it answers {answer.predictions}, where the model predicts {expected}"
            )
        elif answer.deployment == new and not is_equal(answer.predictions, expected):
            problems.append(f"{new} answers {answer.predictions} for a row for which the model predicts {expected}")
    p50, p95 = percentiles([second * 1000 for second in seconds])
    problem = problems[0] if problems else ""
    if not problem and p95 > latency_limit_ms:
        problem = f"p95 is {p95:.0f} ms, over latency_limit_ms={latency_limit_ms:.0f}"
    answered_by = ", ".join(f"{name}: {count}" for name, count in sorted(answers.items()))
    target = deployment or "endpoint"
    return HealthCheck(percent, target, requests, len(problems), p50, p95, answered_by, problem, mirrored)


def check_predictions(endpoint: Endpoint, new: str, examples: Examples) -> None:
    """Have the new version score all examples in one request, and compare.

    Raises
    ------
    ServingError
        If a prediction is not the model's.
    """
    answers = endpoint.invoke(examples.rows, new).predictions
    expected = examples.predictions
    if is_equal(answers, expected):
        return
    row = 0
    while row < len(answers) and is_equal(answers[row : row + 1], expected[row : row + 1]):
        row += 1
    raise ServingError(
        f"{new} and the model that was loaded here do not agree, at row {row} of {len(examples.rows)}: the deployment "
        f"answers {answers[row : row + 1]}, the model predicts {expected[row : row + 1]}."
    )


def is_equal(answer: Any, expected: Any) -> bool:
    """Return whether two predictions are equal, numbers within `TOLERANCE`."""
    if isinstance(expected, dict):
        return isinstance(answer, dict) and answer.keys() == expected.keys() and all(
            is_equal(answer[key], value) for key, value in expected.items()
        )  # fmt: skip
    if isinstance(expected, list):
        return isinstance(answer, list) and len(answer) == len(expected) and all(map(is_equal, answer, expected))
    if isinstance(expected, float) and isinstance(answer, (int, float)):
        return math.isclose(answer, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE) or answer == expected
    return answer == expected


def percentiles(values: list[float]) -> tuple[float, float]:
    """Return median and 95th percentile; NaN if there are no values."""
    if not values:
        return math.nan, math.nan
    if len(values) == 1:
        return values[0], values[0]
    return statistics.median(values), statistics.quantiles(values, n=20, method="inclusive")[-1]
