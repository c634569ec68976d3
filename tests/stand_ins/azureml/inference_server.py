"""The container of Azure ML's no-code deployment: the vendor's server, in an environment of the model's requirements.

    with InferenceServer.start(environment(folder, requirements), model, log_file) as server:
        server.wait()
        server.score(payload)

Run as a script, it starts a command with a socket that listens already, and kills it when standard input ends.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from filelock import FileLock

SCORING_SCRIPT = Path(__file__).with_name("scoring_script.py")
# The number that systemd gives the first socket that it hands over. Gunicorn listens to that instead of the port that
# the vendor's server names, which would be open to the network.
# https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html
_HANDED_OVER = 3
_REQUIREMENTS = "requirements.txt"
# Guards against a server that hangs.
_SECONDS_TO_ANSWER = 300


def environment(folder: Path, requirements: Collection[str]) -> Path:
    """Return a virtual environment of these requirements and what they bring; it is made only if it is not there yet.

    Parameters
    ----------
    folder : pathlib.Path
        Where the environment is kept. One of other requirements is replaced.
    requirements : collection of str
        Lines of ``requirements.txt``.
    """
    wanted = "\n".join([f"# Python {platform.python_version()}", *sorted(set(requirements))])
    made_of = folder / _REQUIREMENTS
    with FileLock(f"{folder}.lock"):
        if not made_of.is_file() or made_of.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            pip = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
            subprocess.run([*pip, "install", "--quiet", "--no-compile", *sorted(set(requirements))], check=True)
            made_of.write_text(wanted)
    return folder


def installed(environment: Path) -> set[str]:
    """Return the requirements of which an environment was made."""
    return set((environment / _REQUIREMENTS).read_text().splitlines()[1:])


@dataclass(frozen=True)
class InferenceServer:
    """A server that was started; it may not answer yet.

    Attributes
    ----------
    port : int
        Of 127.0.0.1.
    log_file : pathlib.Path
        What the server and the scoring script have printed.
    """

    port: int
    log_file: Path

    @classmethod
    @contextmanager
    def start(
        cls,
        environment: Path,
        model: Path,
        log_file: Path,
        variables: Mapping[str, str] | None = None,
        script: Path = SCORING_SCRIPT,
    ) -> Iterator[InferenceServer]:
        """Start the server for a model. It ends after the block, or when this process ends.

        Parameters
        ----------
        environment : pathlib.Path
            From `environment`.
        model : pathlib.Path
            The folder with the ``MLmodel`` file.
        log_file : pathlib.Path
        variables : mapping of str to str, optional
            Besides those that a deployment sets.
        script : pathlib.Path, optional
            The scoring script. Default: the vendor's, which the deployment tells the name of the model's folder. It does
            not tell others: https://github.com/microsoft/azureml-inference-server/issues/112
        """
        # As in the vendor's image: azureml-assets, assets/training/model_management/environments/mlflow-model-inference/
        # context/runit/gunicorn/run, commit 36a08d8f of 2025-05-20.
        # Its command is called `azmlinfsrv`.
        command = [
            environment / "bin" / "python",
            "-m",
            "azureml_inference_server_http",
            "--entry_script",
            script,
        ]
        settings = {
            "PATH": f"{environment / 'bin'}{os.pathsep}{os.defpath}",
            "AZUREML_MODEL_DIR": str(model.parent),
            **({"MLFLOW_MODEL_FOLDER": model.name} if script == SCORING_SCRIPT else {}),
            **(variables or {}),
        }
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener, log_file.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, __file__, str(listener.fileno()), *map(str, command)],
                cwd=log_file.parent, env=settings, stdin=subprocess.PIPE, stdout=log, stderr=log,
                pass_fds=[listener.fileno()],
            )  # fmt: skip
            port = listener.getsockname()[1]
        # Leaving this block closes the standard input, and waits.
        with process:
            yield cls(port, log_file)

    def wait(self) -> None:
        """Return when the server is ready.

        Raises
        ------
        RuntimeError
            If it ends before; the message is its log.
        """
        try:
            # The socket listens already: the request waits for the server, or is dropped with it.
            requests.get(f"http://127.0.0.1:{self.port}/", timeout=_SECONDS_TO_ANSWER).raise_for_status()
        except requests.ConnectionError:
            raise RuntimeError(self.log_file.read_text()) from None

    def score(self, payload: str) -> requests.Response:
        """Send a scoring request; return the answer."""
        url, headers = f"http://127.0.0.1:{self.port}/score", {"Content-Type": "application/json"}
        return requests.post(url, payload, headers=headers, timeout=_SECONDS_TO_ANSWER)


def _serve(listener: str, *command: str) -> None:
    os.dup2(int(listener), _HANDED_OVER)
    server = os.fork()
    if not server:
        os.setsid()
        handed_over = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
        os.execve(command[0], command, os.environ | handed_over)
    # Only the server holds the socket now, so its connections end with it.
    os.close(_HANDED_OVER)
    if int(listener) != _HANDED_OVER:
        os.close(int(listener))
    sys.stdin.read()
    os.killpg(server, signal.SIGKILL)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
