"""Calls of Azure's REST APIs: signed in, retried where that can help, failing in one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

# At most 1 + 2 + 4 s of waiting beside the calls themselves; a job is better told than kept.
RETRIES = 3
CONNECT_SECONDS, READ_SECONDS = 10, 60


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
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, HeadersPolicy, RetryPolicy

        self.base_url = base_url.rstrip("/")
        self._client = PipelineClient(
            self.base_url,
            policies=[
                HeadersPolicy(),
                RetryPolicy(retry_total=RETRIES, retry_backoff_factor=0.5),
                BearerTokenCredentialPolicy(credential, scope),
            ],
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
            following = urlsplit(page.get("nextLink") or "")
            # Still quoted, as azure-core expects a query.
            path, query = following.path, dict(part.split("=", 1) for part in following.query.split("&") if part)

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
            response = self._client.send_request(
                request, connection_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS
            )
        except RequestFailed as error:
            raise AzureError(f"{self.base_url} cannot be reached: {first_line(error)}") from None
        if response.status_code >= 400:
            code, message = _error(response)
            raise AzureError(
                f"{self.base_url} answered {response.status_code} {code}: {message}", response.status_code, code
            )
        return response.json() if response.content else {}


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, which is what one wants to read of Azure's."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _error(response: Any) -> tuple[str, str]:
    """Return code and message of an answer, as Azure Resource Manager, MLflow and gateways word them."""
    try:
        content = response.json()
    except ValueError:
        return "", (response.text() or response.reason or "").strip()[:200]
    details = content.get("error", content) if isinstance(content, dict) else {}
    if not isinstance(details, dict):
        return "", str(details)[:200]
    return str(details.get("code") or details.get("error_code") or ""), str(details.get("message", ""))[:300]
