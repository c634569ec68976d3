"""One cluster for all tests, in a workspace with runs in Databricks and models in Azure ML."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from helpers.serving.local_endpoint import LocalEndpoint
from tests.stand_ins.databricks_workspace.cluster import Cluster

SCOPE = "azureml"


@pytest.fixture(scope="module")
def azureml_parameters(aml) -> dict[str, str]:
    """Parameters for models in Azure ML, with credentials from a secret scope."""
    return {"model_registry": "azureml", "azureml_secret_scope": SCOPE} | aml.workspace_parameters


@pytest.fixture(scope="module")
def cluster(start_cluster) -> Iterator[Cluster]:
    """A cluster that is not signed in to Azure. The addresses of the stand-in are set, since no client knows them."""
    with start_cluster() as started:
        yield started


@pytest.fixture(scope="module")
def serverless(start_cluster) -> Iterator[Cluster]:
    """Serverless compute of the same workspace."""
    with start_cluster(is_serverless=True) as started:
        yield started


@pytest.fixture(scope="module")
def start_cluster(tmp_path_factory, quick_jvm, aml, databricks):
    """Start a cluster, or serverless compute."""
    signed_in = aml.environment()
    secrets = {
        name.lower().replace("_", "-"): signed_in.pop(name)
        for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
    }

    @contextmanager
    def start(is_serverless: bool = False) -> Iterator[Cluster]:
        folder = tmp_path_factory.mktemp("cluster")
        variables = databricks.environment() | signed_in
        with Cluster.start(folder, variables, quick_jvm, {SCOPE: secrets}, is_serverless) as started:
            yield started
        # Local endpoints keep running after the notebooks that made them. A kernel that lives does not reap them.
        for endpoint in LocalEndpoint.all(folder / "tmp" / "azureml_mlflow" / "endpoints"):
            endpoint.delete()

    return start
