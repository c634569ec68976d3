"""Apply a logged or registered model to the rows of a Spark DataFrame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers.data.columns import opaque
from helpers.data.names import quoted
from helpers.scoring import engines, inputs
from helpers.scoring.model import LoadedModel, load_model
from helpers.scoring.trust import check_trust

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from pyspark.sql import DataFrame

    from helpers.scoring.engines import EngineChoice
    from helpers.scoring.engines.base import Engine
    from helpers.tracking import Session

_TYPE_PROBLEM = "_type_problem"


@dataclass(frozen=True)
class Predictor:
    """A model that scores Spark rows.

    Attributes
    ----------
    model : helpers.scoring.model.LoadedModel
    """

    model: LoadedModel

    @property
    def classes(self) -> list[Any]:
        """The classes, in the order of the probabilities; empty if they are not known."""
        return self.model.classes

    def check_columns(self, rows: DataFrame, parameter: str, value: str) -> None:
        """Check that rows have the model's input columns, see `helpers.scoring.inputs.check_columns`."""
        inputs.check_columns(rows, self.model, parameter, value)

    def choose_engine(self, rows: DataFrame, requested: str = "auto", env_manager: str = "local") -> EngineChoice:
        """Choose the engine that applies the model to rows, see `helpers.scoring.engines.choose`."""
        model = self.model.for_rows(rows)
        typed = rows.select(*(column.alias(name) for name, column in inputs.convert(rows, model).items()))
        return engines.choose(model, typed, requested, env_manager)

    def transform(
        self, rows: DataFrame, keep: Sequence[str], engine: Engine | None = None, *, each_class: bool = False
    ) -> DataFrame:
        """Apply the model to rows, and fail at one that it refuses.

        Parameters
        ----------
        rows : pyspark.sql.DataFrame
            With the model's input columns; other columns do not matter.
        keep : sequence of str
            Columns of `rows` that the result has, too; the first identifies a row.
        engine : helpers.scoring.engines.base.Engine, optional
            From `choose_engine`; by default the one that it chooses now.
        each_class : bool, default False
            Whether the result has the column ``probabilities``.

        Returns
        -------
        pyspark.sql.DataFrame
            The columns `keep`, then ``prediction``, ``probability`` (of the predicted class) and ``probabilities``
            (array of double, in the order of `classes`). The probabilities are null if the model gives none.
        """
        from pyspark.sql import functions as F

        engine = engine or self.choose_engine(rows).engine
        names = _short_names(keep)
        applied = engine.apply(self._typed(rows, keep, engine), [*names, _TYPE_PROBLEM], each_class=each_class)
        problem = F.coalesce(_TYPE_PROBLEM, "problem")
        row = F.to_json(F.struct(F.col(next(iter(names))).alias(keep[0])))
        message = F.concat(F.lit(f"the model {self.model.model_uri} refuses the row "), row, F.lit(": "), problem)
        failure = F.raise_error(message).cast(self.model.prediction_type)
        prediction = F.when(problem.isNotNull(), failure).otherwise(F.col("prediction"))
        return applied.withColumn("prediction", prediction).drop(_TYPE_PROBLEM, "problem").withColumnsRenamed(names)

    def accepted(self, rows: DataFrame, keep: Sequence[str], engine: Engine) -> DataFrame:
        """Apply the model to rows, and leave out those that it refuses; otherwise as `transform`."""
        typed, names = self._typed(rows, keep, engine), _short_names(keep)
        return engine.accepted(_without_problem(typed, engine), list(names)).withColumnsRenamed(names)

    def refused(self, rows: DataFrame, keep: Sequence[str], engine: Engine) -> DataFrame:
        """Return the rows that the model refuses, and why.

        Parameters
        ----------
        rows : pyspark.sql.DataFrame
        keep : sequence of str
            As in `transform`; the first identifies a row.
        engine : helpers.scoring.engines.base.Engine

        Returns
        -------
        pyspark.sql.DataFrame
            The columns `keep`, then ``problem``.
        """
        from pyspark.sql import functions as F

        typed, names = self._typed(rows, keep, engine), _short_names(keep)
        refused = engine.refused(_without_problem(typed, engine), list(names))
        if not engine.accepts_null_integers:
            mistyped = typed.where(F.col(_TYPE_PROBLEM).isNotNull())
            refused = mistyped.select(*names, F.col(_TYPE_PROBLEM).alias("problem")).union(refused)
        return refused.withColumnsRenamed(names)

    def outcomes(self, rows: DataFrame, keep: Sequence[str], engine: Engine) -> DataFrame:
        """Apply the model to rows some of which it may refuse, see `helpers.scoring.engines.base.Engine.outcomes`.

        Returns
        -------
        pyspark.sql.DataFrame
            The columns `keep`, then ``prediction``, ``probability`` and ``problem``.
        """
        from pyspark.sql import functions as F

        names = _short_names(keep)
        outcomes = engine.outcomes(self._typed(rows, keep, engine), [*names, _TYPE_PROBLEM])
        problem = F.coalesce(_TYPE_PROBLEM, "problem")
        return outcomes.withColumn("problem", problem).drop(_TYPE_PROBLEM).withColumnsRenamed(names)

    def _typed(self, rows: DataFrame, keep: Sequence[str], engine: Engine) -> DataFrame:
        """Return what is kept under short names, the model's input columns, and why their types refuse the row."""
        from pyspark.sql import functions as F

        if engine.accepts_null_integers:
            columns, problem = inputs.convert(rows, engine.model), F.lit(None).cast("string")
        else:
            columns, problem = inputs.convert_without_nulls(rows, engine.model)
        return rows.select(
            *(F.col(quoted(name)).alias(short) for short, name in _short_names(keep).items()),
            *(column.alias(name) for name, column in columns.items()),
            (problem if engine.accepts_null_integers else opaque(problem)).alias(_TYPE_PROBLEM),
        )


def load(session: Session, model_uri: str) -> Predictor:
    """Download a model that is to score rows, see `helpers.scoring.model.load_model`."""
    return Predictor(load_model(session, model_uri))


def load_version(session: Session, version: ModelVersion, allow_pickle: bool = False) -> Predictor:
    """Download a registered version; see `load`.

    Raises
    ------
    helpers.parameters.ParameterError
        As `helpers.scoring.model.load_model` and `helpers.scoring.trust.check_trust` do.
    """
    uri = f"models:/{version.name}/{version.version}"
    return Predictor(load_model(session, uri, lambda folder: check_trust(version, folder, allow_pickle)))


def _without_problem(typed: DataFrame, engine: Engine) -> DataFrame:
    """Return the rows whose types an engine accepts."""
    from pyspark.sql import functions as F

    # Not even a filter that is always true: Spark's optimizer would look for constraints of all the columns.
    return typed if engine.accepts_null_integers else typed.where(F.col(_TYPE_PROBLEM).isNull())


def _short_names(keep: Sequence[str]) -> dict[str, str]:
    """Return the columns that are kept, by names that need no quotes and that no input column has."""
    return {f"_keep_{number}": name for number, name in enumerate(keep)}
