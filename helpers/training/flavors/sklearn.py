"""A scikit-learn pipeline, trained epoch by epoch on the driver."""

from __future__ import annotations

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
from helpers.training.flavors.base import Flavor, OnEpoch

if TYPE_CHECKING:
    from helpers.data.split import Split

# Held-out rows on which importance is measured.
_IMPORTANCE_ROWS = 2_000


class SklearnFlavor(Flavor):
    """Logistic regression by stochastic gradient descent.

    The rows must fit into the driver's memory.
    """

    mlflow_flavor = "sklearn"

    def fit(self, split: Split, *, epochs: int, learning_rate: float, seed: int, on_epoch: OnEpoch) -> Pipeline:
        """Train a pipeline that imputes, scales and encodes the columns by their names, then classifies.

        After each epoch the held-out rows are measured, too.
        """
        train, held_out = split.train.toPandas(), split.validation.toPandas()
        labels, held_out_labels = train[split.label_column].to_numpy(), held_out[split.label_column].to_numpy()
        numeric = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
        categorical = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=50)
        preprocess = ColumnTransformer(
            [("numeric", numeric, split.numeric), ("categorical", categorical, split.categorical)]
        )
        rows, held_out_rows = preprocess.fit_transform(train), preprocess.transform(held_out)
        classifier = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=learning_rate, random_state=seed)
        generator = np.random.default_rng(seed)
        for epoch in range(1, epochs + 1):
            shuffled = generator.permutation(len(labels))
            classifier.partial_fit(rows[shuffled], labels[shuffled], classes=split.classes)
            predictions, probabilities = classifier.predict(held_out_rows), classifier.predict_proba(held_out_rows)
            validation = classification_metrics(held_out_labels, predictions, probabilities, split.classes)
            loss = log_loss(labels, classifier.predict_proba(rows), labels=split.classes)
            on_epoch(epoch, {"epoch_loss": loss} | {f"val_{name}": value for name, value in validation.items()})
        return Pipeline([("preprocess", preprocess), ("classifier", classifier)])

    def predict(self, model: Pipeline, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Apply the pipeline to the held-out rows, on the driver."""
        held_out = split.validation.toPandas()
        rows = held_out[split.features]
        return held_out[split.label_column].to_numpy(), model.predict(rows), model.predict_proba(rows)

    def importance(self, model: Pipeline, split: Split, seed: int) -> pd.Series:
        """Measure how much the held-out log loss (in nats) grows when the values of a feature are shuffled."""
        held_out = split.validation.limit(_IMPORTANCE_ROWS).toPandas()
        shuffled = permutation_importance(
            model, held_out[split.features], held_out[split.label_column], scoring="neg_log_loss", random_state=seed
        )
        return pd.Series(shuffled.importances_mean, split.features, name="growth of the log loss when shuffled")
