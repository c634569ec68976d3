"""A model's files: logged with a run, found again, downloaded; the same way on every server."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from collections.abc import Collection, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from helpers import output, volumes
from helpers.parameters import ParameterError
from helpers.tracking.servers import server_of_mlflow

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from mlflow.entities import Run
    from mlflow.models import ModelSignature

    from helpers.tracking.session import Session

MODEL = "model"
"""The name of a model in its run, unless another one is given."""
CLASSES, COLUMNS = "classes", "columns"
"""Names in a model's metadata, which `log_model` writes."""
_URI_TAG = "model_uri_"
_SERIALIZATION_OPTIONS = {"serialization_format", "skops_trusted_types"}
# Without them the container of Azure ML's no-code deployment ends when it starts; they are not needed here.
# https://github.com/Azure/azureml-examples/issues/3902
FOR_ENDPOINTS = ["azureml-inference-server-http==1.5.1", "azureml-ai-monitoring==1.0.0"]


def log_model(
    model: Any,
    *,
    flavor: str,
    signature: ModelSignature,
    input_example: pd.DataFrame | np.ndarray | None = None,
    classes: Collection[Any] = (),
    columns: Sequence[str] = (),
    name: str = MODEL,
    **options: Any,
) -> str:
    """Log a model to the active run, and note its URI in the run for registration.

    On Azure Machine Learning the model is saved to a folder, which is logged as artifacts: the flavors' own
    ``log_model`` ends in a 404 there, because since MLflow 3 models are entities of their own, for which that server
    has no API (https://github.com/Azure/azure-sdk-for-python/issues/44896).

    Parameters
    ----------
    model : object
        A model of the flavor.
    flavor : str
        Name of MLflow's module for it: ``sklearn``, ``spark``, ``xgboost``, ``pytorch``, ``pyfunc``, …
    signature : mlflow.models.ModelSignature
        Inputs and outputs by name, or one tensor whose values are `columns`.
    input_example : pandas.DataFrame or numpy.ndarray, optional
        A few rows of inputs.
    classes : collection, optional
        Of a classifier: its classes in the order of its probabilities. Estimators with scikit-learn's interface have
        them. Of any other model this says that its outputs are probabilities: one per class, or that of the second of
        two classes. They are then scored as a class and its probability.
    columns : sequence of str, optional
        Of a signature with one tensor: the columns of a table that its values are, in their order. PyTorch and Keras
        models have such a signature, which does not name them.
    name : str, default "model"
        Of the model in its run. Logging the same name again replaces what registration will find.
    **options
        Of the flavor's ``log_model``.

    Returns
    -------
    str
        The model's URI, which `logged_model_uri` returns later.

    Raises
    ------
    helpers.parameters.ParameterError
        If MLflow cannot save a Spark ML model on this compute.

    Notes
    -----
    MLflow saves scikit-learn models with skops, which loads no types but those that are named. Here the types of the
    model itself are named, for instance those of a LightGBM classifier in a pipeline: the process that logs a model
    has it in memory, so it trusts them. A model that skops cannot load elsewhere, because it has functions or classes
    of a notebook, is saved with cloudpickle. Give ``serialization_format`` or ``skops_trusted_types`` to decide
    yourself.
    """
    import mlflow

    if flavor == "spark":
        volumes.check_spark_ml("flavor", flavor)
    module = importlib.import_module(f"mlflow.{flavor}")
    metadata = options.pop("metadata", None) or {}
    # The MLmodel file accepts Python's own values only; scikit-learn's `classes_` holds NumPy's.
    plain_classes = [value.item() if hasattr(value, "item") else value for value in classes]
    arguments: dict[str, Any] = {
        "signature": signature,
        "input_example": input_example,
        "metadata": metadata
        | ({CLASSES: plain_classes} if plain_classes else {})
        | ({COLUMNS: list(columns)} if columns else {}),
    }
    types: list[str] | None = []
    if flavor == "sklearn" and _uses_skops(module) and not options.keys() & _SERIALIZATION_OPTIONS:
        types = _types_for_skops(model)
        arguments |= {"serialization_format": "cloudpickle"} if types is None else {"skops_trusted_types": types}
    if "pip_requirements" not in options and "extra_pip_requirements" not in options:
        arguments |= _requirements(module, types)
    # The container of an Azure ML endpoint needs packages that this environment lacks, and MLflow warns about them.
    with output.quiet(f"mlflow.{flavor}", "mlflow.utils.requirements_utils"):
        server = server_of_mlflow(mlflow.get_tracking_uri())
        uri = server.log_model(module, {_argument_of(module): model}, name, arguments | options)
    mlflow.set_tag(f"{_URI_TAG}{name}", uri)
    return uri


def _argument_of(flavor: ModuleType) -> str:
    """Return the name of the argument with which a flavor takes a model."""
    arguments = list(inspect.signature(flavor.save_model).parameters)
    # The generic flavor takes a folder and a loader first.
    return "python_model" if "python_model" in arguments else arguments[0]


def _uses_skops(flavor: ModuleType) -> bool:
    """Return whether this MLflow saves scikit-learn models with skops; older ones use cloudpickle."""
    return inspect.signature(flavor.save_model).parameters["serialization_format"].default == "skops"


def _requirements(flavor: ModuleType, types: list[str] | None) -> dict[str, list[str]]:
    """Return the packages that a model of the flavor and its endpoint need; MLflow adds itself.

    Those of scikit-learn and Spark are named, because finding them out means loading the model in another process.

    Parameters
    ----------
    flavor : module
    types : list of str or None
        From `_types_for_skops`.
    """
    if flavor.FLAVOR_NAME == "spark":
        return {"pip_requirements": flavor.get_default_pip_requirements() + FOR_ENDPOINTS}
    if flavor.FLAVOR_NAME != "sklearn" or types is None:
        return {"extra_pip_requirements": FOR_ENDPOINTS}
    serializer = "include_skops" if _uses_skops(flavor) else "include_cloudpickle"
    packages = ["numpy", "pandas"]
    # Not scikit-learn, whose package has another name than its module.
    modules = sorted({name.partition(".")[0] for name in types} - {"sklearn"})
    # Reads the files of all packages that are installed.
    distributions = importlib.metadata.packages_distributions() if modules else {}
    for module in modules:
        packages += [name for name in distributions.get(module, [])[:1] if name not in packages]
    inputs = [f"{package}=={importlib.metadata.version(package)}" for package in packages]
    return {"pip_requirements": flavor.get_default_pip_requirements(**{serializer: True}) + inputs + FOR_ENDPOINTS}


def _types_for_skops(model: Any) -> list[str] | None:
    """Return the types in a model that skops would not load unless they are named; None if it cannot load it at all.

    Of scikit-learn these are private classes only.
    """
    import skops.io

    try:
        types = skops.io.get_untrusted_types(data=skops.io.dumps(model))
        # Classes and functions of a script or a notebook are not there in another process.
        if any(name.startswith("__main__.") for name in types):
            return None
        skops.io.loads(skops.io.dumps(model), trusted=types)
    except (AttributeError, ImportError, TypeError, ValueError):
        return None
    return types


def logged_model_uri(session: Session, run: Run, model_uri: str = "") -> str:
    """Return the URI of the model that a run logged.

    Parameters
    ----------
    session : helpers.tracking.Session
    run : mlflow.entities.Run
        Of the session's tracking server.
    model_uri : str, default ""
        One of the run's models, as `log_model` returned it. Empty: the only model that the run logged.

    Raises
    ------
    ParameterError
        If the run has no model, has several and none is named, or does not have the one that is named.
    """
    models = _models_of(session, run)
    if model_uri:
        if model_uri not in models.values():
            raise ParameterError("model_uri", model_uri, f"run {run.info.run_id} has no such model; {_listed(models)}")
        return model_uri
    if len(models) > 1:
        raise ParameterError(
            "model_uri", "", f"run {run.info.run_id} has {len(models)} models, so say which one; {_listed(models)}"
        )
    if not models:
        raise ParameterError("run_id", run.info.run_id, "this run has logged no model; train one with 02_train")
    return next(iter(models.values()))


def _listed(models: dict[str, str]) -> str:
    return "there are: " + (", ".join(f"{uri} ({name})" for name, uri in sorted(models.items())) or "none")


def _models_of(session: Session, run: Run) -> dict[str, str]:
    """Return the URIs of a run's models by name: those that `log_model` noted, else those that the server has."""
    noted = {key.removeprefix(_URI_TAG): uri for key, uri in run.data.tags.items() if key.startswith(_URI_TAG)}
    if noted:
        return noted
    models: dict[str, str] = {}
    if session.tracking.has_logged_models:
        # MLflow 2 has no outputs.
        outputs = getattr(run, "outputs", None)
        for model_output in outputs.model_outputs if outputs else []:
            model = session.client().get_logged_model(model_output.model_id)
            name = model.name if model.name not in models else f"{model.name} {model.model_id}"
            models[name] = f"models:/{model.model_id}"
    if not models:
        models = {folder: f"runs:/{run.info.run_id}/{folder}" for folder in session.tracking.model_folders(run)}
    return models


def download_model(session: Session, model_uri: str, folder: Path) -> Path:
    """Download a model, from wherever its server keeps it.

    Parameters
    ----------
    session : helpers.tracking.Session
    model_uri : str
        ``models:/<name>/<version>``, ``models:/<model id>`` or ``runs:/<run id>/<path>``.
    folder : pathlib.Path
        Empty.

    Returns
    -------
    pathlib.Path
        The folder with the ``MLmodel`` file.
    """
    kind, *parts = model_uri.split("/")
    is_of_run = kind == "runs:" or (kind == "models:" and len(parts) == 1)
    return (session.tracking if is_of_run else session.registry).download(model_uri, folder)
