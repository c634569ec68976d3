"""Decide whether a model may become the champion.

To add a check, write a function that takes an `Evaluation` and returns a `ValidationCheck`, and add a line to `CHECKS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers import output, scoring, tracking
from helpers.data.metrics import LOWER_IS_BETTER, classification_metrics
from helpers.data.names import quoted
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import MetricThreshold
    from pyspark.sql import DataFrame

    from helpers.data.evaluation import EvaluationRows
    from helpers.scoring.predictor import Predictor

# The constant prediction has 1 / (number of classes), however rare a class is; of accuracy, the more the rarer one is.
BASELINE_METRIC = "balanced_accuracy_score"


@dataclass(frozen=True)
class Evaluation:
    """What the checks judge a model by.

    Attributes
    ----------
    metrics : dict of str to float
        Metrics of the model, from `evaluate`.
    champion_metrics : dict of str to float or None
        Metrics of the champion on the same rows. None if there is no champion, empty if it cannot score these rows.
    baseline_metrics : dict of str to float
        Metrics of a constant prediction for the same rows, from `evaluate_baseline`.
    metric : str
        Name of the metric that decides.
    threshold : float
        Lowest value that passes, or for ``log_loss`` the highest.
    margin : float
        How much better than the constant prediction the model has to be; see `check_baseline`.
    """

    metrics: dict[str, float]
    champion_metrics: dict[str, float] | None
    baseline_metrics: dict[str, float]
    metric: str
    threshold: float
    margin: float

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


def evaluate(session: tracking.Session, model_uri: str, rows: EvaluationRows) -> dict[str, float]:
    """Measure a model on the rows that judge it. It is applied as in batch scoring.

    Parameters
    ----------
    session : helpers.tracking.Session
    model_uri : str
    rows : helpers.data.evaluation.EvaluationRows

    Returns
    -------
    dict of str to float
        See `helpers.data.metrics.classification_metrics`.

    Raises
    ------
    helpers.parameters.ParameterError
        If the model's signature does not fit the rows, if the model cannot score one of them, or if its predictions
        cannot be compared with the labels.
    """
    import numpy as np

    predictor = scoring.load(session, model_uri)
    predictor.check_columns(rows.rows, rows.parameter, rows.table)
    scored = _scored(predictor, rows)
    probabilities = None
    if predictor.classes and scored["probabilities"].notna().all():
        probabilities = np.stack(scored["probabilities"].to_numpy())
    try:
        return classification_metrics(
            scored[rows.label_column], scored["prediction"], probabilities, predictor.classes or rows.classes
        )
    except (TypeError, ValueError) as error:
        # scikit-learn's, for instance for predictions that are numbers where the labels are text.
        raise ParameterError(
            "model_uri",
            model_uri,
            f"its predictions cannot be compared with the column {rows.label_column!r} of {rows.table}: {error}",
        ) from None


def _scored(predictor: Predictor, rows: EvaluationRows) -> pd.DataFrame:
    """Return the label, the prediction and the probabilities of each row.

    A row that cannot be scored is an error: without it, the metrics would be those of the easier rows.
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    keep = [rows.id_column, rows.label_column]
    engine = predictor.choose_engine(rows.rows).engine
    try:
        scored = _judged(predictor.transform(rows.rows, keep, engine, each_class=True), predictor).toPandas()
    except (PySparkException, Py4JJavaError) as error:
        explained = predictor.model.explained(error)
        if explained:
            raise explained from None
        refused = predictor.refused(rows.rows, keep, engine).select(quoted(rows.id_column), "problem").toPandas()
        if refused.empty:
            raise
    else:
        refused = scored.loc[~_is_usable(scored["prediction"]), [rows.id_column]]
        if refused.empty:
            return scored
        refused = refused.assign(problem="the prediction is missing, NaN or infinite")
    first = refused.head(1).to_dict("records")[0]
    raise ParameterError(
        "model_uri",
        predictor.model.model_uri,
        f"cannot score {len(refused)} of the {rows.count} rows that judge it, {rows.description}. For instance "
        f"{rows.id_column}={first[rows.id_column]!r}: {first['problem']}. Have the model deal with such rows",
    )


def _judged(scored: DataFrame, predictor: Predictor) -> DataFrame:
    """Return predictions that can be compared with labels: of several named outputs the one called ``prediction``."""
    from pyspark.sql import functions as F
    from pyspark.sql.types import ArrayType, MapType, StructType

    kind = predictor.model.prediction_type
    if isinstance(kind, StructType) and "prediction" in kind.fieldNames():
        return scored.withColumn("prediction", F.col("prediction")["prediction"])
    if isinstance(kind, (ArrayType, MapType, StructType)):
        raise ParameterError(
            "model_uri",
            predictor.model.model_uri,
            f"predicts {kind.simpleString()}, which cannot be compared with a label. Name one of its outputs "
            "'prediction', or if they are the probabilities of classes, log it with tracking.log_model(classes=…)",
        )
    return scored


def _is_usable(predictions: pd.Series) -> pd.Series:
    """Return which predictions are neither missing nor NaN nor infinite."""
    import numpy as np

    return np.isfinite(predictions) if predictions.dtype.kind == "f" else predictions.notna()


def evaluate_champion(
    session: tracking.Session, model_name: str, rows: EvaluationRows
) -> tuple[dict[str, float] | None, str]:
    """Measure the champion on the rows that judge the new model.

    Parameters
    ----------
    session : helpers.tracking.Session
    model_name : str
    rows : helpers.data.evaluation.EvaluationRows

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
        metrics = evaluate(session, f"models:/{model_name}/{version.version}", rows)
    except ParameterError as error:
        return {}, f"The champion, version {version.version}, cannot score these rows: {error.problem}"
    return metrics, f"The champion is version {version.version}."


def evaluate_baseline(rows: EvaluationRows) -> dict[str, float]:
    """Measure the best prediction that ignores the features: always the most frequent class.

    Its probabilities are the frequencies of the classes.
    https://scikit-learn.org/stable/modules/generated/sklearn.dummy.DummyClassifier.html

    Parameters
    ----------
    rows : helpers.data.evaluation.EvaluationRows

    Returns
    -------
    dict of str to float
        See `helpers.data.metrics.classification_metrics`.
    """
    from sklearn.dummy import DummyClassifier

    labels = rows.rows.select(quoted(rows.label_column)).toPandas()[rows.label_column].to_numpy()
    no_features = labels.reshape(-1, 1)
    constant = DummyClassifier(strategy="prior").fit(no_features, labels)
    return classification_metrics(
        labels, constant.predict(no_features), constant.predict_proba(no_features), constant.classes_.tolist()
    )


def check_threshold(evaluation: Evaluation) -> ValidationCheck:
    """Check that the model reaches the threshold."""
    from mlflow.models import MetricThreshold

    limit = MetricThreshold(threshold=float(evaluation.threshold), greater_is_better=evaluation.greater_is_better)
    return _compare("threshold", evaluation, evaluation.metric, {evaluation.metric: evaluation.threshold}, limit)


def check_champion(evaluation: Evaluation) -> ValidationCheck | None:
    """Check that the model is at least as good as the champion, if there is one."""
    from mlflow.models import MetricThreshold

    if evaluation.champion_metrics is None:
        return None
    # A relative change of at least 0 means better or equal.
    limit = MetricThreshold(min_relative_change=0.0, greater_is_better=evaluation.greater_is_better)
    return _compare(tracking.CHAMPION, evaluation, evaluation.metric, evaluation.champion_metrics, limit)


def check_baseline(evaluation: Evaluation) -> ValidationCheck:
    """Check that the model is better than a constant prediction, which ignores the features.

    The other checks do not see that where a class is rare: with 1 % positives the constant prediction has an accuracy
    of 0.99. Balanced accuracy gives each class the same weight. On the scale on which the constant prediction is 0 and
    a perfect model is 1 (scikit-learn's ``adjusted=True``) the model has to reach the margin.
    https://scikit-learn.org/stable/modules/model_evaluation.html#balanced-accuracy-score
    """
    from mlflow.models import MetricThreshold

    baseline = evaluation.baseline_metrics[BASELINE_METRIC]
    required = baseline + evaluation.margin * (1 - baseline)
    check = _compare(
        "baseline",
        evaluation,
        BASELINE_METRIC,
        {BASELINE_METRIC: required},
        MetricThreshold(threshold=required, greater_is_better=True),
    )
    detail = f"{check.detail}; a constant prediction has {baseline:.4f}"
    return ValidationCheck(check.name, check.passed, detail)


# Each returns its outcome, or None if it does not apply.
CHECKS: list[Callable[[Evaluation], ValidationCheck | None]] = [check_threshold, check_champion, check_baseline]


def validate(evaluation: Evaluation) -> list[ValidationCheck]:
    """Run the checks of `CHECKS` on a model, and return the outcome of each that applies.

    The model may become the champion if all of them pass.
    """
    outcomes = (check(evaluation) for check in CHECKS)
    return [outcome for outcome in outcomes if outcome is not None]


def failures(checks: list[ValidationCheck]) -> str:
    """Return in words which checks failed and why; empty if all passed."""
    return "; ".join(f"check {check.name!r} failed: {check.detail}" for check in checks if not check.passed)


def _compare(
    name: str, evaluation: Evaluation, metric: str, reference: dict[str, float], limit: MetricThreshold
) -> ValidationCheck:
    """Compare a metric with a reference value.

    ``mlflow.validate_evaluation_results`` decides whether it passes:
    https://mlflow.org/docs/latest/ml/evaluation/model-eval/#model-validation
    """
    import mlflow
    from mlflow.models import EvaluationResult
    from mlflow.models.evaluation.validation import ModelValidationFailedException

    metrics = evaluation.metrics
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
