"""Apply a logged or registered model to the rows of a Spark DataFrame."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import runtime, sql_engine, tracking
from helpers.parameters import ParameterError
from helpers.tables import quoted

if TYPE_CHECKING:
    from mlflow.types import Schema
    from pyspark.sql import DataFrame
    from pyspark.sql.types import DataType

LOADER = "predict_with_probabilities"


@dataclass(frozen=True)
class Engine:
    """What applies a model to rows.

    Attributes
    ----------
    name : str
        ``spark ml``, ``sql`` or ``udf``.
    why : str
    translation : helpers.sql_engine.Translation or None
        Of the engine ``sql``.
    """

    name: str
    why: str
    translation: sql_engine.Translation | None = None

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
    output_type : pyspark.sql.types.DataType
        Type of a prediction.
    folder : pathlib.Path
        The MLflow model; where `gives_probabilities`, with the loader that gives them.
    estimator : sklearn.base.BaseEstimator or None
        Of a scikit-learn model.
    gives_probabilities : bool
        Of models that are not Spark ML's.
    is_spark_ml : bool
    """

    model_uri: str
    classes: list[Any]
    inputs: dict[str, DataType]
    output_type: DataType
    folder: Path
    estimator: Any
    gives_probabilities: bool
    is_spark_ml: bool

    def check_columns(self, rows: DataFrame, parameter: str, value: str) -> None:
        """Check that rows have every column of the signature, with a type that fits.

        A number fits where the model takes one at least as wide; text fits text.

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
                problems.append(f"{name!r} is missing")
            elif not _fits(rows.schema[name].dataType, wanted):
                found = rows.schema[name].dataType.simpleString()
                problems.append(f"{name!r} has type {found} where the model takes {wanted.simpleString()}")
        if problems:
            raise ParameterError(parameter, value, f"does not fit the model {self.model_uri}: {'; '.join(problems)}")

    def engine(self, rows: DataFrame, wanted: str = "auto") -> Engine:
        """Choose what applies the model to rows.

        Parameters
        ----------
        rows : pyspark.sql.DataFrame
            With the columns of the signature; the engine ``sql`` is checked on some of them.
        wanted : str, default "auto"
            ``auto``, ``sql`` or ``udf``. ``auto`` is SQL where that gives the model's answers, else a UDF. A Spark
            ML model is applied by Spark itself, whatever is wanted.

        Raises
        ------
        ParameterError
            If ``sql`` is wanted and cannot be had.
        """
        if self.is_spark_ml:
            return Engine("spark ml", "a Spark ML model's own transform")
        if wanted == "udf":
            return Engine("udf", "as scoring_engine says")
        try:
            if self.estimator is None or bool(self.classes) != hasattr(self.estimator, "classes_"):
                raise sql_engine.NotTranslated("it is no scikit-learn model of numbers or of classes' probabilities")
            translation = sql_engine.translate(self.estimator, self.inputs)
            difference = sql_engine.check(translation, self.estimator, self.inputs, rows)
        except sql_engine.NotTranslated as reason:
            if wanted == "sql":
                raise ParameterError(
                    "scoring_engine", wanted, f"cannot score {self.model_uri}: {reason}. Say auto or udf."
                ) from None
            return Engine("udf", f"not sql: {reason}")
        why = f"checked against the model: the same classes, numbers within {difference:.0e}"
        return Engine("sql", why, translation)

    def transform(self, rows: DataFrame, keep: list[str], engine: Engine | None = None) -> DataFrame:
        """Add predictions to rows.

        Parameters
        ----------
        rows : pyspark.sql.DataFrame
            With the columns of the signature, whatever others there are.
        keep : list of str
            Columns of `rows` that the result has, too.
        engine : Engine, optional
            What `engine` chose; by default it chooses now.

        Returns
        -------
        pyspark.sql.DataFrame
            The columns `keep`, then ``prediction`` and ``probabilities`` (array of double, one a
            class; null if the model gives none).
        """
        import mlflow
        from pyspark.ml.functions import vector_to_array
        from pyspark.sql import functions as F

        # Under names that no feature and no output has.
        kept = [F.col(quoted(name)).alias(f"_keep_{i}") for i, name in enumerate(keep)]
        inputs = [F.col(quoted(name)).cast(kind) for name, kind in self.inputs.items()]
        prediction, probabilities = F.col("prediction"), F.lit(None).cast("array<double>")
        engine = engine or self.engine(rows)
        if engine.translation:
            refused = F.concat(
                F.lit(f"the model {self.model_uri} refuses a row in which a value is missing or infinite: "),
                F.to_json(F.struct(*(F.col(quoted(name)) for name in keep))),
            )
            scored = engine.translation.transform(rows, [*kept, refused.alias("_refused")])
            # As the model itself would fail.
            failure = F.raise_error(F.col("_refused")).cast(self.output_type)
            prediction = F.coalesce(F.col("prediction").cast(self.output_type), failure)
            probabilities = F.col("probabilities")
        elif self.is_spark_ml:
            # Through spark_udf it would start a Spark session inside each Python worker.
            named = [column.alias(name) for column, name in zip(inputs, self.inputs, strict=True)]
            with runtime.quiet("mlflow.spark"):
                model = mlflow.spark.load_model(self.folder.as_uri())
            scored = model.transform(rows.select(*kept, *named))
            if "probability" in scored.columns:
                probabilities = vector_to_array("probability")
        elif self.gives_probabilities:
            columns = [f"p{i}" for i in range(len(self.classes))]
            fields = [f"prediction {self.output_type.simpleString()}", *(f"{name} double" for name in columns)]
            scored = rows.select(*kept, self._udf(rows, ", ".join(fields))(*inputs).alias("_answers"))
            prediction = F.col("_answers.prediction")
            probabilities = F.array(*(F.col(f"_answers.{name}") for name in columns))
        else:
            scored = rows.select(*kept, self._udf(rows, self.output_type)(*inputs).alias("prediction"))
        return scored.select(
            *(F.col(f"_keep_{i}").alias(name) for i, name in enumerate(keep)),
            prediction.alias("prediction"),
            probabilities.alias("probabilities"),
        )

    def _udf(self, rows: DataFrame, result_type: Any):
        import mlflow

        # It advises against the local environment, which is the one that the job has pinned.
        with runtime.quiet("mlflow.pyfunc", "mlflow.models.flavor_backend_registry"):
            return mlflow.pyfunc.spark_udf(rows.sparkSession, str(self.folder), result_type, env_manager="local")


def load(model_uri: str) -> Predictor:
    """Download a model and see what it takes and gives.

    Parameters
    ----------
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
    from mlflow.models import Model, ModelSignature

    from helpers import predict_with_probabilities

    # Spark reads the folder when rows are scored, which is later: it stays until the process ends.
    downloads = tempfile.mkdtemp(prefix="azureml_mlflow_")
    atexit.register(shutil.rmtree, downloads, ignore_errors=True)
    folder = tracking.download_model(model_uri, Path(downloads))
    model = Model.load(folder)
    signature = model.signature
    if signature is None or signature.inputs is None or signature.inputs.is_tensor_spec():
        raise ParameterError(
            "model_name",
            model_uri,
            "has no signature with named columns; log it with signature=infer_signature(<a pandas DataFrame>, …)",
        )
    output_type = _output_type(model_uri, signature.outputs)
    classes, gives_probabilities, estimator = (model.metadata or {}).get("classes", []), False, None
    if "sklearn" in model.flavors:
        estimator = mlflow.sklearn.load_model(str(folder))
        gives_probabilities = hasattr(estimator, "predict_proba")
    if gives_probabilities:
        classes = estimator.classes_.tolist()
        code = folder / "code"
        code.mkdir(exist_ok=True)
        shutil.copy(predict_with_probabilities.__file__, code)
        model.flavors["python_function"] |= {"loader_module": LOADER, "code": code.name}
        model.signature = ModelSignature(inputs=signature.inputs)
        model.save(folder / "MLmodel")
    return Predictor(
        model_uri=model_uri,
        classes=classes,
        inputs={column.name: column.type.to_spark() for column in signature.inputs.inputs},
        output_type=output_type,
        folder=folder,
        estimator=estimator,
        gives_probabilities=gives_probabilities,
        is_spark_ml="spark" in model.flavors,
    )


def _output_type(model_uri: str, outputs: Schema | None) -> DataType:
    from pyspark.sql.types import BooleanType, DoubleType, LongType, StringType

    if outputs is None or len(outputs.inputs) != 1:
        raise ParameterError("model_name", model_uri, "has a signature without exactly one output; log it with one")
    output = outputs.inputs[0]
    if not outputs.is_tensor_spec():
        return output.type.to_spark()
    # infer_signature with an array as output records a tensor of this NumPy kind.
    kinds = {"f": DoubleType(), "i": LongType(), "u": LongType(), "b": BooleanType()}
    return kinds.get(output.type.kind, StringType())


def _fits(found: DataType, wanted: DataType) -> bool:
    width = ["boolean", "byte", "short", "integer", "long", "decimal", "float", "double"]
    if found == wanted:
        return True
    if found.typeName() not in width or wanted.typeName() not in width[3:]:
        return False
    return width.index(found.typeName()) < width.index(wanted.typeName())
