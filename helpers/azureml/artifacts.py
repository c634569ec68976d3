"""Files that an Azure Machine Learning workspace keeps, whatever server MLflow tracks to.

The AML plugin's own artifact repository signs in through the tracking server that is set for the
whole process. With another one set it fails ("An authorization token was not set in the artifact
uri"), and switching it for a moment would send other threads' runs astray. Here the plugin's
clients get the workspace handed to them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def download_folder(tracking_uri: str, artifact_uri: str, folder: Path) -> None:
    """Download all files below an artifact URI.

    Parameters
    ----------
    tracking_uri : str
        The workspace's, known to MLflow since `helpers.azureml.connect`.
    artifact_uri : str
        Of a run's folder, or of an uploaded model: what ``run.info.artifact_uri`` plus a path,
        or ``get_model_version_download_uri`` says.
    folder : pathlib.Path
        Created if it is missing.

    Raises
    ------
    FileNotFoundError
        If nothing is there, or if a file did not arrive: the plugin passes over blobs whose host
        it does not know as Azure's without an error.
    """
    client, prefix = _client(tracking_uri, artifact_uri)
    paths = [path for path in client.get_file_paths() if path.startswith(f"{prefix}/")]
    if not paths:
        raise FileNotFoundError(f"no files at {artifact_uri}")
    for path in paths:
        target = folder / path.removeprefix(f"{prefix}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        client.download_artifact(path, str(target))
        if not target.is_file():
            raise FileNotFoundError(f"{path} of {artifact_uri} was not downloaded")


def paths(tracking_uri: str, artifact_uri: str) -> list[str]:
    """Return the paths of all files below the artifact URI of a run."""
    client, _ = _client(tracking_uri, artifact_uri)
    return list(client.get_file_paths())


def _client(tracking_uri: str, artifact_uri: str) -> tuple[Any, str]:
    """Return the plugin's client for the container of a URI, and the path in it."""
    from azureml.mlflow._client.artifact.local_artifact_client import LocalArtifactClient
    from azureml.mlflow._client.artifact.run_artifact_client import RunArtifactsClient
    from azureml.mlflow._internal.service_context_loader import _AzureMLServiceContextLoader
    from azureml.mlflow._store.artifact.utils import artifact_uri_decomp

    context = _AzureMLServiceContextLoader.load_service_context(tracking_uri)
    parts = artifact_uri_decomp(artifact_uri)
    path = parts["artifact_path"]
    if "runid" in parts:
        return RunArtifactsClient(context, parts["experiment"], parts["runid"], path), path
    return LocalArtifactClient(context, parts["origin"], parts["container"], path), path
