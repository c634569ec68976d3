"""Serve a registered model at an endpoint, on Azure Machine Learning or on this machine."""

from helpers.serving.endpoint import Endpoint, ServingError, payload
from helpers.serving.health import example_rows, examples
from helpers.serving.inventory import items
from helpers.serving.opening import open_endpoint
from helpers.serving.plots import rollout as plot_rollout
from helpers.serving.rollout import Findings, Rollout, roll_out
from helpers.serving.rollout_log import log_checks

__all__ = [
    "Endpoint",
    "Findings",
    "Rollout",
    "ServingError",
    "example_rows",
    "examples",
    "items",
    "log_checks",
    "open_endpoint",
    "payload",
    "plot_rollout",
    "roll_out",
]
