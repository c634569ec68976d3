"""Decide whether a model may become the champion.

To add a check, write a function that takes an `Evaluation` and returns a `ValidationCheck`, and add a line to `CHECKS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers import output, scoring, tracking
from helpers.data.metrics import CLASSIFIER, DEFAULT_METRIC, METRICS, REGRESSOR, measure
from helpers.data.names import quoted
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import MetricThreshold
    from pyspark.sql import DataFrame

    from helpers.data.evaluation import EvaluationRows
    from helpers.scoring.predictor import Predictor

# A constant prediction has a balanced accuracy of 1 / (number of classes), however rare a class is, and an R² of 0. A
# perfect model has 1 in both.
BASELINE_METRIC = {CLASSIFIER: "balanced_accuracy_score", REGRESSOR: "r2_score"}


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
        Name of the metric that decides, from `gate_metric`.
    threshold : float or None
        Lowest value that passes; if lower values of the metric are better, the highest. None: the metric's threshold in
        `helpers.data.metrics.METRICS`. If that is None, too, the threshold is not checked.
    margin : float
        How much better than the constant prediction the model has to be; see `check_baseline`.
    """

    metrics: dict[str, float]
    champion_metrics: dict[str, float] | None
    baseline_metrics: dict[str, float]
    metric: str
    threshold: float | None
    margin: float

    @property
    def greater_is_better(self) -> bool:
        """Whether a higher value of the metric is better."""
        return METRICS[self.metric].greater_is_better


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


def gate_metric(metric: str, model_type: str) -> str:
    """Return the metric that decides about a model.

    Parameters
    ----------
    metric : str
        The parameter ``validation_metric``; ``auto`` for `helpers.data.metrics.DEFAULT_METRIC`.
    model_type : str
        ``classifier`` or ``regressor``.

    Raises
    ------
    helpers.parameters.ParameterError
        If the metric does not fit the model type.
    """
    if metric == "auto":
        return DEFAULT_METRIC[model_type]
    fitting = [name for name, known in METRICS.items() if known.model_type == model_type]
    if metric not in fitting:
        raise ParameterError(
            "validation_metric", metric, f"does not measure a {model_type}; these do: auto, {', '.join(fitting)}"
        )
    return metric


@dataclass(frozen=True)
class Judged:
    """A model's predictions for the rows that judge it.

    Attributes
    ----------
    metrics : dict of str to float
        See `helpers.data.metrics.measure`.
    predictions : pandas.DataFrame
        The id, the label, ``prediction``, ``probability`` (of the predicted class) and ``probabilities`` of each row.
    inputs : list of str
        Columns that the model takes.
    """

    metrics: dict[str, float]
    predictions: pd.DataFrame
    inputs: list[str]


def evaluate(session: tracking.Session, model_uri: str, rows: EvaluationRows) -> dict[str, float]:
    """Measure a model on the rows that judge it: the metrics of `judge`."""
    return judge(session, model_uri, rows).metrics


def judge(session: tracking.Session, model_uri: str, rows: EvaluationRows) -> Judged:
    """Apply a model to the rows that judge it, as in batch scoring, and measure it.

    Parameters
    ----------
    session : helpers.tracking.Session
    model_uri : str
    rows : helpers.data.evaluation.EvaluationRows

    Returns
    -------
    Judged

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
        metrics = measure(
            rows.model_type,
            scored[rows.label_column],
            scored["prediction"],
            probabilities,
            predictor.classes or rows.classes,
        )
        return Judged(metrics, scored, list(predictor.model.inputs))
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
        The version of the champion, the reason if there are no metrics, and the number of rows that the champion may have
        learned from.
    """
    version = tracking.champion(session, model_name)
    if version is None:
        return None, "There is no champion yet."
    try:
        metrics = evaluate(session, f"models:/{model_name}/{version.version}", rows)
    except ParameterError as error:
        return {}, f"The champion, version {version.version}, cannot score these rows: {error.problem}"
    note = f"The champion is version {version.version}."
    learned_from = _rows_learned_from(session, version, rows)
    if learned_from:
        note += (
            f" Its run held out other rows, so it may have learned from {learned_from} of these {rows.count} rows: the "
            "comparison favours it."
        )
    return metrics, note


def _rows_learned_from(session: tracking.Session, version: ModelVersion, rows: EvaluationRows) -> int:
    """Count the rows that a version may have learned from, as far as its run can be asked."""
    from mlflow.exceptions import MlflowException

    run_id = tracking.run_id(version)
    try:
        return rows.learned_from(session.client().get_run(run_id)) if run_id else 0
    except MlflowException:
        # The run was deleted, or is on another server. Only a note depends on it.
        return 0


def evaluate_baseline(rows: EvaluationRows) -> dict[str, float]:
    """Measure the best prediction that ignores the features: always the most frequent class, or the mean of the labels.

    The probabilities are the frequencies of the classes.
    https://scikit-learn.org/stable/modules/model_evaluation.html#dummy-estimators

    Parameters
    ----------
    rows : helpers.data.evaluation.EvaluationRows

    Returns
    -------
    dict of str to float
        See `helpers.data.metrics.measure`.
    """
    from sklearn.dummy import DummyClassifier, DummyRegressor

    labels = rows.rows.select(quoted(rows.label_column)).toPandas()[rows.label_column].to_numpy()
    no_features = labels.reshape(-1, 1)
    if rows.model_type == REGRESSOR:
        return measure(REGRESSOR, labels, DummyRegressor().fit(no_features, labels).predict(no_features))
    constant = DummyClassifier(strategy="prior").fit(no_features, labels)
    predictions, probabilities = constant.predict(no_features), constant.predict_proba(no_features)
    return measure(CLASSIFIER, labels, predictions, probabilities, constant.classes_.tolist())


def check_threshold(evaluation: Evaluation) -> ValidationCheck | None:
    """Check that the model reaches the threshold, if there is one."""
    from mlflow.models import MetricThreshold

    metric, threshold = evaluation.metric, evaluation.threshold
    if threshold is None:
        threshold = METRICS[metric].threshold
    if threshold is None:
        return None
    limit = MetricThreshold(threshold=float(threshold), greater_is_better=evaluation.greater_is_better)
    return _compare("threshold", evaluation, metric, {metric: threshold}, limit)


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
    a perfect model is 1 (scikit-learn's ``adjusted=True``) the model has to reach the margin. The R² of a regressor is on
    that scale.
    https://scikit-learn.org/stable/modules/model_evaluation.html#balanced-accuracy-score
    """
    from mlflow.models import MetricThreshold

    metric = BASELINE_METRIC[METRICS[evaluation.metric].model_type]
    baseline = evaluation.baseline_metrics.get(metric)
    if baseline is None:
        return ValidationCheck("baseline", False, f"{metric} could not be computed for a constant prediction")
    required = baseline + evaluation.margin * (1 - baseline)
    limit = MetricThreshold(threshold=required, greater_is_better=True)
    check = _compare("baseline", evaluation, metric, {metric: required}, limit)
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
