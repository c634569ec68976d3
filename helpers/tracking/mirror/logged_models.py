"""The logged models of a run, and the folders of the run's copy that hold their files.

Since MLflow 3 a logged model is stored outside the artifacts of its run. Azure Machine Learning has no logged models.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from helpers.tracking.mirror import errors
from helpers.tracking.mirror.limits import Omission

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run


def read(client: MlflowClient, run: Run) -> tuple[list[LoggedModel], list[Omission]]:
    """Return the logged models of a run, the oldest first, and those that cannot be read, such as deleted ones.

    Parameters
    ----------
    client : mlflow.MlflowClient
        A client of the run's server.
    run : mlflow.entities.Run
    """
    from mlflow.exceptions import MlflowException

    # Before MLflow 3 runs have no outputs.
    outputs = getattr(run, "outputs", None)
    models, omissions = [], []
    for model_id in sorted({output.model_id for output in (outputs.model_outputs if outputs else [])}):
        try:
            models.append(client.get_logged_model(model_id))
        except MlflowException as error:
            reason = errors.unreadable(error)
            if not reason:
                raise
            omissions.append(Omission("logged model", model_id, reason))
    return sorted(models, key=lambda model: (model.creation_timestamp, model.model_id)), omissions


def folders(models: list[LoggedModel], copied_paths: Collection[str]) -> dict[str, LoggedModel]:
    """Return the logged models of a run by the folder of the copy that holds each.

    The folder of the first model of a name is the name; the folders of the others end with the model's id.

    Parameters
    ----------
    models : list of mlflow.entities.LoggedModel
        The oldest first.
    copied_paths : collection of str
        The files of the copy. A model stays in its folder when an older model of its name is deleted.
    """
    by_folder: dict[str, LoggedModel] = {}
    names = set()
    for model in models:
        with_id = f"{model.name}_{model.model_id}"
        is_first = model.name not in names and not any(path.startswith(f"{with_id}/") for path in copied_paths)
        by_folder[model.name if is_first else with_id] = model
        names.add(model.name)
    return by_folder
