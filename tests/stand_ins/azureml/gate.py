"""What every request passes through: faults, and the log of requests."""

from __future__ import annotations

import copy
import io
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Request, Response

from tests.stand_ins.azureml.entra import PREFIX as SIGN_IN
from tests.stand_ins.azureml.errors import service_error
from tests.stand_ins.azureml.faults import FaultList

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

CONTROL = "/stand-in/"
LOG_FILE = "requests.jsonl"


class Gate:
    """The application with faults before it, and a line in the log for each request.

    Parameters
    ----------
    app : WSGI application
    faults : FaultList
    folder : pathlib.Path
        Its file ``requests.jsonl`` gets method, path, query, body and status of each request, with nothing removed;
        the status is None if the request was not carried out. Two bodies are left out: those of blobs, which are the
        blobs themselves, and those of sign-ins, the only place where a secret belongs.
    """

    def __init__(self, app: WSGIApplication, faults: FaultList, folder: Path) -> None:
        self._app = app
        self._faults = faults
        self._log_file = folder / LOG_FILE
        self._log_file.touch()
        self._lock = threading.Lock()

    def before(self, app: WSGIApplication) -> Gate:
        """Return a gate of another application, with the same faults and log."""
        gate = copy.copy(self)
        gate._app = app
        return gate

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        if request.path.startswith(CONTROL):
            return self._app(environ, start_response)
        entry: dict[str, Any] = {"method": request.method, "path": request.path, "query": request.query_string.decode()}
        if ".blob." not in request.path:
            body = request.get_data()
            environ |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body)), "HTTP_TRANSFER_ENCODING": ""}
            entry["body"] = None if request.path.startswith(SIGN_IN) else body.decode(errors="replace")
        fault = self._faults.take(f"{request.method} {request.path}?{entry['query']}")
        if fault is None:
            answer = Response.from_app(self._app, environ)
            self._log(entry, answer.status_code)
            return answer(environ, start_response)
        time.sleep(fault.delay)
        self._faults.hold(fault)
        if fault.answer == "kill":
            os.kill(fault.pid, signal.SIGKILL)
        if fault.answer in ("drop", "kill"):
            self._log(entry, None)
            _hang_up(environ)
        if isinstance(fault.answer, int):
            # A connection that is closed with unread data is reset, and the answer is lost.
            while request.stream.read(1024 * 1024):
                pass
            answer = service_error(request.path, fault.answer)
            if fault.retry_after is not None:
                answer.headers["Retry-After"] = str(fault.retry_after)
        else:
            answer = Response.from_app(self._app, environ, buffered=fault.answer in ("lose_answer", "kill_after"))
        self._log(entry, answer.status_code)
        if fault.answer == "kill_after":
            os.kill(fault.pid, signal.SIGKILL)
        if fault.answer in ("lose_answer", "kill_after"):
            _hang_up(environ)
        return answer(environ, start_response)

    def _log(self, entry: dict[str, Any], status: int | None) -> None:
        line = json.dumps(entry | {"status": status})
        with self._lock, self._log_file.open("a") as file:
            file.write(f"{line}\n")


def _hang_up(environ: WSGIEnvironment) -> None:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError("a fault that a test asked for")
