"""Copy the artifacts and logged models of a run, one batch of files at a time."""

from __future__ import annotations

import hashlib
import inspect
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.azureml.run_files import CREATED_AT_ONCE, RunFiles
from helpers.tracking.mirror import limits, logged_models
from helpers.tracking.mirror.errors import MirrorError, one_line, unreadable
from helpers.tracking.mirror.limits import Omission

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run

    from helpers.tracking.mirror.mirrored_experiment import MirroredExperiment

_THREADS = 8
# The files of a batch are on the local disk together. Above this size, a batch has no more files than threads.
_BATCH_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class _File:
    """A file of the source, and its path in the copy."""

    repository: Any
    path: str
    size: int | None
    target_path: str


@dataclass(frozen=True)
class _Download:
    """A file that was read from the source and must be written to the copy."""

    target_path: str
    local_path: Path
    md5: bytes


def copy_files(experiment: MirroredExperiment, source: Run, copy: Run, unchanged: bool) -> tuple[int, list[Omission]]:
    """Copy the files that are missing, incomplete or changed.

    Parameters
    ----------
    experiment : helpers.tracking.mirror.MirroredExperiment
    source, copy : mlflow.entities.Run
    unchanged : bool
        Whether files of the same size are the same. Otherwise their content is compared, because a run that has not
        ended may write a file again.

    Returns
    -------
    tuple of (int, list of Omission)
        How many files were written, and which are left out.

    Raises
    ------
    MirrorError
        If a file of the source cannot be read now.
    """
    target = RunFiles(experiment.target_uri, copy.info.artifact_uri)
    copied_paths = target.paths()
    models, omissions = logged_models.read(experiment.source_client, source)
    # The folder of a deleted model may get the files of another model, some of which may have the same size.
    unchanged = unchanged and not omissions
    files = _source_files(experiment, source, logged_models.folders(models, copied_paths), omissions)
    written = 0
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(_THREADS) as threads:
        for batch in _batches(files):
            folder = Path(tempfile.mkdtemp(dir=scratch))
            reads = [
                threads.submit(_read, file, folder, target, file.target_path in copied_paths, unchanged)
                for file in batch
            ]
            results = [read.result() for read in reads]
            omissions += [result for result in results if isinstance(result, Omission)]
            downloads = [result for result in results if isinstance(result, _Download)]
            # A path of the copy cannot be deleted again, so it is created only when its file could be read.
            new_paths = [item.target_path for item in downloads if item.target_path not in copied_paths]
            addresses, refused = target.create(new_paths) if new_paths else ({}, {})
            omissions += [Omission("file", path, reason) for path, reason in refused.items()]
            writes = [
                threads.submit(target.write, path, item.local_path, item.md5, addresses.get(path))
                for item in downloads
                if (path := item.target_path) not in refused
            ]
            for write in writes:
                write.result()
            written += len(writes)
            shutil.rmtree(folder)
    return written, omissions


def _source_files(
    experiment: MirroredExperiment, source: Run, models: dict[str, LoggedModel], omissions: list[Omission]
) -> Iterator[_File]:
    """Yield the files of the logged models, then the run's own files, each path of the copy once."""
    model_paths: set[str] = set()
    for folder, model in models.items():
        omissions += limits.logged_model(model, source)
        for file in _walk(_repository(experiment, model.artifact_location), folder, "", omissions):
            model_paths.add(file.target_path)
            yield file
    for file in _walk(_repository(experiment, source.info.artifact_uri), "", "", omissions):
        if file.target_path in model_paths:
            omissions.append(Omission("file", file.path, "a logged model of the run has a file of this name"))
        else:
            yield file


def _repository(experiment: MirroredExperiment, uri: str) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    # The source's server is named, because the process may be set to another one. Older MLflow does not accept a
    # server here; there the process has to be set to the source's server.
    accepts_server = "tracking_uri" in inspect.signature(get_artifact_repository).parameters
    return get_artifact_repository(
        uri, **({"tracking_uri": experiment.source_client.tracking_uri} if accepts_server else {})
    )


def _walk(repository: Any, target_folder: str, folder: str, omissions: list[Omission]) -> Iterator[_File]:
    """Yield the files below a folder of a repository, which `target_folder` of the copy holds."""
    from mlflow.exceptions import MlflowException

    try:
        items = repository.list_artifacts(folder or None)
    except (MlflowException, OSError) as error:
        name = f"{target_folder}/{folder}".strip("/") or "/"
        reason = unreadable(error)
        if not reason:
            raise MirrorError(f"folder {name} cannot be listed now: {one_line(error)}") from error
        omissions.append(Omission("folder", name, reason))
        return
    for item in items:
        if item.is_dir:
            yield from _walk(repository, target_folder, item.path, omissions)
        else:
            target_path = f"{target_folder}/{item.path}" if target_folder else item.path
            yield _File(repository, item.path, item.file_size, target_path)


def _batches(files: Iterable[_File]) -> Iterator[list[_File]]:
    batch: list[_File] = []
    size = 0
    for file in files:
        batch.append(file)
        size += file.size or 0
        if len(batch) == CREATED_AT_ONCE or (len(batch) >= _THREADS and size > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read(file: _File, folder: Path, target: RunFiles, exists: bool, unchanged: bool) -> _Download | Omission | None:
    """Download a file of the source; return None if the copy has it already."""
    from mlflow.exceptions import MlflowException

    content = target.content(file.target_path) if exists else None
    if content is not None and content.size == file.size and unchanged:
        return None
    local_path = Path(tempfile.mkdtemp(dir=folder), "file")
    try:
        # `download_artifacts` would list the path first, and would not say which error occurred.
        file.repository._download_file(file.path, str(local_path))
    except (MlflowException, OSError) as error:
        reason = unreadable(error)
        if not reason:
            raise MirrorError(f"file {file.target_path} cannot be read now: {one_line(error)}") from error
        return Omission("file", file.target_path, reason)
    md5 = _md5(local_path)
    if content is not None and content.size == local_path.stat().st_size and content.md5 == md5:
        local_path.unlink()
        return None
    return _Download(file.target_path, local_path, md5)


def _md5(file: Path) -> bytes:
    digest = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream:
        while piece := stream.read(1024 * 1024):
            digest.update(piece)
    return digest.digest()
