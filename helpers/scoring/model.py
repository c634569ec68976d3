"""A logged or registered model on the driver's disk, and what its signature says."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import tracking
from helpers.parameters import ParameterError
from helpers.scoring import schema

if TYPE_CHECKING:
    from pyspark.sql.types import DataType


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A downloaded model.

    Attributes
    ----------
    model_uri : str
        Where it was downloaded from.
    folder : pathlib.Path
        The folder with the ``MLmodel`` file.
    flavors : frozenset of str
        The MLflow flavors that it was logged with.
    inputs : dict of str to pyspark.sql.types.DataType
        Type by input column, in the order of the signature.
    optional_inputs : frozenset of str
        The input columns that may be missing.
    outputs : dict of str to pyspark.sql.types.DataType
        Type by output column: one, or several for named outputs and for a vector of known length.
    prediction_type : pyspark.sql.types.DataType
        Type of the column ``prediction``: that of the only output, a struct of named outputs, or an array of a
        vector's numbers.
    classes : list
        The classes, in the order of the probabilities; empty if they are not known.
    estimator : sklearn.base.BaseEstimator or None
        The estimator of a scikit-learn model that MLflow applies with ``predict``.
    gives_probabilities : bool
        Whether the estimator gives one probability per class.
    """

    model_uri: str
    folder: Path
    flavors: frozenset[str]
    inputs: dict[str, DataType]
    optional_inputs: frozenset[str]
    outputs: dict[str, DataType]
    prediction_type: DataType
    classes: list[Any]
    estimator: Any
    gives_probabilities: bool

    def missing_package(self, error: Exception) -> ParameterError | None:
        """Return what to do about a package that the executors lack; None if that is not what the error says."""
        match = re.search(r"No module named '([\w.]+)'", str(error))
        return _missing_package(self.model_uri, self.folder, match.group(1), "on the executors") if match else None


def load_model(session: tracking.Session, model_uri: str) -> LoadedModel:
    """Download a model and read its signature.

    Parameters
    ----------
    session : helpers.tracking.Session
    model_uri : str
        ``models:/<name>/<version>``, ``models:/<model id>`` or ``runs:/<run id>/<path>``.

    Raises
    ------
    helpers.parameters.ParameterError
        If the signature has no named input columns, or outputs that cannot be columns; or if a package that the
        model needs is not installed.
    """
    import mlflow
    from mlflow.models import Model

    # The folder stays until the process ends, because executors fetch it later, when rows are scored.
    downloads = tempfile.mkdtemp(prefix="azureml_mlflow_")
    atexit.register(shutil.rmtree, downloads, ignore_errors=True)
    folder = tracking.download_model(session, model_uri, Path(downloads))
    model = Model.load(folder)
    signature = model.signature
    if signature is None or signature.inputs is None or signature.inputs.is_tensor_spec():
        raise ParameterError(
            "model_name",
            model_uri,
            "has no signature with named columns; log it with signature=infer_signature(<a pandas DataFrame>, …)",
        )
    outputs, prediction_type = schema.output_types(model_uri, signature.outputs)
    estimator: Any = None
    if "sklearn" in model.flavors and model.flavors["python_function"].get("predict_fn", "predict") == "predict":
        try:
            estimator = mlflow.sklearn.load_model(str(folder))
        except ModuleNotFoundError as error:
            raise _missing_package(model_uri, folder, error.name or str(error), "here") from None
    # A model of several outputs has a list of arrays of classes.
    gives_probabilities = hasattr(estimator, "predict_proba") and hasattr(estimator.classes_, "tolist")
    return LoadedModel(
        model_uri=model_uri,
        folder=folder,
        flavors=frozenset(model.flavors),
        inputs={column.name: column.dataType for column in signature.inputs.as_spark_schema()},
        optional_inputs=frozenset(signature.inputs.optional_input_names()),
        outputs=outputs,
        prediction_type=prediction_type,
        classes=estimator.classes_.tolist() if gives_probabilities else (model.metadata or {}).get("classes", []),
        estimator=estimator,
        gives_probabilities=gives_probabilities,
    )


def _missing_package(model_uri: str, folder: Path, module: str, where: str) -> ParameterError:
    name = module.partition(".")[0]
    requirements = Path(folder, "requirements.txt").read_text().splitlines()
    pattern = re.compile(rf"{re.escape(name)}\b", re.IGNORECASE)
    requirement = next((line for line in requirements if pattern.match(line.replace("-", "_"))), name)
    return ParameterError(
        "model_name",
        model_uri,
        f"needs the package {name!r}, which is not installed {where}. Add {requirement} to the task's "
        "libraries in databricks.yml (on a laptop: to the environment), or set env_manager=virtualenv",
    )
