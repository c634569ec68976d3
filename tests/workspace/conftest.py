"""One cluster for all, in a workspace whose runs are tracked by Databricks, and whose models are in Azure ML."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from helpers.serving.local_endpoint import LocalEndpoint
from tests.stand_ins.databricks_workspace.cluster import Cluster

SCOPE = "azureml"


@pytest.fixture(scope="module")
def azureml_parameters(aml) -> dict[str, str]:
    """What somebody says whose models go to Azure ML, with the secrets of a scope."""
    return {
        "model_registry": "azureml",
        "azureml_subscription_id": aml.subscription_id,
        "azureml_resource_group": aml.resource_group,
        "azureml_workspace": aml.workspace,
        "azureml_secret_scope": SCOPE,
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, quick_jvm, aml, databricks) -> Iterator[Cluster]:
    """A cluster that has nobody signed in to Azure; which cloud that is, is set, as it is not one that clients know."""
    signed_in = aml.environment()
    secrets = {
        name.lower().replace("_", "-"): signed_in.pop(name)
        for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
    }
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster.start(folder, databricks.environment() | signed_in, quick_jvm, {SCOPE: secrets}) as started:
        yield started
        # They outlive the notebooks that made them.
        for endpoint in LocalEndpoint.all(folder / "tmp" / "azureml_mlflow" / "endpoints"):
            endpoint.delete()
