"""A scikit-learn pipeline, trained epoch by epoch on the driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.inspection import permutation_importance
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from helpers.data.metrics import classification_metrics

if TYPE_CHECKING:
    from helpers.data.split import Split


def fit(
    split: Split,
    *,
    epochs: int,
    learning_rate: float,
    seed: int,
    on_epoch: Callable[[int, dict[str, float]], None],
) -> Pipeline:
    """Train logistic regression by stochastic gradient descent, one call of `on_epoch` an epoch.

    Parameters
    ----------
    split : helpers.data.split.Split
        The rows must fit into the driver's memory.
    epochs : int
        Passes over the training rows.
    learning_rate : float
        Step size.
    seed : int
        Seed of the order of the rows.
    on_epoch : callable
        Called with the epoch, from 1, and its metrics: ``epoch_loss`` (log loss of the training
        rows, in nats) and ``val_<metric>`` of the held-out rows.

    Returns
    -------
    sklearn.pipeline.Pipeline
        Imputes, scales and encodes the columns by their names, then classifies.
    """
    train, held_out = split.train.toPandas(), split.held_out.toPandas()
    labels, held_out_labels = train[split.label_column].to_numpy(), held_out[split.label_column].to_numpy()
    preprocess = ColumnTransformer(
        [
            ("numeric", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), split.numeric),
            ("categorical", OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=50), split.categorical),
        ]
    )
    rows, held_out_rows = preprocess.fit_transform(train), preprocess.transform(held_out)
    classifier = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=learning_rate, random_state=seed)
    order = np.random.default_rng(seed)
    for epoch in range(1, epochs + 1):
        shuffled = order.permutation(len(labels))
        classifier.partial_fit(rows[shuffled], labels[shuffled], classes=split.classes)
        validation = classification_metrics(
            held_out_labels, classifier.predict(held_out_rows), classifier.predict_proba(held_out_rows), split.classes
        )
        loss = log_loss(labels, classifier.predict_proba(rows), labels=split.classes)
        on_epoch(epoch, {"epoch_loss": loss} | {f"val_{name}": value for name, value in validation.items()})
    return Pipeline([("preprocess", preprocess), ("classifier", classifier)])


def predict(model: Pipeline, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, predictions and class probabilities of the held-out rows."""
    held_out = split.held_out.toPandas()
    rows = held_out[split.features]
    return held_out[split.label_column].to_numpy(), model.predict(rows), model.predict_proba(rows)


def importance(model: Pipeline, split: Split, seed: int, most_rows: int = 2_000) -> pd.Series:
    """Return how much the held-out log loss grows when a column's values are shuffled.

    Parameters
    ----------
    model : sklearn.pipeline.Pipeline
    split : helpers.data.split.Split
    seed : int
        Seed of the shuffling.
    most_rows : int, default 2000
        Held-out rows that are used.

    Returns
    -------
    pandas.Series
        Importance (in nats) by column; the name says what it is.
    """
    held_out = split.held_out.limit(most_rows).toPandas()
    shuffled = permutation_importance(
        model, held_out[split.features], held_out[split.label_column], scoring="neg_log_loss", random_state=seed
    )
    return pd.Series(shuffled.importances_mean, split.features, name="growth of the log loss when shuffled")
