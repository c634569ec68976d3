"""A Spark ML pipeline, trained on the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helpers.data.names import quoted
from helpers.training.flavors.base import Flavor, OnEpoch

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from pyspark.ml import PipelineModel
    from pyspark.sql import DataFrame

    from helpers.data.split import Split

# Spark ML looks up columns by unquoted names, and fails at a dot or a space. Inside the pipeline the columns therefore
# have other names, with this prefix.
_PREFIX = "_ml_"


class SparkFlavor(Flavor):
    """Logistic regression by L-BFGS, on Spark's executors."""

    mlflow_flavor = "spark"

    def fit(self, split: Split, *, epochs: int, learning_rate: float, seed: int, on_epoch: OnEpoch) -> PipelineModel:
        """Train a pipeline that adds the columns ``prediction``, of the label's type, and ``probability``, a vector.

        `epochs` is the greatest number of iterations: training ends earlier if the loss no longer falls. `on_epoch` is
        called for each iteration when training has ended; ``epoch_loss`` is the regularized loss. `learning_rate` and
        `seed` are not used, because L-BFGS chooses its step sizes and draws no random numbers.
        """
        from pyspark.ml import Pipeline
        from pyspark.sql import functions as F

        classes = F.array(*map(F.lit, split.classes))
        # By name, because F.array_position of Spark 3 does not accept a column as its second argument.
        label = F.call_function("array_position", classes, F.col(quoted(split.label_column))) - 1
        train = split.train.withColumn(f"{_PREFIX}label", label.cast("double"))
        model = Pipeline(stages=_stages(split, _medians(train, split.numeric), epochs)).fit(train)
        for epoch, loss in enumerate(_regression(model).summary.objectiveHistory[1:], start=1):
            on_epoch(epoch, {"epoch_loss": loss})
        return model

    def predict(self, model: PipelineModel, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Apply the pipeline to the held-out rows, on the cluster."""
        import numpy as np
        from pyspark.ml.functions import vector_to_array
        from pyspark.sql import functions as F

        probability = vector_to_array(F.col("probability")).alias("probability")
        scored = (
            model.transform(split.held_out).select(quoted(split.label_column), "prediction", probability).toPandas()
        )
        return (
            scored[split.label_column].to_numpy(),
            scored["prediction"].to_numpy(),
            np.stack(scored["probability"].to_numpy()),
        )

    def importance(self, model: PipelineModel, split: Split, seed: int) -> pd.Series:
        """Average the absolute coefficients of each feature over classes and encoded categories.

        Numbers are standardized, so that their coefficients can be compared.
        """
        import numpy as np
        import pandas as pd
        from pyspark.ml.feature import OneHotEncoderModel

        feature_of_coefficient = list(split.numeric)
        for stage in model.stages:
            if isinstance(stage, OneHotEncoderModel):
                # The last category is encoded as zeros, and has no coefficient.
                for column, size in zip(split.categorical, stage.categorySizes, strict=True):
                    feature_of_coefficient += [column] * (size - 1)
        coefficients = np.abs(_regression(model).coefficientMatrix.toArray()).mean(axis=0)
        return pd.Series(coefficients, feature_of_coefficient, name="mean absolute coefficient").groupby(level=0).mean()


def _medians(rows: DataFrame, columns: list[str]) -> list[float]:
    """Return the median of each column, as precise as that of an Imputer; 0 for one without any value."""
    quantiles = rows.approxQuantile([quoted(column) for column in columns], [0.5], 0.001)
    return [quantile[0] if quantile else 0.0 for quantile in quantiles]


def _stages(split: Split, medians: list[float], max_iterations: int) -> list[Any]:
    """Return the stages of the pipeline: rename, impute, scale and encode the features, classify, name the class.

    No stage refuses a row. Missing numbers are imputed in the statement that renames them, because an Imputer would
    give each of them another name, and Spark's optimizer takes longer the more names there are.
    """
    from pyspark.ml.classification import LogisticRegression
    from pyspark.ml.feature import (
        IndexToString,
        OneHotEncoder,
        SQLTransformer,
        StandardScaler,
        StringIndexer,
        VectorAssembler,
    )

    numeric = [f"{_PREFIX}numeric_{i}" for i in range(len(split.numeric))]
    text = [f"{_PREFIX}text_{i}" for i in range(len(split.categorical))]
    index, encoded = [f"{name}_index" for name in text], [f"{name}_encoded" for name in text]
    renamed = [
        f"COALESCE(NANVL(CAST({quoted(column)} AS DOUBLE), NULL), CAST('{median}' AS DOUBLE)) AS {name}"
        for column, median, name in zip(split.numeric, medians, numeric, strict=True)
    ]
    renamed += [f"{quoted(column)} AS {name}" for column, name in zip(split.categorical, text, strict=True)]
    stages: list[Any] = [SQLTransformer(statement=f"SELECT *, {', '.join(renamed)} FROM __THIS__")]  # noqa: S608
    if numeric:
        stages += [
            VectorAssembler(inputCols=numeric, outputCol=f"{_PREFIX}numbers", handleInvalid="keep"),
            StandardScaler(withMean=True, inputCol=f"{_PREFIX}numbers", outputCol=f"{_PREFIX}scaled"),
        ]
    if text:
        stages += [
            StringIndexer(inputCols=text, outputCols=index, handleInvalid="keep"),
            OneHotEncoder(inputCols=index, outputCols=encoded),
        ]
    label_type = split.train.schema[split.label_column].dataType.simpleString()
    stages += [
        VectorAssembler(
            inputCols=[f"{_PREFIX}scaled"] * bool(numeric) + encoded,
            outputCol=f"{_PREFIX}features",
            handleInvalid="keep",
        ),
        LogisticRegression(
            featuresCol=f"{_PREFIX}features",
            labelCol=f"{_PREFIX}label",
            predictionCol=f"{_PREFIX}index",
            rawPredictionCol=f"{_PREFIX}raw",
            probabilityCol="probability",
            maxIter=max_iterations,
            regParam=1e-3,
            family="multinomial",
        ),
        IndexToString(
            inputCol=f"{_PREFIX}index", outputCol=f"{_PREFIX}class", labels=[str(name) for name in split.classes]
        ),
        SQLTransformer(statement=f"SELECT *, CAST({_PREFIX}class AS {label_type}) AS prediction FROM __THIS__"),  # noqa: S608
    ]
    return stages


def _regression(model: PipelineModel) -> Any:
    from pyspark.ml.classification import LogisticRegressionModel

    return next(stage for stage in model.stages if isinstance(stage, LogisticRegressionModel))
