"""Boosted trees by XGBoost, one round per epoch, on the driver or on the cluster."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import VotingClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelEncoder, OrdinalEncoder
from sklearn.utils import Bunch
from sklearn.utils.class_weight import compute_sample_weight

from helpers import runtime
from helpers.data.metrics import CLASSIFIER, LOSS, REGRESSOR
from helpers.data.names import quoted
from helpers.parameters import ParameterError
from helpers.training import driver
from helpers.training.flavors.base import Flavor, OnEpoch

if TYPE_CHECKING:
    import optuna
    from pyspark.sql import DataFrame

    from helpers.data.split import Split
    from helpers.parameters import Fit

# Of more values of a text column, the rarer ones are treated as missing.
_MAX_CATEGORIES = 1_000
# With fewer training rows there are too few to put some of them aside for early stopping. As scikit-learn's
# HistGradientBoostingClassifier: https://scikit-learn.org/stable/modules/generated/sklearn.ensemble.HistGradientBoostingClassifier.html
_ROWS_FOR_EARLY_STOPPING = 10_000
_EARLY_STOPPING_FRACTION = 0.1
_ROUNDS_WITHOUT_GAIN = 10
# Threads wait for each other after each step; with fewer values one thread is faster, and by far on a busy machine.
_VALUES_PER_THREAD = 500_000
# They reach scikit-learn's histogram boosting on its small data sets; tests/unit/test_flavor_defaults.py compares them.
_DEFAULTS = {"subsample": 0.8, "colsample_bytree": 0.8}
_MAX_DEPTH = {CLASSIFIER: 4, REGRESSOR: 3}


class _Rounds(xgboost.callback.TrainingCallback):
    """Report each round as an epoch."""

    def __init__(self, on_epoch: OnEpoch, model_type: str) -> None:
        super().__init__()
        self.on_epoch, self.loss = on_epoch, LOSS[model_type]
        self.losses: list[list[float]] = []
        self.reported = 0

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Report the losses of this round; XGBoost's name of each is that of its metric."""
        self.losses = [next(iter(metrics.values())) for metrics in evals_log.values()]
        self._report()
        return False

    def after_training(self, model: Any) -> Any:
        """Report the last round if early stopping came first: before 3.2, XGBoost calls no callback after it."""
        self._report()
        return model

    def _report(self) -> None:
        while self.losses and self.reported < len(self.losses[0]):
            losses = [of_set[self.reported] for of_set in self.losses]
            self.reported += 1
            self.on_epoch(self.reported, {"epoch_loss": losses[0], f"val_{self.loss}": losses[1]})


class XGBoostFlavor(Flavor):
    """Boosted trees. Missing numbers and text columns need no imputation and no encoding with a column per value.

    The model is a scikit-learn pipeline of an encoder, which gives each text a number, and XGBoost's estimator.
    """

    mlflow_flavor = "sklearn"
    default_epochs = 100
    one_processor: ClassVar[Mapping[str, Any]] = {"n_jobs": 1}

    def search_space(self, trial: optuna.Trial) -> dict[str, Any]:
        """Choose the size of the trees, the share of each that is added, and what each learns from."""
        return {
            "max_depth": trial.suggest_int("max_depth", 2, 8),
            "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.5, log=True),
            "subsample": trial.suggest_float("subsample", 0.5, 1.0),
            "colsample_bytree": trial.suggest_float("colsample_bytree", 0.5, 1.0),
            "min_child_weight": trial.suggest_float("min_child_weight", 0.5, 20.0, log=True),
            "reg_lambda": trial.suggest_float("reg_lambda", 1e-2, 1e2, log=True),
        }

    def trains_on_driver(self, split: Split, p: Fit) -> bool:
        """Return whether the parameters, or the size of the rows, say so."""
        return p.training_on == "driver" or (p.training_on == "auto" and driver.fits(split))

    def fit(self, split: Split, p: Fit, on_epoch: OnEpoch, hyperparameters: Mapping[str, Any]) -> Pipeline:
        """Train one tree per epoch, and for more than two classes one tree per class and epoch.

        `epochs` is the highest number of rounds. With at least 10,000 training rows, a tenth of them is put aside, and
        training ends when their loss has not fallen for 10 rounds; the held-out rows do not decide about it.
        """
        settings = {
            "n_estimators": p.epochs,
            "learning_rate": p.learning_rate,
            "random_state": p.seed,
            "tree_method": "hist",
            "feature_types": ["q"] * len(split.numeric) + ["c"] * len(split.categorical),
            "max_depth": _MAX_DEPTH[split.model_type],
            **_DEFAULTS,
            **hyperparameters,
        }
        train = _train_on_driver if self.trains_on_driver(split, p) else _train_on_cluster
        encoder, estimator = train(split, p, settings, on_epoch)
        # Spark's workers are one process per core.
        estimator.set_params(n_jobs=1, callbacks=None, early_stopping_rounds=None)
        if split.model_type == CLASSIFIER:
            return Pipeline([("encode", encoder), ("classifier", _with_classes(estimator, split.classes))])
        return Pipeline([("encode", encoder), ("regressor", estimator)])

    def predict(self, model: Pipeline, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Apply the pipeline to the rows that measure it, on the driver."""
        return driver.predict(model, split)

    def importance(self, model: Pipeline, split: Split, seed: int) -> pd.Series:
        """Return how much each feature lowers the loss, on average over the places where the trees use it (gain)."""
        estimator = model[-1].estimators_[0] if split.model_type == CLASSIFIER else model[-1]
        gains = estimator.get_booster().get_score(importance_type="gain")
        values = [gains.get(f"f{number}", 0.0) for number in range(len(split.features))]
        return pd.Series(values, split.features, name="mean gain where a tree uses the feature")


def _estimator_class(model_type: str) -> type[xgboost.XGBModel]:
    return xgboost.XGBRegressor if model_type == REGRESSOR else xgboost.XGBClassifier


def _train_on_driver(
    split: Split, p: Fit, settings: dict[str, Any], on_epoch: OnEpoch
) -> tuple[ColumnTransformer, xgboost.XGBModel]:
    if p.training_on == "driver":
        # With auto, the size of the rows has decided for the driver.
        driver.require_memory(split, "xgboost")
    train, labels = driver.to_pandas(split.train, split)
    validation, validation_labels = driver.to_pandas(split.validation, split)
    encoder = _encoder(split, [list(train[name].value_counts().index[:_MAX_CATEGORIES]) for name in split.categorical])
    rows, validation_rows = encoder.transform(train), encoder.transform(validation)
    if split.model_type == CLASSIFIER:
        classes = LabelEncoder().fit(split.classes)
        labels, validation_labels = classes.transform(labels), classes.transform(validation_labels)
    weights = np.ones(len(labels))
    if split.model_type == CLASSIFIER and p.class_weight == "balanced":
        weights = compute_sample_weight("balanced", labels)
    evaluated, early_stopping = [(validation_rows, validation_labels)], None
    if len(labels) >= _ROWS_FOR_EARLY_STOPPING:
        aside = np.random.default_rng(p.seed).random(len(labels)) < _EARLY_STOPPING_FRACTION
        if split.model_type == CLASSIFIER:
            # XGBoost fails if a class is missing from the rows that it learns from.
            aside[np.unique(labels, return_index=True)[1]] = False
        # XGBoost stops by the last one.
        evaluated.append((rows[aside], labels[aside]))
        rows, labels, weights = rows[~aside], labels[~aside], weights[~aside]
        early_stopping = _ROUNDS_WITHOUT_GAIN
    estimator = _estimator_class(split.model_type)(
        **{"n_jobs": min(os.cpu_count() or 1, 1 + rows.size // _VALUES_PER_THREAD)} | settings,
        enable_categorical=True,
        early_stopping_rounds=early_stopping,
        callbacks=[_Rounds(on_epoch, split.model_type)],
    )
    estimator.fit(rows, labels, sample_weight=weights, eval_set=[(rows, labels), *evaluated], verbose=False)
    return encoder, estimator


def _train_on_cluster(
    split: Split, p: Fit, settings: dict[str, Any], on_epoch: OnEpoch
) -> tuple[ColumnTransformer, xgboost.XGBModel]:
    """Train with ``xgboost.spark``, which reports the losses at the end.

    https://xgboost.readthedocs.io/en/stable/tutorials/spark_estimator.html
    """
    from packaging.version import Version
    from pyspark.sql import functions as F
    from xgboost.spark import SparkXGBClassifier, SparkXGBRegressor

    if runtime.uses_spark_connect(split.train):
        raise ParameterError(
            "training_on",
            p.training_on,
            "xgboost.spark needs a classic cluster, and this is Spark Connect (serverless or standard compute). Use a "
            "dedicated cluster, model_flavor=spark, or training_on=driver with a sampled table",
        )
    if Version(xgboost.__version__) < Version("3.0"):
        raise ParameterError(
            "training_on",
            p.training_on,
            f"xgboost.spark of XGBoost {xgboost.__version__} does not take several columns on CPUs, nor tell the losses; 3.0 "
            "does, which Databricks Runtime 17.3 LTS ML has. Use a newer runtime, model_flavor=spark, or training_on=driver "
            "with a sampled table",
        )
    categories = [_most_frequent(split.train, name) for name in split.categorical]
    encoder = _encoder(split, categories)
    names = [f"f{number}" for number in range(len(split.features))]
    columns = [F.col(quoted(name)).cast("double") for name in split.numeric]
    for name, encoded in zip(split.categorical, encoder.named_transformers_["categorical"].categories_, strict=True):
        position = F.call_function("array_position", F.array(*map(F.lit, encoded)), F.col(quoted(name)))
        columns.append(F.when(position > 0, (position - 1).cast("double")))
    # XGBoost takes NaN for missing, and refuses null.
    features = [
        F.coalesce(column, F.lit(float("nan"))).alias(name) for column, name in zip(columns, names, strict=True)
    ]
    label = F.col(quoted(split.label_column))
    if split.model_type == CLASSIFIER:
        label = F.call_function("array_position", F.array(*map(F.lit, split.classes)), label) - 1
    parts = [
        part.select(*features, label.cast("double").alias("label"), F.lit(is_validation).alias("validation"))
        for part, is_validation in ((split.train, False), (split.validation, True))
    ]
    estimator_class = SparkXGBRegressor if split.model_type == REGRESSOR else SparkXGBClassifier
    spark_estimator = estimator_class(
        features_col=names,
        label_col="label",
        validation_indicator_col="validation",
        num_workers=_workers(split),
        **settings,
    )
    fitted = spark_estimator.fit(parts[0].unionByName(parts[1]))
    summary = fitted.training_summary
    losses = [
        next(iter(history.values()))
        for history in (summary.train_objective_history, summary.validation_objective_history)
    ]
    for epoch, (loss, validation_loss) in enumerate(zip(*losses, strict=True), start=1):
        on_epoch(epoch, {"epoch_loss": loss, f"val_{LOSS[split.model_type]}": validation_loss})
    estimator = _estimator_class(split.model_type)(**settings, enable_categorical=True)
    estimator.load_model(bytearray(fitted.get_booster().save_raw("ubj")))
    return encoder, estimator


def _workers(split: Split) -> int:
    return max(1, split.train.sparkSession.sparkContext.defaultParallelism)


def _most_frequent(rows: DataFrame, column: str) -> list[str]:
    from pyspark.sql import functions as F

    counts = rows.where(F.col(quoted(column)).isNotNull()).groupBy(quoted(column)).count()
    return [row[0] for row in counts.orderBy(F.desc("count"), F.asc(quoted(column))).limit(_MAX_CATEGORIES).collect()]


def _encoder(split: Split, categories: list[list[str]]) -> ColumnTransformer:
    """Return a fitted encoder that keeps numbers, and gives each known text of a column a number and others NaN."""
    # A column without any text in the training rows has one category, which no row is in.
    ordered = [sorted(values) or [""] for values in categories]
    ordinal = OrdinalEncoder(categories=ordered, handle_unknown="use_encoded_value", unknown_value=np.nan)
    encoder = ColumnTransformer(
        [("numeric", "passthrough", split.numeric), ("categorical", ordinal, split.categorical)]
    )
    example = {name: [0.0] for name in split.numeric} | {
        name: values[:1] for name, values in zip(split.categorical, ordered, strict=True)
    }
    return encoder.fit(pd.DataFrame(example, columns=split.features))


def _with_classes(estimator: xgboost.XGBClassifier, classes: list[Any]) -> VotingClassifier:
    """Return a classifier that answers with the label's own values; XGBoost's knows the numbers of the classes only.

    A vote of one estimator is scikit-learn's class for it. It is put together here, because its own ``fit`` would train
    the estimator again.
    """
    voting = VotingClassifier([("xgboost", estimator)], voting="soft")
    voting.le_ = LabelEncoder().fit(classes)
    voting.classes_ = voting.le_.classes_
    voting.estimators_ = [estimator]
    voting.named_estimators_ = Bunch(xgboost=estimator)
    return voting
