"""A Spark ML pipeline, trained on the cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from helpers.data.tables import quoted

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from pyspark.ml import PipelineModel

    from helpers.data.split import Split

# Spark ML finds columns by unquoted names, so that a dot or a space in one breaks it: inside
# the pipeline the columns have names of ours.
_PREFIX = "_ml_"


def fit(
    split: Split,
    *,
    epochs: int,
    learning_rate: float,
    seed: int,
    on_epoch: Callable[[int, dict[str, float]], None],
) -> PipelineModel:
    """Train logistic regression by L-BFGS, then call `on_epoch` for each iteration.

    Parameters
    ----------
    split : helpers.data.split.Split
    epochs : int
        Iterations at most; it ends earlier when the loss no longer falls.
    learning_rate, seed : float, int
        Not used: L-BFGS chooses its step sizes and draws nothing.
    on_epoch : callable
        Called with the iteration, from 1, and ``epoch_loss`` (regularized log loss of the
        training rows, in nats).

    Returns
    -------
    pyspark.ml.PipelineModel
        Adds the columns ``prediction``, of the label's type, and ``probability``, a vector in
        the order of ``split.classes``.
    """
    from pyspark.ml import Pipeline
    from pyspark.ml.classification import LogisticRegression
    from pyspark.ml.feature import (
        Imputer,
        IndexToString,
        OneHotEncoder,
        SQLTransformer,
        StandardScaler,
        StringIndexer,
        VectorAssembler,
    )
    from pyspark.sql import functions as F

    numeric = [f"{_PREFIX}numeric_{i}" for i in range(len(split.numeric))]
    text = [f"{_PREFIX}text_{i}" for i in range(len(split.categorical))]
    index, encoded = [f"{name}_index" for name in text], [f"{name}_encoded" for name in text]
    renamed = [
        f"CAST({quoted(column)} AS DOUBLE) AS {name}" for column, name in zip(split.numeric, numeric, strict=True)
    ]
    renamed += [f"{quoted(column)} AS {name}" for column, name in zip(split.categorical, text, strict=True)]
    stages: list[Any] = [SQLTransformer(statement=f"SELECT *, {', '.join(renamed)} FROM __THIS__")]  # noqa: S608
    if numeric:
        stages += [
            Imputer(strategy="median", inputCols=numeric, outputCols=[f"{name}_filled" for name in numeric]),
            VectorAssembler(inputCols=[f"{name}_filled" for name in numeric], outputCol=f"{_PREFIX}numbers"),
            StandardScaler(withMean=True, inputCol=f"{_PREFIX}numbers", outputCol=f"{_PREFIX}scaled"),
        ]
    if text:
        stages += [
            StringIndexer(inputCols=text, outputCols=index, handleInvalid="keep"),
            OneHotEncoder(inputCols=index, outputCols=encoded),
        ]
    label_type = split.train.schema[split.label_column].dataType.simpleString()
    stages += [
        VectorAssembler(inputCols=[f"{_PREFIX}scaled"] * bool(numeric) + encoded, outputCol=f"{_PREFIX}features"),
        LogisticRegression(
            featuresCol=f"{_PREFIX}features",
            labelCol=f"{_PREFIX}label",
            predictionCol=f"{_PREFIX}index",
            rawPredictionCol=f"{_PREFIX}raw",
            probabilityCol="probability",
            maxIter=epochs,
            regParam=1e-3,
            family="multinomial",
        ),
        IndexToString(
            inputCol=f"{_PREFIX}index", outputCol=f"{_PREFIX}class", labels=[str(name) for name in split.classes]
        ),
        SQLTransformer(statement=f"SELECT *, CAST({_PREFIX}class AS {label_type}) AS prediction FROM __THIS__"),  # noqa: S608
    ]
    classes = F.array(*map(F.lit, split.classes))
    # By name, because Spark 3's F.array_position takes no column as its second argument.
    label = F.call_function("array_position", classes, F.col(quoted(split.label_column))) - 1
    train = split.train.withColumn(f"{_PREFIX}label", label.cast("double")).cache()
    model = Pipeline(stages=stages).fit(train)
    train.unpersist()
    for epoch, loss in enumerate(_regression(model).summary.objectiveHistory[1:], start=1):
        on_epoch(epoch, {"epoch_loss": loss})
    return model


def predict(model: PipelineModel, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, predictions and class probabilities of the held-out rows."""
    import numpy as np
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as F

    answers = (
        model.transform(split.held_out)
        .select(quoted(split.label_column), "prediction", vector_to_array(F.col("probability")).alias("probability"))
        .toPandas()
    )
    return (
        answers[split.label_column].to_numpy(),
        answers["prediction"].to_numpy(),
        np.stack(answers["probability"].to_numpy()),
    )


def importance(model: PipelineModel, split: Split, seed: int) -> pd.Series:
    """Return the mean absolute coefficient of each column, over classes and encoded categories.

    Returns
    -------
    pandas.Series
        Importance by column, for standardized numbers; the name says what it is.
    """
    import numpy as np
    import pandas as pd
    from pyspark.ml.feature import OneHotEncoderModel

    slots = list(split.numeric)
    for stage in model.stages:
        if isinstance(stage, OneHotEncoderModel):
            # The last category has no slot of its own.
            for column, size in zip(split.categorical, stage.categorySizes, strict=True):
                slots += [column] * (size - 1)
    sizes = np.abs(_regression(model).coefficientMatrix.toArray()).mean(axis=0)
    return pd.Series(sizes, slots, name="mean absolute coefficient").groupby(level=0).mean()


def _regression(model: PipelineModel) -> Any:
    from pyspark.ml.classification import LogisticRegressionModel

    return next(stage for stage in model.stages if isinstance(stage, LogisticRegressionModel))
