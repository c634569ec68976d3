"""MLflow on a laptop: a SQLite file and a folder of artifacts."""

from __future__ import annotations

import hashlib
import inspect
import math
import os
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from helpers import runtime
from helpers.tracking.servers.base import Page, Server, path_in_ui

UI = "http://127.0.0.1:5000"
"""Where `make ui` serves the local store."""
_STORE = "mlflow.db"
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
        """Create the store if it is missing.

        MLflow makes its tables one after the other. A process that is killed meanwhile leaves a file that no later one can
        use, and two processes that begin at once get in each other's way. So the store is made beside its place, by one
        process at a time, and then renamed.
        """
        import mlflow
        from filelock import FileLock

        folder = runtime.local_dir()
        folder.mkdir(parents=True, exist_ok=True)
        store, unfinished = folder / _STORE, folder / f"{_STORE}.unfinished"
        if not store.exists():
            with FileLock(folder / f"{_STORE}.lock"):
                if not store.exists():
                    unfinished.unlink(missing_ok=True)
                    mlflow.MlflowClient(f"sqlite:///{unfinished}").search_experiments()
                    unfinished.rename(store)
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
        folder = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:_MOST_CHARACTERS]
        if folder != name:
            folder += "_" + hashlib.sha256(name.encode()).hexdigest()[:8]
        artifacts = runtime.local_dir() / "mlartifacts" / folder
        return super().experiment_details(name) | {"artifact_location": artifacts.as_uri()}

    def page(self, page: Page, experiment_id: str = "", run_id: str = "") -> str:
        """Return the address of a page of ``mlflow ui``."""
        return f"{UI}/#/{path_in_ui(page, experiment_id, run_id)}"
