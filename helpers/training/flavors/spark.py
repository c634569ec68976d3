"""A Spark ML pipeline, trained on the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from helpers import parameters, volumes
from helpers.data.metrics import CLASSIFIER, REGRESSOR
from helpers.data.names import quoted
from helpers.training.flavors.base import Flavor, OnEpoch

if TYPE_CHECKING:
    import numpy as np
    import optuna
    import pandas as pd
    from pyspark.ml import PipelineModel
    from pyspark.sql import Column, DataFrame

    from helpers.data.split import Split
    from helpers.parameters import Fit

# Spark ML looks up columns by unquoted names, and fails at a dot or a space. Inside the pipeline the columns therefore
# have other names, with this prefix.
_PREFIX = "_ml_"
_LABEL, _WEIGHT = f"{_PREFIX}label", f"{_PREFIX}weight"


class SparkFlavor(Flavor):
    """Logistic or linear regression by L-BFGS, on Spark's executors."""

    mlflow_flavor = "spark"
    default_epochs = 50

    def check(self, p: Fit) -> None:
        """Check that MLflow can save a Spark ML model on this compute."""
        if isinstance(p, parameters.Namespace):
            volumes.use_model_volume(p.catalog, p.schema)
        volumes.check_spark_ml("model_flavor", "spark")

    def search_space(self, trial: optuna.Trial) -> dict[str, Any]:
        """Choose the regularization."""
        return {"regularization": trial.suggest_float("regularization", 1e-6, 1.0, log=True)}

    def fit(self, split: Split, p: Fit, on_epoch: OnEpoch, hyperparameters: Mapping[str, Any]) -> PipelineModel:
        """Train a pipeline that adds the column ``prediction``, of the label's type, and for classes ``probability``.

        `epochs` is the highest number of iterations: training ends earlier if the loss no longer falls. `on_epoch` is
        called for each iteration when training has ended; ``epoch_loss`` contains the penalty of the regularization.
        """
        from pyspark.ml import Pipeline
        from pyspark.sql import functions as F

        rows = split.train.withColumn(_LABEL, _label(split)).withColumn(_WEIGHT, _weight(split, p.class_weight))
        stages = _stages(split, _medians(rows, split.numeric), p.epochs, hyperparameters.get("regularization", 1e-3))
        model = Pipeline(stages=stages).fit(rows)
        deviation = rows.select(F.stddev(_LABEL)).collect()[0][0]
        objectives = _regression(model).summary.objectiveHistory
        # The first is that of the start, and the only one if no step makes it smaller.
        for epoch, objective in enumerate(objectives[1:] or objectives, start=1):
            # Spark divides the label of a linear regression by its standard deviation, and halves the squared error.
            loss = objective if split.model_type == CLASSIFIER else deviation * (2 * objective) ** 0.5
            on_epoch(epoch, {"epoch_loss": float(loss)})
        return model

    def predict(self, model: PipelineModel, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Apply the pipeline to the held-out rows, on the cluster."""
        import numpy as np
        from pyspark.ml.functions import vector_to_array
        from pyspark.sql import functions as F

        columns = [F.col(quoted(split.label_column)), F.col("prediction")]
        if split.model_type == CLASSIFIER:
            columns.append(vector_to_array(F.col("probability")).alias("probability"))
        scored = model.transform(split.validation).select(*columns).toPandas()
        probabilities = np.stack(scored["probability"].to_numpy()) if "probability" in scored else None
        return scored[split.label_column].to_numpy(), scored["prediction"].to_numpy(), probabilities

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
        fitted = _regression(model)
        matrix = fitted.coefficientMatrix if split.model_type == CLASSIFIER else fitted.coefficients
        coefficients = np.abs(np.atleast_2d(matrix.toArray())).mean(axis=0)
        return pd.Series(coefficients, feature_of_coefficient, name="mean absolute coefficient").groupby(level=0).mean()


def _label(split: Split) -> Column:
    """Return the label as Spark ML takes it: the number of the class, or the number itself."""
    from pyspark.sql import functions as F

    label = F.col(quoted(split.label_column))
    if split.model_type == REGRESSOR:
        return label
    # By name, because F.array_position of Spark 3 does not accept a column as its second argument.
    position = F.call_function("array_position", F.array(*map(F.lit, split.classes)), label)
    return (position - 1).cast("double")


def _weight(split: Split, class_weight: str) -> Column:
    """Return the weight of a row: 1, or if classes are balanced, less the more rows its class has."""
    from pyspark.sql import functions as F

    weight = F.lit(1.0)
    if split.model_type == CLASSIFIER and class_weight == "balanced":
        counts = split.counts()["training"]
        for name, count in counts.items():
            share = float(counts.sum() / (len(counts) * count))
            weight = F.when(F.col(quoted(split.label_column)) == F.lit(name), share).otherwise(weight)
    return weight


def _medians(rows: DataFrame, columns: list[str]) -> list[float]:
    """Return the median of each column, as precise as that of an Imputer; 0 for one without any value."""
    quantiles = rows.approxQuantile([quoted(column) for column in columns], [0.5], 0.001)
    return [quantile[0] if quantile else 0.0 for quantile in quantiles]


def _stages(split: Split, medians: list[float], max_iterations: int, regularization: float) -> list[Any]:
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
    from pyspark.ml.regression import LinearRegression

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
    stages += [
        VectorAssembler(
            inputCols=[f"{_PREFIX}scaled"] * bool(numeric) + encoded,
            outputCol=f"{_PREFIX}features",
            handleInvalid="keep",
        ),
    ]
    options: dict[str, Any] = {
        "featuresCol": f"{_PREFIX}features",
        "labelCol": _LABEL,
        "weightCol": _WEIGHT,
        "maxIter": max_iterations,
    }
    if split.model_type == REGRESSOR:
        # Of the solvers, this one alone tells the loss of each iteration.
        regression = LinearRegression(predictionCol="prediction", regParam=regularization, solver="l-bfgs", **options)
        return [*stages, regression]
    label_type = split.train.schema[split.label_column].dataType.simpleString()
    return [
        *stages,
        LogisticRegression(
            predictionCol=f"{_PREFIX}index",
            rawPredictionCol=f"{_PREFIX}raw",
            probabilityCol="probability",
            regParam=regularization,
            family="multinomial",
            **options,
        ),
        IndexToString(
            inputCol=f"{_PREFIX}index", outputCol=f"{_PREFIX}class", labels=[str(name) for name in split.classes]
        ),
        SQLTransformer(statement=f"SELECT *, CAST({_PREFIX}class AS {label_type}) AS prediction FROM __THIS__"),  # noqa: S608
    ]


def _regression(model: PipelineModel) -> Any:
    from pyspark.ml.classification import LogisticRegressionModel
    from pyspark.ml.regression import LinearRegressionModel

    return next(stage for stage in model.stages if isinstance(stage, LogisticRegressionModel | LinearRegressionModel))
