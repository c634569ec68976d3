"""List, create, inspect and overwrite the files of one run in an Azure Machine Learning workspace.

A path can be created only once, before its content is sent. A process that dies in between leaves a path
that is listed, cannot be read, and conflicts with every new attempt to create it. For this case the artifact service
has an address for writing to an existing path:
https://github.com/Azure/azure-rest-api-specs (machinelearningservices/data-plane, artifact.json, Artifacts_GetSas)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.azureml import blobs

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

# The plugin's own clients retry for minutes; these retry for about 1 + 2 + 4 + 8 s.
_REST_RETRIES = {"retry_total": 4, "retry_backoff_factor": 1}
# A file of up to this size is sent in one request; a larger file in pieces of this size.
_PIECE = 4 * 1024 * 1024
CREATED_AT_ONCE = 50


@dataclass(frozen=True)
class Content:
    """The size and the checksum of a blob.

    Attributes
    ----------
    size : int
        In bytes.
    md5 : bytes or None
        Checksum of the whole blob, if its writer set one.
    """

    size: int
    md5: bytes | None


class RunFiles:
    """The files of a run.

    Parameters
    ----------
    tracking_uri : str
        Tracking URI of the workspace, which MLflow knows since `helpers.azureml.connect`.
    artifact_uri : str
        Artifact URI of the run.
    """

    def __init__(self, tracking_uri: str, artifact_uri: str) -> None:
        from azure.core.pipeline.transport import RequestsTransport
        from azureml.mlflow._client.artifact.local_artifact_client import LocalArtifactClient
        from azureml.mlflow._client.artifact.run_artifact_client import RunArtifactsClient
        from azureml.mlflow._internal.service_context_loader import _AzureMLServiceContextLoader
        from azureml.mlflow._store.artifact.utils import artifact_uri_decomp

        context = _AzureMLServiceContextLoader.load_service_context(tracking_uri)
        run = artifact_uri_decomp(artifact_uri)
        workspace = {
            "subscription_id": context.subscription_id,
            "resource_group_name": context.resource_group_name,
            "workspace_name": context.workspace_name,
        }
        self._of_run = workspace | {"experiment_name": run["experiment"], "run_id": run["runid"]}
        # The same files, by their names in the underlying artifact service.
        self._container = workspace | {"origin": "ExperimentRun", "container": f"dcid.{run['runid']}"}
        self._runs = RunArtifactsClient(context, run["experiment"], run["runid"], "")._client.run_artifacts
        self._artifacts = LocalArtifactClient(context, "", "", "")._client.artifacts
        # Shared by all files, each of which would otherwise open its own connection.
        self._connections = RequestsTransport()

    def paths(self) -> set[str]:
        """Return the paths that exist, whether or not they can be read."""
        return {artifact.path for artifact in self._runs.list_in_container(**self._of_run, **_REST_RETRIES)}

    def create(self, paths: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
        """Create at most `CREATED_AT_ONCE` paths.

        Returns
        -------
        tuple of (dict of str to str, dict of str to str)
            The address to write to for each new path, and the reason for each refused path. A path that
            exists already is in neither.
        """
        from azureml.mlflow._restclient.run_artifact.models import ArtifactPath, ArtifactPathList

        answer = self._runs.batch_create_empty_artifacts(
            **self._of_run,
            body=ArtifactPathList(paths=[ArtifactPath(path=path) for path in paths]),
            # Safe to repeat: the paths of a request whose answer was lost exist then.
            retry_on_methods=frozenset(["POST"]),
            **_REST_RETRIES,
        )
        addresses = {path: content.content_uri for path, content in (answer.artifact_content_information or {}).items()}
        errors = {path: item.error.message for path, item in (answer.errors or {}).items()}
        return addresses, {path: reason for path, reason in errors.items() if "Resource Conflict" not in reason}

    def upload(self, folder: Path, to: str) -> None:
        """Upload the files of a folder, once each, even if an answer is lost on the way.

        MLflow's plugin asks again for a path whose answer was lost, and ends in ``Resource Conflict``.

        Parameters
        ----------
        folder : pathlib.Path
        to : str
            Folder of the run.

        Raises
        ------
        FileExistsError
            If the run has another file of such a path; files of a run cannot be replaced.
        OSError
            If a path is refused.
        """
        files = {f"{to}/{file.relative_to(folder).as_posix()}": file for file in folder.rglob("*") if file.is_file()}
        paths = sorted(files)
        for start in range(0, len(paths), CREATED_AT_ONCE):
            batch = paths[start : start + CREATED_AT_ONCE]
            addresses, refused = self.create(batch)
            for path in batch:
                if path in refused:
                    raise OSError(f"Azure Machine Learning refuses {path}: {refused[path]}")
                md5 = hashlib.md5(files[path].read_bytes(), usedforsecurity=False).digest()
                existing = None if path in addresses else self.content(path)
                if existing is None:
                    self.write(path, files[path], md5, addresses.get(path))
                elif existing.md5 != md5:
                    raise FileExistsError(
                        f"The run has another file {path} already, and Azure Machine Learning does not replace files of a "
                        "run. Choose another name, or start a new run"
                    )

    def content(self, path: str) -> Content | None:
        """Return the content of an existing path; None if nothing was ever written to it."""
        from azure.core.exceptions import ResourceNotFoundError

        address = self._runs.get_content_information(**self._of_run, path=path, **_REST_RETRIES).content_uri
        try:
            properties = self._blob(address).get_blob_properties()
        except ResourceNotFoundError:
            return None
        md5 = properties.content_settings.content_md5
        return Content(properties.size, bytes(md5) if md5 else None)

    def write(self, path: str, file: Path, md5: bytes, address: str | None) -> None:
        """Write the content of a path, and replace what it has.

        Parameters
        ----------
        path : str
        file : pathlib.Path
        md5 : bytes
            Checksum of the file, which is stored with it.
        address : str or None
            The address that `create` returned; None if the path existed already.
        """
        from azure.storage.blob import ContentSettings

        if address is None:
            address = self._artifacts.get_sas(**self._container, path=path, **_REST_RETRIES).content_uri
        settings = ContentSettings(content_md5=bytearray(md5))
        with file.open("rb") as stream:
            # Without `overwrite`, a request that is repeated because its answer was lost would conflict with itself.
            self._blob(address).upload_blob(
                stream, length=file.stat().st_size, overwrite=True, max_concurrency=1, content_settings=settings
            )

    def _blob(self, address: str) -> BlobClient:
        from azure.storage.blob import BlobClient

        return BlobClient.from_blob_url(
            address,
            retry_policy=blobs.retries(),
            transport=self._connections,
            max_single_put_size=_PIECE,
            max_block_size=_PIECE,
        )
