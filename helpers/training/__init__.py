"""Train a model in the active MLflow run, measure it, and draw how good it is."""

from helpers.training.fit import TrainedModel, fit, with_flavor_defaults

__all__ = ["TrainedModel", "fit", "with_flavor_defaults"]
