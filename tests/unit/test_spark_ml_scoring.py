"""Spark ML models: this bundle's own and somebody else's, with rows that they refuse, and with many columns."""

from types import SimpleNamespace

import pandas as pd
import pytest
from pyspark.ml import Pipeline
from pyspark.ml.classification import GBTClassifier, LogisticRegression, RandomForestClassifier
from pyspark.ml.evaluation import RegressionEvaluator
from pyspark.ml.feature import (
    Bucketizer,
    Imputer,
    Interaction,
    OneHotEncoder,
    RFormula,
    SQLTransformer,
    StandardScaler,
    StringIndexer,
    VectorAssembler,
    VectorIndexer,
)
from pyspark.ml.regression import LinearRegression
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder
from pyspark.sql import functions as F

from helpers import parameters
from helpers.data.split import load_split
from helpers.scoring.engines.spark_ml import SparkMLEngine
from helpers.training.flavors.spark import SparkFlavor

pytestmark = pytest.mark.slow

NAN = float("nan")
COLUMNS = "id long, size double, weight long, rooms double, city string, shop string, price double, label double"
GOOD = [
    (i, i / 10, i % 7, float(i % 3), ("Oslo", "Bergen", "Narvik")[i % 3], ("a", "b")[i % 2], i / 5 + i % 3, i % 2 * 1.0)
    for i in range(40)
]  # fmt: skip
# By id, what is wrong with it.
BAD = {
    100: {"size": None},
    101: {"size": NAN},
    102: {"weight": None},
    103: {"city": None},
    104: {"city": "Paris"},
    105: {"shop": "c", "size": None},
    106: {"rooms": 3.0},
    107: {"rooms": None},
    108: {"size": -1.0},
}


@pytest.fixture(scope="module")
def rows(spark):
    """Rows of which nobody refuses one."""
    return spark.createDataFrame(GOOD, COLUMNS).cache()


@pytest.fixture(scope="module")
def all_rows(spark, rows):
    """These rows, and those with something wrong, without what is to be predicted."""
    names = rows.columns
    bad = [tuple(({"id": id_} | changes).get(name, GOOD[1][names.index(name)]) for name in names)
           for id_, changes in BAD.items()]  # fmt: skip
    return rows.union(spark.createDataFrame(bad, COLUMNS)).drop("price", "label").repartition(2).cache()


@pytest.fixture
def engine():
    """A function that returns the engine of a fitted pipeline, as it is after the pipeline was logged and loaded."""

    def engine_of(pipeline, rows, inputs):
        types = {name: rows.schema[name] for name in inputs}
        return SparkMLEngine(SimpleNamespace(spark_pipeline=pipeline, inputs=types))

    return engine_of


def assembled(*inputs, mode="error"):
    return VectorAssembler(inputCols=list(inputs), outputCol="features", handleInvalid=mode)


def indexed(mode, *columns):
    outputs = [f"{name}_index" for name in columns]
    return StringIndexer(inputCols=list(columns), outputCols=outputs, handleInvalid=mode)


def encoded(*columns):
    return OneHotEncoder(inputCols=list(columns), outputCols=[f"{name}_encoded" for name in columns])


def prepared(mode):
    """As Spark's documentation prepares rows: impute, index, encode, assemble."""
    return [
        Imputer(inputCols=["size"], outputCols=["size_imputed"]),
        indexed(mode, "city", "shop"),
        encoded("city_index", "shop_index"),
        assembled("size_imputed", "weight", "city_index_encoded", "shop_index_encoded", mode=mode),
    ]


def logistic():
    return LogisticRegression(maxIter=5)


def linear():
    return LinearRegression(labelCol="price", regParam=0.1)


def forest():
    return RandomForestClassifier(numTrees=2, maxDepth=3, seed=1)


def boosting():
    return GBTClassifier(maxIter=1, maxDepth=3, seed=1)


def best_linear():
    grid = ParamGridBuilder().addGrid(LinearRegression.regParam, [0.1, 1.0]).build()
    evaluator = RegressionEvaluator(labelCol="price")
    return CrossValidator(estimator=linear(), estimatorParamMaps=grid, evaluator=evaluator, numFolds=2, seed=1)


TEXT = ["size", "weight", "city", "shop"]
FORMULA = "label ~ size + city + shop + size:city"
UNKNOWN_CITY, MISSING_SIZE = "'city' is not known to the pipeline: Paris", "'size' is missing; the pipeline's Vec"
TEXT_PROBLEMS = {
    102: "'weight' is missing; the pipeline's VectorAssembler needs it",
    103: "'city' is missing",
    104: UNKNOWN_CITY,
    105: "'shop' is not known to the pipeline: c",
}
# What to fit, its inputs, and how the problems of the refused rows begin.
PIPELINES = {
    "two columns": (lambda: [assembled("size", "weight"), linear()], ["size", "weight"],
                    {100: MISSING_SIZE, 101: MISSING_SIZE, 102: "'weight' is missing", 105: MISSING_SIZE}),
    "an error": (lambda: [*prepared("error"), logistic()], TEXT, TEXT_PROBLEMS),
    "skipping": (lambda: [*prepared("skip"), boosting()], TEXT, TEXT_PROBLEMS),
    "keeping": (lambda: [*prepared("keep"), forest()], TEXT, {}),
    "two assemblers": (lambda: [VectorAssembler(inputCols=["size", "weight"], outputCol="numbers", handleInvalid="keep"),
                        StandardScaler(inputCol="numbers", outputCol="scaled"), indexed("skip", "city"),
                        assembled("scaled", "city_index"), forest()],
                       ["size", "weight", "city"], {103: "'city' is missing", 104: UNKNOWN_CITY}),
    "one column, several times": (lambda: [StringIndexer(inputCol="city", outputCol="index"),
                                   OneHotEncoder(inputCol="index", outputCol="vector"),
                                   Interaction(inputCols=["size", "vector"], outputCol="product"),
                                   assembled("index", "product"), forest()],
                                  ["size", "city"],
                                  {100: "'size' is missing; the pipeline's Interaction needs it", 103: "'city' is missing",
                                   104: UNKNOWN_CITY, 105: "'size' is missing"}),
    "categories by number": (lambda: [encoded("rooms"), assembled("rooms_encoded", "weight", mode="skip"), logistic()],
                             ["rooms", "weight"],
                             {102: "'weight' is missing", 106: "'rooms' is not known to the pipeline: 3.0",
                              107: "'rooms_encoded' is missing"}),
    "buckets": (lambda: [Bucketizer(inputCol="size", outputCol="bucket", splits=[0, 1, 2, 10], handleInvalid="skip"),
                 assembled("bucket"), forest()], ["size"],
                {100: "'size' is missing", 101: "'size' is outside the buckets", 105: "'size' is missing",
                 108: "'size' is outside the buckets of the pipeline: -1.0"}),
    "categories in a vector": (lambda: [assembled("rooms"), VectorIndexer(inputCol="features", outputCol="v", maxCategories=3),
                                LogisticRegression(featuresCol="v", maxIter=5)], ["rooms"],
                               {106: "the Spark ML pipeline leaves out the row", 107: "'rooms' is missing"}),
    "SQL with a condition": (lambda: [SQLTransformer(statement="SELECT *, size * 2 AS twice FROM __THIS__ WHERE size >= 0"),
                              assembled("twice", "weight"), linear()], ["size", "weight"],
                             {100: "the Spark ML pipeline leaves out", 101: "'twice' is missing", 102: "'weight' is missing",
                              105: "the Spark ML pipeline leaves out", 108: "the Spark ML pipeline leaves out"}),
    "a formula": (lambda: [RFormula(formula=FORMULA), logistic()], ["size", "city", "shop"],
                  {100: "'size' is missing", 101: "'size' is missing", 103: "'city' is missing", 104: UNKNOWN_CITY,
                   105: "'shop' is not known"}),
    "a formula that skips": (lambda: [RFormula(formula=FORMULA, handleInvalid="skip"), forest()], ["size", "city", "shop"],
                             {100: "'size' is missing", 101: "'size' is missing", 103: "'city' is missing",
                              104: UNKNOWN_CITY, 105: "'shop' is not known"}),
    "the best of several": (lambda: [assembled("size", "weight"), best_linear()], ["size", "weight"],
                            {100: MISSING_SIZE, 101: MISSING_SIZE, 102: "'weight' is missing", 105: MISSING_SIZE}),
}  # fmt: skip


def by_id(scored):
    return scored.toPandas().set_index("id").sort_index()


@pytest.mark.parametrize("kind", PIPELINES)
def test_each_row_has_the_models_own_prediction_or_the_reason_why_it_is_refused(engine, rows, all_rows, kind):
    stages, inputs, problems = PIPELINES[kind]
    model = Pipeline(stages=stages()).fit(rows)
    engine_of_model = engine(model, all_rows, inputs)
    scored, refused = (by_id(apply(all_rows, ["id"])) for apply in (engine_of_model.accepted, engine_of_model.refused))
    assert {id_: problem[: len(problems.get(id_, ""))] for id_, problem in refused["problem"].items()} == problems
    # One row that the model refuses would fail all of its own predictions.
    accepted = all_rows.where(~F.col("id").isin(list(problems)))
    own = by_id(model.transform(accepted.select("id", *inputs)))
    assert own["prediction"].nunique() > 1
    pd.testing.assert_series_equal(scored["prediction"], own["prediction"])
    if "probability" in own:
        assert scored["probability"].tolist() == [probability.toArray().max() for probability in own["probability"]]


def test_all_rows_together_have_predictions_or_the_first_problem(engine, rows, all_rows):
    model = Pipeline(stages=[*prepared("error"), logistic()]).fit(rows)
    scored = by_id(engine(model, all_rows, TEXT).apply(all_rows, ["id"], each_class=True))
    assert scored["problem"].dropna().to_dict() == TEXT_PROBLEMS
    for id_, row in scored.iterrows():
        if id_ in TEXT_PROBLEMS:
            assert row[["prediction", "probability", "probabilities"]].isna().all()
        else:
            assert row["probability"] == max(row["probabilities"]) == row["probabilities"][int(row["prediction"])]


def test_a_prediction_that_is_not_finite_is_a_problem_of_the_row(engine, rows, all_rows):
    model = Pipeline(stages=[assembled("size", "weight", mode="keep"), linear()]).fit(rows)
    refused = by_id(engine(model, all_rows, ["size", "weight"]).refused(all_rows, ["id"]))
    assert refused.index.tolist() == [100, 101, 102, 105]
    assert set(refused["problem"]) == {"the model's output is NaN or infinite"}


@pytest.mark.parametrize("vector", ["known_size", "unknown_size"])
def test_an_assembler_refuses_a_missing_number_but_no_nan_inside_a_vector(engine, rows, all_rows, vector):
    stages = [
        VectorAssembler(inputCols=["size"], outputCol="known_size", handleInvalid="keep"),
        SQLTransformer(statement="SELECT *, IF(rooms = 0, known_size, known_size) AS unknown_size FROM __THIS__"),
        assembled(vector, "rooms"),
        forest(),
    ]
    model = Pipeline(stages=stages).fit(rows)
    refused = by_id(engine(model, all_rows, ["size", "rooms"]).refused(all_rows, ["id"]))
    assert refused["problem"].to_dict() == {107: "'rooms' is missing; the pipeline's VectorAssembler needs it"}


@pytest.fixture
def wide(spark):
    """A function that returns rows with many columns of numbers, in each of which some are missing."""

    def rows_of(columns):
        numbers = [
            F.when(F.col("id") % (i + 7) != 6, F.hash("id", F.lit(i)) / 2**31).alias(f"c{i}") for i in range(columns)
        ]
        label = (F.coalesce("c0", F.lit(0)) > 0).cast("long").alias("label")
        return spark.range(200, numPartitions=1).select("id", *numbers).select("*", label)

    return rows_of


def test_a_pipeline_of_thirty_imputed_columns_is_scored_and_its_result_filtered(engine, wide):
    # Planning took minutes or did not end: a filter on N columns with two names each has 2^N constraints.
    names = [f"c{i}" for i in range(30)]
    imputed = [f"{name}_imputed" for name in names]
    stages = [
        Imputer(inputCols=names, outputCols=imputed),
        VectorAssembler(inputCols=imputed, outputCol="numbers", handleInvalid="skip"),
        StandardScaler(inputCol="numbers", outputCol="scaled"),
        LogisticRegression(featuresCol="scaled", maxIter=3),
    ]
    rows = wide(30)
    model = Pipeline(stages=stages).fit(rows)
    scored = engine(model, rows, names).accepted(rows.drop("label"), ["id"])
    written = by_id(scored.where("prediction = 1"))
    own = by_id(model.transform(rows).select("id", "prediction"))
    pd.testing.assert_frame_equal(written[["prediction"]], own[own["prediction"] == 1])


@pytest.mark.slow
def test_a_model_of_three_hundred_columns_is_trained_and_scored(spark, schema, engine, wide):
    wide(300).write.saveAsTable(f"{schema}.training")
    split = load_split(spark, f"{schema}.training", label_column="label", id_column="id", test_fraction=0.3, seed=1)
    losses = []
    p = parameters.parse(parameters.Fit, {"model_flavor": "spark", "epochs": 2})
    model = SparkFlavor().fit(split, p, lambda epoch, metrics: losses.append(metrics["epoch_loss"]), {})
    assert losses == sorted(losses, reverse=True)
    rows = spark.table(f"{schema}.training")
    scored = by_id(engine(model, rows, split.numeric).accepted(rows, ["id"]).where("prediction = 1"))
    own = by_id(model.transform(rows).select("id", "prediction"))
    pd.testing.assert_frame_equal(scored[["prediction"]], own[own["prediction"] == 1])
