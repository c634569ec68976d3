"""The tracking modes: which tracking server, model registry and experiment MLflow points at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from helpers import azureml, runtime
from helpers.azureml.rest import AzureError, unreachable
from helpers.ownership import MARK
from helpers.parameters import ParameterError
from helpers.tracking import experiment_names

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Experiment

# MLflow's own defaults, 7 retries that wait twice as long each time from 2 s on, keep one call for
# about four minutes: https://mlflow.org/docs/latest/api_reference/python_api/mlflow.environment_variables.html
# These wait for 0 + 2 + 4 + 8 + 16 s, each up to 1 s longer, whatever Retry-After says, which may be hours.
RETRIES = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    # Seconds. Calls to Databricks go through its SDK, which tries again for so long, 500 s by default.
    "MLFLOW_DATABRICKS_ENDPOINT_HTTP_RETRY_TIMEOUT": "30",
}

# Where `make ui` serves the local store.
LOCAL_UI = "http://127.0.0.1:5000"
# Stands for the workspace as long as its address is not known.
AZUREML = "azureml"


@dataclass(frozen=True)
class Servers:
    """Tracking server and model registry.

    Attributes
    ----------
    tracking_uri, registry_uri : str
        As ``mlflow.set_tracking_uri`` and ``mlflow.set_registry_uri`` take them.
    """

    tracking_uri: str
    registry_uri: str

    def registered_model_name(self, model_name: str, catalog: str, schema: str) -> str:
        """Return the name of a model in this registry.

        Unity Catalog's has three levels, so a plain name is completed with the schema and the
        catalog (empty: the current one).

        Raises
        ------
        ParameterError
            If the current catalog is none of Unity Catalog's.
        """
        if self.registry_uri != "databricks-uc" or model_name.count(".") == 2:
            return model_name
        catalog = catalog or runtime.spark().catalog.currentCatalog()
        if catalog in ("hive_metastore", "spark_catalog"):
            raise ParameterError("catalog", catalog, "holds no models; give a catalog of Unity Catalog")
        return f"{catalog}.{schema}.{model_name}"


@dataclass(frozen=True)
class Tracking(Servers):
    """Servers that MLflow points at, and the experiment that is set.

    Attributes
    ----------
    experiment_id, experiment_name : str
        The experiment, by the name it has on its server. The id is empty if there is none, and it was not to be made.
    workspace : helpers.azureml.Workspace or None
        The Azure Machine Learning workspace, if one is used.
    azureml_error : helpers.azureml.rest.AzureError or None
        With ``dual``: why that workspace cannot be used now.
    mirror_name : str
        With ``dual``: the name of the experiment in Azure Machine Learning that mirrors this one.
    """

    experiment_id: str
    experiment_name: str
    workspace: azureml.Workspace | None = None
    azureml_error: AzureError | None = None
    mirror_name: str = ""

    def registered_model_name(self, model_name: str, catalog: str, schema: str) -> str:
        """Return the name of a model in this registry; see `Servers`.

        Raises
        ------
        ParameterError
            If the current catalog is none of Unity Catalog's.
        helpers.azureml.rest.AzureError
            If this registry is Azure Machine Learning's and cannot be used now.
        """
        if self.azureml_error and self.registry_uri == AZUREML:
            raise self.azureml_error
        return super().registered_model_name(model_name, catalog, schema)

    def table(self) -> pd.DataFrame:
        """Return what is where, with an address to open each in the browser."""
        import pandas as pd

        places = {
            "tracking server": (self.tracking_uri, self.tracking_uri, ""),
            "model registry": (self.registry_uri, self.registry_uri, "models"),
            "experiment": (self.experiment_name, self.tracking_uri, "experiment"),
        }
        if self.azureml_error:
            places["mirror"] = (f"pending: {self.azureml_error}", "", "")
        elif self.tracking_uri == "databricks" and self.workspace:
            places["Azure ML workspace"] = (self.workspace.tracking_uri, self.workspace.tracking_uri, "")
        return pd.DataFrame(
            {
                "what": list(places),
                "where": [where for where, _, _ in places.values()],
                "open": [self._page(uri, page) for _, uri, page in places.values()],
            }
        )

    def run_page(self, run_id: str) -> str:
        """Return the address of a run's page in the browser."""
        return self._page(self.tracking_uri, "run", run_id)

    def _page(self, uri: str, page: str, run_id: str = "") -> str:
        if uri in ("", AZUREML):
            return ""
        if uri.startswith("azureml"):
            pages = {
                "": "home",
                "models": "model/list",
                "experiment": f"experiments/id/{self.experiment_id}",
                "run": f"runs/{run_id}",
            }
            return self.workspace.studio_url(pages[page]) if self.workspace else ""
        experiment = f"experiments/{self.experiment_id}"
        pages = {"": "experiments", "models": "models", "experiment": experiment, "run": f"{experiment}/runs/{run_id}"}
        address = f"{runtime.workspace_url()}/ml" if uri.startswith("databricks") else f"{LOCAL_UI}/#"
        return f"{address}/{pages[page]}"


def servers(tracking_mode: str, model_registry: str, azureml_uri: str) -> Servers:
    """Return the servers that the parameters name, without contacting them.

    Parameters
    ----------
    tracking_mode : {"auto", "local", "databricks", "azureml", "dual"}
    model_registry : {"auto", "local", "databricks", "databricks-uc", "azureml"}
    azureml_uri : str
        What stands for the Azure Machine Learning workspace.

    Returns
    -------
    Servers
    """
    mode = runtime.default_tracking_mode() if tracking_mode == "auto" else tracking_mode
    # The runs of `dual` are logged to Databricks; helpers.tracking.dual mirrors them.
    mode = {"dual": "databricks"}.get(mode, mode)
    own_registry = {"databricks": "databricks-uc"}.get(mode, mode)
    registry = own_registry if model_registry == "auto" else model_registry
    uris = {"local": f"sqlite:///{runtime.local_dir() / 'mlflow.db'}", "azureml": azureml_uri}
    return Servers(uris.get(mode, mode), uris.get(registry, registry))


def configure(p: SimpleNamespace, create: bool = True) -> Tracking:
    """Point MLflow at the servers and the experiment, which is created if it is missing.

    Parameters
    ----------
    p : types.SimpleNamespace
        With `helpers.parameters.TRACKING`. The experiment's name is mapped to the rules of its
        server, see `helpers.tracking.experiment_names`.
    create : bool, default True
        False: write nothing to any server, and set no experiment.

    Returns
    -------
    Tracking

    Raises
    ------
    ParameterError
        If a parameter is missing, if the experiment cannot have that name there, or if it was deleted.
    helpers.azureml.rest.AzureError
        If the Azure Machine Learning workspace cannot be used; in seconds, and before anything
        is written. With ``dual`` it is kept in the result, because training does not need it.
    mlflow.exceptions.MlflowException, ConnectionError
        If the tracking server cannot be reached or refuses the experiment.
    """
    bound_retries()
    chosen, workspace, azureml_error = servers(p.tracking_mode, p.model_registry, AZUREML), None, None
    mirror_name = ""
    experiment_name = _experiment_name(chosen.tracking_uri, p.experiment_name)
    if p.tracking_mode == "dual":
        # A name that could not be mirrored is refused before anything is logged under it.
        mirror_name = experiment_names.on_azureml(p.experiment_name)
    if p.tracking_mode == "dual" or AZUREML in (chosen.tracking_uri, chosen.registry_uri):
        try:
            workspace = azureml.connect(p)
            chosen = servers(p.tracking_mode, p.model_registry, workspace.tracking_uri)
        except AzureError as error:
            if p.tracking_mode != "dual":
                raise
            azureml_error = error
    import mlflow

    mlflow.set_tracking_uri(chosen.tracking_uri)
    if chosen.registry_uri != AZUREML:
        mlflow.set_registry_uri(chosen.registry_uri)
    if chosen.tracking_uri.startswith("azureml"):
        # MLflow would print addresses of the API as if they were pages.
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    if chosen.tracking_uri.startswith("sqlite"):
        _prepare_local_store()
    with databricks_named():
        experiment = _experiment(chosen.tracking_uri, experiment_name, create)
        if experiment and create:
            mlflow.set_experiment(experiment_id=experiment.experiment_id)
    return Tracking(
        chosen.tracking_uri,
        chosen.registry_uri,
        experiment.experiment_id if experiment else "",
        experiment_name,
        workspace,
        azureml_error,
        mirror_name,
    )


def bound_retries() -> None:
    """Have MLflow's clients try again for half a minute only, unless the environment says otherwise."""
    for name, value in RETRIES.items():
        os.environ.setdefault(name, value)


@contextmanager
def databricks_named() -> Iterator[None]:
    """Name the Databricks workspace that does not answer: its SDK says only that the time is up.

    Raises
    ------
    ConnectionError
    """
    try:
        yield
    except TimeoutError as error:
        raise ConnectionError(unreachable(runtime.workspace_url(), error.__cause__ or error)) from None


def _experiment_name(tracking_uri: str, experiment_name: str) -> str:
    """Return the experiment's name by the rules of its server."""
    if tracking_uri == "databricks":
        return experiment_names.on_databricks(experiment_name, runtime.workspace_user)
    if tracking_uri == AZUREML:
        return experiment_names.on_azureml(experiment_name)
    return experiment_name


def _prepare_local_store() -> None:
    runtime.local_dir().mkdir(parents=True, exist_ok=True)
    # Copying files on one disk needs no progress bar, and MLflow draws four of them a model.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def _experiment(tracking_uri: str, name: str, create: bool) -> Experiment | None:
    """Return the experiment, made and marked if it is missing; None if there is none, and it is not to be made."""
    import mlflow
    from mlflow.exceptions import MlflowException

    found = mlflow.get_experiment_by_name(name)
    if not create:
        return found if found and found.lifecycle_stage == "active" else None
    if found is None:
        details: dict[str, Any] = {}
        if not tracking_uri.startswith("azureml"):
            details["tags"] = {MARK: name}
        if tracking_uri.startswith("sqlite"):
            # Without a location of its own, artifacts would go to ./mlruns of whoever comes first.
            artifacts = runtime.local_dir() / "mlartifacts" / name.replace("/", "_")
            details["artifact_location"] = artifacts.as_uri()
        try:
            mlflow.create_experiment(name, **details)
        except MlflowException as error:
            # Another process was quicker.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = mlflow.get_experiment_by_name(name)
        if found is None:
            raise ParameterError(
                "experiment_name",
                name,
                f"was made on {tracking_uri} and is gone again. Somebody else deletes it: name another one",
            )
    if found.lifecycle_stage != "active":
        raise ParameterError(
            "experiment_name",
            name,
            f"was deleted on {tracking_uri}. Name another one, or restore it with all its runs: "
            f"mlflow.MlflowClient().restore_experiment({found.experiment_id!r})",
        )
    return found
