"""A laptop that is signed in to the stand-ins for Azure ML and Databricks, and a plain reader of the Azure ML one."""

import pytest

from tests import spark_connect
from tests.notebooks.machine import Machine
from tests.scenarios.azureml import read_workspace

_SERVER = pytest.StashKey[spark_connect.SharedServer]()


@pytest.fixture(scope="session")
def connect_server(tmp_path_factory, quick_jvm, pytestconfig):
    """A Spark Connect server, which starts when the first laptop of this process uses it."""
    server = spark_connect.SharedServer(tmp_path_factory.mktemp("connect_server"), quick_jvm)
    pytestconfig.stash[_SERVER] = server
    yield server
    server.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """End the server after the last test of this folder, because it keeps about a gigabyte of memory."""
    result = yield
    if _SERVER in item.config.stash and (nextitem is None or nextitem.path.parent != item.path.parent):
        item.config.stash[_SERVER].stop()
    return result


@pytest.fixture(scope="module")
def own_spark(tmp_path_factory, quick_jvm, aml, databricks):
    """A laptop that is signed in to both, and on which each notebook starts its own Spark."""
    return Machine(tmp_path_factory.mktemp("machine"), quick_jvm, aml.environment() | databricks.environment())


@pytest.fixture(scope="module")
def machine(own_spark, connect_server):
    """The same laptop with the Spark Connect server."""
    with own_spark.on_spark_connect(connect_server) as machine:
        yield machine


@pytest.fixture(scope="module")
def connected(machine, connect_server):
    """The laptop of the module, with the Spark Connect server."""
    with machine.on_spark_connect(connect_server) as connected:
        yield connected


@pytest.fixture(scope="module")
def read_aml(azureml_process):
    """Read the Azure ML workspace with a plain client."""
    return lambda experiment_name, model_name: azureml_process.run(read_workspace.read, experiment_name, model_name)
