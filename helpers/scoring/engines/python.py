"""Any MLflow model, applied by Spark's Python workers.

Batches pass between Spark and the model as Arrow, through ``DataFrame.mapInArrow``. ``mlflow.pyfunc.spark_udf`` does
the same through pandas, loads the model once per task and checks the schema of each batch, which takes longer. It is
used for a model in an environment of its own, where ``mapInArrow`` cannot be.

Outputs that are numbers, text or arrays of them return to Spark unchanged. All other outputs (times, structs, maps, …)
return as JSON, because ``spark_udf`` does not support their types. Spark parses the JSON by the type in the signature.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from helpers import output
from helpers.data.names import quoted
from helpers.scoring import worker
from helpers.scoring.engines.base import Engine
from helpers.scoring.engines.shipping import WORKER_MODULE, ship

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import DataType

_PASSED_BACK = ("boolean", "integer", "long", "float", "double", "string")


class PythonEngine(Engine):
    """An MLflow model in Spark's Python workers."""

    name = "udf"

    def apply(self, rows: DataFrame, keep: Sequence[str], *, each_class: bool = False) -> DataFrame:
        """Apply the model as `Engine.apply` says; only the probabilities that are asked for pass from Python to Spark."""
        from pyspark.sql import functions as F

        model = self.model
        outputs = {name: self._passed_as(name) for name in model.outputs}
        probability, probabilities = F.lit(None).cast("double"), F.lit(None).cast("array<double>")
        if model.gives_probabilities and each_class:
            names = [f"p{number}" for number in range(len(model.classes))]
            outputs |= dict.fromkeys(names, "double")
            probabilities = F.array(*names)
            probability = F.array_max(probabilities)
        elif model.gives_probabilities:
            outputs["probability"] = "double"
            probability = F.col("probability")
        config = {
            "outputs": list(outputs.items()),
            "optional": sorted(model.optional_outputs),
            "estimator": ""
            if model.outputs_are_probabilities or not model.gives_probabilities
            else model.estimator_flavor,
            "classes": model.classes if model.outputs_are_probabilities else [],
            "each_class": each_class,
        }
        if self.env_manager == "local":
            applied = self._by_arrow(rows, keep, config)
        else:
            applied = self._by_udf(rows, keep, config)
        columns = [self._prediction().alias("prediction"), probability.alias("probability")]
        if each_class:
            columns.append(probabilities.alias("probabilities"))
        return applied.select(*keep, *columns, F.col(worker.PROBLEM).alias("problem"))

    def _passed_as(self, name: str) -> str:
        """Return the type with which an output passes from Python to Spark."""
        from pyspark.sql.types import ArrayType

        output_type = self.model.outputs[name]
        element = output_type.elementType if isinstance(output_type, ArrayType) else output_type
        # MLflow makes the text "None" of a missing one. NaN is never taken for one.
        may_be_missing = name in self.model.optional_outputs and output_type.typeName() not in ("double", "float")
        is_passed = element.typeName() in _PASSED_BACK and not may_be_missing
        return output_type.simpleString() if is_passed else worker.JSON

    def _prediction(self) -> Column:
        from pyspark.sql import functions as F
        from pyspark.sql.types import ArrayType, StructType

        columns = [self._output(name).alias(name) for name in self.model.outputs]
        if len(columns) > 1 and isinstance(self.model.prediction_type, ArrayType):
            return F.array(*columns)
        if len(columns) > 1 and isinstance(self.model.prediction_type, StructType):
            return F.struct(*columns)
        return columns[0]

    def _sent(self) -> list[Column]:
        """Return the input columns as `toPandas` gives them: times of the session's time zone, which they do not name."""
        from pyspark.sql import functions as F

        types = {name: _without_time_zone(input_type) for name, input_type in self.model.inputs.items()}
        return [F.col(quoted(name)).cast(input_type) for name, input_type in types.items()]

    def _output(self, name: str) -> Column:
        from pyspark.sql import functions as F
        from pyspark.sql.types import StructType

        if self._passed_as(name) != worker.JSON:
            return F.col(quoted(name))
        as_value = StructType().add("value", self.model.outputs[name])
        return F.from_json(F.col(quoted(name)), as_value, {"mode": "FAILFAST"})["value"]

    def _by_arrow(self, rows: DataFrame, keep: Sequence[str], config: dict[str, Any]) -> DataFrame:
        from pyspark.sql.types import StringType, StructType, _parse_datatype_string

        # Under names that no other column has.
        input_names = {f"_input_{number}": name for number, name in enumerate(self.model.inputs)}
        sent = rows.select(
            *keep, *(column.alias(alias) for alias, column in zip(input_names, self._sent(), strict=True))
        )
        schema = StructType([field for field in sent.schema if field.name not in input_names])
        for name, type_name in config["outputs"]:
            schema = schema.add(name, _parse_datatype_string("string" if type_name == worker.JSON else type_name))
        unpack = self._unpack

        def predict(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            # Pickled by value, because executors cannot import `helpers`.
            folder = unpack()
            import worker_predictions

            yield from worker_predictions.predict_batches(batches, folder, config, input_names)

        return sent.mapInArrow(predict, schema.add(worker.PROBLEM, StringType()))

    @cached_property
    def _unpack(self) -> Callable[[], str]:
        """What returns the model's folder on a worker; the files are sent once."""
        return ship(self.model.folder)

    def _by_udf(self, rows: DataFrame, keep: Sequence[str], config: dict[str, Any]) -> DataFrame:
        import mlflow
        from mlflow.models import Model, ModelSignature
        from pyspark.sql import functions as F

        model_folder = self.model.folder
        signature = Model.load(model_folder).signature.inputs
        # The model itself checks its inputs again. Here MLflow would make a dict of named tensors, and it takes nested
        # arrays only if they have one length.
        nested = ("array", "map", "struct")
        checks_inputs = not signature.is_tensor_spec() and not any(
            input_type.typeName() in nested for input_type in self.model.inputs.values()
        )
        folder = model_folder.parent / f"model_{uuid.uuid4().hex}"
        module = shutil.copy(worker.__file__, model_folder.parent / f"{WORKER_MODULE}.py")
        # MLflow warns about the local environment, which is the one that the job has pinned.
        with output.quiet("mlflow.pyfunc", "mlflow.models.flavor_backend_registry"):
            mlflow.pyfunc.save_model(
                path=folder,
                loader_module=WORKER_MODULE,
                data_path=model_folder,
                code_paths=[module],
                signature=ModelSignature(inputs=signature) if checks_inputs else None,
                pip_requirements=str(model_folder / "requirements.txt"),
                model_config=config,
            )
            environment = model_folder / "python_env.yaml"
            if environment.exists():
                shutil.copy(environment, folder)
            columns = [*config["outputs"], (worker.PROBLEM, "string")]
            result_type = ", ".join(
                f"{quoted(name)} {'string' if type_name == worker.JSON else type_name}" for name, type_name in columns
            )
            udf = mlflow.pyfunc.spark_udf(rows.sparkSession, str(folder), result_type, env_manager=self.env_manager)
        # As one struct, because MLflow makes a dict of each row of a struct, with numbers of the wrong type.
        inputs = F.struct(*(column.alias(name) for name, column in zip(self.model.inputs, self._sent(), strict=True)))
        # Deterministic, Spark would call it once more for a condition on its result.
        applied = rows.select(*keep, udf.asNondeterministic()(inputs).alias("_outputs"))
        # F.nullif does not work here: Spark 3.5 has to know the column's type for it.
        message = F.col(f"_outputs.{worker.PROBLEM}")
        problem = F.when(message != "", message)
        outputs = [
            F.when(problem.isNull(), F.col(f"_outputs.{quoted(name)}")).alias(name) for name, _ in config["outputs"]
        ]
        return applied.select(*keep, *outputs, problem.alias(worker.PROBLEM))


def _without_time_zone(kind: DataType) -> DataType:
    """Return a type with every timestamp in it replaced by one without a time zone."""
    from pyspark.sql.types import ArrayType, MapType, StructField, StructType, TimestampNTZType, TimestampType

    if isinstance(kind, TimestampType):
        return TimestampNTZType()
    if isinstance(kind, ArrayType):
        return ArrayType(_without_time_zone(kind.elementType))
    if isinstance(kind, MapType):
        return MapType(kind.keyType, _without_time_zone(kind.valueType))
    if isinstance(kind, StructType):
        return StructType([StructField(field.name, _without_time_zone(field.dataType)) for field in kind])
    return kind
