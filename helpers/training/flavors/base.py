"""What each flavor has to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    import optuna
    import pandas as pd

    from helpers.data.split import Split
    from helpers.parameters import Fit

OnEpoch = Callable[[int, dict[str, float]], None]


class Flavor(ABC):
    """A kind of model: how it is trained, how it predicts, and which features matter to it.

    `helpers.training.fit` takes care of everything else: it logs the metrics of each epoch, measures the model, draws
    the pictures and makes the signature.

    Attributes
    ----------
    mlflow_flavor : str
        Module of MLflow that logs and loads the model, for instance ``sklearn`` for ``mlflow.sklearn``.
    default_epochs : int
        The number of epochs where the parameter ``epochs`` is 0.
    one_processor : dict of str to object
        Hyperparameters with which training uses one processor only, for trials that run side by side.
    """

    mlflow_flavor: ClassVar[str]
    default_epochs: ClassVar[int] = 20
    one_processor: ClassVar[Mapping[str, Any]] = {}

    def check(self, p: Fit) -> None:
        """Check, before anything is read, that the flavor's models can be trained and logged here.

        Raises
        ------
        helpers.parameters.ParameterError
            If not.
        """
        return

    def search_space(self, trial: optuna.Trial) -> dict[str, Any]:
        """Choose the hyperparameters of a trial, for ``tuning_trials``.

        A flavor without this method has no hyperparameters to choose, and cannot be tuned.

        Parameters
        ----------
        trial : optuna.Trial
            Its ``suggest_…`` methods choose values.

        Returns
        -------
        dict of str to object
            What `fit` gets as `hyperparameters`: numbers or texts, under the names that the trial knows them by.
        """
        return {}

    def trains_on_driver(self, split: Split, p: Fit) -> bool:
        """Return whether `fit` and `predict` read all rows with ``toPandas`` and use nothing else of Spark.

        Then the rows are read once for all trials, and trials can run in Spark's workers.
        """
        return False

    @abstractmethod
    def fit(self, split: Split, p: Fit, on_epoch: OnEpoch, hyperparameters: Mapping[str, Any]) -> Any:
        """Train a model.

        Parameters
        ----------
        split : helpers.data.split.Split
            Rows, features and label; ``split.model_type`` says what to train. The model must accept the features under
            their own names.
        p : helpers.parameters.Fit
            Its `epochs` are at least 1. All that is random depends on its `seed`.
        on_epoch : callable
            Call it after each epoch, with the number of the epoch, from 1, and its metrics: ``epoch_loss``
            (`helpers.data.metrics.LOSS` of the training rows), and ``val_<metric>`` of ``split.validation`` if that was
            measured.
        hyperparameters : mapping of str to object
            In place of the flavor's own values.

        Returns
        -------
        object
            The model that `mlflow_flavor` logs.

        Raises
        ------
        helpers.parameters.ParameterError
            If the flavor cannot train with these parameters.
        """

    @abstractmethod
    def predict(self, model: Any, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Apply a model to the rows that measure it, ``split.validation``.

        Parameters
        ----------
        model : object
            From `fit`.
        split : helpers.data.split.Split

        Returns
        -------
        labels, predictions : numpy.ndarray, shape (n_rows,)
        probabilities : numpy.ndarray of float, shape (n_rows, n_classes), or None
            Probability of each class, in the order of ``split.classes``; None for a regressor.
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
