"""A model's files: logged with a run, found again, downloaded; the same way on every server."""

from __future__ import annotations

import importlib.metadata
import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from helpers import runtime
from helpers.azureml import artifacts
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from mlflow.entities import Run

    from helpers.training.fit import TrainedModel

# The folder of a run's artifacts, and the name of a logged model.
MODEL = "model"
# Without them the container of Azure ML's no-code deployment ends when it starts; they are not needed here.
# https://github.com/Azure/azureml-examples/issues/3902
_FOR_ENDPOINTS = ["azureml-inference-server-http==1.5.1", "azureml-ai-monitoring==1.0.0"]


def log_model(trained: TrainedModel) -> str:
    """Log a trained model to the active run, under the name ``model``.

    On Azure Machine Learning the model is saved to a folder, which is logged as artifacts: the
    flavors' own ``log_model`` ends in a 404 there, because since MLflow 3 models are entities of
    their own, for which that server has no API
    (https://github.com/Azure/azure-sdk-for-python/issues/44896).

    Parameters
    ----------
    trained : helpers.training.fit.TrainedModel

    Returns
    -------
    str
        The model's URI.
    """
    import mlflow

    flavor = getattr(mlflow, trained.flavor)
    arguments: dict[str, Any] = {
        "signature": trained.signature,
        "input_example": trained.input_example,
        # The order of the probabilities, which neither flavor's MLmodel file records.
        "metadata": {"classes": trained.classes},
        # Named here, because finding them out means loading the model in another process.
        "pip_requirements": _requirements(flavor),
    }
    if trained.flavor == "sklearn" and _uses_skops(flavor):
        arguments["skops_trusted_types"] = _trusted_types(trained.model)
    with runtime.quiet(f"mlflow.{trained.flavor}"):
        if mlflow.get_tracking_uri().startswith("azureml"):
            return _log_as_artifacts(flavor.save_model, trained.model, arguments)
        # Before MLflow 3, and of Spark ML's still, the name is a path in the run's artifacts.
        takes_name = "name" in inspect.signature(flavor.log_model).parameters
        name = {"name" if takes_name else "artifact_path": MODEL}
        return flavor.log_model(trained.model, **name, **arguments).model_uri


def _log_as_artifacts(save_model: Callable, model: Any, arguments: dict[str, Any]) -> str:
    import mlflow
    from mlflow.models import Model

    # As MLflow does where it logs a model itself.
    run_id = (mlflow.active_run() or mlflow.start_run()).info.run_id
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, MODEL)
        save_model(model, str(folder), mlflow_model=Model(artifact_path=MODEL, run_id=run_id), **arguments)
        mlflow.log_artifacts(str(folder), MODEL)
    return f"runs:/{run_id}/{MODEL}"


def _uses_skops(flavor: ModuleType) -> bool:
    """Return whether this MLflow saves scikit-learn models with skops; older ones use cloudpickle."""
    return "skops_trusted_types" in inspect.signature(flavor.save_model).parameters


def _requirements(flavor: ModuleType) -> list[str]:
    """Return what a model of the flavor needs, as installed here, and its endpoint; MLflow adds itself."""
    if flavor.FLAVOR_NAME != "sklearn":
        return flavor.get_default_pip_requirements() + _FOR_ENDPOINTS
    serializer = "include_skops" if _uses_skops(flavor) else "include_cloudpickle"
    inputs = [f"{package}=={importlib.metadata.version(package)}" for package in ("numpy", "pandas")]
    return flavor.get_default_pip_requirements(**{serializer: True}) + inputs + _FOR_ENDPOINTS


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

    # MLflow 2 has no outputs.
    outputs = getattr(run, "outputs", None)
    if outputs and outputs.model_outputs:
        return f"models:/{outputs.model_outputs[-1].model_id}"
    tracking_uri = mlflow.get_tracking_uri()
    if tracking_uri.startswith("azureml"):
        found = artifacts.has_folder(tracking_uri, f"{run.info.artifact_uri}/{MODEL}")
    else:
        found = any(item.path == MODEL for item in mlflow.MlflowClient().list_artifacts(run.info.run_id))
    if not found:
        raise ParameterError("run_id", run.info.run_id, "this run has logged no model; train one with 02_train")
    return f"runs:/{run.info.run_id}/{MODEL}"


def download_model(model_uri: str, folder: Path) -> Path:
    """Download a model, from wherever its server keeps it.

    Parameters
    ----------
    model_uri : str
        ``models:/<name>/<version>``, ``models:/<model id>`` or ``runs:/<run id>/<path>``.
    folder : pathlib.Path
        Empty.

    Returns
    -------
    pathlib.Path
        The folder with the ``MLmodel`` file.
    """
    import mlflow

    client = mlflow.MlflowClient()
    kind, *parts = model_uri.split("/")
    server = mlflow.get_tracking_uri() if kind == "runs:" else mlflow.get_registry_uri()
    is_logged_model = kind == "models:" and len(parts) == 1
    if not server.startswith("azureml") or is_logged_model:
        return Path(mlflow.artifacts.download_artifacts(model_uri, dst_path=str(folder)))
    if kind == "runs:":
        artifact_uri = "/".join([client.get_run(parts[0]).info.artifact_uri, *parts[1:]])
    else:
        artifact_uri = client.get_model_version_download_uri(*parts)
    artifacts.download_folder(server, artifact_uri, folder)
    return folder
