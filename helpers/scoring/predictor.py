"""Apply a logged or registered model to the rows of a Spark DataFrame."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import tracking
from helpers.data.columns import cast_or_null
from helpers.data.names import quoted
from helpers.parameters import ParameterError
from helpers.scoring.engines import sql as sql_engine
from helpers.scoring.engines.python import PythonEngine
from helpers.scoring.engines.spark_ml import SKIPPED, SparkMLEngine
from helpers.scoring.worker import PROBLEM

if TYPE_CHECKING:
    from mlflow.types import Schema
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import DataType

_WHOLE = ("boolean", "integer", "long")
_KEPT = "_keep_{}"
_MOST_COLUMNS = 100


@dataclass(frozen=True)
class Engine:
    """What applies a model to rows.

    Attributes
    ----------
    name : str
        ``spark ml``, ``sql`` or ``udf``.
    why : str
    how : helpers.scoring.engines.spark_ml.SparkMLEngine, helpers.scoring.engines.sql.Translation or helpers.scoring.engines.python.PythonEngine
    """

    name: str
    why: str
    how: SparkMLEngine | sql_engine.Translation | PythonEngine

    def __str__(self) -> str:
        return f"{self.name} ({self.why})"


@dataclass(frozen=True)
class Predictor:
    """A model on the driver's disk, ready to score Spark rows.

    Attributes
    ----------
    model_uri : str
        Where it came from.
    classes : list
        The classes, in the order of the probabilities; empty if the model does not tell.
    inputs : dict of str to pyspark.sql.types.DataType
        The columns of its signature.
    optional : frozenset of str
        Those that may be missing.
    answers : dict of str to pyspark.sql.types.DataType
        What it gives a row; more than one if it has several outputs, or a vector of known length.
    prediction_type : pyspark.sql.types.DataType
        Of the column ``prediction``: the answer; a struct of several outputs; an array of a vector's numbers.
    folder : pathlib.Path
        The MLflow model.
    estimator : sklearn.base.BaseEstimator or None
        Of a scikit-learn model whose ``predict`` MLflow calls.
    gives_probabilities : bool
        Of such a model.
    is_spark_ml : bool
    """

    model_uri: str
    classes: list[Any]
    inputs: dict[str, DataType]
    optional: frozenset[str]
    answers: dict[str, DataType]
    prediction_type: DataType
    folder: Path
    estimator: Any
    gives_probabilities: bool
    is_spark_ml: bool

    def check_columns(self, rows: DataFrame, parameter: str, value: str) -> None:
        """Check that rows have every column of the signature, with a type that fits.

        A number fits where the model takes one at least as wide, a whole number where it takes a narrower one
        (whether the value fits is seen row by row), and text fits text.

        Parameters
        ----------
        rows : pyspark.sql.DataFrame
        parameter, value : str
            Where the rows came from, for the error.

        Raises
        ------
        ParameterError
            Names every column that is missing or has another type.
        """
        problems = []
        for name, wanted in self.inputs.items():
            if name not in rows.columns:
                if name not in self.optional or wanted.typeName() in _WHOLE:
                    problems.append(f"{name!r} is missing")
            elif not _fits(rows.schema[name].dataType, wanted):
                found = rows.schema[name].dataType.simpleString()
                problems.append(f"{name!r} has type {found} where the model takes {wanted.simpleString()}")
        if problems:
            raise ParameterError(parameter, value, f"does not fit the model {self.model_uri}: {'; '.join(problems)}")

    def engine(self, rows: DataFrame, wanted: str = "auto", env_manager: str = "local") -> Engine:
        """Choose what applies the model to rows.

        Parameters
        ----------
        rows : pyspark.sql.DataFrame
            With the columns of the signature; the engine ``sql`` is checked on some of them.
        wanted : str, default "auto"
            ``auto``, ``sql`` or ``udf``. ``auto`` is SQL where that gives the model's answers, else Python. A Spark
            ML model is applied by Spark itself, whatever is wanted.
        env_manager : str, default "local"
            See `helpers.scoring.engines.python.PythonEngine`; any but ``local`` is for Python.

        Raises
        ------
        ParameterError
            If ``sql`` is wanted and cannot be had.
        """
        if self.is_spark_ml:
            return Engine("spark ml", "a Spark ML model's own transform", SparkMLEngine(self.folder))
        classes = len(self.classes) if self.gives_probabilities else 0
        python = PythonEngine(self.folder, self.inputs, self.answers, classes, env_manager)
        if wanted == "udf":
            return Engine("udf", "as scoring_engine says", python)
        try:
            if env_manager != "local":
                raise sql_engine.NotTranslated(f"env_manager={env_manager!r} is for Python")
            if self.estimator is None or self.gives_probabilities != hasattr(self.estimator, "classes_"):
                raise sql_engine.NotTranslated("it is no scikit-learn model of numbers or of classes' probabilities")
            translation = sql_engine.translate(self.estimator, self.inputs)
            difference = sql_engine.check(translation, self.estimator, self.inputs, rows)
        except sql_engine.NotTranslated as reason:
            if wanted == "sql":
                raise ParameterError(
                    "scoring_engine", wanted, f"cannot score {self.model_uri}: {reason}. Say auto or udf."
                ) from None
            return Engine("udf", f"not sql: {reason}", python)
        why = f"checked against the model: the same classes, numbers within {difference:.0e}"
        return Engine("sql", why, translation)

    def transform(
        self, rows: DataFrame, keep: Sequence[str], engine: Engine | None = None, *, each_class: bool = False
    ) -> DataFrame:
        """Apply the model to rows, and fail at one that it refuses.

        Parameters
        ----------
        rows : pyspark.sql.DataFrame
            With the columns of the signature, whatever others there are.
        keep : sequence of str
            Columns of `rows` that the result has, too.
        engine : Engine, optional
            What `engine` chose; by default it chooses now.
        each_class : bool, default False
            Give ``probabilities`` (array of double, in the order of `classes`) in place of ``probability``.

        Returns
        -------
        pyspark.sql.DataFrame
            The columns `keep`, then ``prediction`` and ``probability``, that of the prediction; null if the model
            gives none.
        """
        from pyspark.sql import functions as F

        engine = engine or self.engine(rows)
        answered = self._answered(rows, keep, engine, each_class=each_class, skip=False)
        where = F.to_json(F.struct(*(F.col(_KEPT.format(i)).alias(name) for i, name in enumerate(keep))))
        message = F.concat(F.lit(f"the model {self.model_uri} refuses the row "), where, F.lit(": "), F.col(PROBLEM))
        failure = F.raise_error(message).cast(self.prediction_type)
        prediction = F.when(F.col(PROBLEM).isNotNull(), failure).otherwise(F.col("prediction"))
        return _named(answered.withColumn("prediction", prediction), keep).drop(PROBLEM)

    def transform_accepted(self, rows: DataFrame, keep: Sequence[str], engine: Engine) -> DataFrame:
        """Apply the model to rows, and leave out those that it refuses; otherwise as `transform`."""
        from pyspark.sql import functions as F

        answered = self._answered(rows, keep, engine)
        return _named(answered.where(F.col(PROBLEM).isNull()), keep).drop(PROBLEM)

    def refused(self, rows: DataFrame, keep: Sequence[str], engine: Engine) -> DataFrame:
        """Return the rows that the model refuses, and why.

        Parameters
        ----------
        rows : pyspark.sql.DataFrame
        keep : sequence of str
            As in `transform`; the first identifies a row.
        engine : Engine

        Returns
        -------
        pyspark.sql.DataFrame
            The columns `keep`, then ``problem``.
        """
        from pyspark.sql import functions as F

        answered = self._answered(rows, keep, engine, explain=True)
        if self.is_spark_ml:
            accepted = _named(answered, keep).select(quoted(keep[0]))
            refused = rows.select(*map(quoted, keep)).join(accepted, keep[0], "left_anti")
            return refused.select(*map(quoted, keep), F.lit(SKIPPED).alias("problem"))
        refused = _named(answered.where(F.col(PROBLEM).isNotNull()), keep)
        return refused.select(*map(quoted, keep), F.col(PROBLEM).alias("problem"))

    def _answered(
        self,
        rows: DataFrame,
        keep: Sequence[str],
        engine: Engine,
        *,
        each_class: bool = False,
        skip: bool = True,
        explain: bool = False,
    ) -> DataFrame:
        """Return what is kept as ``_keep_0``, …, then prediction, probability or probabilities, and `PROBLEM`."""
        from pyspark.sql import functions as F

        # Under names that no feature and no output has.
        kept = [F.col(quoted(name)).alias(_KEPT.format(i)) for i, name in enumerate(keep)]
        names = [_KEPT.format(i) for i in range(len(keep))]
        inputs, problems = self._checked_inputs(rows)
        probability = "probabilities" if each_class else "probability"
        nothing = F.lit(None).cast("array<double>" if each_class else "double")
        if isinstance(engine.how, SparkMLEngine):
            scored = engine.how.transform(rows, kept, inputs, skip)
            found = F.col("probabilities") if each_class else F.array_max("probabilities")
            problem = F.lit(None).cast("string")
            return scored.select(*names, "prediction", found.alias(probability), problem.alias(PROBLEM))
        # Only where there can be one, since it goes through Python.
        type_problem = [F.coalesce(*problems).alias("_type_problem")] if problems else []
        if isinstance(engine.how, sql_engine.Translation):
            # A text that is missing is a category to all models that have a translation.
            numbers = [
                name for name, kind in self.inputs.items() if kind.typeName() != "string" and name in rows.columns
            ]
            missing = [_missing(rows, numbers).alias("_missing")] * explain
            scored = engine.how.transform(rows, [*kept, *missing, *type_problem])
            found, prediction = F.col(probability), F.col("prediction").cast(self.prediction_type)
            reason = F.concat_ws("", F.lit("a value is missing or infinite"), *(F.col("_missing") for _ in missing))
            failure = F.when(F.col("prediction").isNull(), reason)
        else:
            scored = engine.how.transform(rows, [*kept, *type_problem], list(inputs.values()), each_class)
            prediction, failure = self._prediction(), F.col(PROBLEM)
            found = nothing
            if self.gives_probabilities:
                each = [F.col(f"p{number}") for number in range(len(self.classes))] if each_class else []
                found = F.array(*each) if each_class else F.col(probability)
        if type_problem:
            failure = F.coalesce(F.col("_type_problem"), failure)
        return scored.select(*names, prediction.alias("prediction"), found.alias(probability), failure.alias(PROBLEM))

    def _checked_inputs(self, rows: DataFrame) -> tuple[dict[str, Column], list[Column]]:
        """Return the columns as the model takes them, and for each whole number why a value is not one."""
        from pyspark.sql import functions as F

        inputs, problems = {}, []
        for name, kind in self.inputs.items():
            if name not in rows.columns:
                inputs[name] = F.lit(None).cast(kind)
                continue
            given, type_name = F.col(quoted(name)), kind.simpleString()
            fitting = cast_or_null(name, kind)
            if kind.typeName() not in _WHOLE or self.is_spark_ml:
                inputs[name] = given if rows.schema[name].dataType == kind else fitting
                continue
            # MLflow refuses what is missing among them, whatever the model would make of it.
            missing = F.when(given.isNull(), F.lit(f"{name!r} is missing, and the model takes {type_name}"))
            other = F.concat(F.lit(f"{name!r} is no {type_name}: "), given.cast("string"))
            problems.append(F.coalesce(missing, F.when(fitting.isNull(), other)))
            inputs[name] = F.coalesce(fitting, F.lit(0).cast(kind))
        return inputs, problems

    def _prediction(self) -> Column:
        from pyspark.sql import functions as F
        from pyspark.sql.types import ArrayType, StructType

        columns = [F.col(quoted(name)) for name in self.answers]
        if len(columns) > 1 and isinstance(self.prediction_type, ArrayType):
            return F.array(*columns)
        if isinstance(self.prediction_type, StructType):
            return F.struct(*columns)
        return columns[0]

    def missing_package(self, error: Exception) -> ParameterError | None:
        """Return what to tell somebody about a package that the model needs and workers lack, if that is the error."""
        found = re.search(r"No module named '([\w.]+)'", str(error))
        if found is None:
            return None
        return _missing_package(self.model_uri, self.folder, found.group(1), "on the executors")


def load(session: tracking.Session, model_uri: str) -> Predictor:
    """Download a model and see what it takes and gives.

    Parameters
    ----------
    session : helpers.tracking.Session
    model_uri : str
        ``models:/<name>/<version>``, ``models:/<model id>`` or ``runs:/<run id>/<path>``.

    Returns
    -------
    Predictor

    Raises
    ------
    ParameterError
        If the model has no signature with named columns, or more than one output.
    """
    import mlflow
    from mlflow.models import Model

    # Executors fetch the folder when rows are scored, which is later: it stays until the process ends.
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
    answers, prediction_type = _answers(model_uri, signature.outputs)
    classes = (model.metadata or {}).get("classes", [])
    estimator: Any = None
    if "sklearn" in model.flavors and model.flavors["python_function"].get("predict_fn", "predict") == "predict":
        try:
            estimator = mlflow.sklearn.load_model(str(folder))
        except ModuleNotFoundError as error:
            raise _missing_package(model_uri, folder, error.name or str(error), "here") from None
    # Those of a model of several outputs are a list of arrays.
    gives_probabilities = hasattr(estimator, "predict_proba") and hasattr(estimator.classes_, "tolist")
    return Predictor(
        model_uri=model_uri,
        classes=estimator.classes_.tolist() if gives_probabilities else classes,
        inputs={column.name: column.dataType for column in signature.inputs.as_spark_schema()},
        optional=frozenset(signature.inputs.optional_input_names()),
        answers=answers,
        prediction_type=prediction_type,
        folder=folder,
        estimator=estimator,
        gives_probabilities=gives_probabilities,
        is_spark_ml="spark" in model.flavors,
    )


def _answers(model_uri: str, outputs: Schema | None) -> tuple[dict[str, DataType], DataType]:
    """Return the types of the columns that a model gives, and of what is made of them."""
    from mlflow.types import TensorSpec
    from pyspark.sql.types import ArrayType, BooleanType, DoubleType, LongType, StringType, StructField, StructType

    if outputs is None:
        raise ParameterError(
            "model_name",
            model_uri,
            "has a signature without outputs; log it with signature=infer_signature(…, <answers>)",
        )
    if not outputs.is_tensor_spec():
        schema = outputs.as_spark_schema()
        fields = schema.fields if isinstance(schema, StructType) else [StructField("prediction", schema)]
        if len(fields) == 1:
            return {"prediction": fields[0].dataType}, fields[0].dataType
        return {field.name: field.dataType for field in fields}, StructType(
            [StructField(f.name, f.dataType) for f in fields]
        )
    # infer_signature with an array as output records a tensor of this NumPy kind.
    tensor, *others = [one for one in outputs.inputs if isinstance(one, TensorSpec)]
    if others or len(tensor.shape) > 2:
        raise ParameterError(
            "model_name", model_uri, "has a signature of several tensors, or of one of more than two dimensions; "
            "log it with named columns as outputs"
        )  # fmt: skip
    kinds = {"f": DoubleType(), "i": LongType(), "u": LongType(), "b": BooleanType()}
    kind, (_, *length) = kinds.get(tensor.type.kind, StringType()), tensor.shape
    if not length or length == [1]:
        return {"prediction": kind}, kind
    if 1 < length[0] <= _MOST_COLUMNS:
        # Numbers in columns of their own pass from Python to Spark several times faster than one list a row.
        return {str(number): kind for number in range(length[0])}, ArrayType(kind)
    return {"prediction": ArrayType(kind)}, ArrayType(kind)


def _missing(rows: DataFrame, columns: list[str]) -> Column:
    """Return the names of the columns in which a value is missing or infinite, as text after a colon."""
    from pyspark.sql import functions as F

    named = []
    for name in columns:
        value = F.col(quoted(name))
        lacks = value.isNull()
        if rows.schema[name].dataType.typeName() in ("double", "float"):
            lacks |= F.isnan(value) | (F.abs(value) == float("inf"))
        named.append(F.when(lacks, F.lit(repr(name))))
    return F.concat(F.lit(": "), F.concat_ws(", ", *named))


def _named(rows: DataFrame, keep: Sequence[str]) -> DataFrame:
    return rows.withColumnsRenamed({_KEPT.format(i): name for i, name in enumerate(keep)})


def _missing_package(model_uri: str, folder: Path, package: str, where: str) -> ParameterError:
    name = package.partition(".")[0]
    listed = Path(folder, "requirements.txt").read_text().splitlines()
    known = [line for line in listed if re.match(rf"{re.escape(name)}\b", line.replace("-", "_"), re.IGNORECASE)]
    return ParameterError(
        "model_name",
        model_uri,
        f"needs the package {name!r}, which is not installed {where}. Add {known[0] if known else name} to the task's "
        "libraries in databricks.yml (on a laptop: to the environment), or set env_manager=virtualenv",
    )


def _fits(found: DataType, wanted: DataType) -> bool:
    from pyspark.sql.types import DecimalType

    width = ["boolean", "byte", "short", "integer", "long", "decimal", "float", "double"]
    if found == wanted:
        return True
    if found.typeName() in ("date", "timestamp_ntz"):
        return wanted.typeName() == "timestamp"
    if found.typeName() not in width or wanted.typeName() not in width[3:]:
        return False
    whole = found.typeName() in width[1:5] or (isinstance(found, DecimalType) and found.scale == 0)
    return width.index(found.typeName()) < width.index(wanted.typeName()) or (whole and wanted.typeName() in _WHOLE[1:])
