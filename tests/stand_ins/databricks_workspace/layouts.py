"""The ways in which this bundle gets into a workspace, as folders of files."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

from helpers.jobs.bundle import Bundle
from tests.bundle.synced_files import synced

ROOT = Path(__file__).parents[3]


def deployed_bundle(workspace: Path, user: str) -> Path:
    """Copy what ``databricks bundle deploy`` uploads. Like all functions here, return the root of the files."""
    bundle = Bundle(ROOT)
    root = workspace / "Users" / user / ".bundle" / bundle.name / bundle.target / "files"
    return _lay_out(synced(ROOT, bundle.settings["sync"]), root)


def git_folder(workspace: Path, user: str) -> Path:
    """Copy what a clone contains."""
    return _lay_out(synced(ROOT, {}), workspace / "Users" / user / "azureml-mlflow")


def imported_folder(workspace: Path, user: str) -> Path:
    """Copy the two folders that a user imports manually, into a folder with any name."""
    return _lay_out(
        synced(ROOT, {"paths": ["notebooks", "helpers"]}), workspace / "Users" / user / "ML (copy of Ada's)"
    )


def _lay_out(files: Iterable[Path], root: Path) -> Path:
    for file in files:
        # Git also lists files whose deletion is not committed yet.
        if (ROOT / file).is_file():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, root / file)
    for path in [*root.rglob("*"), root]:
        # This has no effect for root; tests.stand_ins.databricks_workspace.read_only covers that case.
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    return root


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return the contents of a folder: bytes for files, None for folders."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def changes(folder: Path, before: dict[str, bytes | None]) -> list[str]:
    """Return the names in a folder that were added, removed or changed."""
    return sorted({name for name, _ in before.items() ^ contents(folder).items()})
