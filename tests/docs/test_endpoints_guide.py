"""The guide "Endpoints": what it says of Azure ML's server is what the code refuses, and what the tests run."""

import re
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.dummy import DummyRegressor

from helpers import kinds
from helpers.serving.no_code import problem_of
from helpers.tracking.models import FOR_ENDPOINTS
from tests.azureml.test_inference_server import FLAVORS

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "endpoints.md").read_text(encoding="utf-8")
(NAMES,) = re.findall(r"because the column's name (.*?)\. Numbers up to 31,536,000", GUIDE, re.S)


def problem(folder, **columns):
    rows = pd.DataFrame(columns)
    signature = infer_signature(rows, pd.Series([0.0], name="prediction"))
    options = {"signature": signature, "input_example": rows, "pip_requirements": ["scikit-learn"]}
    mlflow.sklearn.save_model(DummyRegressor().fit([[0.0]], [0.0]), folder, **options)
    return problem_of(folder)


@pytest.mark.parametrize("name", re.findall(r"`(\w+)`", NAMES))
def test_a_number_of_a_column_with_one_of_the_names_is_taken_for_a_time_unless_it_is_small(tmp_path, name):
    column = f"made{name}" if name.startswith("_") else f"{name}_x" if name == "timestamp" else name
    assert f"column {column} for times" in problem(tmp_path / "large", **{column: [31_536_001.0]})
    assert problem(tmp_path / "small", **{column: [31_536_000.0]}) == ""


def test_the_guide_has_the_version_of_the_server_and_the_flavors_that_the_tests_run_on_it():
    assert f"azureml-inference-server-http=={re.findall(r'[(]version ([0-9.]+)[)]', GUIDE)[0]}" in FOR_ENDPOINTS
    assert re.findall(r"models of the flavors `(\w+)` and `(\w+)` answer", GUIDE) == [tuple(FLAVORS)]
    assert [flavor for flavor in kinds.FLAVORS if flavor not in FLAVORS] == ["spark"]
