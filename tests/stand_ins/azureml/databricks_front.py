"""A proxy for the server that plays Databricks. The same faults and the same log apply to its requests."""

from __future__ import annotations

import threading

import requests
from werkzeug.serving import ThreadedWSGIServer
from werkzeug.wrappers import Request, Response

from tests.stand_ins.azureml.gate import Gate
from tests.stand_ins.azureml.https import KeepAliveHandler

# Headers that belong to one connection, or that each connection writes anew.
_NOT_PASSED_ON = {"connection", "content-encoding", "content-length", "host", "transfer-encoding"}


def open_front(url: str, gate: Gate) -> str:
    """Start a proxy for a server, which runs until this process ends; return the proxy's address.

    Parameters
    ----------
    url : str
        Of the server.
    gate : Gate
        Its faults and log apply here, too.
    """
    session = requests.Session()
    # Use no proxy, and no password from a .netrc file.
    session.trust_env = False

    @Request.application
    def pass_on(request: Request) -> Response:
        answer = session.request(
            request.method,
            f"{url}{request.full_path}",
            data=request.get_data(),
            headers=passed_on(request.headers.items()) | {"X-Forwarded-Host": request.host},
            allow_redirects=False,
        )
        return Response(answer.content, answer.status_code, passed_on(answer.headers.items()))

    server = ThreadedWSGIServer("127.0.0.1", 0, gate.before(pass_on), handler=KeepAliveHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.port}"


def passed_on(headers) -> dict[str, str]:
    """Return the headers of a request or an answer that a proxy passes on."""
    return {name: value for name, value in headers if name.lower() not in _NOT_PASSED_ON}
