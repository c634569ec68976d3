"""A plain MLflow server in the role of Databricks' tracking server.

It imitates runs, artifacts, ``log_model`` and the registry ``databricks``. It does not imitate aliases or loading of
``models:/<name>/<version>``. `tests.stand_ins.unity_catalog` adds the registry ``databricks-uc``.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.stand_ins.azureml_workspace import plain_environment

_STORE = "mlflow.db"
_ATTEMPTS = 3
# For a server that hangs; the end of its process is noticed at once.
_SECONDS_TO_START = 600
_SECONDS_TO_ANSWER = 30


@dataclass(frozen=True)
class DatabricksStandIn:
    """A running server.

    Attributes
    ----------
    folder : pathlib.Path
        Has the store, the artifacts and ``server.log``.
    url : str
    """

    folder: Path
    url: str

    token = "dapi-stand-in-token"

    @classmethod
    @contextmanager
    def start(cls, folder: Path, python: str = sys.executable) -> Iterator[DatabricksStandIn]:
        """Start the server, and end it after the block.

        Parameters
        ----------
        folder : pathlib.Path
        python : str
            The interpreter that runs the server, with its MLflow.

        Raises
        ------
        RuntimeError
            If it does not start; the message ends with its log.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for _ in range(_ATTEMPTS):
            # `mlflow server` does not accept port 0, so another process may take the chosen port first.
            port = _free_port()
            url = f"http://127.0.0.1:{port}"
            process = _start(folder, port, python)
            try:
                if _answers(url, process):
                    yield cls(folder, url)
                    return
            finally:
                # Include the server's workers, which MLflow 2's command does not end.
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)
                process.wait()
        raise RuntimeError(f"mlflow server did not start: {(folder / 'server.log').read_text()[-2000:]}")

    @property
    def store(self) -> Path:
        """The server's SQLite database."""
        return self.folder / _STORE

    def environment(self) -> dict[str, str]:
        """Return the variables that a client's process needs for tracking URI ``databricks``."""
        return {"DATABRICKS_HOST": self.url, "DATABRICKS_TOKEN": self.token, "NO_PROXY": "127.0.0.1"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _start(folder: Path, port: int, python: str) -> subprocess.Popen[bytes]:
    command = [python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / _STORE}"]
    command += ["--default-artifact-root", (folder / "artifacts").as_uri()]
    # Serves artifacts over HTTP for experiments whose artifacts are below ``<url>/api/2.0/mlflow-artifacts/artifacts``.
    command += ["--serve-artifacts", "--artifacts-destination", str(folder / "served")]
    # The queue for background jobs is not needed, and would take ten seconds to end.
    environment = plain_environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Return whether this server, and not another one, answers before it ends or the time is up."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + _SECONDS_TO_START
    while process.poll() is None and time.monotonic() < end:
        try:
            with opener.open(f"{url}/health", timeout=_SECONDS_TO_ANSWER):
                return process.poll() is None
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    return False
