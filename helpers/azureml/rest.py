"""Call Azure's REST APIs: sign in, retry where it helps, and report an error in one line."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.core.pipeline.policies import RetryPolicy
    from azure.core.rest import HttpRequest, HttpResponse

# The limits of every request, sign-in included: four attempts with 0, 1 and 2 s between them, or with the wait that
# Retry-After asks for, up to LONGEST_WAIT; 10 s to connect and 30 s to answer each. No attempt begins after a
# minute. For a job, a fast error is better than a long wait.
LONGEST_WAIT = 20
LIMITS: dict[str, Any] = {
    "retry_total": 3,
    "retry_backoff_factor": 0.5,
    "timeout": 60,
    "connection_timeout": 10,
    "read_timeout": 30,
}
# Of resources in Azure ML, and of the operations that create them.
_IN_PROGRESS = ("Creating", "Updating", "Scaling", "Deleting", "InProgress", "Running")
_LONGEST_PAUSE_SECONDS = 5


class AzureError(RuntimeError):
    """Azure refused a request, or did not answer.

    Parameters
    ----------
    message : str
        One line with the request, the answer and what to do.
    status : int or None, default None
        HTTP status; None if there was no answer.
    code : str, default ""
        Azure's error code.
    """

    def __init__(self, message: str, status: int | None = None, code: str = "") -> None:
        self.status, self.code = status, code
        super().__init__(message)


def retry_policy(**limits: Any) -> RetryPolicy:
    """Return azure-core's retry policy without long waits.

    azure-core sleeps as long as ``Retry-After`` asks, even for hours, whatever its own ``timeout`` is. Here such
    an answer is final. azure-identity accepts this function as its ``retry_policy_class``.

    Parameters
    ----------
    **limits
        Arguments of ``azure.core.pipeline.policies.RetryPolicy``, usually `LIMITS`.
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
        Address of the service.
    scope : str
        Scope of the token, usually ``https://management.azure.com/.default``.
    """

    def __init__(self, credential: TokenCredential, base_url: str, scope: str) -> None:
        from azure.core import PipelineClient
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, HeadersPolicy

        self.base_url = base_url.rstrip("/")
        self._credential, self._scope = credential, scope
        self._client: PipelineClient[HttpRequest, HttpResponse] = PipelineClient(
            self.base_url,
            policies=[HeadersPolicy(), retry_policy(**LIMITS), BearerTokenCredentialPolicy(credential, scope)],
            **LIMITS,
        )

    def at(self, base_url: str) -> AzureRest:
        """Return another service of Azure, with the same sign-in."""
        return AzureRest(self._credential, base_url, self._scope)

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Read a resource.

        Raises
        ------
        AzureError
            If the request fails.
        """
        return self._send("GET", path, query)

    def get_all(self, path: str, **query: str) -> Iterator[dict[str, Any]]:
        """Read the resources of a collection, which come in pages."""
        while path:
            page = self.get(path, **query)
            yield from page["value"]
            # The next page's host is dropped, so that the token is never sent to another host.
            following = urlsplit(page.get("nextLink") or "")
            path, query = following._replace(scheme="", netloc="").geturl(), {}

    def put(self, path: str, body: dict[str, Any], **query: str) -> dict[str, Any]:
        """Create or replace a resource."""
        return self._send("PUT", path, query, body)

    def start(self, path: str, body: dict[str, Any], **query: str) -> str:
        """Create or replace a resource that takes long; return the path of the operation, or nothing if it is done.

        https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations
        """
        return _operation(self._respond("PUT", path, query, body))

    def start_change(self, path: str, body: dict[str, Any], **query: str) -> str:
        """Change parts of a resource, which takes long; return the path of the operation, or nothing if it is done."""
        return _operation(self._respond("PATCH", path, query, body))

    def start_deletion(self, path: str, **query: str) -> str:
        """Delete a resource that takes long; return the path of the operation, or nothing if it is done."""
        return _operation(self._respond("DELETE", path, query, None))

    def post(self, path: str, body: dict[str, Any], **query: str) -> dict[str, Any]:
        """Send a query that has a body."""
        return self._send("POST", path, query, body)

    def delete(self, path: str, **query: str) -> dict[str, Any]:
        """Delete a resource, or begin to; one that does not exist is deleted already."""
        return self._send("DELETE", path, query)

    def _send(self, method: str, path: str, query: dict[str, str], body: Any = None) -> dict[str, Any]:
        response = self._respond(method, path, query, body)
        try:
            return response.json() if response.content else {}
        except ValueError:
            raise AzureError(
                f"{self.base_url} answered {response.status_code}, but not in JSON: {response.text()[:80]!r}; "
                "is there a proxy that asks for a sign-in?",
                response.status_code,
            ) from None

    def _respond(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        from azure.core.exceptions import AzureError as RequestFailed
        from azure.core.rest import HttpRequest

        parameters = {name.replace("_", "-"): value for name, value in query.items()}
        request = HttpRequest(method, self.base_url + path, params=parameters, json=body)
        try:
            # Each of these calls can be repeated without a further effect, the POSTs too.
            response = self._client.send_request(request, retry_on_methods=[method])
        except RequestFailed as error:
            raise AzureError(unreachable(self.base_url, error)) from None
        if response.status_code >= 400:
            raise self._refused(response)
        return response

    def _refused(self, response: Any) -> AzureError:
        code, message = _error(response)
        answer, hint = f"{self.base_url} answered {response.status_code} {code}".strip(), ""
        if response.status_code == 401:
            hint = "sign in to the tenant of the workspace's subscription (AZURE_TENANT_ID)"
        elif response.status_code == 429 or response.status_code >= 500:
            wait = response.headers.get("Retry-After")
            answer += f" and asks to wait {wait} s" if wait else f" after {LIMITS['retry_total'] + 1} attempts"
            hint = "run this again later; see https://azure.status.microsoft for outages"
        text = ": ".join(part for part in (answer, message.rstrip(".")) if part)
        return AzureError("; ".join(part for part in (text, hint) if part), response.status_code, code)


def _operation(response: Any) -> str:
    # The host is dropped, so that the token is never sent to another host.
    return urlsplit(response.headers.get("Azure-AsyncOperation") or "")._replace(scheme="", netloc="").geturl()


def wait(state_now: Callable[[], str], longest_s: float) -> str:
    """Wait until work in Azure has ended, and return the state that it ended in, or is in after the longest wait.

    Parameters
    ----------
    state_now : callable
        Returns Azure's name for the state.
    longest_s : float
        In seconds.
    """
    pause, deadline = 0.5, time.monotonic() + longest_s
    state = state_now()
    while state in _IN_PROGRESS and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        state = state_now()
    return state


def unreachable(url: str, error: BaseException) -> str:
    """Return one line about a request without an answer: the original cause, and what to do."""
    reason = first_line(error)
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return (
            f"{url} has a certificate that is not trusted here; if your proxy inspects traffic, set "
            "REQUESTS_CA_BUNDLE to a file with the certificate of its authority"
        )
    through = ""
    # The texts of urllib3 2 and 1.
    if re.match(r"\('(Unable to|Cannot) connect to proxy", reason):
        through, reason = " through the proxy of HTTPS_PROXY", reason.rstrip("\"')")
    # urllib3 puts host, port and path before the message of the operating system.
    reason = re.sub(r".*: (?=\[Errno|Failed to resolve|Read timed out)", "", reason)
    return f"{url} cannot be reached{through} ({reason[:200]}); check the network and the firewall"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text; the other lines of Azure's errors are details."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _error(response: Any) -> tuple[str, str]:
    """Return code and message of an answer by Azure Resource Manager, MLflow or a gateway."""
    try:
        content = response.json()
    except ValueError:
        return "", _line(response.text() or response.reason or "")
    details = content.get("error", content) if isinstance(content, dict) else {}
    if not isinstance(details, dict):
        return "", _line(details)
    code = details.get("code") or details.get("error_code") or ""
    # The keys of AML's MLflow API begin with capitals: https://github.com/mlflow/mlflow/issues/15329
    message = details.get("message") or (details.get("Error") or {}).get("Message") or ""
    reasons = [item["message"] for item in details.get("details") or [] if item.get("message")]
    return str(code), _line(with_details(message, reasons))


def with_details(message: str, details: Iterable[str]) -> str:
    """Return an error's message and its details; or, if a detail has them in JSON, what is wrong with which properties."""
    details = list(details)
    for detail in details:
        try:
            problems = json.loads(detail)["errors"]
            return "; ".join(f"{name}: {' '.join(texts)}" for name, texts in problems.items())
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return " ".join([message, *details])


def _line(text: Any) -> str:
    return " ".join(str(text).split())[:300]
