"""The plain MLflow server that imitates Databricks, tested with MLflow's own Databricks client."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.scenarios.databricks import log_a_run_and_read_it_back, use_an_experiment
from tests.scenarios.process import ScenarioProcess


@pytest.fixture(scope="module")
def process(databricks, tmp_path_factory) -> Iterator[ScenarioProcess]:
    environment = os.environ | databricks.environment()
    with ScenarioProcess.start(tmp_path_factory.mktemp("client"), environment) as process:
        yield process


def test_a_run_is_logged_to_databricks_and_read_back(process):
    assert process.run(log_a_run_and_read_it_back) == {"text": "text", "loss": 0.5}


def test_a_plain_experiment_name_is_refused_where_the_workspace_does_not_say_who_asks(databricks, process):
    error = process.run(use_an_experiment, "churn")
    where = f"ParameterError: experiment_name='churn': {databricks.url}"
    assert error.startswith(f"{where} does not say who you are (404 Not Found); ")
    assert "Databricks accepts an absolute path such as /Users/<you>/churn or /Shared/churn" in error
