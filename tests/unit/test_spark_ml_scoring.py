"""Spark ML models: this bundle's own and somebody else's, with rows that they refuse, and with many columns."""

import mlflow
import pandas as pd
import pytest
from mlflow.models import infer_signature
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

from helpers import scoring, tracking
from helpers.parameters import ParameterError

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
def score(spark, schema, session, model_name):
    """Register a fitted pipeline and score rows with it; returns what was written, and the problems by id."""

    def register_and_score(pipeline, rows, inputs, **changed):
        types = {"string": "a", "bigint": 1, "double": 1.5}
        example = pd.DataFrame({name: [types[dict(rows.dtypes)[name]]] for name in inputs})
        signature = infer_signature(example, pd.Series([1.0], name="prediction"))
        with mlflow.start_run():
            uri = tracking.log_model(pipeline, flavor="spark", signature=signature)
        version = mlflow.register_model(uri, model_name)
        rows.write.saveAsTable(f"{schema}.scoring")
        scorer = scoring.Scorer(session, version, f"{schema}.scoring", f"{schema}.predictions", "id", **changed)
        batch = scorer.score_batch(scoring.rows_to_score(spark, f"{schema}.scoring", "", "id"), "b1")
        written = spark.table(f"{schema}.predictions").toPandas().set_index("id").sort_index()
        problems = {}
        if batch.rows_quarantined:
            quarantine = spark.table(f"{schema}.predictions_quarantine").collect()
            assert len(quarantine) == batch.rows_quarantined
            problems = {row["id"]: row["problem"] for row in quarantine}
        assert len(written) == batch.rows_scored == rows.count() - len(problems)
        return written, problems

    return register_and_score


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
    return RandomForestClassifier(numTrees=3, seed=1)


def boosting():
    return GBTClassifier(maxIter=2, seed=1)


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


@pytest.mark.parametrize("kind", PIPELINES)
def test_each_row_has_the_models_own_prediction_or_a_reason_in_quarantine(score, rows, all_rows, kind):
    stages, inputs, problems = PIPELINES[kind]
    model = Pipeline(stages=stages()).fit(rows)
    written, refused = score(model, all_rows, inputs)
    assert {id_: refused[id_][: len(problem)] for id_, problem in problems.items()} == problems
    assert refused.keys() == problems.keys()
    # One row that the model refuses would fail all of its own predictions.
    accepted = all_rows.where(~F.col("id").isin(list(refused)))
    own = model.transform(accepted.select("id", *inputs)).toPandas().set_index("id").sort_index()
    assert own["prediction"].nunique() > 1
    pd.testing.assert_series_equal(written["prediction"], own["prediction"])
    if "probability" in own:
        assert written["probability"].tolist() == [probability.toArray().max() for probability in own["probability"]]


def test_with_on_bad_rows_fail_the_first_problem_of_a_row_is_named(spark, schema, score, rows, all_rows):
    model = Pipeline(stages=[*prepared("skip"), logistic()]).fit(rows)
    with pytest.raises(ParameterError, match="on_bad_rows='fail': .* id=104: 'city' is not known to the pipeline: Pa"):
        score(model, all_rows.where("id < 100 OR id = 104"), TEXT, on_bad_rows="fail")
    assert spark.table(f"{schema}.predictions").count() == 0
