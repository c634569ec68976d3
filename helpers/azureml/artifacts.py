"""Files in an Azure Machine Learning workspace, whatever server MLflow tracks to.

The AML plugin's own artifact repository signs in through the tracking server that is set for the
whole process. If that is another server, it fails ("An authorization token was not set in the artifact
uri"). Switching the server for a moment would send the runs of other threads to the wrong server. Here the
plugin's clients get the workspace directly.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any


def download_folder(tracking_uri: str, artifact_uri: str, folder: Path, only: Collection[str] = ()) -> None:
    """Download the files below an artifact URI.

    Parameters
    ----------
    tracking_uri : str
        Tracking URI of the workspace, which MLflow knows since `helpers.azureml.connect`.
    artifact_uri : str
        URI of a folder of a run (``run.info.artifact_uri`` plus a path), or of an uploaded model
        (``get_model_version_download_uri``).
    folder : pathlib.Path
        Created if it is missing.
    only : collection of str, default ()
        Paths below the URI; those that do not exist are left out. Empty: all files.

    Raises
    ------
    FileNotFoundError
        If there are no files, or if a file was not downloaded: the plugin silently skips blobs on hosts
        that it does not know as Azure's.
    """
    client, prefix = _client(tracking_uri, artifact_uri)
    paths = [path for path in client.get_file_paths() if path.startswith(f"{prefix}/")]
    if only:
        paths = [path for path in paths if path.removeprefix(f"{prefix}/") in only]
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
    """Return the plugin's client for the container of a URI, and the path in the container."""
    from azureml.mlflow._client.artifact.local_artifact_client import LocalArtifactClient
    from azureml.mlflow._client.artifact.run_artifact_client import RunArtifactsClient
    from azureml.mlflow._internal.service_context_loader import _AzureMLServiceContextLoader
    from azureml.mlflow._store.artifact.utils import artifact_uri_decomp

    context = _AzureMLServiceContextLoader.load_service_context(tracking_uri)
    parts = artifact_uri_decomp(artifact_uri)
    # The artifact URI of a run has no path behind it.
    path = parts.get("artifact_path", "")
    if "runid" in parts:
        return RunArtifactsClient(context, parts["experiment"], parts["runid"], path), path
    return LocalArtifactClient(context, parts["origin"], parts["container"], path), path
