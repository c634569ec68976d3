"""Where the copy of a run has the model that the run logged, for the registry beside the copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.tracking.mirror import names
from helpers.tracking.mirror.files import model_folders

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def model_in_copy(client: MlflowClient, run: Run, model_uri: str, registry_uri: str) -> tuple[str, str] | None:
    """Return the id of a run's copy and the address of the model in it.

    Parameters
    ----------
    client : mlflow.MlflowClient
        Of the run's server.
    run : mlflow.entities.Run
    model_uri : str
        ``models:/<model id>`` or ``runs:/<run id>/<path>``.
    registry_uri : str
        Of the Azure Machine Learning workspace.

    Returns
    -------
    tuple of (str, str) or None
        None if the run has no copy in that workspace that has ended as the run did, and so is complete.
    """
    import mlflow

    # Read again, since it may have been mirrored a moment ago.
    tags = client.get_run(run.info.run_id).data.tags
    if names.COPY_RUN not in tags or _workspace(tags.get(names.COPY_SERVER, "")) != _workspace(registry_uri):
        return None
    copy = mlflow.MlflowClient(tracking_uri=registry_uri).get_run(tags[names.COPY_RUN])
    if (copy.info.status, copy.info.end_time) != (run.info.status, run.info.end_time):
        return None
    kind, *parts = model_uri.split("/")
    if kind == "models:":
        (folder,) = (folder for folder, model in model_folders(client, run).items() if model.model_id == parts[0])
    else:
        folder = "/".join(parts[1:])
    return copy.info.run_id, f"{copy.info.artifact_uri}/{folder}"


def _workspace(uri: str) -> str:
    """Return the workspace of a tracking URI, whose host may be spelt in more than one way."""
    return uri.partition("/subscriptions/")[2].lower()
