"""A front of the server that plays Databricks, where its requests meet the same faults and the same log."""

from __future__ import annotations

import threading

import requests
from werkzeug.serving import ThreadedWSGIServer
from werkzeug.wrappers import Request, Response

from tests.stand_ins.azureml.gate import Gate
from tests.stand_ins.azureml.https import KeepAliveHandler

# Of this connection only, or written anew on each.
_NOT_PASSED_ON = {"connection", "content-encoding", "content-length", "host", "transfer-encoding"}


def open_front(url: str, gate: Gate) -> str:
    """Serve what is at an address at another one, until this process ends; return that one.

    Parameters
    ----------
    url : str
    gate : Gate
        Whose faults and log count here, too.
    """
    session = requests.Session()
    # No proxy, and no password of a .netrc file.
    session.trust_env = False

    @Request.application
    def pass_on(request: Request) -> Response:
        answer = session.request(
            request.method,
            f"{url}{request.full_path}",
            data=request.get_data(),
            headers=_passed_on(request.headers.items()),
            allow_redirects=False,
        )
        return Response(answer.content, answer.status_code, _passed_on(answer.headers.items()))

    server = ThreadedWSGIServer("127.0.0.1", 0, gate.before(pass_on), handler=KeepAliveHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.port}"


def _passed_on(headers) -> dict[str, str]:
    return {name: value for name, value in headers if name.lower() not in _NOT_PASSED_ON}
