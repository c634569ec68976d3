"""The dataset inputs of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.tracking.mirror import limits

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run

    from helpers.tracking.mirror.experiment import Pair


def copy(pair: Pair, source: Run, target: Run) -> list[limits.LeftOut]:
    """Copy the dataset inputs that are missing; return what is left out."""
    there = {_identity(item) for item in target.inputs.dataset_inputs}
    missing = [item for item in source.inputs.dataset_inputs if _identity(item) not in there]
    # A server that has no such call answers 404; the rest of the run is copied all the same.
    refused = limits.send(
        missing,
        lambda part: pair.target.log_inputs(target.info.run_id, datasets=part),
        (*limits.REFUSALS, "ENDPOINT_NOT_FOUND"),
    )
    left_out = [limits.LeftOut("dataset input", item.dataset.name, why) for item, why in refused]
    models = getattr(source.inputs, "model_inputs", None) or []
    why = "Azure Machine Learning has no logged models"
    return left_out + [limits.LeftOut("model input", model.model_id, why) for model in models]


def _identity(item: DatasetInput) -> tuple[str, str]:
    return item.dataset.name, item.dataset.digest
