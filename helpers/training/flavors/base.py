"""What each flavor has to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from helpers.data.split import Split

OnEpoch = Callable[[int, dict[str, float]], None]


class Flavor(ABC):
    """A kind of classifier: how it is trained, how it predicts, and which features matter to it.

    `helpers.training.fit` takes care of everything else: it logs the metrics of each epoch, measures the model, draws
    the pictures and makes the signature.

    Attributes
    ----------
    mlflow_flavor : str
        Module of MLflow that logs and loads the model, for instance ``sklearn`` for ``mlflow.sklearn``.
    """

    mlflow_flavor: ClassVar[str]

    @abstractmethod
    def fit(self, split: Split, *, epochs: int, learning_rate: float, seed: int, on_epoch: OnEpoch) -> Any:
        """Train a model.

        Parameters
        ----------
        split : helpers.data.split.Split
            Rows, features and label. The model must accept the features under their own names.
        epochs : int
            Passes over the training rows.
        learning_rate : float
            Step size.
        seed : int
            Seed of all that is random.
        on_epoch : callable
            Call it after each epoch, with the number of the epoch, from 1, and its metrics: ``epoch_loss`` (log loss of
            the training rows, in nats), and ``val_<metric>`` of ``split.validation`` if that was measured.

        Returns
        -------
        object
            The model that `mlflow_flavor` logs.
        """

    @abstractmethod
    def predict(self, model: Any, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Apply a model to the rows that measure it, ``split.validation``.

        Parameters
        ----------
        model : object
            From `fit`.
        split : helpers.data.split.Split

        Returns
        -------
        labels, predictions : numpy.ndarray, shape (n_rows,)
        probabilities : numpy.ndarray of float, shape (n_rows, n_classes)
            Probability of each class, in the order of ``split.classes``.
        """

    @abstractmethod
    def importance(self, model: Any, split: Split, seed: int) -> pd.Series:
        """Measure how much each feature matters to a model.

        Parameters
        ----------
        model : object
            From `fit`.
        split : helpers.data.split.Split
        seed : int
            Seed of all that is random.

        Returns
        -------
        pandas.Series
            Importance by feature. The name of the Series says what was measured, and is the label of the axis.
        """
