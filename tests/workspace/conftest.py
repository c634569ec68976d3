"""One cluster for all tests, in a workspace with runs in Databricks and models in Azure ML."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from helpers.serving.local_endpoint import LocalEndpoint
from tests.stand_ins.databricks_workspace.cluster import Cluster

SCOPE = "azureml"


@pytest.fixture(scope="module")
def azureml_parameters(aml) -> dict[str, str]:
    """Parameters for models in Azure ML, with credentials from a secret scope."""
    return {"model_registry": "azureml", "azureml_secret_scope": SCOPE} | aml.workspace_parameters


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, quick_jvm, aml, databricks) -> Iterator[Cluster]:
    """A cluster that is not signed in to Azure. The addresses of the stand-in are set, since no client knows them."""
    signed_in = aml.environment()
    secrets = {
        name.lower().replace("_", "-"): signed_in.pop(name)
        for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
    }
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster.start(folder, databricks.environment() | signed_in, quick_jvm, {SCOPE: secrets}) as started:
        yield started
        # Local endpoints keep running after the notebooks that made them.
        for endpoint in LocalEndpoint.all(folder / "tmp" / "azureml_mlflow" / "endpoints"):
            endpoint.delete()
