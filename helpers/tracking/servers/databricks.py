"""MLflow in a Databricks workspace: tracking, the workspace's own registry, and Unity Catalog."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import runtime
from helpers.azureml.rest import first_line, unreachable
from helpers.parameters import ParameterError
from helpers.tracking.servers.base import Page, Server, path_in_ui

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_LONGEST_TAG_NAME, _LONGEST_TAG_VALUE = 255, 1000


class DatabricksServer(Server):
    """The workspace's tracking server, and its own registry, which has no aliases.

    https://learn.microsoft.com/azure/databricks/machine-learning/manage-model-lifecycle/workspace-model-registry
    """

    has_aliases = False
    reached_from_workers = True
    copies_experiment = "/Shared/copied_models"

    @property
    def uri(self) -> str:
        """``databricks``."""
        return "databricks"

    @property
    def place(self) -> str:
        """The server as a sentence names it."""
        return "Databricks"

    @property
    def address(self) -> str:
        """The address of the workspace."""
        return runtime.workspace_url()

    @classmethod
    def owns(cls, uri: str) -> bool:
        """Return whether a URI is the one of the workspace's server."""
        return uri == "databricks" or uri.startswith("databricks://")

    def worker_environment(self) -> dict[str, str]:
        """Return the address and the credentials of this process, as MLflow hands them to processes that it starts.

        Nothing if they cannot be read: a worker may have its own.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.utils.databricks_utils import get_databricks_env_vars

        try:
            return get_databricks_env_vars(self.uri)
        except MlflowException:
            return {}

    @contextmanager
    def naming_errors(self) -> Iterator[None]:
        """Name the workspace that does not answer: its SDK only says that the time is up.

        Raises
        ------
        ConnectionError
        """
        try:
            yield
        except TimeoutError as error:
            raise ConnectionError(unreachable(runtime.workspace_url(), error.__cause__ or error)) from None

    def check_is_on(self) -> None:
        """Ask the workspace's own registry, which is off in accounts created since April 2024.

        Raises
        ------
        ParameterError
        """
        from mlflow import MlflowClient
        from mlflow.exceptions import RestException

        try:
            MlflowClient(registry_uri=self.uri).search_registered_models(max_results=1)
        except RestException as error:
            raise ParameterError(
                "model_registry",
                self.uri,
                f"the workspace's own registry answers {first_line(error)} It is off in accounts created since April 2024; use "
                "databricks-uc, which is Unity Catalog",
            ) from None

    def experiment_name(self, name: str) -> str:
        """Return the absolute workspace path of an experiment; see `experiment_path`."""
        return experiment_path(name, runtime.workspace_user)

    def page(self, page: Page, experiment_id: str = "", run_id: str = "") -> str:
        """Return the address of a page of the workspace."""
        return f"{runtime.workspace_url()}/ml/{path_in_ui(page, experiment_id, run_id)}"


class UnityCatalog(DatabricksServer):
    """Unity Catalog as a registry: three-level names, aliases.

    https://learn.microsoft.com/azure/databricks/machine-learning/manage-model-lifecycle/
    """

    has_aliases = True
    # mlflow.entities.model_registry.ModelVersionSearch
    search_returns_tags = False
    # MLflow's client makes the version first, then uploads its files, and finalizes it last:
    # mlflow/store/_unity_catalog/registry/rest_store.py
    has_unfinished_versions = True

    @property
    def uri(self) -> str:
        """``databricks-uc``."""
        return "databricks-uc"

    @property
    def place(self) -> str:
        """The registry as a sentence names it."""
        return "Unity Catalog"

    @classmethod
    def owns(cls, uri: str) -> bool:
        """Return whether a URI is Unity Catalog's."""
        return uri == "databricks-uc" or uri.startswith("databricks-uc://")

    def client(self) -> MlflowClient:
        """Return a client of the registry; its tracking server is the workspace's, since the registry is none.

        MLflow's client refuses ``databricks-uc`` as a tracking server when it is made (mlflow/tracking/_tracking_service).
        """
        from mlflow import MlflowClient

        return MlflowClient("databricks", self.uri)

    def plain_model_name(self, model_name: str) -> str:
        """Return the last level of a model's name."""
        return model_name.rpartition(".")[2]

    def version_tags(self, tags: dict[str, str]) -> dict[str, str]:
        """Return tags with ``_`` for each character that a name must not have, and with values of at most 1,000 characters.

        https://learn.microsoft.com/azure/databricks/database-objects/tags#constraints
        """
        return {
            re.sub(r"[.,\-=/:]|^ | $", "_", key)[:_LONGEST_TAG_NAME]: value[:_LONGEST_TAG_VALUE]
            for key, value in tags.items()
        }

    def add_version(self, model_name: str, folder: Path, tags: dict[str, str], key: str) -> ModelVersion:
        """Create a version of a model's files, which MLflow's client uploads to the catalog."""
        del key
        return self.client().create_model_version(model_name, str(folder), tags=tags)

    def check_is_on(self) -> None:
        """Do nothing: it is on where there are catalogs, without which a model has no name here."""

    def check_model_name(self, model_name: str) -> None:
        """Check a model's name, plain or of three levels: https://docs.databricks.com/sql/language-manual/sql-ref-names.

        Raises
        ------
        ParameterError
            If Unity Catalog does not accept it.
        """
        levels = model_name.split(".")
        if len(levels) not in (1, 3) or not all(re.fullmatch(r"[^\x00-\x20\x7f/.]{1,255}", level) for level in levels):
            raise ParameterError(
                "model_name",
                model_name,
                "Unity Catalog accepts `model` or `catalog.schema.model`, each up to 255 characters without spaces",
            )

    def registered_model_name(self, model_name: str, catalog: str, schema: str) -> str:
        """Return the three-level name of a model: a plain one is completed with schema and catalog.

        Parameters
        ----------
        model_name : str
        catalog, schema : str
            An empty catalog is the current one.

        Raises
        ------
        ParameterError
            If the current catalog is not one of Unity Catalog's.
        """
        self.check_model_name(model_name)
        if model_name.count(".") == 2:
            return model_name
        catalog = catalog or runtime.spark().catalog.currentCatalog()
        if catalog in ("hive_metastore", "spark_catalog"):
            raise ParameterError("catalog", catalog, "holds no models; give a catalog of Unity Catalog")
        return f"{catalog}.{schema}.{model_name}"


def experiment_path(name: str, user: Callable[[], str]) -> str:
    """Return the absolute workspace path of an experiment.

    A plain name goes to the user's folder. ``/Workspace`` in front is removed: Databricks finds such an experiment
    the first time only (https://github.com/mlflow/mlflow/issues/11077).

    Parameters
    ----------
    name : str
    user : callable
        Returns the user's name in the workspace, or raises LookupError; called only if it is needed.

    Raises
    ------
    ParameterError
        If it is neither an absolute path nor a plain name of a user who is known.
    """
    path = re.sub("^/Workspace(?=/)", "", name)
    reason = ""
    if "/" not in path:
        try:
            return f"/Users/{user()}/{path}"
        except LookupError as error:
            reason = f"{error}; "
    elif re.fullmatch(r"(/[^/]+){2,}", path):
        return path
    raise ParameterError(
        "experiment_name",
        name,
        f"{reason}Databricks accepts an absolute path such as /Users/<you>/churn or /Shared/churn, or a plain name "
        "such as churn, which is put under /Users/<you>/",
    )
