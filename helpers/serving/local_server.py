"""The process of a local endpoint: one address on 127.0.0.1, with a model server for each deployment behind it.

    python -m helpers.serving.local_server FOLDER MODEL_NAME

Requests to ``/score`` and their answers are those of an Azure ML online endpoint. The other addresses are for
`helpers.serving.local_endpoint`. The process ends when its ``endpoint.json`` in the folder is deleted or replaced.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import BadRequest, HTTPException, Unauthorized
from werkzeug.serving import make_server

from helpers.serving.endpoint import DEPLOYMENT_HEADER
from helpers.serving.local_deployments import LocalDeployments, error_body
from helpers.serving.local_endpoint import ADDRESS_FILE

_HOST = "127.0.0.1"
_POLL_SECONDS = 0.2


def create_app(deployments: LocalDeployments, key: str) -> Flask:
    """Return the HTTP interface of an endpoint.

    Parameters
    ----------
    deployments : LocalDeployments
    key : str
        Callers must send it as ``Authorization: Bearer <key>``.
    """
    app = Flask(__name__, static_folder=None)

    @app.before_request
    def require_key() -> None:
        # Other users of this machine can reach the port, too. So the key is checked first, even before a 404.
        sent = request.headers.get("Authorization", "")
        if not secrets.compare_digest(sent.encode(), f"Bearer {key}".encode()):
            raise Unauthorized("the key is missing or wrong")

    @app.post("/score")
    def score() -> Response:
        response = deployments.score(request.get_data(), request.headers.get(DEPLOYMENT_HEADER, ""))
        headers = {DEPLOYMENT_HEADER: response.deployment} if response.deployment else {}
        return Response(response.body, response.status, headers, mimetype="application/json")

    @app.get("/state")
    def state() -> Response:
        return Response(json.dumps(deployments.state()), mimetype="application/json")

    @app.put("/deployments/<name>")
    def deploy(name: str) -> Response:
        content = _json_object()
        folder, model, collect = content.get("folder"), content.get("model"), content.get("collect_data", False)
        rate = content.get("collect_data_rate", 1.0)
        if type(rate) not in (int, float) or not 0 < rate <= 1:
            raise BadRequest("collect_data_rate has to be a number above 0 and up to 1")
        workers = content.get("workers", 1)
        if type(workers) is not int or workers < 1:
            raise BadRequest("workers has to be a whole number from 1 on")
        if not isinstance(folder, str) or not isinstance(model, str):
            raise BadRequest("the body has to have folder and model, both of them text")
        deployments.deploy(
            name, Path(folder), model, collect_data=collect is True, collect_data_rate=rate, workers=workers
        )
        return state()

    @app.delete("/deployments/<name>")
    def delete(name: str) -> Response:
        deployments.delete(name)
        return state()

    @app.put("/traffic")
    def set_traffic() -> Response:
        return _set_percentages(deployments.set_traffic)

    @app.put("/mirror")
    def set_mirror() -> Response:
        return _set_percentages(deployments.set_mirror)

    def _set_percentages(change: Callable[[dict[str, int]], None]) -> Response:
        content = _json_object()
        if not all(type(percent) is int for percent in content.values()):
            raise BadRequest("the percentages have to be whole numbers")
        try:
            change(content)
        except ValueError as error:
            raise BadRequest(str(error)) from None
        return state()

    @app.errorhandler(HTTPException)
    def report(error: HTTPException) -> Response:
        # Werkzeug's own response is a page in HTML; its headers say which methods are allowed, for example.
        headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
        return Response(error_body(error.description or error.name), error.code, headers, mimetype="application/json")

    return app


def _json_object() -> dict[str, Any]:
    """Return the body of the request.

    Raises
    ------
    werkzeug.exceptions.BadRequest
        If it is not a JSON object.
    """
    try:
        content = json.loads(request.get_data())
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise BadRequest("the body is not a JSON object")
    return content


def serve(folder: Path, model_name: str) -> None:
    """Serve an endpoint until its address file is deleted or replaced, or until SIGTERM.

    Parameters
    ----------
    folder : pathlib.Path
        Gets the address file and the logs.
    model_name : str
        The model that the endpoint is made for.
    """
    deployments, key = LocalDeployments(folder), secrets.token_urlsafe(32)
    # One line for each request would fill the log.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server(_HOST, 0, create_app(deployments, key), threaded=True)
    address = json.dumps(
        {"url": f"http://{_HOST}:{server.port}", "key": key, "pid": os.getpid(), "model_name": model_name}
    )
    _write_private(folder / ADDRESS_FILE, address)
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: terminated.set())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while not terminated.wait(_POLL_SECONDS) and _has_content(folder / ADDRESS_FILE, address):
        pass
    server.shutdown()
    deployments.end()


def _write_private(file: Path, content: str) -> None:
    """Write a file that only its owner can read, at once for readers."""
    draft = file.with_suffix(".draft")
    descriptor = os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as output:
        output.write(content)
    draft.replace(file)


def _has_content(file: Path, content: str) -> bool:
    try:
        return file.read_text() == content
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2])
