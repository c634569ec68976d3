"""Checks that AML makes before it creates an online endpoint or deployment.

Each function returns the field and the message of a refusal, or None. The messages quote AML's own wording where
a source has it; those about traffic, model and authentication mode are not AML's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from tests.stand_ins.azureml import names

# https://learn.microsoft.com/azure/machine-learning/reference-managed-online-endpoints-vm-sku-list
CORES = {
    "Standard_DS1_v2": 1, "Standard_DS2_v2": 2, "Standard_DS3_v2": 4, "Standard_DS4_v2": 8, "Standard_DS5_v2": 16,
    "Standard_F2s_v2": 2, "Standard_F4s_v2": 4, "Standard_F8s_v2": 8, "Standard_F16s_v2": 16,
    "Standard_E2s_v3": 2, "Standard_E4s_v3": 4, "Standard_E8s_v3": 8, "Standard_E16s_v3": 16,
}  # fmt: skip
AUTH_MODES = ("Key", "AMLToken", "AADToken")
# instanceType's default in the REST specification.
DEFAULT_INSTANCE_TYPE = "Standard_F4s_v2"


class Refusal(NamedTuple):
    """The field that is wrong, and why."""

    field: str
    message: str


def name(kind: str, value: str) -> Refusal | None:
    """Check a name: https://learn.microsoft.com/azure/machine-learning/how-to-manage-quotas (limits on names)."""
    if re.fullmatch(r"[A-Za-z](?:-?[A-Za-z0-9])*", value) and 3 <= len(value) <= 32:
        return None
    rules = "must begin with a letter, be 3-32 characters in length, and contain only letters, numbers and dashes"
    return Refusal("Name", f"{kind} name '{value}' is invalid. It {rules}, no two in a row and none at the end.")


def auth_mode(value: Any, existing: str | None) -> Refusal | None:
    """Check an endpoint's authentication mode, which cannot be changed."""
    if value not in AUTH_MODES:
        return Refusal("AuthMode", f"'{value}' is not a valid auth mode. Valid ones are: {', '.join(AUTH_MODES)}.")
    if existing not in (None, value):
        return Refusal("AuthMode", f"The auth mode of an endpoint cannot be changed from {existing} to {value}.")
    return None


def traffic(percentages: Mapping[str, Any], ready: Collection[str]) -> Refusal | None:
    """Check that traffic goes only to deployments that succeeded, and adds up to 0 or 100 %.

    https://learn.microsoft.com/azure/machine-learning/reference-yaml-endpoint-online
    """
    for deployment, percentage in percentages.items():
        if deployment.lower() not in ready:
            message = f"Deployment '{deployment}' was not found, or is not in provisioning state Succeeded."
            return Refusal("Traffic", message)
        if not isinstance(percentage, int) or not 0 <= percentage <= 100:
            return Refusal("Traffic", f"The traffic of deployment '{deployment}' must be a number from 0 to 100.")
    total = sum(percentages.values())
    if total not in (0, 100):
        return Refusal("Traffic", f"The sum of traffic percentages must be 0 or 100; it is {total}.")
    return None


def mirror(
    percentages: Mapping[str, Any], shares: Mapping[str, Any], ready: Collection[str], on_cluster: bool
) -> Refusal | None:
    """Check that copies go to one deployment, which gets no traffic, and are of at most 50 % of the requests.

    https://learn.microsoft.com/azure/machine-learning/how-to-safely-rollout-online-endpoints
    (test the deployment with mirrored traffic: limitations). The wording is not AML's.

    Parameters
    ----------
    percentages, shares : dict of str to int
        ``mirrorTraffic`` and ``traffic``, as they will be.
    ready : collection of str
        The deployments that succeeded.
    on_cluster : bool
        Whether the endpoint is on a Kubernetes cluster.
    """
    mirrored = {name.lower(): percentage for name, percentage in percentages.items() if percentage}
    if mirrored and on_cluster:
        return Refusal("MirrorTraffic", "Mirrored traffic is not supported for Kubernetes online endpoints.")
    for deployment in map(str.lower, percentages):
        if deployment not in ready:
            return Refusal("MirrorTraffic", f"Deployment '{deployment}' was not found, or did not succeed.")
    if len(mirrored) > 1:
        return Refusal("MirrorTraffic", "Traffic can be mirrored to one deployment only.")
    if not all(isinstance(percentage, int) and 0 < percentage <= 50 for percentage in mirrored.values()):
        return Refusal("MirrorTraffic", "The percentage of mirrored traffic must be a number from 0 to 50.")
    if any(percentage and name.lower() in mirrored for name, percentage in shares.items()):
        return Refusal("MirrorTraffic", "A deployment can get live traffic or mirrored traffic, not both.")
    return None


def compute_type(resource: Mapping[str, Any], on_cluster: bool) -> Refusal | None:
    """Check that a deployment is for the compute of its endpoint: `KubernetesOnlineDeployment` in the REST specification.

    A cluster has instance types of its own; that a size of virtual machine is not among them is certain, because their
    names have no capitals: https://learn.microsoft.com/azure/machine-learning/how-to-manage-kubernetes-instance-types
    """
    properties = resource["properties"]
    wanted = "Kubernetes" if on_cluster else "Managed"
    if properties["endpointComputeType"] != wanted:
        return Refusal("EndpointComputeType", f"A deployment of this endpoint has to have the compute type {wanted}.")
    if on_cluster and "egressPublicNetworkAccess" in properties:
        return Refusal("EgressPublicNetworkAccess", "It is supported for managed online deployments only.")
    if on_cluster and properties["instanceType"] not in names.CLUSTER_INSTANCE_TYPES:
        return Refusal("InstanceType", f"The instance type {properties['instanceType']} does not exist on the cluster.")
    return None


def cores(resource: Mapping[str, Any]) -> int:
    """Return the cores of a deployment, with the extra 20 % that AML reserves for upgrades.

    https://learn.microsoft.com/azure/machine-learning/how-to-manage-quotas (virtual machine quota allocation)
    """
    by_name = {key.lower(): value for key, value in CORES.items()}
    instances = resource["sku"]["capacity"]
    return math.ceil(1.2 * instances) * by_name[resource["properties"]["instanceType"].lower()]


def size(resource: Mapping[str, Any], used: int) -> Refusal | None:
    """Check a deployment's instance type and count, and that enough cores of the quota are left.

    https://learn.microsoft.com/azure/machine-learning/how-to-troubleshoot-online-endpoints#error-outofquota
    """
    instance_type, capacity = resource["properties"]["instanceType"], resource["sku"]["capacity"]
    if instance_type.lower() not in map(str.lower, CORES):
        return Refusal("VmSize", f"The specified VM size {instance_type} is not supported.")
    if not isinstance(capacity, int) or capacity < 1:
        return Refusal("Capacity", "The instance count must be at least 1.")
    needed = cores(resource)
    if used + needed <= names.CORE_QUOTA:
        return None
    message = f"Not enough quota available for {instance_type} in SubscriptionId {names.SUBSCRIPTION_ID}."
    message += f" Current usage/limit: {used}/{names.CORE_QUOTA}. Additional needed: {needed}"
    guide = "Please see troubleshooting guide, available here: https://aka.ms/oe-tsg#error-outofquota"
    return Refusal("VmSize", f"{message} {guide}")
