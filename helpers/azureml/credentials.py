"""Sign in to Azure: check the credentials before the first call, and never wait for a browser in a job."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from helpers import output, runtime
from helpers.azureml.rest import LIMITS, AzureError, first_line, retry_policy, unreachable
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.identity import ClientSecretCredential

# https://learn.microsoft.com/python/api/azure-identity/azure.identity.environmentcredential
VARIABLES = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
DOCUMENTATION = (
    "https://learn.microsoft.com/azure/machine-learning/how-to-use-mlflow-configure-tracking#configure-authentication"
)
# https://learn.microsoft.com/entra/identity-platform/reference-error-codes
CAUSES = {
    "AADSTS7000215": "the client secret is wrong; take the secret's value, not its id",
    "AADSTS7000222": "the client secret has expired; make a new one (Microsoft Entra ID, App registrations, "
    "Certificates & secrets) and put it where the old one is",
    "AADSTS700016": "the tenant has no application with this client id; compare both with the application's overview",
    "AADSTS90002": "there is no such tenant; copy its id from Microsoft Entra ID, Overview",
    "AADSTS900023": "there is no such tenant; copy its id from Microsoft Entra ID, Overview",
    "AADSTS53003": "a Conditional Access policy of the tenant does not allow it from here; ask the tenant's administrator",
    "AADSTS700082": "the sign-in has expired; run `az login` again",
    "AADSTS50173": "the sign-in has expired; run `az login` again",
    "AADSTS90033": "Microsoft Entra ID is temporarily unavailable; run this again later",
}


def sign_in(secret_scope: str, how: str, authority: str, scope: str) -> tuple[TokenCredential, str]:
    """Return a credential that has just received a token, so that missing or refused credentials fail here.

    Parameters
    ----------
    secret_scope : str
        Databricks secret scope with ``azure-tenant-id``, ``azure-client-id`` and
        ``azure-client-secret``. If it is empty, the environment variables of a service principal are used, else
        what azure-identity's ``DefaultAzureCredential`` finds (workload identity, managed identity, the sign-in of
        the Azure CLI and of other tools), but never a browser.
        https://learn.microsoft.com/python/api/azure-identity/azure.identity.defaultazurecredential
    how : {"unattended", "device_code"}
        With ``device_code`` the user of the notebook is asked to sign in if there are no other credentials.
    authority : str
        Host of the cloud's Microsoft Entra ID.
    scope : str
        Scope of the token.

    Returns
    -------
    credential : azure.core.credentials.TokenCredential
    who : str
        Who signed in, for errors about missing permissions: ``user <name>`` or ``application <client id>``.

    Raises
    ------
    ParameterError
        If the secret scope cannot be read, or if a job would have to wait for somebody to sign in.
    helpers.azureml.rest.AzureError
        One line with the cause and what to do, without any secret.
    """
    from azure.core.exceptions import ClientAuthenticationError
    from azure.identity import ClientSecretCredential, DeviceCodeCredential

    if how == "device_code" and runtime.in_job():
        raise ParameterError(
            "azureml_sign_in", how, f"nobody is there to sign in during a job. Use {_service_principal_help()}"
        )
    unattended = _unattended(secret_scope, authority)
    try:
        return unattended, _who(unattended, scope)
    except ClientAuthenticationError as error:
        with_secret = isinstance(unattended, ClientSecretCredential)
        if how == "unattended" or with_secret:
            origin = f"secret scope {secret_scope!r}" if secret_scope else ", ".join(VARIABLES)
            raise _in_one_line(error, f" with the service principal of {origin}" if with_secret else "") from None
    tenant = os.environ.get("AZURE_TENANT_ID") or "organizations"
    person = DeviceCodeCredential(authority=authority, tenant_id=tenant)
    try:
        return person, _who(person, scope)
    except ClientAuthenticationError as error:
        raise _in_one_line(error) from None


def _unattended(secret_scope: str, authority: str) -> TokenCredential:
    from azure.identity import DefaultAzureCredential

    if secret_scope:
        keys = {name: name.lower().replace("_", "-") for name in VARIABLES}
        secrets = {name: runtime.secret(secret_scope, key, "azureml_secret_scope") for name, key in keys.items()}
        return _service_principal(secrets, authority, f"the secret scope {secret_scope!r}")
    variables = {name: os.environ.get(name, "") for name in VARIABLES}
    # The default credential tries these first, unless this variable selects another credential.
    if all(variables.values()) and not os.environ.get("AZURE_TOKEN_CREDENTIALS"):
        return _service_principal(variables, authority, "the environment")
    try:
        # Otherwise AZURE_TOKEN_CREDENTIALS could select the browser.
        return DefaultAzureCredential(
            authority=authority, exclude_interactive_browser_credential=True, retry_total=LIMITS["retry_total"]
        )
    except ValueError as error:
        raise AzureError(
            f"Azure: {', '.join(VARIABLES)} and AZURE_TOKEN_CREDENTIALS cannot be used as they are in the "
            f"environment: {first_line(error)} {DOCUMENTATION}"
        ) from None


def _service_principal(values: dict[str, str], authority: str, origin: str) -> ClientSecretCredential:
    from azure.identity import ClientSecretCredential

    # A secret that was stored from a file ends with the file's newline.
    tenant, client, secret = (values[name].strip() for name in VARIABLES)
    try:
        return ClientSecretCredential(
            tenant, client, secret, authority=authority, retry_policy_class=retry_policy, **LIMITS
        )
    except ValueError as error:
        raise AzureError(
            f"Azure: tenant id, client id or client secret of {origin} is not valid: {first_line(error)}"
        ) from None


def _in_one_line(error: Exception, tried: str = "") -> AzureError:
    from azure.core.exceptions import ServiceRequestError, ServiceResponseError

    # The answer of Entra ID is in the error, or in one of its causes.
    causes = list(_causes(error))
    code = re.search(r"AADSTS\d+", " ".join(map(str, causes)))
    if code:
        meaning = CAUSES.get(
            code[0], f"see https://login.microsoftonline.com/error?code={code[0].removeprefix('AADSTS')}"
        )
        return AzureError(f"Azure: sign-in{tried} refused ({code[0]}): {meaning}. {DOCUMENTATION}", code=code[0])
    for cause in causes:
        if isinstance(cause, (ServiceRequestError, ServiceResponseError)):
            return AzureError(f"Azure: {unreachable('Microsoft Entra ID', cause)}")
    if any(isinstance(cause, json.JSONDecodeError) for cause in causes):
        return AzureError(
            f"Azure: sign-in{tried} failed: Microsoft Entra ID answered, but not in JSON. It may have limited the requests of "
            "this network (429) or be down, or a proxy asks for a sign-in. Run this again later"
        )
    attempts = re.findall(r"^\t(\w+): (.+)", str(error), re.MULTILINE)
    if not attempts:
        reason = first_line(error).removeprefix("Authentication failed: ")
        # The path contains the tenant id, which is a secret if somebody has swapped the two.
        reason = re.sub(r"(https?://[^/\s]+)/\S*", r"\1", reason)
        return AzureError(
            f"Azure: sign-in{tried} failed ({reason[:200]}); if that is not about your settings, run this again later. "
            f"{DOCUMENTATION}"
        )
    missing = ", ".join(name for name in VARIABLES if not os.environ.get(name))
    # The last attempt may have ended the chain with an error, while the others only had nothing to sign in with.
    shown = {"ManagedIdentityCredential", "AzureCliCredential", attempts[-1][0]} - {"BrokerCredential"}
    reasons = "; ".join(
        f"{name}: {text.removeprefix(f'{name} authentication unavailable, ').rstrip('.')[:150]}"
        for name, text in attempts
        if name in shown
    )
    return AzureError(
        f"Azure: no usable credentials ({missing + ' not set; ' if missing else ''}{reasons}). "
        f"Use {_service_principal_help()}"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _who(credential: TokenCredential, scope: str) -> str:
    """Get a token, and return who it was issued to. Only error messages use this."""
    import jwt

    # The chain logs a page about its members, which the error sums up in one line.
    with output.quiet("azure.identity", "msal"):
        token = credential.get_token(scope).token
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return "who signed in"
    user = claims.get("upn") or claims.get("unique_name")
    return f"user {user}" if user else f"application {claims.get('appid', '')}".strip()


def _service_principal_help() -> str:
    return (
        f"a service principal in {', '.join(VARIABLES)} (on a job cluster: spark_env_vars from a secret scope), "
        f"or azureml_secret_scope, or `az login` on a laptop: {DOCUMENTATION}"
    )
