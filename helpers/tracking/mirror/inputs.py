"""Copy the dataset inputs of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.tracking.mirror import limits
from helpers.tracking.mirror.limits import Omission

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run

    from helpers.tracking.mirror.mirrored_experiment import MirroredExperiment


def copy_inputs(experiment: MirroredExperiment, source: Run, copy: Run) -> list[Omission]:
    """Copy the dataset inputs that the copy lacks; return those that are left out."""
    copied = {_identity(item) for item in copy.inputs.dataset_inputs}
    missing = [item for item in source.inputs.dataset_inputs if _identity(item) not in copied]
    # A server without this call answers 404; the rest of the run is copied nevertheless.
    refused = limits.send(
        missing,
        lambda part: experiment.target_client.log_inputs(copy.info.run_id, datasets=part),
        (*limits.REFUSALS, "ENDPOINT_NOT_FOUND"),
    )
    omissions = [Omission("dataset input", item.dataset.name, reason) for item, reason in refused]
    models = getattr(source.inputs, "model_inputs", None) or []
    reason = "Azure Machine Learning has no logged models"
    return omissions + [Omission("model input", model.model_id, reason) for model in models]


def _identity(item: DatasetInput) -> tuple[str, str]:
    return item.dataset.name, item.dataset.digest
