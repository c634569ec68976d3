"""The stand-in's web services of version 1, tested with MLflow's unpatched plugin."""

from __future__ import annotations

import pytest

from tests.scenarios.azureml import web_services
from tests.scenarios.process import ScenarioProcess


@pytest.fixture(scope="module")
def process(azureml_process) -> ScenarioProcess:
    """A process with the model ``web``."""
    azureml_process.run(web_services.register_models)
    return azureml_process


def test_a_container_instance_serves_a_model_with_and_without_keys_until_it_is_deleted(process):
    answers = process.run(web_services.serve_on_a_container_instance)
    assert answers["created"]["state"] == "Healthy" and answers["created"]["computeType"] == "ACI"
    assert answers["first"] == [2, 4] and answers["second"] == [3, 6]
    assert answers["service"]["tags"] == {"team": "blue"} and answers["without_key"] == 401
    assert "instance" in answers["names"]
    assert answers["after_deletion"] == "MlflowException: No deployment with name instance found"


def test_on_kubernetes_a_key_or_a_token_is_needed_and_the_cluster_has_to_be_attached(process):
    answers = process.run(web_services.serve_on_kubernetes)
    assert answers["keys"] == answers["tokens"] == [2, 4] and answers["without"] == 401
    assert "ComputeNotFound" in answers["not_attached"] and "ServiceAlreadyExists" in answers["taken"]
    assert "container application crashed" in answers["crashed"] and answers["state"] == "Failed"
