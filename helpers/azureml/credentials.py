"""Who signs in to Azure, checked before the first call and never waiting for a browser in a job."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from helpers import runtime
from helpers.azureml.rest import AzureError, first_line
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

# https://learn.microsoft.com/python/api/azure-identity/azure.identity.environmentcredential
VARIABLES = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
DOCUMENTATION = "https://learn.microsoft.com/azure/machine-learning/how-to-use-mlflow-configure-tracking#configure-authentication"
# https://learn.microsoft.com/entra/identity-platform/reference-error-codes
CAUSES = {
    "AADSTS7000215": "the client secret is wrong (it is the secret's value, not its id)",
    "AADSTS7000222": "the client secret has expired; make a new one in Microsoft Entra ID, App registrations",
    "AADSTS700016": "the tenant has no application with this client id",
    "AADSTS90002": "there is no such tenant",
    "AADSTS53003": "a Conditional Access policy of the tenant does not allow it from here",
}


def credential(secret_scope: str, sign_in: str, authority: str) -> TokenCredential:
    """Return a credential that has not been tried yet.

    Parameters
    ----------
    secret_scope : str
        Databricks secret scope with ``azure-tenant-id``, ``azure-client-id`` and
        ``azure-client-secret``. Empty: what azure-identity finds (environment variables,
        workload identity, managed identity, Azure CLI), but never a browser.
    sign_in : {"unattended", "device_code"}
        With ``device_code`` somebody at the notebook is asked, last of all.
    authority : str
        Host of the cloud's Microsoft Entra ID.

    Raises
    ------
    ParameterError
        If the secret scope cannot be read, or if a job is to wait for somebody's sign-in.
    """
    from azure.identity import (
        ChainedTokenCredential,
        ClientSecretCredential,
        DefaultAzureCredential,
        DeviceCodeCredential,
    )

    if sign_in == "device_code" and runtime.in_job():
        raise ParameterError(
            "azureml_sign_in", sign_in, f"nobody is there to sign in during a job. Use {_service_principal()}"
        )
    if secret_scope:
        tenant, client, secret = (
            runtime.secret(secret_scope, name.lower().replace("_", "-"), "azureml_secret_scope") for name in VARIABLES
        )
        return ClientSecretCredential(tenant, client, secret, authority=authority)
    unattended = DefaultAzureCredential(authority=authority)
    if sign_in == "unattended":
        return unattended
    tenant = os.environ.get("AZURE_TENANT_ID", "organizations")
    return ChainedTokenCredential(unattended, DeviceCodeCredential(authority=authority, tenant_id=tenant))


def check(candidate: TokenCredential, scope: str) -> None:
    """Get a token, so that a missing or refused credential is known now.

    Parameters
    ----------
    candidate : azure.core.credentials.TokenCredential
    scope : str
        What the token is for.

    Raises
    ------
    helpers.azureml.rest.AzureError
        One line with the cause and what to do; no secret is in it.
    """
    from azure.core.exceptions import ClientAuthenticationError

    try:
        candidate.get_token(scope)
    except ClientAuthenticationError as error:
        # One line stands for what each credential of a chain said; Entra ID's own codes say most.
        code = re.search(r"AADSTS\d+", str(error))
        if code:
            cause = CAUSES.get(code[0], "Microsoft Entra ID refused it")
            raise AzureError(f"Azure: sign-in failed ({code[0]}): {cause}. {DOCUMENTATION}", code=code[0]) from None
        missing = [name for name in VARIABLES if not os.environ.get(name)]
        if missing and "Attempted credentials" in str(error):
            raise AzureError(
                f"Azure: no credentials ({', '.join(missing)} not set, and neither a managed identity nor an "
                f"Azure CLI login here). Use {_service_principal()}"
            ) from None
        attempt = re.search(r"EnvironmentCredential: (.+)", str(error))
        reason = attempt[1] if attempt else first_line(error)
        raise AzureError(f"Azure: sign-in failed: {reason[:300]}. {DOCUMENTATION}") from None


def _service_principal() -> str:
    return (
        f"a service principal in {', '.join(VARIABLES)} (on a job cluster: spark_env_vars from a secret scope), "
        f"or azureml_secret_scope, or `az login`: {DOCUMENTATION}"
    )
