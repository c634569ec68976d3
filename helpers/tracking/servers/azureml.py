"""MLflow in an Azure Machine Learning workspace, which has MLflow 2's API and its own rules."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from helpers import runtime
from helpers.azureml import artifacts
from helpers.azureml.run_files import RunFiles
from helpers.parameters import ParameterError
from helpers.tracking.mirror import model_in_copy
from helpers.tracking.servers.base import Page, Server

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException


_MAX_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


class AzureMLServer(Server):
    """The workspace's tracking server and registry.

    https://learn.microsoft.com/azure/machine-learning/how-to-manage-models-mlflow#limitations
    """

    in_azureml = True
    needs_workspace = True
    has_aliases = False
    has_logged_models = False
    # The documentation does not say that experiments keep tags: how-to-track-experiments-mlflow.
    keeps_experiment_tags = False
    deletes_whole_models = False
    # It refuses the tag filter that MLflow's client adds to each such search:
    # https://github.com/Azure/azure-sdk-for-python/issues/42155
    searches_models = False

    @property
    def uri(self) -> str:
        """``azureml://…``; the session signs in to the workspace if it has not yet.

        Raises
        ------
        helpers.parameters.ParameterError, helpers.azureml.rest.AzureError
            If the workspace cannot be used.
        """
        return self._connection.workspace.tracking_uri

    @property
    def place(self) -> str:
        """The workspace as a sentence names it."""
        return self._connection.description

    @classmethod
    def owns(cls, uri: str) -> bool:
        """Return whether a URI is a workspace's."""
        return uri.startswith("azureml")

    def prepare(self) -> None:
        """Keep MLflow from printing addresses of the API as if they were pages."""
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

    def experiment_name(self, name: str) -> str:
        """Return the name of an experiment here, where there are no folders.

        ``/Users/<user>/churn`` and ``/Shared/churn`` are called ``churn``. A name with a slash would be created, but
        not found again by its name (https://github.com/Azure/azure-sdk-for-python/issues/45209). Which characters a
        name may have: https://learn.microsoft.com/python/api/azureml-core/azureml.core.experiment(class)

        Raises
        ------
        ParameterError
            If nothing is left that the server accepts, or if the name has more folders: two experiments of the same
            name in two folders would become one.
        """
        plain = re.sub(r"^(/Workspace)?(/Users/[^/]+|/Shared)/", "", name)
        if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]{0,254}", plain):
            raise ParameterError(
                "experiment_name",
                name,
                "Azure Machine Learning has no folders, and accepts a name of a-z, A-Z, 0-9, _ and - that starts with "
                "a letter or digit, such as churn; /Users/<you>/churn and /Shared/churn are churn there, deeper folders "
                "are not mapped",
            )
        return plain

    def check_model_name(self, model_name: str) -> None:
        """Check a model's name by the pattern in Azure ML's own clients, such as ``azureml-mlflow``'s.

        Raises
        ------
        ParameterError
            If the workspace does not accept it.
        """
        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,254}", model_name):
            raise ParameterError(
                "model_name",
                model_name,
                "Azure Machine Learning accepts up to 255 of a-z, A-Z, 0-9, _ and -, starting with a letter or digit",
            )

    def registered_model_name(self, model_name: str, catalog: str, schema: str) -> str:
        """Return the model's name, if the workspace can be used."""
        self.check_model_name(model_name)
        _ = self.uri
        return model_name

    def page(self, page: Page, experiment_id: str = "", run_id: str = "") -> str:
        """Return the address of a page of Azure Machine Learning studio."""
        pages = {
            "home": "home",
            "models": "model/list",
            "experiment": f"experiments/id/{experiment_id}",
            "run": f"runs/{run_id}",
        }
        return self._connection.workspace.studio_url(pages[page])

    def log_model(self, flavor: ModuleType, model: Mapping[str, Any], name: str, arguments: dict[str, Any]) -> str:
        """Save the model to a folder, and log that as artifacts.

        The flavors' own ``log_model`` ends in a 404 here, because since MLflow 3 models are entities of their own,
        for which this server has no API (https://github.com/Azure/azure-sdk-for-python/issues/44896).
        """
        import mlflow
        from mlflow.models import Model

        # As MLflow does when it logs a model itself.
        run_id = (mlflow.active_run() or mlflow.start_run()).info.run_id
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch, "model")
            mlflow_model = Model(artifact_path=name, run_id=run_id)
            flavor.save_model(**model, path=str(folder), mlflow_model=mlflow_model, **arguments)
            run = mlflow.get_run(run_id)
            RunFiles(mlflow.get_tracking_uri(), run.info.artifact_uri).upload(folder, name)
        return f"runs:/{run_id}/{name}"

    def model_folders(self, run: Run) -> list[str]:
        """Return the folders of a run's artifacts that hold a model.

        The plugin's own list ignores the requested folder.
        """
        paths = artifacts.paths(self.uri, run.info.artifact_uri)
        return [path.removesuffix("/MLmodel") for path in paths if path.endswith("/MLmodel")]

    def download(self, model_uri: str, folder: Path) -> Path:
        """Download a model without the plugin's artifact repository, which needs MLflow to point at the workspace."""
        kind, *parts = model_uri.split("/")
        client = self.client()
        if kind == "runs:":
            artifact_uri = "/".join([client.get_run(parts[0]).info.artifact_uri, *parts[1:]])
        else:
            artifact_uri = client.get_model_version_download_uri(*parts)
        artifacts.download_folder(self.uri, artifact_uri, folder)
        return folder

    def create_version(
        self, tracking: Server, run: Run, model_uri: str, model_name: str, tags: dict[str, str], files: Callable
    ) -> ModelVersion:
        """Register a run's model: from a run here, from a run's copy here, or else from the model's files.

        The registry refuses a ``run_id`` with files, so the tags say where the files come from.
        """
        if tracking.in_azureml:
            # `register_model("runs:/…")` requests a logged model first, which this server answers with 404.
            path = model_uri.removeprefix(f"runs:/{run.info.run_id}/")
            source = f"{run.info.artifact_uri}/{path}"
            return self._create_version_once(model_name, source, run.info.run_id, tags)
        copy = model_in_copy(tracking.client(), run, model_uri, self.uri)
        if copy is not None:
            copy_id, source = copy
            return self._create_version_once(model_name, source, copy_id, tags)
        with files() as folder:
            return self._create_version_once(model_name, folder.as_uri(), None, tags)

    def add_version(self, model_name: str, folder: Path, tags: dict[str, str], key: str) -> ModelVersion:
        """Create a version of a model's files, which the plugin uploads."""
        del key
        return self._create_version_once(model_name, folder.as_uri(), None, tags)

    def _create_version_once(
        self, model_name: str, source: str, run_id: str | None, tags: dict[str, str]
    ) -> ModelVersion:
        """Create a version; look for it before trying again.

        The request may have been carried out although its answer was lost, and a second one would make another version.
        """
        from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES
        from mlflow.exceptions import MlflowException

        client, retries = self.client(), MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()
        for retry in range(retries + 1):
            try:
                with runtime.environment_variable(_MAX_RETRIES, "0"):
                    return client.create_model_version(model_name, source, run_id=run_id, tags=tags)
            except MlflowException as error:
                status = _status(error)
                if retry == retries or (400 <= status < 500 and status not in (408, 429)):
                    raise
            time.sleep(2**retry)
            # The tags are set together with the version, and say which model it was made of.
            for version in client.search_model_versions(f"name = '{model_name}'"):
                if tags.items() <= version.tags.items():
                    return version
        raise AssertionError("the last attempt returns or raises")


def _status(error: MlflowException) -> int:
    # Of an answer that is not JSON, MLflow says the status in words only.
    in_words = re.search(r"error code (\d{3})", str(error))
    return int(in_words[1]) if in_words else error.get_http_status_code()
