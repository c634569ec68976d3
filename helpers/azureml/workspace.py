"""Find an Azure Machine Learning workspace, sign in, and make MLflow use the workspace and the sign-in."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers.azureml import credentials
from helpers.azureml.rest import AzureError, AzureRest
from helpers.parameters import AzureML, ParameterError

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

PROVIDER = "Microsoft.MachineLearningServices/workspaces"
API_VERSION = "2024-10-01"
ROLES = "https://learn.microsoft.com/azure/machine-learning/how-to-assign-roles"
# The address of studio, and the suffix of regional addresses, by the name of the cloud in Azure's metadata.
# https://learn.microsoft.com/azure/machine-learning/reference-machine-learning-cloud-parity
STUDIO = {"AzureChinaCloud": "https://studio.ml.azure.cn", "AzureUSGovernment": "https://ml.azure.us"}
REGIONAL_SUFFIX = {"AzureChinaCloud": "api.ml.azure.cn", "AzureUSGovernment": "api.ml.azure.us"}
# https://learn.microsoft.com/azure/machine-learning/how-to-access-azureml-behind-firewall
CLOUD_VARIABLE = "AZUREML_CURRENT_CLOUD"
_IN_URI = re.compile(r"/subscriptions/([^/]+)/resourceGroups/([^/]+)/providers/[^/]+/workspaces/([^/?]+)")


@dataclass(frozen=True)
class Workspace:
    """An AML workspace, signed in to.

    Attributes
    ----------
    resource_id : str
        ``/subscriptions/…/workspaces/<name>``.
    tracking_uri : str
        ``azureml://…``, for MLflow.
    cloud : str
        Name of its Azure cloud; ``AzureCloud`` is the public one.
    manager : helpers.azureml.rest.AzureRest
        Azure Resource Manager, signed in.
    """

    resource_id: str
    tracking_uri: str
    cloud: str
    manager: AzureRest

    @property
    def name(self) -> str:
        """The workspace's name."""
        return self.resource_id.rsplit("/", 1)[1]

    def studio_url(self, page: str) -> str:
        """Return the address of a page of Azure Machine Learning studio, e.g. ``home``."""
        studio = STUDIO.get(self.cloud, "https://ml.azure.com")
        subscription, group, name = _IN_URI.findall(self.resource_id)[0]
        return f"{studio}/{page}?wsid=/subscriptions/{subscription}/resourcegroups/{group}/workspaces/{name}"

    def datastore_uri(self, path: str) -> str:
        """Return the URI of a path in a datastore, such as ``workspaceblobstore/paths/folder``."""
        subscription, group, name = _IN_URI.findall(self.resource_id)[0]
        return f"azureml://subscriptions/{subscription}/resourcegroups/{group}/workspaces/{name}/datastores/{path}"


def connect(p: AzureML) -> Workspace:
    """Sign in, find the workspace's address, and make MLflow use both.

    If `p` has neither a region nor the address itself, Azure Resource Manager is asked for the address; for a
    workspace behind a private endpoint only Resource Manager knows it. From then on, MLflow's AML plugin uses the
    credential that was checked here. So it never falls back to a browser, as its own chain of credentials does.

    Parameters
    ----------
    p : helpers.parameters.AzureML

    Raises
    ------
    ParameterError
        If a parameter is missing, or if Azure does not know what it names.
    helpers.azureml.rest.AzureError
        If signing in fails, or if the workspace cannot be used.
    """
    resource_id = _resource_id(p)
    cloud = _cloud()
    scope = cloud._get_default_scope()
    credential, who = credentials.sign_in(p.azureml_secret_scope, p.azureml_sign_in, cloud._get_authority(), scope)
    manager = AzureRest(credential, cloud.endpoints.resource_manager, scope)
    uri = p.azureml_tracking_uri
    if not uri and p.azureml_region:
        suffix = REGIONAL_SUFFIX.get(cloud.name, "api.azureml.ms")
        uri = f"azureml://{p.azureml_region}.{suffix}/mlflow/v1.0{resource_id}"
    if not uri:
        uri = _ask_for_uri(manager, resource_id, who, p)
    workspace = Workspace(resource_id, uri, cloud.name, manager)
    _check_access(workspace, credential, scope, who, p)
    _hand_to_mlflow(workspace, credential, cloud)
    return workspace


def _resource_id(p: AzureML) -> str:
    if p.azureml_tracking_uri:
        subscription, group, name = _IN_URI.findall(p.azureml_tracking_uri)[0]
    else:
        for parameter in ("azureml_subscription_id", "azureml_resource_group", "azureml_workspace"):
            if not getattr(p, parameter):
                raise ParameterError(
                    parameter, "", "is needed for Azure Machine Learning; the workspace's overview in the portal has it"
                )
        subscription, group, name = p.azureml_subscription_id, p.azureml_resource_group, p.azureml_workspace
    return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{PROVIDER}/{name}"


def _cloud() -> Any:
    """Return the Azure cloud of the plugin: the public one, or the one that AZUREML_CURRENT_CLOUD names.

    Without this variable the plugin requests a list of clouds from the public cloud's Resource Manager, and again
    for each file of a model. Behind a firewall that takes half a minute each time. So the variable is set here, to
    the first cloud of that list.
    """
    from azureml.mlflow._common._cloud.cloud import KNOWN_CLOUDS

    name = os.environ[CLOUD_VARIABLE] = os.environ.get(CLOUD_VARIABLE) or next(iter(KNOWN_CLOUDS))
    if name not in KNOWN_CLOUDS:
        raise AzureError(f"{CLOUD_VARIABLE}={name!r} is not an Azure cloud; known are: {', '.join(KNOWN_CLOUDS)}")
    return KNOWN_CLOUDS[name]


def _ask_for_uri(manager: AzureRest, resource_id: str, who: str, p: AzureML) -> str:
    # https://learn.microsoft.com/rest/api/azureml/workspaces/get
    try:
        properties = manager.get(resource_id, api_version=API_VERSION)["properties"]
    except AzureError as error:
        parameter = {
            "SubscriptionNotFound": "azureml_subscription_id",
            "InvalidSubscriptionId": "azureml_subscription_id",
            "ResourceGroupNotFound": "azureml_resource_group",
            "ResourceNotFound": "azureml_workspace",
        }.get(error.code)
        if parameter:
            tenant = " in the tenant that was signed in to" if parameter == "azureml_subscription_id" else ""
            raise ParameterError(
                parameter,
                getattr(p, parameter),
                f"Azure has none of that name{tenant} ({error.code} for {resource_id}); compare it with the "
                "workspace's overview in the portal",
            ) from None
        if error.status == 403:
            raise AzureError(
                f"No permission to read {resource_id} (403 {error.code}): give {who} the role AzureML Data "
                f"Scientist on the workspace, {ROLES} (a new role takes some minutes)",
                403,
                error.code,
            ) from None
        raise
    if not properties.get("mlFlowTrackingUri"):
        raise AzureError(
            f"{resource_id} has no MLflow tracking URI (provisioning state: {properties.get('provisioningState')}); "
            "wait until the workspace is ready"
        )
    return properties["mlFlowTrackingUri"]


def _check_access(workspace: Workspace, credential: TokenCredential, scope: str, who: str, p: AzureML) -> None:
    """Send a cheap query to the workspace's MLflow server; MLflow's own client would retry for minutes."""
    host = workspace.tracking_uri.split("/")[2]
    server = AzureRest(credential, f"https://{host}", scope)
    try:
        server.post(f"/mlflow/v2.0{workspace.resource_id}/api/2.0/mlflow/experiments/search", {"max_results": 1})
    except AzureError as error:
        if error.status == 403:
            raise AzureError(
                f"No permission to track runs in the Azure Machine Learning workspace {workspace.name} (403): give "
                f"{who} the role AzureML Data Scientist on the workspace, {ROLES} (a new role takes some minutes)",
                403,
                error.code,
            ) from None
        hint = ""
        if p.azureml_tracking_uri:
            hint = "; check azureml_tracking_uri, or give subscription, resource group and workspace instead"
        elif p.azureml_region:
            hint = f"; check azureml_region={p.azureml_region!r}, or leave it empty to ask Azure Resource Manager"
        if error.status == 404:
            raise AzureError(f"{host} does not know the workspace {workspace.name}{hint}", 404, error.code) from None
        if error.status is None:
            private = ". A workspace with a private endpoint only answers inside its own network"
            raise AzureError(f"{error}{hint}{private}") from None
        raise


class _LastCredential:
    """The credential of the last `connect` to a workspace.

    MLflow keeps its stores, and they their credential. When its tokens are revoked, a new `connect` replaces it for them.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._tracking_uri = tracking_uri

    def get_token(self, *scopes: str, **options: Any) -> Any:
        return _credentials[self._tracking_uri].get_token(*scopes, **options)


_credentials: dict[str, TokenCredential] = {}


def _hand_to_mlflow(workspace: Workspace, credential: TokenCredential, cloud: Any) -> None:
    from azureml.mlflow._internal.service_context_loader import _AzureMLServiceContextLoader
    from azureml.mlflow._internal.utils import ServiceContext

    _credentials[workspace.tracking_uri] = credential
    subscription, group, name = _IN_URI.findall(workspace.resource_id)[0]
    context = ServiceContext(
        host_url=f"https://{workspace.tracking_uri.split('/')[2]}",
        subscription_id=subscription,
        resource_group_name=group,
        workspace_name=name,
        auth=_LastCredential(workspace.tracking_uri),
        cloud=cloud,
    )
    _AzureMLServiceContextLoader.add_service_context(workspace.tracking_uri, context)
