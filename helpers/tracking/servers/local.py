"""MLflow on a laptop: a SQLite file and a folder of artifacts."""

from __future__ import annotations

import inspect
import math
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from helpers import output, runtime
from helpers.data.names import plain_name
from helpers.tracking.servers.base import Page, Server, path_in_ui

UI = "http://127.0.0.1:5000"
"""Where `make ui` serves the local store."""
_STORE = "mlflow.db"
_ARTIFACTS = "mlartifacts"
# Where MLflow 3 and MLflow 2 write the addresses of artifacts: mlflow/store/*/dbmodels/models.py
_ADDRESSES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}
# Of the name of a folder, which has at most 255 bytes.
_MOST_CHARACTERS = 100


class LocalServer(Server):
    """The store in the folder of the local state, as tracking server and as registry."""

    @property
    def uri(self) -> str:
        """``sqlite:///…``."""
        return f"sqlite:///{runtime.local_dir() / _STORE}"

    @classmethod
    def owns(cls, uri: str) -> bool:
        """Return whether a URI is a SQLite file's."""
        return uri.startswith("sqlite")

    def prepare(self) -> None:
        """Create the store if it is missing, and correct its addresses if the folder was moved or copied.

        MLflow makes its tables one after the other. A process that is killed meanwhile leaves a file that no later one can
        use, and two processes that begin at once get in each other's way. So the store is made beside its place, by one
        process at a time, and then renamed.

        Raises
        ------
        OSError
            If the folder cannot be written, or the store is damaged.
        """
        import mlflow
        from filelock import FileLock

        folder = runtime.make_local_dir()
        store, unfinished = folder / _STORE, folder / f"{_STORE}.unfinished"
        with FileLock(folder / f"{_STORE}.lock"):
            if not store.exists():
                unfinished.unlink(missing_ok=True)
                # Otherwise MLflow says, in red, that it creates its tables.
                with output.quiet("mlflow.store.db.utils"):
                    mlflow.MlflowClient(f"sqlite:///{unfinished}").search_experiments()
                unfinished.rename(store)
            _correct_addresses(store)
        # Copying files on one disk needs no progress bar, and MLflow draws four of them for each model.
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

    def log_model(self, flavor: ModuleType, model: Mapping[str, Any], name: str, arguments: dict[str, Any]) -> str:
        """Log a model to the active run, at a step at which MLflow can copy the run's metrics to it.

        MLflow copies the metrics of one step, 0 by default, and ends in an IntegrityError of the database if one of them
        is NaN (https://github.com/mlflow/mlflow/issues/26108).
        """
        if "step" in inspect.signature(flavor.log_model).parameters and "step" not in arguments:
            arguments = arguments | {"step": self._first_step_without_nan()}
        return super().log_model(flavor, model, name, arguments)

    def _first_step_without_nan(self) -> int:
        import mlflow

        run = mlflow.active_run()
        if run is None:
            return 0
        # Of the active run's server, which may be another file.
        client = mlflow.MlflowClient()
        names = client.get_run(run.info.run_id).data.metrics
        points = [point for name in names for point in client.get_metric_history(run.info.run_id, name)]
        not_a_number = {point.step for point in points if math.isnan(point.value)}
        return next(step for step in range(len(not_a_number) + 1) if step not in not_a_number)

    def experiment_details(self, name: str) -> dict[str, Any]:
        """Return the arguments with which a new experiment is created, including a location for its artifacts."""
        # Without a location, artifacts would go to ./mlruns in the current folder of the first process.
        artifacts = runtime.local_dir() / _ARTIFACTS / plain_name(name, _MOST_CHARACTERS)
        return super().experiment_details(name) | {"artifact_location": artifacts.as_uri()}

    def download(self, model_uri: str, folder: Path) -> Path:
        """Copy a model's files; see `Server.download` for the parameters.

        Raises
        ------
        FileNotFoundError
            If the store knows the model, and its files were deleted.
        """
        files = super().download(model_uri, folder)
        # MLflow downloads a folder that does not exist as an empty one.
        if not (files / "MLmodel").is_file():
            raise FileNotFoundError(
                f"{model_uri} is in {self.uri}, but its files are gone from {runtime.local_dir() / _ARTIFACTS}. Restore them "
                "there, or train and register the model again"
            )
        return files

    def page(self, page: Page, experiment_id: str = "", run_id: str = "") -> str:
        """Return the address of a page of ``mlflow ui``."""
        return f"{UI}/#/{path_in_ui(page, experiment_id, run_id)}"


def _correct_addresses(store: Path) -> None:
    """Point the store to the artifacts beside it, if it says that they are in the folder that it was moved or copied from.

    Raises
    ------
    OSError
        If the file is not a SQLite database, or is damaged.
    """
    here = store.parent / _ARTIFACTS
    try:
        with closing(sqlite3.connect(store)) as database, database:
            problem = database.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise sqlite3.DatabaseError(problem)
            columns = {
                table: [row[1] for row in database.execute(f"PRAGMA table_info({table})")] for table in _ADDRESSES
            }
            for old in _moved_from(database, here):
                for table, names in _ADDRESSES.items():
                    for name in set(names) & set(columns[table]):
                        database.execute(
                            f"UPDATE {table} SET {name} = ? || substr({name}, ?) WHERE substr({name}, 1, ?) = ?",  # noqa: S608
                            (here.as_uri() + "/", len(old) + 1, len(old), old),
                        )
    except sqlite3.DatabaseError as error:
        raise OSError(
            f"{store} cannot be read: {error}. Restore a copy of it, or move it away; then the next run makes a new one, "
            "without the runs and the models of before"
        ) from None


def _moved_from(database: sqlite3.Connection, here: Path) -> set[str]:
    """Return the addresses of other folders of artifacts, with a slash, whose artifacts are here now."""
    locations = [row[0] for row in database.execute("SELECT artifact_location FROM experiments")]
    folders = set()
    for location in locations:
        parent, slash, name = location.rpartition("/")
        if Path(parent).name == _ARTIFACTS and parent != here.as_uri():
            folder = Path(url2pathname(urlsplit(parent).path))
            if not folder.parent.exists() or (here / name).exists():
                folders.add(parent + slash)
    return folders
