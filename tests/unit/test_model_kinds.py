"""Kinds of models and signatures: each is scored with the model's own predictions, or refused by the column."""

import datetime
import sys

import cloudpickle
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array, Map, Object, Property
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from xgboost import DMatrix, XGBClassifier
from xgboost import train as train_booster

from helpers import data, scoring, serving, tracking
from helpers.ownership import MARK
from helpers.parameters import ParameterError
from helpers.scoring.engines.python import PythonEngine
from tests.model_checks import register_and_score, serve

pytestmark = pytest.mark.slow

# The workers of Spark cannot import a test.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROWS = 6
TIMES = [datetime.datetime(2026, 1, 31, 8, 0, 0, 1) + datetime.timedelta(days=60 * n) for n in range(ROWS)]
# A column of each type that a signature can have, as a table has it: by its Spark type.
COLUMNS = {
    "flag": ("boolean", [True, False, True, True, False, False]),
    "small": ("int", list(range(ROWS))),
    "large": ("bigint", [2**60 + number for number in range(ROWS)]),
    "single": ("float", [0.1 * number for number in range(ROWS)]),
    "double": ("double", [0.1 * number for number in range(ROWS)]),
    "text": ("string", list("abcdef")),
    "raw": ("binary", [bytes([number, 255]) for number in range(ROWS)]),
    "time": ("timestamp", TIMES),
    "numbers": ("array<double>", [[0.5 * number, 1.0] for number in range(ROWS)]),
    "matrix": ("array<array<double>>", [[[1.0 * number], [2.0, 3.0]] for number in range(ROWS)]),
    "times": ("array<timestamp>", [[time, time] for time in TIMES]),
    "named": (
        "struct<at:timestamp,name:string,size:bigint>", [{"size": number, "name": "x", "at": TIMES[number]} for number in range(ROWS)],
    ),
    "list of named": ("array<struct<size:bigint>>", [[{"size": number}, {"size": 1}] for number in range(ROWS)]),
    "by key": ("map<string,double>", [{"a": 0.5, "b": 1.0 * number} for number in range(ROWS)]),
}  # fmt: skip
TYPES = {
    "flag": DataType.boolean, "small": DataType.integer, "large": DataType.long, "single": DataType.float,
    "double": DataType.double, "text": DataType.string, "raw": DataType.binary, "time": DataType.datetime,
    "numbers": Array(DataType.double), "matrix": Array(Array(DataType.double)), "times": Array(DataType.datetime),
    "named": Object([Property("size", DataType.long), Property("name", DataType.string), Property("at", DataType.datetime)]),
    "list of named": Array(Object([Property("size", DataType.long)])), "by key": Map(DataType.double),
}  # fmt: skip
INPUTS = Schema([ColSpec(kind, name) for name, kind in TYPES.items()])


class Echo(mlflow.pyfunc.PythonModel):
    """Returns its input."""

    def predict(self, context, model_input, params=None):
        return model_input


class Described(mlflow.pyfunc.PythonModel):
    """Returns what it gets, as text: whatever changes on the way shows."""

    def predict(self, context, model_input, params=None):
        import numpy as np
        import pandas as pd

        def text(value):
            if isinstance(value, np.ndarray):
                return text(value.tolist())
            if isinstance(value, (list, tuple)):
                return [text(item) for item in value]
            if isinstance(value, dict):
                return {key: text(value[key]) for key in sorted(value)}
            if hasattr(value, "isoformat"):
                return pd.Timestamp(value).isoformat()
            return repr(value.item() if hasattr(value, "item") else value)

        return [str({name: text(value) for name, value in row.items()}) for row in model_input.to_dict("records")]


class Returns(mlflow.pyfunc.PythonModel):
    """Returns the given values, whatever its input is."""

    def __init__(self, values):
        self.values = values

    def predict(self, context, model_input, params=None):
        return self.values(model_input)


@pytest.fixture(scope="module")
def module_session(local_dir, tracking_parameters):
    return tracking.configure(tracking_parameters(experiment_name="model kinds"))


@pytest.fixture
def log(module_session, model_name):
    """Log and register a model; return its version, and the model as plain Python loads it."""

    def log_model(model, signature, flavor="pyfunc", **options):
        with mlflow.start_run():
            options = {"pip_requirements": ["mlflow"], **options}
            uri = tracking.log_model(model, flavor=flavor, signature=signature, **options)
        return mlflow.register_model(uri, model_name, tags={MARK: model_name}), mlflow.pyfunc.load_model(uri)

    return log_model


@pytest.fixture(scope="module")
def table(spark):
    """A table with `COLUMNS` and an id."""
    spark.sql("CREATE SCHEMA model_kinds")
    schema = ", ".join(f"`{name}` {kind}" for name, (kind, _) in COLUMNS.items())
    rows = list(zip(range(ROWS), *(values for _, values in COLUMNS.values()), strict=True))
    spark.createDataFrame(rows, f"id long, {schema}").write.saveAsTable("model_kinds.rows")
    return "model_kinds.rows"


@pytest.fixture
def score(module_session, spark, schema):
    """Score rows with a version; return the predictions by id, and the batch."""

    def score_rows(version, rows, **options):
        scorer = scoring.Scorer(module_session, version, "rows", f"{schema}.predictions", "id", **options)
        batch = scorer.score_batch(rows, "b1")
        scored = spark.table(f"{schema}.predictions").toPandas().set_index("id").sort_index()
        return scored, batch

    return score_rows


def features():
    """The columns as MLflow takes them from pandas: times in arrays and objects are NumPy's."""
    frame = pd.DataFrame({name: values for name, (_, values) in COLUMNS.items()})
    frame["times"] = [np.array(value, dtype="datetime64[ns]") for value in frame["times"]]
    frame["named"] = [value | {"at": np.datetime64(value["at"])} for value in frame["named"]]
    return frame.astype({"small": "int32", "single": "float32"})


def same(value):
    """A value in Python's own types."""
    if isinstance(value, np.ndarray):
        return [same(item) for item in value]
    if hasattr(value, "asDict"):
        return same(value.asDict(recursive=True))
    if isinstance(value, dict):
        return {key: same(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [same(item) for item in value]
    if isinstance(value, (datetime.datetime, np.datetime64)):
        return pd.Timestamp(value)
    if isinstance(value, bytearray):
        return bytes(value)
    return value.item() if isinstance(value, np.generic) else value


@pytest.fixture(params=["mapInArrow", "spark_udf"])
def way_to_python(request, monkeypatch):
    """Both ways of the Python engine; the second is the one of models in an environment of their own."""
    if request.param == "spark_udf":
        monkeypatch.setattr(PythonEngine, "_by_arrow", PythonEngine._by_udf)


@pytest.mark.usefixtures("way_to_python")
def test_inputs_of_every_type_arrive_as_in_plain_python(spark, table, log, score):
    version, model = log(Described(), ModelSignature(INPUTS, Schema([ColSpec("string", "prediction")])))
    scored, batch = score(version, spark.table(table))
    assert (batch.rows_scored, batch.rows_quarantined) == (ROWS, 0)
    assert scored["prediction"].tolist() == model.predict(features())


@pytest.mark.usefixtures("way_to_python")
def test_outputs_of_every_type_are_written_as_the_signature_says(spark, table, log, score):
    version, model = log(Echo(), ModelSignature(INPUTS, INPUTS))
    scored, batch = score(version, spark.table(table))
    assert batch.rows_scored == ROWS
    expected = model.predict(features()).to_dict("records")
    assert [same(value) for value in scored["prediction"]] == [same(row) for row in expected]


@pytest.mark.parametrize("column", COLUMNS)
def test_an_output_of_each_type_alone_is_the_prediction_in_that_type(spark, table, log, score, schema, column):
    own = Schema([ColSpec(TYPES[column], column)])
    version, model = log(Echo(), ModelSignature(own, own))
    scored, _ = score(version, spark.table(table))
    kind = spark.table(f"{schema}.predictions").schema["prediction"].dataType
    assert kind.simpleString() == COLUMNS[column][0]
    expected = model.predict(features()[[column]])[column]
    assert [same(value) for value in scored["prediction"]] == [same(value) for value in expected]


# A column of another type: (what a table has, type in the signature, value that converts, what does not and why).
CONVERTED = {
    "double to bigint": ("double", DataType.long, "2.0", "2.5"),
    "double to int": ("double", DataType.integer, "2.0", "3e9"),
    "decimal to bigint": ("decimal(10,2)", DataType.long, "7.00", "7.50"),
    "bigint to int": ("bigint", DataType.integer, "7", "3000000000"),
    "int to boolean": ("int", DataType.boolean, "1", "2"),
    "double to boolean": ("double", DataType.boolean, "0.0", "0.5"),
    "tinyint to bigint": ("tinyint", DataType.long, "7", None),
    "boolean to int": ("boolean", DataType.integer, "true", None),
    "boolean to double": ("boolean", DataType.double, "true", None),
    "bigint to double": ("bigint", DataType.double, "7", None),
    "decimal to double": ("decimal(10,2)", DataType.double, "7.25", None),
    "double to float": ("double", DataType.float, "0.5", None),
    "date to timestamp": ("date", DataType.datetime, "'2026-01-31'", None),
    "array of int": ("array<int>", Array(DataType.long), "array(1, 2)", None),
    "array of double": ("array<double>", Array(DataType.long), "array(1D, 2D)", "array(1D, 2.5D)"),
    "struct with more": ("struct<b:int,c:int,a:double>", Object([Property("a", DataType.long), Property("b", DataType.long)]),
                         "named_struct('b', 1, 'c', 2, 'a', 3D)", "named_struct('b', 1, 'c', 2, 'a', 3.5D)"),
    "map of double": ("map<string,double>", Map(DataType.long), "map('k', 1D)", "map('k', 1.5D)"),
}  # fmt: skip


def test_columns_of_other_types_are_taken_where_their_values_convert(spark, log, score, schema):
    inputs = Schema([ColSpec(input_type, name) for name, (_, input_type, _, _) in CONVERTED.items()])
    version, _ = log(Described(), ModelSignature(inputs, Schema([ColSpec("string")])))
    # One row in which all values convert, and one per value that does not.
    does_not = [None, *(name for name, case in CONVERTED.items() if case[3] is not None)]

    def row(number, wrong):
        values = {name: bad if name == wrong else good for name, (_, _, good, bad) in CONVERTED.items()}
        columns = [f"CAST({value} AS {CONVERTED[name][0]}) AS `{name}`" for name, value in values.items()]
        return f"SELECT {number}L AS id, {', '.join(columns)}"

    scored, batch = score(version, spark.sql(" UNION ALL ".join(map(row, range(len(does_not)), does_not))))
    assert (batch.rows_scored, batch.rows_quarantined) == (1, len(does_not) - 1)
    assert scored.index.tolist() == [0]
    refused = {row["id"]: row["problem"] for row in spark.table(f"{schema}.predictions_quarantine").collect()}
    for number, name in enumerate(does_not[1:], start=1):
        assert refused[number].startswith(f"'{name}' is not of type ")


REFUSED = {
    "a string for a number": ("'1'", DataType.long, "'k' has type string where the model takes bigint"),
    "a number for a string": ("1", DataType.string, "'k' has type int where the model takes string"),
    "a number for a time": ("1D", DataType.datetime, "'k' has type double where the model takes timestamp"),
    "a number for an array": ("1D", Array(DataType.double), "'k' has type double where the model takes array<double>"),
    "a struct without a field": ("named_struct('b', 1)", Object([Property("a", DataType.long)]),
                                 "'k' has type struct<b:int> where the model takes struct<a:bigint>"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_column_of_a_type_that_does_not_fit_is_refused_before_anything_is_written(spark, log, score, schema, case):
    value, input_type, message = REFUSED[case]
    version, _ = log(Described(), ModelSignature(Schema([ColSpec(input_type, "k")]), Schema([ColSpec("string")])))
    with pytest.raises(ParameterError) as refused:
        score(version, spark.sql(f"SELECT 1L AS id, {value} AS k"))
    assert message in str(refused.value)
    assert not spark.catalog.tableExists(f"{schema}.predictions")


NUMBER = Schema([ColSpec("double", "x")])
UNSUPPORTED = {
    "an input of any type": (ModelSignature(Schema([ColSpec(AnyType(), "k")]), NUMBER), "input 'k' has type Any"),
    "an output of any type": (ModelSignature(NUMBER, Schema([ColSpec(AnyType(), "k")])), "output 'k' has type Any"),
    "a tensor without a name": (infer_signature(np.ones((2, 3)), np.ones(2)), "takes one tensor without column names"),
    "a tensor of bytes": (ModelSignature(Schema([TensorSpec(np.dtype("uint8"), (-1, 2), "k")]), NUMBER), "input 'k' has type .*uint8"),
    "an output of three dimensions": (ModelSignature(NUMBER, Schema([TensorSpec(np.dtype(float), (-1, 2, 2))])), "more than two dimensions"),
    "columns without names": (ModelSignature(Schema([ColSpec("double")]), NUMBER), "has no signature with named columns"),
    "no outputs": (ModelSignature(NUMBER), "has a signature without outputs"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_a_signature_that_no_table_fits_is_refused_when_the_model_is_loaded(module_session, log, case):
    signature, message = UNSUPPORTED[case]
    version, _ = log(Echo(), signature)
    with pytest.raises(ParameterError, match=message):
        scoring.load(module_session, f"models:/{version.name}/{version.version}")


def test_named_tensors_are_columns_of_numbers_and_of_arrays(spark, log, score):
    inputs = {"size": np.array([1, 2, 3], dtype="float32"), "image": np.arange(12, dtype="float32").reshape(3, 2, 2)}

    def values(tensors):
        return {"sum": tensors["image"].sum(axis=(1, 2)) + tensors["size"], "first": tensors["image"][:, 0]}

    version, model = log(Returns(values), infer_signature(inputs, values(inputs)))
    rows = [(i, float(inputs["size"][i]), inputs["image"][i].ravel().tolist()) for i in range(3)]
    scored, _ = score(version, spark.createDataFrame(rows, "id long, size float, image array<float>"))
    expected = model.predict(inputs)
    assert [row["sum"] for row in scored["prediction"]] == expected["sum"].tolist()
    assert [same(row["first"]) for row in scored["prediction"]] == expected["first"].tolist()


def test_an_optional_column_that_a_table_lacks_is_left_out_as_in_plain_python(spark, log, score):
    inputs = Schema([ColSpec("double", "x"), ColSpec("long", "k", required=False)])
    version, model = log(Described(), ModelSignature(inputs, Schema([ColSpec("string")])))
    scored, _ = score(version, spark.sql("SELECT 1L AS id, 2D AS x"))
    assert scored["prediction"].tolist() == model.predict(pd.DataFrame({"x": [2.0]})) == ["{'x': '2.0'}"]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (lambda rows: pd.Series([1.0, np.nan]), "the model's output is NaN or infinite"),
        (lambda rows: np.array([1.0, np.inf], dtype="float32"), "the model's output is NaN or infinite"),
        (lambda rows: [["a", 1.0], ["b", np.nan]], "the model's output is NaN or infinite"),
        (lambda rows: [{"a": 1.0}, {"a": float("-inf")}], "the model's output is NaN or infinite"),
        (lambda rows: pd.Series(["a", None]), "the model's output is missing"),
        (lambda rows: pd.to_datetime(["2026-01-31", None]), "the model's output is missing"),
    ],
)
def test_a_row_without_a_finite_prediction_goes_to_quarantine(spark, log, score, schema, values, problem):
    good = values(None)[:1]
    if isinstance(good, list) and isinstance(good[0], list):
        outputs = Schema([ColSpec("string", "name"), ColSpec("double", "score")])
    elif isinstance(good, list):
        outputs = Schema([ColSpec(Object([Property("a", DataType.double)]), "p")])
    else:
        outputs = infer_signature(pd.Series(good)).inputs
    version, _ = log(Returns(lambda rows: values(rows)[: len(rows)]), ModelSignature(NUMBER, outputs))
    _, batch = score(version, spark.createDataFrame([(0, 1.0), (1, 1.0)], "id long, x double").coalesce(1))
    assert (batch.rows_scored, batch.rows_quarantined) == (1, 1)
    (refused,) = spark.table(f"{schema}.predictions_quarantine").collect()
    assert refused["problem"] == problem


def test_outputs_that_are_not_what_the_signature_says_are_told_in_words(spark, log, score, schema):
    version, _ = log(
        Returns(lambda rows: ["yesterday"] * len(rows)), ModelSignature(NUMBER, Schema([ColSpec("datetime")]))
    )
    with pytest.raises(ParameterError, match="not of type timestamp, as its signature says"):
        score(version, spark.sql("SELECT 1L AS id, 2D AS x"))


PROBABILITIES = {
    "of the second class": (["no", "yes"], lambda x: x),
    "of the second class, as a column": ([0, 1], lambda x: x.reshape(-1, 1)),
    "of each class": (["no", "yes"], lambda x: np.column_stack([1 - x, x])),
    "of each class, in named columns": (["a", "b", "c"], lambda x: pd.DataFrame({"a": x / 2, "b": 1 - x, "c": x / 2})),
    "of each class, as lists": ([1, 2, 3], lambda x: np.column_stack([x / 2, 1 - x, x / 2]).tolist()),
}


@pytest.mark.parametrize("case", PROBABILITIES)
def test_a_model_logged_with_classes_predicts_them_with_its_own_probabilities(module_session, spark, log, case):
    classes, values = PROBABILITIES[case]
    numbers = np.array([0.1, 0.6, 0.8])
    version, _ = log(
        Returns(lambda rows: values(rows["x"].to_numpy())),
        infer_signature(pd.DataFrame({"x": numbers}), values(numbers)),
        classes=classes,
    )
    predictor = scoring.load(module_session, f"models:/{version.name}/{version.version}")
    rows = spark.createDataFrame([(i, float(x)) for i, x in enumerate(numbers)], "id long, x double")
    scored = predictor.transform(rows, ["id"], each_class=True).toPandas().sort_values("id")
    expected = np.asarray(pd.DataFrame(values(numbers)), dtype=float)
    if expected.shape[1] == 1:
        expected = np.column_stack([1 - expected, expected])
    assert predictor.classes == classes
    np.testing.assert_array_equal(np.stack(scored["probabilities"]), expected)
    np.testing.assert_array_equal(scored["probability"], expected.max(axis=1))
    assert scored["prediction"].tolist() == [classes[number] for number in expected.argmax(axis=1)]


def test_outputs_of_a_model_with_classes_that_are_not_probabilities_are_told_in_words(spark, log, score):
    version, _ = log(
        Returns(lambda rows: np.column_stack([rows["x"], rows["x"]])),
        infer_signature(pd.DataFrame({"x": [1.0]}), np.ones((1, 2))),
        classes=["no", "yes"],
    )
    with pytest.raises(
        ParameterError, match="outputs are not probabilities, which add up to 1. Have it end in a softmax"
    ):
        score(version, spark.sql("SELECT 1L AS id, 2D AS x"))


def test_the_values_of_a_tensor_are_the_columns_that_the_model_was_logged_with(module_session, spark, log, score):
    numbers = np.array([[0.1, 2.0], [3.5, 4.0]], dtype="float32")
    signature = infer_signature(numbers, numbers.sum(axis=1))
    version, model = log(Returns(lambda tensor: tensor.sum(axis=1)), signature, columns=["b", "a"])
    rows = spark.createDataFrame([(0, 2.0, float(numbers[0, 0])), (1, 4.0, 3.5)], "id long, a double, b double")
    scored, _ = score(version, rows)
    assert scored["prediction"].tolist() == model.predict(numbers).tolist()
    version, _ = log(Echo(), signature, columns=["a", "b", "c"])
    with pytest.raises(ParameterError, match="whose values are not 3 columns per row"):
        scoring.load(module_session, f"models:/{version.name}/{version.version}")


@pytest.fixture(scope="module")
def split(spark, table):
    """A labelled table of numbers and integers; a tenth of the labels are wrong."""
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"x": random.normal(size=300), "k": random.integers(0, 9, 300), "id": range(300)})
    rows["label"] = ((rows["x"] + rows["k"] / 9 > 0.5) ^ (random.random(300) < 0.1)).astype(int)
    spark.createDataFrame(rows).write.saveAsTable("model_kinds.labelled")
    names = {"label_column": "label", "id_column": "id"}
    return data.load_split(spark, "model_kinds.labelled", **names, test_fraction=0.3, seed=1)


@pytest.fixture(scope="module")
def training(split):
    """The rows to learn from, with the types of the table."""
    rows = split.train.orderBy("id").toPandas().astype({"k": "int64"})
    return rows[["x", "k"]], rows["label"]


def booster(x, y):
    return train_booster({"objective": "binary:logistic"}, DMatrix(x, y), 5)


def named_outputs(x, y):
    model = LogisticRegression().fit(x, y)

    def values(rows):
        return pd.DataFrame({"prediction": model.predict(rows), "decision": model.decision_function(rows)})

    return Returns(values)


# How to fit each kind, its flavor, what log_model gets, and whether it has probabilities.
KINDS = {
    "scikit-learn": (lambda x, y: make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y), "sklearn", {}, True),
    "scikit-learn with a step of another package": (
        lambda x, y: make_pipeline(StandardScaler(), XGBClassifier(n_estimators=5)).fit(x, y), "sklearn", {}, True,
    ),
    "scikit-learn with a function": (
        lambda x, y: make_pipeline(FunctionTransformer(lambda rows: rows * 2), LogisticRegression()).fit(x, y), "sklearn", {}, True,
    ),
    "scikit-learn without probabilities": (lambda x, y: RidgeClassifier().fit(x, y), "sklearn", {}, False),
    "XGBoost classifier": (lambda x, y: XGBClassifier(n_estimators=5).fit(x, y), "xgboost", {}, True),
    "XGBoost booster": (booster, "xgboost", {"classes": [0, 1]}, True),
    "a pyfunc with several outputs": (named_outputs, "pyfunc", {"pip_requirements": ["scikit-learn"]}, False),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_registered_by_its_gate_and_scored_with_its_own_predictions(
    module_session, spark, split, training, schema, model_name, kind
):
    fit, flavor, options, has_probabilities = KINDS[kind]
    x, y = training
    with mlflow.start_run() as run:
        tracking.log_split(split)
        model = fit(x, y)
        predicted = model.values(x) if flavor == "pyfunc" else model.predict(DMatrix(x) if options else x)
        output = predicted if flavor == "pyfunc" else pd.Series(predicted, name="prediction")
        uri = tracking.log_model(model, flavor=flavor, signature=infer_signature(x, output), **options)
    outcome = register_and_score(module_session, spark, split, run, uri, model_name, f"{schema}.predictions")
    assert outcome.differing == 0
    assert outcome.metrics["accuracy_score"] > 0.7
    assert outcome.scored["probability"].notna().all() == has_probabilities
    if has_probabilities:
        held_out = split.held_out.orderBy("id").toPandas().astype({"k": "int64"})
        features = held_out[["x", "k"]]
        second = model.predict(DMatrix(features)) if options else model.predict_proba(features)[:, 1]
        assert outcome.metrics["roc_auc"] == pytest.approx(roc_auc_score(held_out["label"], second), abs=1e-12)


def test_several_outputs_of_which_none_is_the_prediction_are_refused_by_the_gate_in_words(
    module_session, spark, split, training, schema, model_name
):
    with mlflow.start_run() as run:
        tracking.log_split(split)
        outputs = pd.DataFrame({"a": [1.0], "b": [2.0]})
        model = Returns(lambda rows: pd.DataFrame({"a": rows["x"], "b": rows["x"]}))
        uri = tracking.log_model(
            model, flavor="pyfunc", signature=infer_signature(training[0], outputs), pip_requirements=["mlflow"]
        )
    with pytest.raises(
        ParameterError, match="predicts struct<a:double,b:double>, which cannot be compared with a label. Name"
    ):
        register_and_score(module_session, spark, split, run, uri, model_name, f"{schema}.predictions")
    assert tracking.versions(module_session, model_name) == []


def test_a_version_that_mlflow_registered_is_scored_and_the_gate_takes_it_as_it_is(
    module_session, spark, split, training, schema, model_name
):
    x, y = training
    signature = infer_signature(x, pd.Series([0], name="prediction"))
    with mlflow.start_run() as run:
        tracking.log_split(split)
        uris = [
            mlflow.sklearn.log_model(
                LogisticRegression(C=0.1**number).fit(x, y), name=f"m{number}", signature=signature,
                registered_model_name=model_name, pip_requirements=["scikit-learn"],
            ).model_uri
            for number in range(2)
        ]  # fmt: skip
    with pytest.raises(
        ParameterError, match="Version 2 never went through the gate of 03_register. Version 1 never went"
    ):
        tracking.resolve_version(module_session, model_name, "")
    version = tracking.resolve_version(module_session, model_name, "2")
    rows = spark.table(split.table)
    scorer = scoring.Scorer(module_session, version, split.table, f"{schema}.before", "id")
    assert scorer.score_batch(rows, "b1").rows_scored == 300
    # The gate does not take the version of the other model of the run for that of this one.
    outcome = register_and_score(module_session, spark, split, run, uris[1], model_name, f"{schema}.predictions")
    assert (str(outcome.version.version), outcome.differing) == ("2", 0)
    assert len(tracking.versions(module_session, model_name)) == 2


@pytest.mark.parametrize("steps", [[0], [0, 1]])
def test_a_metric_of_nan_at_the_first_step_does_not_stop_log_model(module_session, training, steps):
    x, y = training
    with mlflow.start_run() as run:
        for step in steps:
            mlflow.log_metric("loss", float("nan"), step=step)
        mlflow.log_metric("loss", 0.5, step=2)
        signature = infer_signature(x, pd.Series([0], name="prediction"))
        uri = tracking.log_model(LogisticRegression().fit(x, y), flavor="sklearn", signature=signature)
    assert tracking.logged_model_uri(module_session, mlflow.get_run(run.info.run_id)) == uri


@pytest.mark.slow
@pytest.mark.parametrize("case", ["numbers and times", "a Series", "a dict of arrays"])
def test_the_local_endpoint_answers_as_the_model(module_session, log, tmp_path, case):
    # MLflow's server changes times in arrays and objects.
    names = [name for name in COLUMNS if name not in ("times", "named")]
    own = Schema([ColSpec(TYPES[name], name) for name in names])
    values, signature, rows = {
        "numbers and times": (lambda rows: rows, ModelSignature(own, own), features()[names]),
        "a Series": (lambda rows: rows["x"] * 2, ModelSignature(NUMBER, NUMBER), pd.DataFrame({"x": [1.0, 2.0, 3.0]})),
        "a dict of arrays": (
            lambda rows: {"x": rows["x"].to_numpy(), "y": np.column_stack([rows["x"], rows["x"]])},
            infer_signature(pd.DataFrame({"x": [1.0]}), {"x": np.ones(1), "y": np.ones((1, 2))}),
            pd.DataFrame({"x": [1.0, 2.0, 3.0]}),
        ),
    }[case]
    version, _ = log(Returns(values), signature)
    assert len(serve(module_session, version, rows, tmp_path)) == len(rows)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_row_without_a_prediction_stops_the_check_of_an_endpoint_before_anything_is_deployed(
    module_session, log, value
):
    outputs = Schema([ColSpec("double", "p", required=False)])
    version, _ = log(Returns(lambda rows: pd.DataFrame({"p": [1.0, value]})), ModelSignature(NUMBER, outputs))
    with pytest.raises(
        serving.ServingError, match=r"cannot score a row that is to check it: it predicts \{'p': (nan|inf)\} for"
    ):
        serving.examples(module_session, version, pd.DataFrame({"x": [1.0, 2.0]}))
