"""A linear scikit-learn pipeline, trained iteration by iteration on the driver."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from helpers.data.metrics import REGRESSOR, loss, measure
from helpers.training import driver
from helpers.training.flavors.base import Flavor, OnEpoch

if TYPE_CHECKING:
    import optuna

    from helpers.data.split import Split
    from helpers.parameters import Fit

# Rows on which importance is measured, and how often each feature is shuffled.
_IMPORTANCE_ROWS, _SHUFFLES = 2_000, 5


class SklearnFlavor(Flavor):
    """Logistic regression by Newton's method, or ridge regression by least squares (LSQR).

    The rows must fit into the driver's memory.
    """

    mlflow_flavor = "sklearn"

    def search_space(self, trial: optuna.Trial) -> dict[str, Any]:
        """Choose the regularization."""
        return {"regularization": trial.suggest_float("regularization", 1e-4, 1e3, log=True)}

    def trains_on_driver(self, split: Split, p: Fit) -> bool:
        """Return True."""
        return True

    def fit(self, split: Split, p: Fit, on_epoch: OnEpoch, hyperparameters: Mapping[str, Any]) -> Pipeline:
        """Train a pipeline that imputes, scales and encodes the columns by their names, then classifies or regresses.

        `epochs` is the highest number of iterations: training ends earlier if the loss no longer falls. After each
        iteration ``split.validation`` is measured, too.
        """
        driver.require_memory(split, "sklearn")
        train, labels = driver.to_pandas(split.train, split)
        validation_rows, validation_labels = driver.to_pandas(split.validation, split)
        numeric = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
        categorical = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=50)
        preprocess = ColumnTransformer(
            [("numeric", numeric, split.numeric), ("categorical", categorical, split.categorical)]
        )
        rows, validation_rows = preprocess.fit_transform(train), preprocess.transform(validation_rows)
        regularization = hyperparameters.get("regularization", 1.0)
        if split.model_type == REGRESSOR:
            name, models = "regressor", _regressors(rows, labels, p.epochs, regularization)
        else:
            class_weight = "balanced" if p.class_weight == "balanced" else None
            name, models = "classifier", _classifiers(rows, labels, p.epochs, regularization, class_weight)
        for epoch, model in enumerate(models, start=1):
            validation = measure(
                split.model_type,
                validation_labels,
                model.predict(validation_rows),
                _probabilities(model, validation_rows),
                split.classes,
            )
            epoch_loss = loss(split.model_type, labels, model.predict(rows), _probabilities(model, rows), split.classes)
            on_epoch(epoch, {"epoch_loss": epoch_loss} | {f"val_{key}": value for key, value in validation.items()})
        return Pipeline([("preprocess", preprocess), (name, model)])

    def predict(self, model: Pipeline, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Apply the pipeline to the rows that measure it, on the driver."""
        return driver.predict(model, split)

    def importance(self, model: Pipeline, split: Split, seed: int) -> pd.Series:
        """Measure how much the loss grows when the values of a feature are shuffled, on average over five times.

        This is scikit-learn's ``permutation_importance``. That applies the whole model to all columns for each feature,
        which takes minutes for 2,000 of them. The result of a linear model is a sum over the features, in which one part
        changes.
        https://scikit-learn.org/stable/modules/permutation_importance.html
        """
        rows, labels = driver.to_pandas(split.validation.limit(_IMPORTANCE_ROWS), split)
        random = np.random.default_rng(seed)
        preprocess, estimator = model
        numbers, texts = (preprocess.named_transformers_[name] for name in ("numeric", "categorical"))
        coefficients = np.atleast_2d(estimator.coef_).T
        values = numbers.transform(rows[split.numeric]) if split.numeric else np.zeros((len(rows), 0))
        # The imputer drops a column that has no value.
        numeric = list(numbers.get_feature_names_out(split.numeric)) if split.numeric else []
        of_numbers, of_texts = coefficients[: len(numeric)], coefficients[len(numeric) :]
        from_numbers = values @ of_numbers + estimator.intercept_
        from_texts = texts.transform(rows[split.categorical]) @ of_texts if split.categorical else 0

        loss_of = _loss_of_sums(estimator, labels)
        before = loss_of(from_numbers + from_texts)
        growth = dict.fromkeys(split.features, 0.0)
        for _ in range(_SHUFFLES):
            for position, name in enumerate(numeric):
                value = values[:, [position]]
                change = (random.permutation(value) - value) @ of_numbers[[position]]
                growth[name] += loss_of(from_numbers + change + from_texts) - before
            for name in split.categorical:
                shuffled = rows[split.categorical].assign(**{name: random.permutation(rows[name].to_numpy())})
                growth[name] += loss_of(from_numbers + texts.transform(shuffled) @ of_texts) - before
        name = "root mean squared error" if split.model_type == REGRESSOR else "log loss"
        return pd.Series(growth, name=f"growth of the {name} when shuffled") / _SHUFFLES


def _loss_of_sums(estimator: Any, labels: np.ndarray) -> Callable[[np.ndarray], float]:
    """Return the loss of a linear model as a function of the sums over its features.

    It is called thousands of times, for which scikit-learn's functions check their arguments too long.
    """
    if not hasattr(estimator, "classes_"):
        return lambda sums: float(np.sqrt(np.mean((sums[:, 0] - labels) ** 2)))
    position = np.arange(len(labels)), np.searchsorted(estimator.classes_, labels)

    def log_loss(sums: np.ndarray) -> float:
        sums = np.hstack([np.zeros_like(sums), sums]) if sums.shape[1] == 1 else sums
        return float(np.mean(np.logaddexp.reduce(sums, axis=1) - sums[position]))

    return log_loss


def _probabilities(model: Any, rows: Any) -> np.ndarray | None:
    return model.predict_proba(rows) if hasattr(model, "predict_proba") else None


def _classifiers(
    rows: Any, labels: np.ndarray, epochs: int, regularization: float, class_weight: str | None
) -> Iterator[LogisticRegression]:
    """Yield the model after each iteration of Newton's method, which needs nothing but the coefficients to go on."""
    model = LogisticRegression(
        C=1 / regularization, solver="newton-cg", max_iter=1, warm_start=True, class_weight=class_weight
    )
    for epoch in range(epochs):
        with warnings.catch_warnings():
            # One iteration is not meant to converge.
            warnings.filterwarnings("ignore", message="newton-cg failed to converge", category=ConvergenceWarning)
            model.fit(rows, labels)
        if epoch and not model.n_iter_.max():
            break
        yield model
    model.set_params(max_iter=epochs, warm_start=False)


def _regressors(rows: Any, labels: np.ndarray, epochs: int, regularization: float) -> Iterator[Ridge]:
    """Yield the model after each iteration of LSQR, which is repeated from the start, because it cannot go on."""
    for epoch in range(1, epochs + 1):
        model = Ridge(alpha=regularization, solver="lsqr", max_iter=epoch, tol=1e-6).fit(rows, labels)
        yield model
        if model.n_iter_.max() < epoch:
            break
