"""The guide "Comparison": what it says of MLflow is so with the MLflow that is installed."""

import inspect
import re
from pathlib import Path

import mlflow
import pytest

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "comparison.md").read_text(encoding="utf-8")


def test_mlflow_evaluate_does_not_have_the_arguments_that_the_other_project_passes():
    named = re.search(r"calls `mlflow.evaluate` with\n`(\w+)`, `(\w+)` and `(\w+)`", GUIDE).groups()
    assert not {*named} & inspect.signature(mlflow.evaluate).parameters.keys()
    message = re.search(r"TypeError: (.*)", GUIDE).group(1)
    with pytest.raises(TypeError, match=re.escape(message)):
        mlflow.evaluate(**dict.fromkeys(named))
