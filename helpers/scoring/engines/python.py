"""Any MLflow model, applied by Spark's Python workers.

Batches go from Spark to the model as Arrow, with ``DataFrame.mapInArrow``. ``mlflow.pyfunc.spark_udf`` does the
same through pandas, loads the model once a task and checks the schema of each batch, which costs more; it is used
where the other way is not possible: for a model in an environment of its own, on Spark Connect, and for columns
that are neither numbers nor text.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import output, runtime
from helpers.data.names import quoted
from helpers.scoring import worker as worker_predictions

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import DataType

_PASSED_AS_ARROW = ("boolean", "integer", "long", "float", "double", "string", "binary")
_MODEL, _CODE = "model", "code"
# The module's name on the workers: `worker` alone could be somebody else's.
_WORKER_MODULE = "worker_predictions"


@dataclass(frozen=True)
class PythonEngine:
    """A model's folder, and how workers are to apply it.

    Parameters
    ----------
    folder : pathlib.Path
        The MLflow model.
    inputs : dict of str to pyspark.sql.types.DataType
        The columns of its signature.
    answers : dict of str to pyspark.sql.types.DataType
        The columns of what it gives. Of one that classifies: ``prediction``.
    classes : int, default 0
        Number of classes, of a scikit-learn model that gives their probabilities.
    env_manager : str, default "local"
        ``local``: the workers' own packages. ``virtualenv`` or ``uv``: those that the model was logged with, in an
        environment that each executor makes, once.
    """

    folder: Path
    inputs: dict[str, DataType]
    answers: dict[str, DataType]
    classes: int = 0
    env_manager: str = "local"
    _archives: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def transform(
        self, rows: DataFrame, keep: Sequence[Column], inputs: Sequence[Column], each_class: bool
    ) -> DataFrame:
        """Apply the model.

        Parameters
        ----------
        rows : pyspark.sql.DataFrame
        keep : sequence of pyspark.sql.Column
            What else the result has.
        inputs : sequence of pyspark.sql.Column
            The values of the signature's columns, in that order and of these types; no whole number is null.
        each_class : bool
            Give the probabilities of all classes, not that of the predicted one.

        Returns
        -------
        pyspark.sql.DataFrame
            ``keep``, the answers, ``probability`` or ``p0``, ``p1``, … of a model that classifies, and
            ``helpers.scoring.worker.PROBLEM``: why there is no answer.
        """
        answers = {name: kind.simpleString() for name, kind in self.answers.items()}
        if self.classes:
            names = [f"p{number}" for number in range(self.classes)] if each_class else ["probability"]
            answers |= dict.fromkeys(names, "double")
        config = {"answers": list(answers.items()), "classifies": bool(self.classes), "each_class": each_class}
        as_arrow = all(kind.typeName() in _PASSED_AS_ARROW for kind in self.inputs.values())
        if self.env_manager == "local" and as_arrow and not runtime.uses_spark_connect(rows):
            return self._by_arrow(rows, keep, inputs, config)
        return self._by_udf(rows, keep, inputs, config)

    def _by_arrow(
        self, rows: DataFrame, keep: Sequence[Column], inputs: Sequence[Column], config: dict[str, Any]
    ) -> DataFrame:
        from pyspark.sql.types import StringType, StructType, _parse_datatype_string

        # Under names that no column of the rows has.
        names = {f"_input_{number}": name for number, name in enumerate(self.inputs)}
        given = rows.select(*keep, *(column.alias(name) for column, name in zip(inputs, names, strict=True)))
        schema = StructType([column for column in given.schema if column.name not in names])
        for name, kind in config["answers"]:
            schema = schema.add(name, _parse_datatype_string(kind))
        archive = self._archive(rows)

        def answer(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            # Pickled by value, since workers cannot import `helpers`.
            import sys

            from pyspark import SparkFiles

            folder = SparkFiles.get(archive)
            code = f"{folder}/code"
            if code not in sys.path:
                sys.path.insert(0, code)
            import worker_predictions

            yield from worker_predictions.answer(batches, f"{folder}/model", config, names)

        return given.mapInArrow(answer, schema.add(worker_predictions.PROBLEM, StringType()))

    def _archive(self, rows: DataFrame) -> str:
        """Give the model to each executor, once; return the name of its folder there."""
        if not self._archives:
            # Executors fetch it when they need it: it stays as long as the model.
            name = f"model_{uuid.uuid4().hex}"
            files = self.folder.parent / name
            shutil.copytree(self.folder, files / _MODEL)
            (files / _CODE).mkdir()
            shutil.copy(worker_predictions.__file__, files / _CODE / f"{_WORKER_MODULE}.py")
            archive = shutil.make_archive(str(files), "zip", files)
            shutil.rmtree(files)
            rows.sparkSession.sparkContext.addArchive(f"{archive}#{name}")
            self._archives.append(name)
        return self._archives[0]

    def _by_udf(
        self, rows: DataFrame, keep: Sequence[Column], inputs: Sequence[Column], config: dict[str, Any]
    ) -> DataFrame:
        import mlflow
        from mlflow.models import Model, ModelSignature
        from pyspark.sql import functions as F

        folder = self.folder.parent / f"model_{uuid.uuid4().hex}"
        module = shutil.copy(worker_predictions.__file__, folder.parent / f"{_WORKER_MODULE}.py")
        # It advises against the local environment, which is the one that the job has pinned.
        with output.quiet("mlflow.pyfunc", "mlflow.models.flavor_backend_registry"):
            mlflow.pyfunc.save_model(
                path=folder,
                loader_module=_WORKER_MODULE,
                data_path=self.folder,
                code_paths=[module],
                signature=ModelSignature(inputs=Model.load(self.folder).signature.inputs),
                pip_requirements=str(self.folder / "requirements.txt"),
                model_config=config,
            )
            environment = self.folder / "python_env.yaml"
            if environment.exists():
                shutil.copy(environment, folder)
            columns = [*config["answers"], (worker_predictions.PROBLEM, "string")]
            result_type = ", ".join(f"{quoted(name)} {kind}" for name, kind in columns)
            udf = mlflow.pyfunc.spark_udf(rows.sparkSession, str(folder), result_type, env_manager=self.env_manager)
        # Or else Spark calls it once more for a condition on what it gives.
        answered = rows.select(*keep, udf.asNondeterministic()(*inputs).alias("_answers"))
        kept = answered.columns[: len(keep)]
        # Not with F.nullif: Spark 3.5 wants to know the column's type before it can.
        told = F.col(f"_answers.{worker_predictions.PROBLEM}")
        problem = F.when(told != "", told)
        found = [
            F.when(problem.isNull(), F.col(f"_answers.{quoted(name)}")).alias(name) for name, _ in config["answers"]
        ]
        return answered.select(*kept, *found, problem.alias(worker_predictions.PROBLEM))
