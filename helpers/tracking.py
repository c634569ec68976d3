"""Where runs and models go: tracking server, registry, experiment, and how a model is logged.

Nothing else in the bundle knows how these servers differ.
"""

from __future__ import annotations

import importlib.metadata
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers import runtime
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from mlflow.entities import Run

    from helpers.training import TrainedModel

MODEL_NAME_TAG = "model_name"


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
        The experiment, by the name it has on its server.
    """

    experiment_id: str
    experiment_name: str


def servers(tracking_mode: str, model_registry: str) -> Servers:
    """Return the servers that the parameters name, without contacting them.

    Parameters
    ----------
    tracking_mode : {"auto", "local", "databricks"}
    model_registry : {"auto", "local", "databricks", "databricks-uc"}

    Returns
    -------
    Servers
    """
    local = f"sqlite:///{runtime.local_dir() / 'mlflow.db'}"
    mode = runtime.default_tracking_mode() if tracking_mode == "auto" else tracking_mode
    registry = {"local": "local", "databricks": "databricks-uc"}[mode] if model_registry == "auto" else model_registry
    return Servers(
        tracking_uri=local if mode == "local" else mode, registry_uri=local if registry == "local" else registry
    )


def configure(tracking_mode: str, model_registry: str, experiment_name: str) -> Tracking:
    """Point MLflow at the servers and the experiment, which is created if it is missing.

    Parameters
    ----------
    tracking_mode, model_registry : str
        See `servers`.
    experiment_name : str
        On Databricks a plain name is put into the user's folder, ``/Users/<user>/``.

    Returns
    -------
    Tracking

    Raises
    ------
    mlflow.exceptions.MlflowException
        If the tracking server cannot be reached or refuses the experiment.
    """
    import mlflow

    chosen = servers(tracking_mode, model_registry)
    if chosen.tracking_uri.startswith("sqlite"):
        runtime.local_dir().mkdir(parents=True, exist_ok=True)
        # Copying files on one disk needs no progress bar, and MLflow draws four of them a model.
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow.set_tracking_uri(chosen.tracking_uri)
    mlflow.set_registry_uri(chosen.registry_uri)
    if chosen.tracking_uri == "databricks":
        if not experiment_name.startswith("/"):
            experiment_name = f"/Users/{runtime.current_user(runtime.spark())}/{experiment_name}"
    elif mlflow.get_experiment_by_name(experiment_name) is None:
        # Without a location of its own, artifacts would go to ./mlruns of whoever comes first.
        artifacts = runtime.local_dir() / "mlartifacts" / experiment_name.replace("/", "_")
        mlflow.create_experiment(experiment_name, artifact_location=artifacts.as_uri())
    experiment = mlflow.set_experiment(experiment_name)
    return Tracking(chosen.tracking_uri, chosen.registry_uri, experiment.experiment_id, experiment.name)


def log_model(trained: TrainedModel) -> str:
    """Log a trained model to the active run, under the name ``model``.

    Parameters
    ----------
    trained : helpers.training.TrainedModel

    Returns
    -------
    str
        The model's URI.
    """
    import mlflow

    arguments: dict[str, Any] = {
        "signature": trained.signature,
        "input_example": trained.input_example,
        # The order of the probabilities, which neither flavor's MLmodel file records.
        "metadata": {"classes": trained.classes},
        # Named here, because finding them out means loading the model in another process.
        "pip_requirements": _requirements(trained.flavor),
    }
    if trained.flavor == "spark":
        with runtime.quiet("mlflow.spark"):
            # This flavor logs to the run's artifacts, as MLflow 2 did, and takes no name.
            return mlflow.spark.log_model(trained.model, artifact_path="model", **arguments).model_uri
    return mlflow.sklearn.log_model(
        trained.model, name="model", skops_trusted_types=_trusted_types(trained.model), **arguments
    ).model_uri


def _requirements(flavor: str) -> list[str]:
    packages = {"sklearn": ["mlflow", "scikit-learn", "skops", "numpy", "pandas"], "spark": ["mlflow", "pyspark"]}
    return [f"{package}=={importlib.metadata.version(package)}" for package in packages[flavor]]


def _trusted_types(model: Any) -> list[str]:
    """Return the scikit-learn and NumPy types that skops would not load unasked.

    skops refuses private classes of scikit-learn, too; what is neither of the two stays refused.
    """
    import skops.io

    types = skops.io.get_untrusted_types(data=skops.io.dumps(model))
    return [name for name in types if name.startswith(("sklearn.", "numpy."))]


def logged_model_uri(run: Run) -> str:
    """Return the URI of the model that a run logged.

    Parameters
    ----------
    run : mlflow.entities.Run

    Raises
    ------
    ParameterError
        If the run has none.
    """
    import mlflow

    outputs = run.outputs.model_outputs if run.outputs else []
    if outputs:
        return f"models:/{outputs[-1].model_id}"
    if any(item.path == "model" for item in mlflow.MlflowClient().list_artifacts(run.info.run_id)):
        return f"runs:/{run.info.run_id}/model"
    raise ParameterError("run_id", run.info.run_id, "this run has logged no model; train one with 02_train")


def find_run(tracking: Tracking, run_id: str, model_name: str) -> Run:
    """Return a run by its id, or the newest one of the experiment that trained a model.

    Parameters
    ----------
    tracking : Tracking
        What `configure` returned.
    run_id : str
        Empty for the newest finished run that trained `model_name`.
    model_name : str

    Raises
    ------
    ParameterError
        If there is no such run.
    """
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

    client = mlflow.MlflowClient()
    if run_id:
        try:
            return client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            raise ParameterError("run_id", run_id, f"no such run on {mlflow.get_tracking_uri()}") from None
    runs = client.search_runs(
        [tracking.experiment_id],
        filter_string=f"attributes.status = 'FINISHED' AND tags.{MODEL_NAME_TAG} = '{model_name}'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    if not runs:
        raise ParameterError(
            "model_name",
            model_name,
            f"no finished run of it in experiment {tracking.experiment_name!r}; train one with 02_train, or give run_id",
        )
    return runs[0]
