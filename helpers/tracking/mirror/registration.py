"""Find a run's model in the copy of the run, to register it in Azure Machine Learning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.azureml.run_files import RunFiles
from helpers.tracking.mirror import logged_models, names

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def model_in_copy(client: MlflowClient, run: Run, model_uri: str, registry_uri: str) -> tuple[str, str] | None:
    """Return the id of a run's copy, and the address of the model in the copy.

    Parameters
    ----------
    client : mlflow.MlflowClient
        Of the run's server.
    run : mlflow.entities.Run
    model_uri : str
        ``models:/<model id>`` or ``runs:/<run id>/<path>``.
    registry_uri : str
        Tracking URI of the Azure Machine Learning workspace.

    Returns
    -------
    tuple of (str, str) or None
        None if the run has no complete copy in that workspace. A complete copy has ended as the run did.

    Raises
    ------
    LookupError
        If the model is not one of the run's logged models, or was deleted.
    """
    import mlflow

    # Read the run again, since it may have been mirrored a moment ago.
    tags = client.get_run(run.info.run_id).data.tags
    if names.COPY_RUN not in tags or _workspace(tags.get(names.COPY_SERVER, "")) != _workspace(registry_uri):
        return None
    copy = mlflow.MlflowClient(tracking_uri=registry_uri).get_run(tags[names.COPY_RUN])
    if (copy.info.status, copy.info.end_time) != (run.info.status, run.info.end_time):
        return None
    kind, *parts = model_uri.split("/")
    if kind == "models:":
        models, omissions = logged_models.read(client, run)
        # While all models can be read, their folders do not depend on the files of the copy.
        copied_paths = RunFiles(registry_uri, copy.info.artifact_uri).paths() if omissions else set()
        folders = {model.model_id: folder for folder, model in logged_models.folders(models, copied_paths).items()}
        if parts[0] not in folders:
            raise LookupError(f"run {run.info.run_id} has no logged model {parts[0]}, or it was deleted")
        folder = folders[parts[0]]
    else:
        folder = "/".join(parts[1:])
    return copy.info.run_id, f"{copy.info.artifact_uri}/{folder}"


def _workspace(uri: str) -> str:
    """Return the workspace that a tracking URI names. The host of a workspace has more than one spelling."""
    return uri.partition("/subscriptions/")[2].lower()
