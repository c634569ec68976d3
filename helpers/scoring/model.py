"""A logged or registered model on the driver's disk, and what its signature says."""

from __future__ import annotations

import atexit
import importlib
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import output, tracking, volumes
from helpers.parameters import ParameterError
from helpers.scoring import schema, worker

# Flavors whose models are estimators with scikit-learn's interface, or may be.
_ESTIMATOR_FLAVORS = ("sklearn", "xgboost", "lightgbm", "catboost")

if TYPE_CHECKING:
    from mlflow.models import Model
    from pyspark.sql import DataFrame
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
    optional_outputs : frozenset of str
        The named outputs that may be missing.
    estimator : object or None
        The estimator of a model that MLflow applies with ``predict``: scikit-learn's, or one with its interface.
    estimator_flavor : str
        The flavor that loads the estimator; empty if there is none.
    gives_probabilities : bool
        Whether the model gives one probability per class.
    outputs_are_probabilities : bool
        Whether these are the outputs in the signature. Otherwise the estimator has them (``predict_proba``).
    """

    model_uri: str
    folder: Path
    flavors: frozenset[str]
    inputs: dict[str, DataType]
    optional_inputs: frozenset[str]
    outputs: dict[str, DataType]
    prediction_type: DataType
    classes: list[Any]
    optional_outputs: frozenset[str]
    estimator: Any
    estimator_flavor: str
    gives_probabilities: bool
    outputs_are_probabilities: bool

    @cached_property
    def spark_pipeline(self) -> Any:
        """The fitted Spark ML pipeline of a model of the flavor ``spark``, loaded when the first rows are scored.

        `helpers.parameters.ParameterError` if MLflow cannot load it on this compute.
        """
        import mlflow

        volumes.check_spark_ml("model_name", self.model_uri)
        with output.quiet("mlflow.spark"):
            return mlflow.spark.load_model(self.folder.as_uri(), dfs_tmpdir=volumes.model_folder())

    @property
    def takes_every_input(self) -> bool:
        """Whether an optional input that rows lack is null, because an estimator or a pipeline knows its columns.

        Another model gets rows without it, as from MLflow.
        """
        return self.estimator is not None or "spark" in self.flavors

    def for_rows(self, rows: DataFrame) -> LoadedModel:
        """Return the model without the optional inputs that rows lack, unless it takes every input."""
        if self.takes_every_input:
            return self
        return replace(self, inputs={name: kind for name, kind in self.inputs.items() if name in rows.columns})

    def explained(self, error: Exception) -> ParameterError | None:
        """Return what to do about a failure on the executors that is the model's: None if the error is not one.

        That is a package which they lack, files that did not reach them, or outputs that are not what the signature says.
        """
        package = re.search(r"No module named '([\w.]+)'", str(error))
        if package:
            return _missing_package(self.model_uri, self.folder, package.group(1), "on the executors")
        if worker.NOT_THERE in str(error):
            return ParameterError(
                "model_name",
                self.model_uri,
                "the model is too large to travel with the query, and this compute did not pass its files to Spark's Python "
                "workers. Score it on a cluster with access mode Dedicated (target dev)",
            )
        mismatch = re.search(r"SignatureMismatch: (.*)", str(error))
        if mismatch:
            return ParameterError("model_name", self.model_uri, mismatch.group(1).strip())
        if "MALFORMED_RECORD_IN_PARSING" in str(error):
            kind = self.prediction_type.simpleString()
            return ParameterError(
                "model_name", self.model_uri, f"the model's output is not of type {kind}, as its signature says"
            )
        return None


def load_model(
    session: tracking.Session, model_uri: str, check_files: Callable[[Path], object] | None = None
) -> LoadedModel:
    """Download a model and read its signature.

    Parameters
    ----------
    session : helpers.tracking.Session
    model_uri : str
        ``models:/<name>/<version>``, ``models:/<model id>`` or ``runs:/<run id>/<path>``.
    check_files : callable, optional
        Called with the folder of the model's files before the model is loaded.

    Raises
    ------
    helpers.parameters.ParameterError
        If the signature has no named inputs, or inputs or outputs of a type that columns cannot have; or if a package
        that the model needs is not installed.
    """
    from mlflow.models import Model

    # The folder stays until the process ends, because executors fetch the model later, when rows are scored. The model is
    # one level below, because engines put what they make of it beside it.
    scratch = Path(tempfile.mkdtemp(prefix="azureml_mlflow_"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    downloads = scratch / "model"
    downloads.mkdir()
    folder = tracking.download_model(session, model_uri, downloads)
    if check_files:
        check_files(folder)
    model = Model.load(folder)
    metadata, signature_inputs = model.metadata or {}, model.signature and model.signature.inputs
    inputs = schema.input_types(model_uri, signature_inputs, metadata.get(tracking.COLUMNS, []))
    outputs, prediction_type = schema.output_types(model_uri, model.signature.outputs)
    flavor, estimator = _estimator(model, model_uri, folder)
    # A model of several outputs has a list of arrays of classes.
    gives_probabilities = hasattr(estimator, "predict_proba") and hasattr(estimator.classes_, "tolist")
    classes = estimator.classes_.tolist() if gives_probabilities else metadata.get(tracking.CLASSES, [])
    predicts_classes = hasattr(estimator, "classes_") or "spark" in model.flavors
    are_probabilities = not predicts_classes and schema.are_probabilities(outputs, classes)
    if are_probabilities:
        prediction_type = schema.type_of_classes(classes)
        outputs = {"prediction": prediction_type}
    return LoadedModel(
        model_uri=model_uri,
        folder=folder,
        flavors=frozenset(model.flavors),
        inputs=inputs,
        optional_inputs=frozenset(model.signature.inputs.optional_input_names()),
        outputs=outputs,
        prediction_type=prediction_type,
        classes=classes,
        optional_outputs=frozenset(name for name in model.signature.outputs.optional_input_names() if name in outputs),
        estimator=estimator,
        estimator_flavor=flavor,
        gives_probabilities=gives_probabilities or are_probabilities,
        outputs_are_probabilities=are_probabilities,
    )


def _estimator(model: Model, model_uri: str, folder: Path) -> tuple[str, Any]:
    """Return the flavor and the estimator of a model that has one and that MLflow applies with ``predict``."""
    if model.flavors.get("python_function", {}).get("predict_fn", "predict") != "predict":
        return "", None
    for flavor in _ESTIMATOR_FLAVORS:
        if flavor in model.flavors:
            try:
                return flavor, importlib.import_module(f"mlflow.{flavor}").load_model(str(folder))
            except ModuleNotFoundError as error:
                raise _missing_package(model_uri, folder, error.name or str(error), "here") from None
    return "", None


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
