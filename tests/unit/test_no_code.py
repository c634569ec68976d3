"""Which models a managed endpoint of Azure ML cannot serve, and what to do with each."""

import mlflow
import pandas as pd
import pytest
import yaml
from mlflow.models import infer_signature
from pyspark.ml import Pipeline
from pyspark.ml.feature import VectorAssembler
from sklearn.dummy import DummyRegressor

from helpers.serving.no_code import problem_of

SIZES = [0.5, 1.0, 2.5]
USUAL = {
    "whole": [1.0, 2.0, None], "count": [1, 2, 3], "small": pd.Series([1, 2, 3], dtype="int32"), "name": ["a", None, "7"],
    "flag": [True, False, True], "first_seen_at": [1.0, 2.0, 3.0], "date": ["low", "high", "low"],
}  # fmt: skip


def save(folder, example, **columns):
    """Save a model of these columns; its input example is made of its rows."""
    rows = pd.DataFrame({"size": SIZES, **columns})
    signature = infer_signature(rows, pd.Series([0.0], name="prediction"))
    model = DummyRegressor().fit(rows[["size"]], SIZES)
    options = {"signature": signature, "input_example": example(rows), "pip_requirements": ["scikit-learn"]}
    mlflow.sklearn.save_model(model, folder, **options)
    return folder


@pytest.mark.parametrize(
    ("columns", "example"),
    [(USUAL, lambda rows: None), (USUAL, lambda rows: rows), ({}, lambda rows: rows.to_numpy())],
)
def test_a_model_with_usual_columns_is_served_with_an_example_and_without(tmp_path, columns, example):
    assert problem_of(save(tmp_path / "model", example, **columns)) == ""


@pytest.mark.parametrize(
    ("columns", "example", "problem"),
    [
        ({"note": [None, None, "rare"]}, lambda rows: rows.head(2), "column note to float64"),
        ({}, lambda rows: rows.assign(size=[1, 2, 3]), "column size to int64"),
        ({"made_at": [1.7e9, 1.8e9, 1.9e9]}, lambda rows: rows, "column made_at for times"),
        ({"date": ["2026-01-01", "2026-01-02", "2026-01-03"]}, lambda rows: rows, "column date for times"),
    ],
)
def test_a_column_that_the_vendors_script_reads_as_another_type_is_named(tmp_path, columns, example, problem):
    told = problem_of(save(tmp_path / "model", example, **columns))
    assert problem in told and ("Rename the column" if "times" in problem else "Log the model with an input_ex") in told


def test_a_spark_ml_model_needs_java_among_what_conda_installs(spark, tmp_path):
    rows = spark.createDataFrame([(0.5,), (1.0,)], "size double")
    model = Pipeline(stages=[VectorAssembler(inputCols=["size"], outputCol="features")]).fit(rows)
    mlflow.spark.save_model(model, tmp_path / "model", pip_requirements=["pyspark"])
    assert "needs Java" in problem_of(tmp_path / "model")
    conda = tmp_path / "model" / "conda.yaml"
    environment = yaml.safe_load(conda.read_text())
    environment["dependencies"].insert(0, "openjdk=17")
    conda.write_text(yaml.safe_dump(environment))
    assert problem_of(tmp_path / "model") == ""
