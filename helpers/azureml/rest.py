"""Calls of Azure's REST APIs: signed in, retried where that can help, failing in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.core.pipeline.policies import RetryPolicy
    from azure.core.rest import HttpRequest, HttpResponse

# The bound of every request, sign-in included: four attempts with 0, 1 and 2 s between them, or what
# Retry-After says if that is no more than LONGEST_WAIT; 10 s to connect and 30 s to answer each, and none
# begins after a minute. A job is better told than kept.
LONGEST_WAIT = 20
LIMITS: dict[str, Any] = {
    "retry_total": 3,
    "retry_backoff_factor": 0.5,
    "timeout": 60,
    "connection_timeout": 10,
    "read_timeout": 30,
}


class AzureError(RuntimeError):
    """Azure refused a request, or could not be asked.

    Parameters
    ----------
    message : str
        One line: what was asked, what was answered, what to do.
    status : int or None, default None
        HTTP status; None if there was no answer.
    code : str, default ""
        Azure's own name of the error.
    """

    def __init__(self, message: str, status: int | None = None, code: str = "") -> None:
        self.status, self.code = status, code
        super().__init__(message)


def retry_policy(**limits: Any) -> RetryPolicy:
    """Return azure-core's retry policy, less waits that would keep a job for longer than it is worth.

    azure-core sleeps for as long as ``Retry-After`` says, be it hours, whatever its own ``timeout`` is;
    here such an answer is final. azure-identity takes this as its ``retry_policy_class``.

    Parameters
    ----------
    **limits
        Of ``azure.core.pipeline.policies.RetryPolicy``; `LIMITS` as a rule.
    """
    from azure.core.pipeline.policies import RetryPolicy

    class BoundedRetryPolicy(RetryPolicy):
        def is_retry(self, settings: dict[str, Any], response: Any) -> bool:
            return (self.get_retry_after(response) or 0) <= LONGEST_WAIT and super().is_retry(settings, response)

    return BoundedRetryPolicy(**limits)


class AzureRest:
    """A REST API of Azure.

    Parameters
    ----------
    credential : azure.core.credentials.TokenCredential
    base_url : str
        ``https://…`` of the service.
    scope : str
        What the token is for, ``https://management.azure.com/.default`` as a rule.
    """

    def __init__(self, credential: TokenCredential, base_url: str, scope: str) -> None:
        from azure.core import PipelineClient
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, HeadersPolicy

        self.base_url = base_url.rstrip("/")
        self._client: PipelineClient[HttpRequest, HttpResponse] = PipelineClient(
            self.base_url,
            policies=[HeadersPolicy(), retry_policy(**LIMITS), BearerTokenCredentialPolicy(credential, scope)],
            **LIMITS,
        )

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Read a resource.

        Raises
        ------
        AzureError
            If it is not answered with success.
        """
        return self._send("GET", path, query)

    def get_all(self, path: str, **query: str) -> Iterator[dict[str, Any]]:
        """Read the resources of a collection, which come in pages."""
        while path:
            page = self.get(path, **query)
            yield from page["value"]
            # Without its host, so that the token never goes to another one.
            following = urlsplit(page.get("nextLink") or "")
            path, query = following._replace(scheme="", netloc="").geturl(), {}

    def put(self, path: str, body: dict[str, Any], **query: str) -> dict[str, Any]:
        """Create or replace a resource."""
        return self._send("PUT", path, query, body)

    def post(self, path: str, body: dict[str, Any], **query: str) -> dict[str, Any]:
        """Ask a question that has a body."""
        return self._send("POST", path, query, body)

    def _send(self, method: str, path: str, query: dict[str, str], body: Any = None) -> dict[str, Any]:
        from azure.core.exceptions import AzureError as RequestFailed
        from azure.core.rest import HttpRequest

        parameters = {name.replace("_", "-"): value for name, value in query.items()}
        request = HttpRequest(method, self.base_url + path, params=parameters, json=body)
        try:
            # None of these calls does more when it is done twice, a POST neither.
            response = self._client.send_request(request, retry_on_methods=[method])
        except RequestFailed as error:
            raise AzureError(unreachable(self.base_url, error)) from None
        if response.status_code >= 400:
            raise self._refused(response)
        try:
            return response.json() if response.content else {}
        except ValueError:
            raise AzureError(
                f"{self.base_url} answered {response.status_code}, but not in JSON: {response.text()[:80]!r}; "
                "is there a proxy that asks for a sign-in?",
                response.status_code,
            ) from None

    def _refused(self, response: Any) -> AzureError:
        code, message = _error(response)
        answer, hint = f"{self.base_url} answered {response.status_code} {code}".strip(), ""
        if response.status_code == 401:
            hint = "sign in to the tenant of the workspace's subscription (AZURE_TENANT_ID)"
        elif response.status_code == 429 or response.status_code >= 500:
            wait = response.headers.get("Retry-After")
            answer += f" and asks to wait {wait} s" if wait else f" after {LIMITS['retry_total'] + 1} attempts"
            hint = "run this again later; https://azure.status.microsoft tells of outages"
        text = ": ".join(part for part in (answer, message.rstrip(".")) if part)
        return AzureError("; ".join(part for part in (text, hint) if part), response.status_code, code)


def unreachable(url: str, error: BaseException) -> str:
    """Return one line for a request that got no answer: the cause beneath the wrapping, and what to do."""
    reason = first_line(error)
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return (
            f"{url} has a certificate that is not trusted here; if a proxy of yours inspects traffic, set "
            "REQUESTS_CA_BUNDLE to a file with its authority's certificate"
        )
    through = ""
    # The words of urllib3 2 and 1.
    if re.match(r"\('(Unable to|Cannot) connect to proxy", reason):
        through, reason = " through the proxy of HTTPS_PROXY", reason.rstrip("\"')")
    # urllib3 puts host, port and path before the operating system's words.
    reason = re.sub(r".*: (?=\[Errno|Failed to resolve|Read timed out)", "", reason)
    return f"{url} cannot be reached{through} ({reason[:200]}); check network and firewall between here and there"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, which is what one wants to read of Azure's."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _error(response: Any) -> tuple[str, str]:
    """Return code and message of an answer, as Azure Resource Manager, MLflow and gateways word them."""
    try:
        content = response.json()
    except ValueError:
        return "", _line(response.text() or response.reason or "")
    details = content.get("error", content) if isinstance(content, dict) else {}
    if not isinstance(details, dict):
        return "", _line(details)
    code = details.get("code") or details.get("error_code") or ""
    # AML's MLflow API writes its keys with capitals, https://github.com/mlflow/mlflow/issues/15329
    message = details.get("message") or (details.get("Error") or {}).get("Message") or ""
    return str(code), _line(message)


def _line(text: Any) -> str:
    return " ".join(str(text).split())[:300]
