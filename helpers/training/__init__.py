"""Train a model in the active MLflow run and look at it."""

from helpers.training.fit import TrainedModel, fit

__all__ = ["TrainedModel", "fit"]
