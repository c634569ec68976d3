"""A laptop that is signed in to the stand-ins for Azure ML and Databricks, and a plain reader of the Azure ML one."""

import pytest

from tests.notebooks.machine import Machine
from tests.scenarios.azureml import read_workspace


@pytest.fixture(scope="module")
def own_spark(tmp_path_factory, quick_jvm, aml, databricks):
    """A laptop that is signed in to both, and on which each notebook starts its own Spark."""
    return Machine(tmp_path_factory.mktemp("machine"), quick_jvm, aml.environment() | databricks.environment())


@pytest.fixture(scope="module")
def machine(own_spark):
    """The same laptop with a Spark Connect server."""
    with own_spark.on_spark_connect() as machine:
        yield machine


@pytest.fixture(scope="module")
def connected(machine):
    """The laptop of the module, with a Spark Connect server."""
    with machine.on_spark_connect() as connected:
        yield connected


@pytest.fixture(scope="module")
def read_aml(azureml_process):
    """Read the Azure ML workspace with a plain client."""
    return lambda experiment_name, model_name: azureml_process.run(read_workspace.read, experiment_name, model_name)
