"""Where runs and models of a session go: `configure` chooses tracking server, registry and experiment."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from helpers import azureml, kinds, parameters, runtime, volumes
from helpers.azureml import Connection, Workspace
from helpers.azureml.rest import AzureError
from helpers.parameters import ParameterError
from helpers.tracking.servers import Server, server_at
from helpers.tracking.servers.azureml import AzureMLServer

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

# With MLflow's defaults, 7 retries whose waits double from 2 s on, one call can take about four minutes:
# https://mlflow.org/docs/latest/api_reference/python_api/mlflow.environment_variables.html
# These wait for 0 + 2 + 4 + 8 + 16 s, each up to 1 s longer, whatever Retry-After says, which may be hours.
RETRIES = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    # Seconds. Calls to Databricks go through its SDK, which tries again for this time, by default 500 s.
    "MLFLOW_DATABRICKS_ENDPOINT_HTTP_RETRY_TIMEOUT": "30",
}


@dataclass(frozen=True)
class Session:
    """The servers that runs and models go to, and the experiment; every function after `configure` gets it.

    Attributes
    ----------
    tracking, registry : helpers.tracking.servers.Server
    connection : helpers.azureml.Connection
        The Azure ML workspace that the parameters name, whether or not runs or models go there.
    experiment_id, experiment_name : str
        The experiment, by the name it has on its server. The id is empty if there is none, and `configure` was not to
        create it.
    mirror_name : str
        With ``tracking_mode=dual``: the name of the experiment in Azure ML that mirrors this one. Otherwise empty.
    mirror_problem : str
        With ``tracking_mode=dual``: why the Azure ML workspace could not be used when the session began.
    share_with : helpers.tracking.servers.Server or None
        The registry that gets copies of the champion.
    share_namespace : tuple of (str, str)
        Catalog and schema of these copies, if that registry is Unity Catalog.
    """

    tracking: Server
    registry: Server
    connection: Connection
    experiment_id: str = ""
    experiment_name: str = ""
    mirror_name: str = ""
    mirror_problem: str = ""
    share_with: Server | None = None
    share_namespace: tuple[str, str] = ("", "")

    @property
    def is_mirrored(self) -> bool:
        """Whether runs are copied to Azure ML after they have ended."""
        return bool(self.mirror_name)

    @property
    def uses_azureml(self) -> bool:
        """Whether runs, their copies or models go to Azure ML, or to one of its registries."""
        return self.is_mirrored or self.tracking.needs_workspace or self.registry.needs_workspace

    @property
    def workspace(self) -> Workspace:
        """The Azure ML workspace that the parameters name; see `helpers.azureml.Connection.workspace`."""
        return self.connection.workspace

    @property
    def azureml_server(self) -> AzureMLServer:
        """The Azure ML workspace that the parameters name, as an MLflow server."""
        return AzureMLServer(self.connection)

    def client(self) -> MlflowClient:
        """Return a client of the tracking server and the registry."""
        from mlflow import MlflowClient

        return MlflowClient(self.tracking.uri, self.registry.uri)

    def registered_model_name(self, model_name: str, catalog: str, schema: str) -> str:
        """Return the name of a model in the registry: Unity Catalog's have three levels.

        Raises
        ------
        ParameterError
            If the registry does not accept it.
        helpers.azureml.rest.AzureError
            If the registry is Azure ML's and cannot be used now.
        """
        return self.registry.registered_model_name(model_name, catalog, schema)

    def workspace_link(self, databricks_resource_id: str = "", link: bool = False) -> str:
        """Say whether the Databricks workspace is linked to the Azure ML workspace, and link it if requested.

        See `helpers.azureml.workspace_link`.
        """
        return azureml.workspace_link(self.connection if self.uses_azureml else None, databricks_resource_id, link)

    def table(self) -> pd.DataFrame:
        """Return a table of the servers and the experiment, with addresses to open in the browser."""
        import pandas as pd

        rows = [("tracking server", self.tracking.uri, self.tracking.page("home"))]
        if self.mirror_problem and self.registry.in_azureml:
            rows.append(("model registry", self.registry.place, ""))
        else:
            rows.append(("model registry", self.registry.uri, self.registry.page("models")))
        page = self.tracking.page("experiment", self.experiment_id)
        rows.append(("experiment", self.experiment_name, page))
        if self.mirror_problem:
            rows.append(("mirror", f"pending: {self.mirror_problem}", ""))
        elif self.uses_azureml and not self.tracking.in_azureml:
            rows.append(("Azure ML workspace", self.azureml_server.uri, self.azureml_server.page("home")))
        return pd.DataFrame(rows, columns=["what", "where", "open"])

    def run_page(self, run_id: str) -> str:
        """Return the address of a run's page in the browser."""
        return self.tracking.page("run", self.experiment_id, run_id)


def open_servers(p: parameters.Tracking, connection: Connection | None = None) -> tuple[Server, Server]:
    """Return the tracking server and the registry that the parameters name, without contacting them."""
    connection = connection or Connection(p)
    mode = runtime.default_tracking_mode() if p.tracking_mode == "auto" else p.tracking_mode
    tracking, own_registry = kinds.TRACKING_MODES[mode]
    registry = own_registry if p.model_registry == "auto" else p.model_registry
    return kinds.load(kinds.SERVERS, tracking)(connection), server_at(registry, connection, "model_registry")


def _share_with(
    p: parameters.Tracking, registry: Server, connection: Connection
) -> tuple[Server | None, tuple[str, str]]:
    """Return the registry to share champions with, and their namespace in Unity Catalog, after it was contacted."""
    if not (isinstance(p, parameters.Share) and isinstance(p, parameters.ModelName) and p.share_with):
        return None, ("", "")
    target = server_at(p.share_with, connection, "share_with")
    namespace = p.share_with.partition("/")[2] if p.share_with.startswith("databricks-uc/") else ""
    if namespace:
        catalog, _, schema = namespace.partition(".")
    else:
        catalog, schema = (p.catalog, p.schema) if isinstance(p, parameters.Namespace) else ("", "")
    name = registry.plain_model_name(p.model_name)
    target.check_is_on()
    try:
        shared_name = target.registered_model_name(name, catalog, schema)
    except ParameterError as error:
        if error.name != "model_name":
            raise
        raise ParameterError(
            "model_name", p.model_name, f"cannot be shared with {target.place}: {error.problem}"
        ) from None
    if target.address == registry.address and (
        not isinstance(p, parameters.Namespace)
        or shared_name == registry.registered_model_name(p.model_name, p.catalog, p.schema)
    ):
        raise ParameterError(
            "share_with", p.share_with, "is where the model is registered; name another registry, or none"
        )
    target.prepare()
    # Whoever may not read it is told so here, and not after the model was registered.
    target.registered_model(shared_name)
    return target, (catalog, schema)


def configure(p: parameters.Tracking, create: bool = True) -> Session:
    """Point MLflow at the servers and the experiment, which is created if it is missing.

    Parameters
    ----------
    p : helpers.parameters.Tracking
        The experiment's name is mapped to the rules of its server.
    create : bool, default True
        False: write nothing to any server, and set no experiment.

    Returns
    -------
    Session

    Raises
    ------
    ParameterError
        If a parameter is missing, if the experiment or the model cannot have that name there, if the experiment was
        deleted, or if the workspace has no registry of its own. Or if the environment
        variable ``MLFLOW_RUN_ID`` names a run that is not there.
    helpers.azureml.rest.AzureError
        If the Azure ML workspace cannot be used; within seconds, and before anything is written. With
        ``tracking_mode=dual`` the session says so in ``mirror_problem`` instead, because training does not need it.
    mlflow.exceptions.MlflowException, ConnectionError
        If the tracking server cannot be reached or refuses the experiment.
    """
    bound_retries()
    connection = Connection(p)
    tracking, registry = open_servers(p, connection)
    if isinstance(p, parameters.ModelName):
        # Before a model is trained for hours that the registry would refuse.
        registry.check_model_name(p.model_name)
    session = Session(tracking, registry, connection)
    experiment_name = tracking.experiment_name(p.experiment_name)
    # A name that could not be mirrored stops the session before anything is logged under it.
    mirror_name = session.azureml_server.experiment_name(p.experiment_name) if p.tracking_mode == "dual" else ""
    mirror_problem = ""
    if mirror_name or session.uses_azureml:
        try:
            _ = connection.workspace
        except AzureError as error:
            if not mirror_name:
                raise
            mirror_problem = str(error)
    import mlflow

    mlflow.set_tracking_uri(tracking.uri)
    if not (mirror_problem and registry.in_azureml):
        mlflow.set_registry_uri(registry.uri)
    tracking.prepare()
    with tracking.naming_errors():
        _check_run_of_environment(tracking)
        if isinstance(p, parameters.ModelName):
            registry.check_is_on()
        share_with, share_namespace = _share_with(p, registry, connection)
        experiment = _experiment(tracking, experiment_name, create)
        if experiment and create:
            mlflow.set_experiment(experiment_id=experiment.experiment_id)
    if isinstance(p, parameters.Namespace):
        volumes.use_model_volume(p.catalog, p.schema)
    return replace(
        session,
        experiment_id=experiment.experiment_id if experiment else "",
        experiment_name=experiment_name,
        mirror_name=mirror_name,
        mirror_problem=mirror_problem,
        share_with=share_with,
        share_namespace=share_namespace,
    )


def bound_retries() -> None:
    """Let MLflow's clients try again for only half a minute, unless the environment sets another limit."""
    for name, value in RETRIES.items():
        os.environ.setdefault(name, value)


def _check_run_of_environment(tracking: Server) -> None:
    """Check the run with which ``mlflow.start_run`` goes on if the environment names one."""
    import mlflow
    from mlflow.exceptions import MlflowException

    run_id = os.environ.get("MLFLOW_RUN_ID")
    if not run_id:
        return
    try:
        mlflow.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ParameterError(
            "MLFLOW_RUN_ID",
            run_id,
            f"no such run on {tracking.uri}, and mlflow.start_run would try to go on with it. Azure Machine Learning sets "
            "this variable in its own jobs; unset it",
            "the environment",
        ) from None


def _experiment(tracking: Server, name: str, create: bool) -> Experiment | None:
    """Return the experiment; a missing one is created and marked, or None is returned if `create` is False."""
    import mlflow
    from mlflow.exceptions import MlflowException

    experiment = mlflow.get_experiment_by_name(name)
    if not create:
        return experiment if experiment and experiment.lifecycle_stage == "active" else None
    if experiment is None:
        try:
            mlflow.create_experiment(name, **tracking.experiment_details(name))
        except MlflowException as error:
            # Another process was faster.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        experiment = mlflow.get_experiment_by_name(name)
        if experiment is None:
            raise ParameterError(
                "experiment_name",
                name,
                f"was created on {tracking.uri} and is gone again. Somebody else deletes it: name another one",
            )
    if experiment.lifecycle_stage != "active":
        raise ParameterError(
            "experiment_name",
            name,
            f"was deleted on {tracking.uri}. Name another one, or restore it with all its runs: "
            f"mlflow.MlflowClient().restore_experiment({experiment.experiment_id!r})",
        )
    return experiment
