"""Train a model in the active MLflow run, measure it, and draw how good it is."""

from helpers.training.fit import TrainedModel, fit

__all__ = ["TrainedModel", "fit"]
