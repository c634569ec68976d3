"""Artifacts and logged models of a run, streamed file by file into the run's copy."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.azureml.run_files import CREATED_AT_ONCE, RunFiles
from helpers.tracking.mirror import limits

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import FileInfo, LoggedModel, Run

    from helpers.tracking.mirror.experiment import Pair

_THREADS = 8


@dataclass(frozen=True)
class _File:
    """A file of the source: where to get it, and its path in the copy."""

    repository: Any
    path: str
    size: int
    target_path: str


def copy(pair: Pair, source: Run, target: Run, unchanged: bool) -> tuple[int, list[limits.LeftOut]]:
    """Copy the files that are missing, broken off or changed.

    Parameters
    ----------
    pair : helpers.tracking.mirror.experiment.Pair
    source, target : mlflow.entities.Run
    unchanged : bool
        Whether a file that has the same size in both is the same file. Otherwise their content is
        compared, since a run that goes on may write a file again.

    Returns
    -------
    tuple of (int, list of LeftOut)
        How many files were written, and which are left out.
    """
    files = RunFiles(pair.target_server, target.info.artifact_uri)
    there = files.paths()
    left_out: list[limits.LeftOut] = []
    written = 0
    all_files = _of_source(pair, source, left_out)
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(_THREADS) as threads:

        def copy_one(file: _File) -> bool:
            return _copy_one(files, file, Path(scratch), addresses.get(file.target_path), unchanged)

        while batch := list(itertools.islice(all_files, CREATED_AT_ONCE)):
            new = [file.target_path for file in batch if file.target_path not in there]
            addresses, refused = files.create(new) if new else ({}, {})
            left_out += [limits.LeftOut("file", path, why) for path, why in refused.items()]
            wanted = [file for file in batch if file.target_path not in refused]
            written += sum(threads.map(copy_one, wanted))
    return written, left_out


def _copy_one(files: RunFiles, file: _File, scratch: Path, address: str | None, unchanged: bool) -> bool:
    """Copy a file unless its copy is as it should be; return whether it was written.

    The address is that of a path that was created a moment ago, and is empty.
    """
    found = files.content(file.target_path) if address is None else None
    if found is not None and found.size == file.size and unchanged:
        return False
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        local = Path(file.repository.download_artifacts(file.path, folder))
        md5 = _md5(local)
        if found is not None and found.size == local.stat().st_size and found.md5 == md5:
            return False
        files.write(file.target_path, local, md5, address)
    return True


def _md5(file: Path) -> bytes:
    digest = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream:
        while piece := stream.read(1024 * 1024):
            digest.update(piece)
    return digest.digest()


def _of_source(pair: Pair, source: Run, left_out: list[limits.LeftOut]) -> Iterator[_File]:
    """Yield the logged models' files, then the run's own, each path once."""
    seen: set[str] = set()
    for folder, model in model_folders(pair.source, source).items():
        left_out += limits.logged_model(model, source)
        repository = _repository(pair, model.artifact_location)
        for item in _walk(repository):
            seen.add(f"{folder}/{item.path}")
            yield _File(repository, item.path, item.file_size, f"{folder}/{item.path}")
    repository = _repository(pair, source.info.artifact_uri)
    for item in _walk(repository):
        if item.path in seen:
            left_out.append(limits.LeftOut("file", item.path, "a logged model of the run has a file of this name"))
            continue
        yield _File(repository, item.path, item.file_size, item.path)


def model_folders(client: MlflowClient, run: Run) -> dict[str, LoggedModel]:
    """Return the logged models of a run by the folder that each has in the run's copy.

    Since MLflow 3 they live outside the run's artifacts; Azure Machine Learning knows folders only.
    The first of a name has the name; the others have their id behind it, so that none ever moves.

    Parameters
    ----------
    client : mlflow.MlflowClient
        Of the run's server.
    run : mlflow.entities.Run
    """
    outputs = getattr(run, "outputs", None)
    ids = {output.model_id for output in (outputs.model_outputs if outputs else [])}
    models = sorted(
        (client.get_logged_model(id_) for id_ in ids), key=lambda model: (model.creation_timestamp, model.model_id)
    )
    folders: dict[str, LoggedModel] = {}
    for model in models:
        folders[model.name if model.name not in folders else f"{model.name}_{model.model_id}"] = model
    return folders


def _repository(pair: Pair, uri: str) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    # With its server named, because the one that is set for the process may be another. Older MLflow takes
    # no name; there it has to be the one that is set.
    takes_server = "tracking_uri" in inspect.signature(get_artifact_repository).parameters
    return get_artifact_repository(uri, **({"tracking_uri": pair.source.tracking_uri} if takes_server else {}))


def _walk(repository: Any, folder: str | None = None) -> Iterable[FileInfo]:
    for item in repository.list_artifacts(folder):
        if item.is_dir:
            yield from _walk(repository, item.path)
        else:
            yield item
