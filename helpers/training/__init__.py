"""Train a model in the active MLflow run, measure it, and draw how good it is."""

from helpers.training.fit import TrainedModel, fit, with_flavor_defaults
from helpers.training.tuning import Tuning, tune

__all__ = ["TrainedModel", "Tuning", "fit", "tune", "with_flavor_defaults"]
