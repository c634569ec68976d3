"""Linear scikit-learn pipelines as Spark's own expressions, which run without Python."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from helpers.data.columns import opaque
from helpers.data.names import quoted
from helpers.scoring.engines.base import Engine, NotSupported
from helpers.scoring.engines.comparison import ROW, greatest_difference
from helpers.scoring.engines.translation import Translation, balanced_sum, translate

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

REFUSED = "a value is missing or infinite"
MOST_COLUMNS = 1_000


class SqlEngine(Engine):
    """A linear model as expressions; before it is used, its predictions are compared with the model's."""

    name = "sql"

    @cached_property
    def translation(self) -> Translation:
        """The model as expressions; `NotSupported` if it has none."""
        return translate(self.model.estimator, self.model.inputs)

    def check(self, rows: DataFrame) -> str:
        """Check that the model has a translation, and that it predicts what the model predicts for some of the rows."""
        model = self.model
        if self.env_manager != "local":
            raise NotSupported(f"env_manager={self.env_manager!r} is for Python")
        if len(model.inputs) > MOST_COLUMNS:
            raise NotSupported(
                f"it has more than {MOST_COLUMNS} columns, and Java does not compile such long expressions"
            )
        if model.estimator is None or model.gives_probabilities != hasattr(model.estimator, "classes_"):
            raise NotSupported("it is not a scikit-learn regressor or probabilistic classifier")
        score = functools.partial(_scored, self.translation, keep=[ROW])
        difference = greatest_difference(model.estimator, model.inputs, rows, score)
        return f"checked against the model: the same classes, numbers within {difference:.0e}"

    def apply(self, rows: DataFrame, keep: Sequence[str], *, each_class: bool = False) -> DataFrame:
        """Apply the model as `Engine.apply` says; a problem does not name the columns, unlike those of `outcomes`."""
        from pyspark.sql import functions as F

        scored = _scored(self.translation, rows, keep)
        prediction = F.col("prediction").cast(self.model.prediction_type).alias("prediction")
        probabilities = ["probability", "probabilities"] if each_class else ["probability"]
        problem = F.when(F.col("prediction").isNull(), F.lit(REFUSED)).alias("problem")
        return scored.select(*keep, prediction, *probabilities, problem)

    def outcomes(self, rows: DataFrame, keep: Sequence[str]) -> DataFrame:
        """Apply the model as `Engine.outcomes` says; a problem names the columns, which would slow down `apply`."""
        from pyspark.sql import functions as F

        columns = []
        for name, input_type in self.model.inputs.items():
            if input_type.typeName() == "string":
                # Every model that has a translation takes missing text for a category.
                continue
            value = F.col(quoted(name))
            lacks = value.isNull()
            if input_type.typeName() in ("double", "float"):
                lacks |= F.isnan(value) | (F.abs(value) == float("inf"))
            columns.append(F.when(lacks, F.lit(repr(name))))
        applied = self.apply(
            rows.withColumn("_missing_columns", opaque(F.concat_ws(", ", *columns))), [*keep, "_missing_columns"]
        )
        names = F.when(F.col("_missing_columns") != "", F.col("_missing_columns"))
        problem = F.when(F.col("problem").isNotNull(), F.concat_ws(": ", "problem", names))
        return applied.withColumn("problem", problem).drop("_missing_columns")


def _scored(translation: Translation, rows: DataFrame, keep: Sequence[str]) -> DataFrame:
    """Return ``prediction``, ``probability`` and ``probabilities``, all null for a row that the model refuses."""
    from pyspark.sql import functions as F

    names = [f"_decision_{number}" for number in range(len(translation.decisions))]
    decisions = [F.col(name) for name in names]
    # Step by step, because Spark computes once what a later step uses more than once.
    scored = rows.select(
        *keep, *(decision.alias(name) for decision, name in zip(translation.decisions, names, strict=True))
    )
    accepted = functools.reduce(operator.and_, (F.abs(decision) < float("inf") for decision in decisions))
    if translation.link == "identity":
        outputs = decisions[0], F.lit(None).cast("double"), F.lit(None).cast("array<double>")
    elif len(decisions) == 1:
        outputs = _one_of_two(translation.classes, decisions[0])
    else:
        greatest = F.greatest(*decisions)
        if translation.link == "sigmoid":
            scores = [1 / (1 + F.exp(-decision)) for decision in decisions]
        else:
            scores = [F.exp(decision - greatest) for decision in decisions]
        numbered = [score.alias(f"_score_{number}") for number, score in enumerate(scores)]
        scored = scored.select("*", greatest.alias("_greatest"), *numbered)
        outputs = _one_of_many(
            translation.classes, decisions, [F.col(f"_score_{number}") for number in range(len(scores))]
        )
    columns = ("prediction", "probability", "probabilities")
    return scored.select(
        *keep, *(F.when(accepted, output).alias(name) for output, name in zip(outputs, columns, strict=True))
    )


def _one_of_two(classes: list[Any], decision: Column) -> tuple[Column, Column, Column]:
    from pyspark.sql import functions as F

    first, second = (F.lit(label) for label in classes)
    # By the sign, as scikit-learn does.
    prediction = F.when(decision > 0, second).otherwise(first)
    score = 1 / (1 + F.exp(-decision))
    return prediction, 1 / (1 + F.exp(-F.abs(decision))), F.array(1 - score, score)


def _one_of_many(classes: list[Any], decisions: list[Column], scores: list[Column]) -> tuple[Column, Column, Column]:
    from pyspark.sql import functions as F

    # Of equal ones the first, as NumPy's argmax.
    prediction = F.lit(classes[-1])
    for label, decision in reversed(list(zip(classes[:-1], decisions[:-1], strict=True))):
        prediction = F.when(decision == F.col("_greatest"), F.lit(label)).otherwise(prediction)
    total = balanced_sum(scores)
    return prediction, F.greatest(*scores) / total, F.array(*(score / total for score in scores))
