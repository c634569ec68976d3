"""Register models: the gate that a model has to pass, and which version a name means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers import runtime, tracking
from helpers.data.metrics import LOWER_IS_BETTER, classification_metrics
from helpers.parameters import ParameterError
from helpers.scoring import predictor as prediction

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import MetricThreshold

    from helpers.data.split import Split


@dataclass(frozen=True)
class Check:
    """One check of the gate.

    Attributes
    ----------
    name : str
    passed : bool
    detail : str
        The numbers that were compared, and by how much they miss or pass.
    """

    name: str
    passed: bool
    detail: str


def evaluate(model_uri: str, split: Split) -> dict[str, float]:
    """Measure a model on the held-out rows, with the scoring path that batch scoring uses.

    Parameters
    ----------
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

    predictor = prediction.load(model_uri)
    predictor.check_columns(split.held_out, "training_table", split.table)
    scored = predictor.transform(split.held_out, [split.label_column], each_class=True).toPandas()
    probabilities = None
    if predictor.classes and scored["probabilities"].notna().all():
        probabilities = np.stack(scored["probabilities"].to_numpy())
    return classification_metrics(
        scored[split.label_column], scored["prediction"], probabilities, predictor.classes or split.classes
    )


def validate(
    metrics: dict[str, float], champion_metrics: dict[str, float] | None, *, metric: str, threshold: float
) -> list[Check]:
    """Judge a model: does it reach the threshold, and is it at least as good as the champion?

    Judged by ``mlflow.validate_evaluation_results``:
    https://mlflow.org/docs/latest/ml/evaluation/model-eval/#model-validation

    Parameters
    ----------
    metrics, champion_metrics : dict of str to float
        What `evaluate` returned for the model and for the champion, on the same rows; None if
        there is no champion.
    metric : str
        Which of them counts.
    threshold : float
        Least value that passes; for ``log_loss`` the greatest.

    Returns
    -------
    list of Check
    """
    from mlflow.models import MetricThreshold

    greater_is_better = metric not in LOWER_IS_BETTER
    checks = [
        _check(
            "threshold",
            metrics,
            {metric: threshold},
            metric,
            MetricThreshold(threshold=float(threshold), greater_is_better=greater_is_better),
        )
    ]
    if champion_metrics is not None:
        # A relative change of at least 0 is "better or equal".
        not_worse = MetricThreshold(min_relative_change=0.0, greater_is_better=greater_is_better)
        checks.append(_check(tracking.CHAMPION, metrics, champion_metrics, metric, not_worse))
    return checks


def _check(
    name: str, metrics: dict[str, float], reference: dict[str, float], metric: str, threshold: MetricThreshold
) -> Check:
    import mlflow
    from mlflow.models import EvaluationResult
    from mlflow.models.evaluation.validation import ModelValidationFailedException

    absent = [who for who, values in (("the model", metrics), (f"the {name}", reference)) if metric not in values]
    if absent:
        return Check(name, False, f"{metric} could not be computed for {' and '.join(absent)}")
    try:
        with runtime.quiet("mlflow.models.evaluation.validation"):
            mlflow.validate_evaluation_results(
                {metric: threshold}, EvaluationResult(metrics, {}), EvaluationResult(reference, {})
            )
        passed = True
    except ModelValidationFailedException:
        passed = False
    value, required = metrics[metric], reference[metric]
    sign = ("≥" if passed else "<") if threshold.greater_is_better else ("≤" if passed else ">")
    margin = f"{'passes' if passed else 'fails'} by {abs(value - required):.4g}"
    return Check(name, passed, f"{metric} {value:.4f} {sign} {required:.4f} ({margin})")


def evaluate_champion(model_name: str, split: Split) -> tuple[dict[str, float] | None, str]:
    """Measure the champion on the held-out rows.

    Parameters
    ----------
    model_name : str
    split : helpers.data.split.Split

    Returns
    -------
    tuple of (dict of str to float or None, str)
        Its metrics, None if there is no champion and empty if it cannot score these rows; and
        what was found, in words.
    """
    version = tracking.champion(model_name)
    if version is None:
        return None, "There is no champion yet."
    try:
        metrics = evaluate(f"models:/{model_name}/{version.version}", split)
    except ParameterError as error:
        return {}, f"The champion, version {version.version}, cannot score these rows: {error.problem}"
    return metrics, f"The champion is version {version.version}."


def register(run: Run, model_uri: str, model_name: str, tags: dict[str, str]) -> tuple[ModelVersion, bool]:
    """Register the model of a run: a new name makes version 1, the same name the next version.

    A run is registered once: called again, this returns its version, with the tags renewed.

    Parameters
    ----------
    run : mlflow.entities.Run
        The run that logged the model.
    model_uri : str
        Its model.
    model_name : str
    tags : dict of str to str
        Version tags, from `version_tags`.

    Returns
    -------
    tuple of (mlflow.entities.model_registry.ModelVersion, bool)
        The version, and whether it is new.
    """
    version = tracking.version_of_run(model_name, run)
    if version is None:
        return tracking.create_version(run, model_uri, model_name, tags), True
    import mlflow

    for key, value in tags.items():
        mlflow.MlflowClient().set_model_version_tag(model_name, version.version, key, value)
    return version, False


def version_tags(split: Split, metrics: dict[str, float], checks: Sequence[Check]) -> dict[str, str]:
    """Return what a version's tags say of its data, its metrics and the outcome of each check."""
    # Unity Catalog takes no dots in a tag's name: https://learn.microsoft.com/azure/databricks/database-objects/tags#constraints
    return (
        {"training_table": split.table, "held_out_rows": str(split.held_out.count())}
        | {f"metric_{name}": f"{value:.6g}" for name, value in metrics.items()}
        | {f"check_{check.name}": f"{'passed' if check.passed else 'failed'}: {check.detail}" for check in checks}
    )


def resolve_version(model_name: str, model_version: str) -> ModelVersion:
    """Return the version that a name and a version parameter mean now.

    Parameters
    ----------
    model_name : str
        Name in the registry that MLflow points at.
    model_version : str
        Empty for the champion.

    Raises
    ------
    helpers.parameters.ParameterError
        If there is no such model, no such version or no champion.
    """
    import mlflow

    versions = {str(version.version): version for version in tracking.versions(model_name)}
    if not versions:
        others = tracking.model_names()
        known = "" if others is None else f"; models there: {', '.join(others) or 'none'}"
        raise ParameterError(
            "model_name",
            model_name,
            f"no registered version of it in {mlflow.get_registry_uri()}{known}. Run 03_register first.",
        )
    if model_version:
        if model_version not in versions:
            existing = ", ".join(versions)
            raise ParameterError(
                "model_version", model_version, f"{model_name} has no such version; it has: {existing}"
            )
        return versions[model_version]
    found = tracking.champion(model_name)
    if found is None:
        raise ParameterError(
            "model_version",
            model_version,
            f"{model_name} has no champion: none of its {len(versions)} versions passed the gate. "
            "Give a version, or lower validation_threshold and run 03_register again.",
        )
    return found
