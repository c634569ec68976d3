"""A loader that gives a scikit-learn classifier's predictions and probabilities at once.

`helpers.prediction` copies this file into the model's own folder: it runs in Spark's Python
workers, which do not have the bundle. So it imports nothing of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow.sklearn
import pandas as pd


class Classifier:
    """What MLflow calls in place of the classifier."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the columns ``prediction`` and ``p0``, ``p1``, …, one for each class.

        Numbers in columns of their own pass from Python to Spark several times faster than
        one list a row.
        """
        probabilities = self.estimator.predict_proba(data)
        answers = {"prediction": self.estimator.predict(data)}
        return pd.DataFrame(answers | {f"p{i}": column for i, column in enumerate(probabilities.T)})


def _load_pyfunc(path: str) -> Classifier:
    """Load the model; the name and the argument are MLflow's (``loader_module``)."""
    folder = Path(path)
    return Classifier(mlflow.sklearn.load_model(str(folder if folder.is_dir() else folder.parent)))
