"""The endpoint ``local``: a process on 127.0.0.1 that starts a model server a deployment and shares requests out.

    python -m helpers.serving.local_server FOLDER MODEL_NAME

Requests and answers are those of an Azure ML online endpoint, at ``/score``. The rest of its addresses are for
`helpers.serving.local_endpoint`. It ends when ``endpoint.json`` in the folder is gone.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from helpers.serving.endpoint import DEPLOYMENT_HEADER, REQUEST_SECONDS

ADDRESS_FILE = "endpoint.json"
_HOST = "127.0.0.1"
_PORT_ATTEMPTS = 3
# Loading a Spark ML model means starting Spark.
_START_SECONDS = 300
_LOOK_SECONDS = 0.2


@dataclass
class ModelServer:
    """``mlflow models serve`` of one deployment."""

    folder: Path
    model: str
    log: Path
    state: str = "Creating"
    port: int = 0
    running: int = 0
    process: subprocess.Popen | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)

    def start(self) -> None:
        """Start it, and note when it serves or has failed."""
        for _ in range(_PORT_ATTEMPTS):
            # Somebody else may take the port before MLflow does, which cannot choose one by itself.
            with socket.create_server((_HOST, 0)) as free:
                self.port = free.getsockname()[1]
            command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(self.folder)]
            command += ["--env-manager", "local", "--host", _HOST, "--port", str(self.port), "--workers", "1"]
            # MLflow calls uvicorn or gunicorn by name.
            path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
            environment = os.environ | {"PATH": path, "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
            # A line a request would be all that the log has.
            environment["UVICORN_ACCESS_LOG"] = "false"
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            self._wait_until_it_serves(self.process)
            if self.state == "Succeeded" or b"ddress already in use" not in self.log.read_bytes():
                break
        if self.state != "Succeeded":
            self.kill()
            self.state = "Failed"

    def _wait_until_it_serves(self, process: subprocess.Popen) -> None:
        ended = threading.Event()
        for _ in range(round(_START_SECONDS / _LOOK_SECONDS)):
            if process.poll() is not None:
                return
            try:
                with urllib.request.urlopen(f"http://{_HOST}:{self.port}/ping", timeout=5):
                    self.state = "Succeeded"
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                ended.wait(_LOOK_SECONDS)

    def score(self, body: bytes) -> tuple[int, bytes]:
        """Pass a request on, in MLflow's words; return status and body of the answer, in Azure ML's."""
        try:
            given = json.loads(body)["input_data"]
        except (ValueError, KeyError, TypeError):
            return 400, b'{"message": "the body is no JSON object with input_data"}'
        split = isinstance(given, dict) and {"columns", "data"} <= given.keys()
        asked = json.dumps({"dataframe_split": given} if split else {"inputs": given})
        connection = http.client.HTTPConnection(_HOST, self.port, timeout=REQUEST_SECONDS)
        try:
            connection.request("POST", "/invocations", asked, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        except OSError as error:
            return 502, json.dumps({"message": f"the model server does not answer: {error}"}).encode()
        finally:
            connection.close()
        if answer.status == 200:
            return 200, json.dumps(json.loads(content)["predictions"]).encode()
        # MLflow 2 answers 400 for what is wrong with the rows, newer ones for what the model says to them, too.
        return answer.status, content

    def stop(self) -> None:
        """End it when the requests that it has are answered."""
        with self.changed:
            self.changed.wait_for(lambda: not self.running, timeout=REQUEST_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it at once, with its children."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


class LocalServer:
    """The endpoint's state: its deployments and how requests are shared out."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._servers: dict[str, ModelServer] = {}
        self._traffic: dict[str, int] = {}

    def state(self) -> dict[str, Any]:
        """Return traffic and deployments."""
        with self._lock:
            servers = {name: {"state": server.state, "model": server.model} for name, server in self._servers.items()}
            return {"traffic": self._traffic, "deployments": servers}

    def deploy(self, name: str, folder: str, model: str) -> None:
        """Begin to serve a model."""
        server = ModelServer(Path(folder), model, self._folder / f"{name}.log")
        with self._lock:
            self._servers[name] = server
        threading.Thread(target=server.start, daemon=True).start()

    def set_traffic(self, traffic: dict[str, int]) -> None:
        """Change how requests are shared out."""
        with self._lock:
            self._traffic = {name: percent for name, percent in traffic.items() if percent}

    def delete(self, name: str) -> None:
        """End a deployment."""
        with self._lock:
            server = self._servers.pop(name, None)
            self._traffic.pop(name, None)
        if server is not None:
            server.stop()

    def end(self) -> None:
        """End all deployments."""
        with self._lock:
            servers, self._servers, self._traffic = self._servers, {}, {}
        for server in servers.values():
            server.kill()

    def score(self, body: bytes, wanted: str) -> tuple[int, bytes, str]:
        """Answer a request; return status, body and who answered."""
        with self._lock:
            if not wanted and not self._traffic:
                return 404, b'{"message": "no deployment gets traffic"}', ""
            name = wanted or random.choices(list(self._traffic), list(self._traffic.values()))[0]  # noqa: S311
            server = self._servers.get(name)
            if server is None or server.state != "Succeeded":
                return 404, json.dumps({"message": f"no deployment {name} that serves"}).encode(), name
            # Counted before the lock is free, so that a deployment is not ended between the two.
            with server.changed:
                server.running += 1
        try:
            return *server.score(body), name
        finally:
            with server.changed:
                server.running -= 1
                server.changed.notify_all()


def serve(folder: Path, model_name: str) -> None:
    """Serve until the address file is gone, which says for which model this is."""
    endpoint, key = LocalServer(folder), secrets.token_urlsafe(32)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            # Other users of this machine reach the port, too.
            if not secrets.compare_digest(self.headers.get("Authorization", ""), f"Bearer {key}"):
                self._answer(401, b'{"message": "wrong key"}')
                return
            if (self.command, self.path) == ("POST", "/score"):
                status, content, name = endpoint.score(body, self.headers.get(DEPLOYMENT_HEADER, ""))
                self._answer(status, content, {DEPLOYMENT_HEADER: name})
                return
            _, kind, *names = self.path.split("/")
            if (self.command, kind) == ("PUT", "deployments"):
                endpoint.deploy(*names, **json.loads(body))
            elif (self.command, kind) == ("DELETE", "deployments"):
                endpoint.delete(*names)
            elif (self.command, kind) == ("PUT", "traffic"):
                endpoint.set_traffic(json.loads(body))
            self._answer(200, json.dumps(endpoint.state()).encode())

        do_GET = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

        def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Keep no log of requests."""

    class Server(ThreadingHTTPServer):
        # Of requests that come at once.
        request_queue_size = 128

    server = Server((_HOST, 0), Handler)
    address = folder / ADDRESS_FILE
    draft = address.with_suffix(".draft")
    with open(os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123
        url = f"http://{_HOST}:{server.server_port}"
        json.dump({"url": url, "key": key, "pid": os.getpid(), "model_name": model_name}, file)
    draft.replace(address)
    told_to_end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told_to_end.set())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while address.exists() and not told_to_end.wait(_LOOK_SECONDS):
        pass
    server.shutdown()
    endpoint.end()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2])
