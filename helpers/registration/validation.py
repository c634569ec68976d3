"""Decide whether a model may become the champion.

To add a check, write a function that takes an `Evaluation` and returns a `ValidationCheck`, and add a line to `CHECKS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers import output, scoring, tracking
from helpers.data.metrics import LOWER_IS_BETTER, classification_metrics
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from mlflow.models import MetricThreshold

    from helpers.data.split import Split


@dataclass(frozen=True)
class Evaluation:
    """What the checks judge a model by.

    Attributes
    ----------
    metrics : dict of str to float
        Metrics of the model, from `evaluate`.
    champion_metrics : dict of str to float or None
        Metrics of the champion on the same rows. None if there is no champion, empty if it cannot score these rows.
    metric : str
        Name of the metric that decides.
    threshold : float
        Lowest value that passes, or for ``log_loss`` the highest.
    """

    metrics: dict[str, float]
    champion_metrics: dict[str, float] | None
    metric: str
    threshold: float

    @property
    def greater_is_better(self) -> bool:
        """Whether a higher value of the metric is better."""
        return self.metric not in LOWER_IS_BETTER


@dataclass(frozen=True)
class ValidationCheck:
    """The outcome of one check.

    Attributes
    ----------
    name : str
        Part of the name of the version tag ``check_<name>``.
    passed : bool
    detail : str
        The values that were compared, and the margin.
    """

    name: str
    passed: bool
    detail: str


def evaluate(session: tracking.Session, model_uri: str, split: Split) -> dict[str, float]:
    """Measure a model on the held-out rows. It is applied as in batch scoring.

    Parameters
    ----------
    session : helpers.tracking.Session
    model_uri : str
    split : helpers.data.split.Split

    Returns
    -------
    dict of str to float
        See `helpers.data.metrics.classification_metrics`.

    Raises
    ------
    helpers.parameters.ParameterError
        If the model's signature does not fit the rows.
    """
    import numpy as np

    predictor = scoring.load(session, model_uri)
    predictor.check_columns(split.held_out, "training_table", split.table)
    scored = predictor.transform(split.held_out, [split.label_column], each_class=True).toPandas()
    probabilities = None
    if predictor.classes and scored["probabilities"].notna().all():
        probabilities = np.stack(scored["probabilities"].to_numpy())
    return classification_metrics(
        scored[split.label_column], scored["prediction"], probabilities, predictor.classes or split.classes
    )


def evaluate_champion(session: tracking.Session, model_name: str, split: Split) -> tuple[dict[str, float] | None, str]:
    """Measure the champion on the held-out rows.

    Parameters
    ----------
    session : helpers.tracking.Session
    model_name : str
    split : helpers.data.split.Split

    Returns
    -------
    metrics : dict of str to float or None
        None if there is no champion, empty if it cannot score these rows.
    note : str
        A sentence that names the champion, and says why there are no metrics.
    """
    version = tracking.champion(session, model_name)
    if version is None:
        return None, "There is no champion yet."
    try:
        metrics = evaluate(session, f"models:/{model_name}/{version.version}", split)
    except ParameterError as error:
        return {}, f"The champion, version {version.version}, cannot score these rows: {error.problem}"
    return metrics, f"The champion is version {version.version}."


def check_threshold(evaluation: Evaluation) -> ValidationCheck:
    """Check that the model reaches the threshold."""
    from mlflow.models import MetricThreshold

    limit = MetricThreshold(threshold=float(evaluation.threshold), greater_is_better=evaluation.greater_is_better)
    return _compare("threshold", evaluation, {evaluation.metric: evaluation.threshold}, limit)


def check_champion(evaluation: Evaluation) -> ValidationCheck | None:
    """Check that the model is at least as good as the champion, if there is one."""
    from mlflow.models import MetricThreshold

    if evaluation.champion_metrics is None:
        return None
    # A relative change of at least 0 means better or equal.
    limit = MetricThreshold(min_relative_change=0.0, greater_is_better=evaluation.greater_is_better)
    return _compare(tracking.CHAMPION, evaluation, evaluation.champion_metrics, limit)


# Each returns its outcome, or None if it does not apply.
CHECKS: list[Callable[[Evaluation], ValidationCheck | None]] = [check_threshold, check_champion]


def validate(
    metrics: dict[str, float], champion_metrics: dict[str, float] | None, *, metric: str, threshold: float
) -> list[ValidationCheck]:
    """Run the checks of `CHECKS` on a model. It may become the champion if all of them pass.

    Parameters
    ----------
    metrics : dict of str to float
        Metrics of the model, from `evaluate`.
    champion_metrics : dict of str to float or None
        Metrics of the champion, from `evaluate_champion`.
    metric : str
        Name of the metric that decides.
    threshold : float
        Lowest value that passes, or for ``log_loss`` the highest.

    Returns
    -------
    list of ValidationCheck
        The outcome of each check that applies.
    """
    evaluation = Evaluation(metrics, champion_metrics, metric, threshold)
    outcomes = (check(evaluation) for check in CHECKS)
    return [outcome for outcome in outcomes if outcome is not None]


def _compare(name: str, evaluation: Evaluation, reference: dict[str, float], limit: MetricThreshold) -> ValidationCheck:
    """Compare the metric that decides with a reference value.

    ``mlflow.validate_evaluation_results`` decides whether it passes:
    https://mlflow.org/docs/latest/ml/evaluation/model-eval/#model-validation
    """
    import mlflow
    from mlflow.models import EvaluationResult
    from mlflow.models.evaluation.validation import ModelValidationFailedException

    metric, metrics = evaluation.metric, evaluation.metrics
    incomplete = [
        owner for owner, values in (("the model", metrics), (f"the {name}", reference)) if metric not in values
    ]
    if incomplete:
        return ValidationCheck(name, False, f"{metric} could not be computed for {' and '.join(incomplete)}")
    try:
        with output.quiet("mlflow.models.evaluation.validation"):
            mlflow.validate_evaluation_results(
                {metric: limit}, EvaluationResult(metrics, {}), EvaluationResult(reference, {})
            )
        passed = True
    except ModelValidationFailedException:
        passed = False
    value, required = metrics[metric], reference[metric]
    sign = ("≥" if passed else "<") if limit.greater_is_better else ("≤" if passed else ">")
    margin = f"{'passes' if passed else 'fails'} by {abs(value - required):.4g}"
    return ValidationCheck(name, passed, f"{metric} {value:.4f} {sign} {required:.4f} ({margin})")
