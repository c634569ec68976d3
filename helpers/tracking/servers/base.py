"""The interface of an MLflow server for this bundle; each kind of server has one class."""

from __future__ import annotations

import abc
import inspect
import io
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, redirect_stderr
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from helpers.ownership import MARK
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

    from helpers.azureml import Connection

MOST_CHARACTERS = 256
_COPY_KEY = "copy_key"
Page = Literal["home", "models", "experiment", "run"]


def path_in_ui(page: Page, experiment_id: str, run_id: str) -> str:
    """Return the path of a page in MLflow's own UI, which Databricks has, too."""
    experiment = f"experiments/{experiment_id}"
    pages = {"home": "experiments", "models": "models", "experiment": experiment, "run": f"{experiment}/runs/{run_id}"}
    return pages[page]


def _is_registered(model_uri: str) -> bool:
    return model_uri.startswith("models:/") and model_uri.count("/") > 1


class Server(abc.ABC):
    """An MLflow server: a tracking server, a model registry, or both.

    Parameters
    ----------
    connection : helpers.azureml.Connection
        The Azure ML workspace of the session, for servers that are in it.
    """

    in_azureml: ClassVar[bool] = False
    """Whether the server is the session's Azure ML workspace."""
    needs_workspace: ClassVar[bool] = False
    """Whether the session has to sign in to its Azure ML workspace to use the server."""
    has_aliases: ClassVar[bool] = True
    """Whether a model version can have an alias such as ``champion``."""
    has_logged_models: ClassVar[bool] = True
    """Whether the server has MLflow 3's logged models; otherwise a model is a folder of its run's artifacts."""
    keeps_experiment_tags: ClassVar[bool] = True
    """Whether an experiment can be tagged and renamed."""
    deletes_whole_models: ClassVar[bool] = True
    """Whether a registered model can be deleted; otherwise it is deleted version by version."""
    searches_models: ClassVar[bool] = True
    """Whether registered models can be searched."""
    search_returns_tags: ClassVar[bool] = True
    """Whether the model versions that a search returns have their tags."""
    has_unfinished_versions: ClassVar[bool] = False
    """Whether a version exists, with another status than ``READY``, before its files are there."""
    reached_from_workers: ClassVar[bool] = False
    """Whether Spark's workers, on other machines, can log to the server."""

    copies_experiment: ClassVar[str] = "copied_models"
    """The experiment whose runs hold the files of models that were copied to this server's registry."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    @abc.abstractmethod
    def uri(self) -> str:
        """The address, as ``mlflow.set_tracking_uri`` and ``mlflow.set_registry_uri`` accept it."""

    @property
    def place(self) -> str:
        """The server as a sentence names it; known without contacting it."""
        return self.uri

    @property
    def address(self) -> str:
        """The address that distinguishes this server from others of its kind, for lineage tags."""
        return self.uri

    @classmethod
    @abc.abstractmethod
    def owns(cls, uri: str) -> bool:
        """Return whether a tracking or registry URI is of this kind of server."""

    def client(self) -> MlflowClient:
        """Return a client of this server, whatever MLflow points at."""
        from mlflow import MlflowClient

        return MlflowClient(self.uri, self.uri)

    def prepare(self) -> None:  # noqa: B027 - most servers need nothing
        """Prepare MLflow for tracking to this server."""

    def worker_environment(self) -> dict[str, str]:
        """Return the environment variables with which one of Spark's workers signs in to the server."""
        return {}

    def naming_errors(self) -> AbstractContextManager[None]:
        """Return a context in which an error says which server did not answer."""
        return nullcontext()

    def experiment_name(self, name: str) -> str:
        """Return an experiment's name by the rules of this server.

        Raises
        ------
        helpers.parameters.ParameterError
            If the server does not accept it.
        """
        return name

    def experiment_details(self, name: str) -> dict[str, Any]:
        """Return the arguments with which a new experiment is created."""
        return {"tags": {MARK: name}} if self.keeps_experiment_tags else {}

    def check_is_on(self) -> None:  # noqa: B027 - most registries are always there
        """Ask a registry that a workspace may not have whether it is there.

        Raises
        ------
        helpers.parameters.ParameterError
            If it is not, with the registry to use instead.
        """

    def check_model_name(self, model_name: str) -> None:
        """Check a model's name by the rules of this registry, without asking it.

        Those of MLflow's own registry, whose names have at most 256 characters, are here:
        https://github.com/mlflow/mlflow/blob/v3.15.0/mlflow/store/model_registry/dbmodels/models.py

        Raises
        ------
        helpers.parameters.ParameterError
            If the registry does not accept it.
        """
        if len(model_name) > MOST_CHARACTERS or model_name in (".", ".."):
            raise ParameterError(
                "model_name", model_name, f"MLflow accepts up to {MOST_CHARACTERS} characters, and not . or .. alone"
            )

    def registered_model_name(self, model_name: str, catalog: str, schema: str) -> str:
        """Return a model's name in this registry; see `UnityCatalog` for catalog and schema.

        Raises
        ------
        helpers.parameters.ParameterError
            If the registry does not accept it.
        """
        self.check_model_name(model_name)
        return model_name

    def version_tags(self, tags: dict[str, str]) -> dict[str, str]:
        """Return the tags of a version as this registry accepts them; they may come from another registry."""
        return tags

    def registered_model(self, model_name: str) -> RegisteredModel | None:
        """Return a registered model, or None if it does not exist."""
        from mlflow.exceptions import MlflowException

        try:
            return self.client().get_registered_model(model_name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def plain_model_name(self, model_name: str) -> str:
        """Return a model's name without the catalog and the schema that only this registry knows."""
        return model_name

    @abc.abstractmethod
    def page(self, page: Page, experiment_id: str = "", run_id: str = "") -> str:
        """Return the address of a page of this server in the browser; empty if it has none."""

    def log_model(self, flavor: ModuleType, model: Mapping[str, Any], name: str, arguments: dict[str, Any]) -> str:
        """Log a model to the active run.

        Parameters
        ----------
        flavor : module
            Such as ``mlflow.sklearn``.
        model : mapping of str to object
            The model, by the name of the flavor's argument for it.
        name : str
        arguments : dict of str to object
            Of the flavor's ``log_model``.

        Returns
        -------
        str
            The model's URI.
        """
        # Before MLflow 3, and in the Spark flavor still, the name is a path in the run's artifacts.
        takes_name = "name" in inspect.signature(flavor.log_model).parameters
        where = {"name" if takes_name else "artifact_path": name}
        return flavor.log_model(**model, **where, **arguments).model_uri

    def model_folders(self, run: Run) -> list[str]:
        """Return the folders of a run's artifacts that hold a model; logged models are not among them."""
        client = self.client()
        folders = [item.path for item in client.list_artifacts(run.info.run_id) if item.is_dir]
        return [
            folder
            for folder in folders
            if any(item.path.endswith("/MLmodel") for item in client.list_artifacts(run.info.run_id, folder))
        ]

    def download(self, model_uri: str, folder: Path) -> Path:
        """Download a model that this server keeps; return the folder with its ``MLmodel`` file.

        Parameters
        ----------
        model_uri : str
            ``models:/<name>/<version>``, ``models:/<model id>`` or ``runs:/<run id>/<path>``.
        folder : pathlib.Path
            Empty.
        """
        import mlflow

        # Without it MLflow asks the registry that is set for the whole process. MLflow 2 has only that one.
        accepted = inspect.signature(mlflow.artifacts.download_artifacts).parameters
        registry = {"registry_uri": self.uri} if "registry_uri" in accepted and _is_registered(model_uri) else {}
        return Path(mlflow.artifacts.download_artifacts(model_uri, dst_path=str(folder), **registry))

    def add_version(self, model_name: str, folder: Path, tags: dict[str, str], key: str) -> ModelVersion:
        """Create a version of a model's files alone; of `create_version`, the part for a model without a run here.

        MLflow's own server takes files from a run only, so the files are logged to a run of the experiment `copies_experiment`.
        If this is killed, the next call with the same key goes on with that run.

        Parameters
        ----------
        model_name : str
            Of a registered model that exists.
        folder : pathlib.Path
            With the ``MLmodel`` file.
        tags : dict of str to str
        key : str
            32 hexadecimal digits that stand for the model.
        """
        from mlflow.exceptions import MlflowException

        client = self.client()
        experiment = client.get_experiment_by_name(self.copies_experiment)
        if experiment is not None:
            experiment_id = experiment.experiment_id
        else:
            try:
                experiment_id = client.create_experiment(
                    self.copies_experiment, **self.experiment_details(self.copies_experiment)
                )
            except MlflowException as error:
                # Another process was faster.
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                return self.add_version(model_name, folder, tags, key)
        started = client.search_runs([experiment_id], f"tags.{_COPY_KEY} = '{key}'", max_results=1)
        run = started[0] if started else client.create_run(experiment_id, tags={_COPY_KEY: key, MARK: model_name})
        client.log_artifacts(run.info.run_id, str(folder), "model")
        client.set_terminated(run.info.run_id)
        return client.create_model_version(
            model_name, f"{run.info.artifact_uri}/model", run_id=run.info.run_id, tags=tags
        )

    def create_version(
        self, tracking: Server, run: Run, model_uri: str, model_name: str, tags: dict[str, str], files: Callable
    ) -> ModelVersion:
        """Register a run's model.

        Parameters
        ----------
        tracking : Server
            The server of the run.
        run : mlflow.entities.Run
        model_uri : str
            The model that it logged.
        model_name : str
            Of a registered model that exists.
        tags : dict of str to str
        files : callable
            Returns a context with the folder of the model's files, for a registry that cannot read the run's server.
        """
        del tracking, run, files
        import mlflow

        # MLflow writes on standard error, which notebooks show in red, that the model exists already.
        with redirect_stderr(io.StringIO()):
            return mlflow.register_model(model_uri, model_name, tags=tags)
