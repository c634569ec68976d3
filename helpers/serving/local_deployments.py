"""The deployments of a local endpoint: one model server process per deployment, and the traffic between them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.azureml.collected_data import FOLDER
from helpers.serving.endpoint import MOST_MIRRORED, REQUEST_SECONDS
from helpers.serving.local_mirror import Mirror
from helpers.serving.script_server import Settings

# Loading a Spark ML model includes starting Spark.
_START_SECONDS = 300
_STOP_SECONDS = 10
_POLL_SECONDS = 0.2
_PING_SECONDS = 5


@dataclass(frozen=True)
class ScoringResponse:
    """The response to a scoring request.

    Attributes
    ----------
    status : int
        HTTP status.
    body : bytes
        JSON.
    deployment : str, default ""
        The deployment that was chosen; empty if there was none.
    """

    status: int
    body: bytes
    deployment: str = ""


class ModelServer:
    """The process `helpers.serving.model_server` of one deployment.

    Parameters
    ----------
    model_folder : pathlib.Path
        With the ``MLmodel`` file.
    model : str
        ``<name>/<version>``.
    log : pathlib.Path
        Gets what the process prints.
    collect_to : pathlib.Path, optional
        The folder that gets the rows of each request that is answered.
    collect_rate : float, default 1.0
        The share of the requests whose inputs are among them.
    workers : int, default 1
        How many requests it answers at once; each takes a process that loads the model.

    Attributes
    ----------
    model : str
    state : str
        ``Creating``, ``Succeeded`` or ``Failed``.
    """

    def __init__(
        self,
        model_folder: Path,
        model: str,
        log: Path,
        collect_to: Path | None = None,
        collect_rate: float = 1.0,
        workers: int = 1,
    ) -> None:
        self.model, self.state = model, "Creating"
        self._running_requests, self._changed = 0, threading.Condition()
        # Not below the endpoint's folder: the path of a socket has at most about 100 characters.
        self._socket = Path(tempfile.mkdtemp(prefix="model-server-"), "socket")
        settings = Settings(str(model_folder), str(self._socket), str(collect_to or ""), collect_rate, workers)
        command = [sys.executable, "-m", "helpers.serving.model_server", settings.text()]
        with log.open("wb") as output:
            # The server ends when this end of the pipe is closed, and this process holds it until it ends.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
            )

    def wait_until_it_serves(self) -> None:
        """Set the state to ``Succeeded`` when the server answers, or to ``Failed`` if it does not."""
        deadline = time.monotonic() + _START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, _ = self._request("GET", "/", timeout=_PING_SECONDS)
                if status == 200:
                    self.state = "Succeeded"
                    return
            time.sleep(_POLL_SECONDS)
        self.kill()
        self.state = "Failed"

    def begin_request(self) -> None:
        """Keep `stop` from ending the server before `end_request` is called."""
        with self._changed:
            self._running_requests += 1

    def end_request(self) -> None:
        """Let `stop` end the server, unless other requests are running."""
        with self._changed:
            self._running_requests -= 1
            self._changed.notify_all()

    def score(self, body: bytes) -> tuple[int, bytes]:
        """Score the rows of a request.

        Parameters
        ----------
        body : bytes
            As requests to Azure ML have it.

        Returns
        -------
        tuple of (int, bytes)
            HTTP status, and the predictions or the error, as Azure ML's server answers with score.py.
        """
        try:
            return self._request("POST", "/score", body)
        except (OSError, http.client.HTTPException) as error:
            return 502, error_body(f"the model server does not answer ({str(error) or type(error).__name__})")

    def _request(
        self, method: str, path: str, body: bytes | None = None, timeout: float = REQUEST_SECONDS
    ) -> tuple[int, bytes]:
        with contextlib.closing(_SocketConnection(self._socket, timeout)) as connection:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()

    def stop(self) -> None:
        """End the server after it has answered its current requests."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running_requests, timeout=REQUEST_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the server at once, with the processes that the model has started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        shutil.rmtree(self._socket.parent, ignore_errors=True)


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix domain socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class LocalDeployments:
    """The deployments of a local endpoint, and the percentage of the requests that each gets.

    Parameters
    ----------
    folder : pathlib.Path
        Gets a log file for each deployment, and the requests of those that collect them.

    Attributes
    ----------
    folder : pathlib.Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._lock = folder, threading.Lock()
        self._servers: dict[str, ModelServer] = {}
        self._traffic: dict[str, int] = {}
        self._mirror: Mirror | None = None

    def state(self) -> dict[str, Any]:
        """Return traffic, mirror, deployments, and what became of the copies of the newest mirror."""
        with self._lock:
            servers = {name: {"state": server.state, "model": server.model} for name, server in self._servers.items()}
            mirrored = self._mirror.counts() if self._mirror else None
            return {
                "traffic": self._traffic,
                "mirror": self._mirrored_to(),
                "mirrored": mirrored,
                "deployments": servers,
            }

    def _mirrored_to(self) -> dict[str, int]:
        return {self._mirror.deployment: self._mirror.percent} if self._mirror and self._mirror.percent else {}

    def deploy(
        self,
        name: str,
        model_folder: Path,
        model: str,
        collect_data: bool = False,
        collect_data_rate: float = 1.0,
        workers: int = 1,
    ) -> None:
        """Start to serve a model, instead of the one that the deployment served before.

        Parameters
        ----------
        name : str
        model_folder : pathlib.Path
            With the ``MLmodel`` file.
        model : str
            ``<name>/<version>``.
        collect_data : bool, default False
            Whether to keep the rows of each request that is answered.
        collect_data_rate : float, default 1.0
            The share of the requests whose inputs are among them.
        workers : int, default 1
            How many requests it answers at once.
        """
        collect_to = self.folder / FOLDER / name if collect_data else None
        log = self.folder / f"{name}.log"
        server = ModelServer(model_folder, model, log, collect_to, collect_data_rate, workers)
        with self._lock:
            previous = self._servers.get(name)
            self._servers[name] = server
        threading.Thread(target=server.wait_until_it_serves, daemon=True).start()
        if previous is not None:
            previous.stop()

    def set_traffic(self, traffic: dict[str, int]) -> None:
        """Set the percentage of the requests by deployment.

        Raises
        ------
        ValueError
            If a deployment does not exist or gets copies, or if the percentages do not add up to 100 or 0.
        """
        with self._lock:
            self._check_names(traffic)
            if any(traffic.get(name) for name in self._mirrored_to()):
                raise ValueError("a deployment can get requests or copies of them, not both")
            if any(percent < 0 for percent in traffic.values()) or sum(traffic.values()) not in (0, 100):
                raise ValueError("the percentages have to add up to 100 or 0")
            self._traffic = {name: percent for name, percent in traffic.items() if percent}

    def set_mirror(self, mirror: dict[str, int]) -> None:
        """Set the percentage of the requests that is copied to a deployment, whose answers nobody gets.

        The rules are those of Azure ML: https://learn.microsoft.com/azure/machine-learning/how-to-safely-rollout-online-endpoints

        Raises
        ------
        ValueError
            If the deployment does not exist or gets requests, if there are several, or if the percentage is over 50.
        """
        with self._lock:
            self._check_names(mirror)
            wanted = {name: percent for name, percent in mirror.items() if percent}
            if len(wanted) > 1:
                raise ValueError("requests can be mirrored to one deployment only")
            if any(not 0 < percent <= MOST_MIRRORED for percent in wanted.values()):
                raise ValueError(f"at most {MOST_MIRRORED} % of the requests can be mirrored")
            if any(self._traffic.get(name) for name in wanted):
                raise ValueError("a deployment can get requests or copies of them, not both")
            if self._mirror:
                self._mirror.close()
            for name, percent in wanted.items():
                self._mirror = Mirror(name, percent, self._servers[name].score)

    def _check_names(self, percentages: dict[str, int]) -> None:
        unknown = percentages.keys() - self._servers.keys()
        if unknown:
            raise ValueError(f"there is no deployment {', '.join(sorted(unknown))}")

    def delete(self, name: str) -> None:
        """End a deployment, if it exists."""
        with self._lock:
            server = self._servers.pop(name, None)
            self._traffic.pop(name, None)
            if name in self._mirrored_to() and self._mirror:
                self._mirror.close()
        if server is not None:
            server.stop()

    def end(self) -> None:
        """End all deployments."""
        with self._lock:
            servers, self._servers, self._traffic = self._servers, {}, {}
            if self._mirror:
                self._mirror.close()
        for server in servers.values():
            server.kill()

    def score(self, body: bytes, deployment: str) -> ScoringResponse:
        """Score rows.

        Parameters
        ----------
        body : bytes
            As requests to Azure ML have it.
        deployment : str
            The deployment that answers, whatever the traffic is. Empty: the traffic decides.
        """
        with self._lock:
            if not deployment and not self._traffic:
                return ScoringResponse(404, error_body("no deployment gets traffic"))
            name = deployment or random.choices(list(self._traffic), list(self._traffic.values()))[0]  # noqa: S311
            server = self._servers.get(name)
            if server is None or server.state != "Succeeded":
                return ScoringResponse(404, error_body(f"no deployment {name} that serves"), name)
            # Under the lock, so that `delete` cannot end the server before this request is counted.
            server.begin_request()
            mirror = None if deployment else self._mirror
        try:
            status, answer = server.score(body)
        finally:
            server.end_request()
        # A request that failed here says nothing about the other deployment.
        if mirror is not None and status == 200:
            mirror.offer(body)
        return ScoringResponse(status, answer, name)


def error_body(message: str) -> bytes:
    """Return the JSON body of a response that says what is wrong."""
    return json.dumps({"message": message}).encode()
