"""The identities and the resources that exist in the stand-in's Azure."""

CLOUD = "StandInCloud"
STORAGE_SUFFIX = "storage.stand-in"
TENANT = "adfs"

CLIENT_ID = "11111111-aaaa-4aaa-8aaa-000000000001"
# Has the same rights and the same secret, so that a test can revoke its tokens without harm to other clients.
OTHER_CLIENT_ID = "11111111-aaaa-4aaa-8aaa-000000000004"
# Can sign in, but has no permissions.
CLIENT_ID_WITHOUT_ROLE = "11111111-aaaa-4aaa-8aaa-000000000002"
# The machine's identity, for which its metadata service issues tokens.
MANAGED_IDENTITY_CLIENT_ID = "11111111-aaaa-4aaa-8aaa-000000000003"
USER = "ada@stand-in.example"
# Has dots and tildes, like the secrets that Entra ID generates.
CLIENT_SECRET = "8Q~stand.in-client_secret~Zk3vPq"
EXPIRED_SECRET = "expired-secret"

SUBSCRIPTION_ID = "22222222-bbbb-4bbb-8bbb-000000000001"
RESOURCE_GROUP = "ml-group"
REGION = "westeurope"
# https://learn.microsoft.com/azure/machine-learning/how-to-use-mlflow-configure-tracking
REGIONAL_HOST = f"{REGION}.api.azureml.ms"
WORKSPACE = "ml-workspace"
# Has a private endpoint. Azure Resource Manager knows this workspace, but it has no runs.
PRIVATE_WORKSPACE = "ml-private"

# Another one that can be used. Its models are its own; its experiments and runs are those of `WORKSPACE`. It has no web
# services.
PROD_WORKSPACE = "ml-prod"
# Shared by the workspaces, in a resource group of its own.
REGISTRY = "shared-models"
REGISTRY_GROUP = "registry-group"

# Of all online deployments together. Azure has one limit per family of instance types.
CORE_QUOTA = 100
# A Kubernetes cluster, on which web services of version 1 can run.
ATTACHED_COMPUTE = "aks-cluster"
# A Kubernetes cluster for online endpoints, and its instance types. The first one is made when a cluster is attached:
# https://learn.microsoft.com/azure/machine-learning/how-to-manage-kubernetes-instance-types
CLUSTER = "arc-cluster"
CLUSTER_INSTANCE_TYPES = ("defaultinstancetype", "larger")

DATABRICKS_WORKSPACE = "dbx"
# Only reachable through a private endpoint, so it cannot be linked.
PRIVATE_DATABRICKS_WORKSPACE = "dbx-private"


def workspace_resource_id(workspace: str = WORKSPACE) -> str:
    """Return the id that Azure Resource Manager gives an AML workspace."""
    return _resource_id("Microsoft.MachineLearningServices", workspace)


def registry_resource_id() -> str:
    """Return the id that Azure Resource Manager gives the registry."""
    group = f"/subscriptions/{SUBSCRIPTION_ID}/resourceGroups/{REGISTRY_GROUP}"
    return f"{group}/providers/Microsoft.MachineLearningServices/registries/{REGISTRY}"


def databricks_resource_id(workspace: str = DATABRICKS_WORKSPACE) -> str:
    """Return the id that Azure Resource Manager gives a Databricks workspace."""
    return _resource_id("Microsoft.Databricks", workspace)


def _resource_id(provider: str, workspace: str) -> str:
    group = f"/subscriptions/{SUBSCRIPTION_ID}/resourceGroups/{RESOURCE_GROUP}"
    return f"{group}/providers/{provider}/workspaces/{workspace}"
