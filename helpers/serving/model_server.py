"""Serve one model on a Unix domain socket, and end when the process that started this one ends.

    python -m helpers.serving.model_server MODEL_FOLDER SOCKET

The server is the one of ``mlflow models serve``. MLflow's command binds a TCP port, which every user of the machine
can reach. A socket in a private folder is open to its owner only.

The parent process holds the other end of standard input. When the parent ends, even by SIGKILL, the input ends, and
this process ends its whole process group: the server, and whatever the model has started. The parent has to start it
as the leader of a process group.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

_POLL_SECONDS = 0.2
_STOP_SECONDS = 10


def main(model_folder: Path, socket: Path) -> None:
    """Serve a model until the server or the parent process ends, and end the whole process group then.

    Parameters
    ----------
    model_folder : pathlib.Path
        With the ``MLmodel`` file.
    socket : pathlib.Path
        Created, in its own folder, which is removed at the end.
    """
    command = [sys.executable, "-m", "uvicorn", "--uds", str(socket), "--no-access-log"]
    command += ["mlflow.pyfunc.scoring_server.app:app"]
    # MLflow's app finds its model by the first variable. Its warnings are about packages that only Azure's container needs.
    environment = os.environ | {"__pyfunc_model_path__": model_folder.as_uri(), "MLFLOW_LOGGING_LEVEL": "ERROR"}
    # A signal to the group is meant for the server. This process ends after it.
    signal.signal(signal.SIGTERM, _ignore)
    server = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
    parent_ended = False
    while server.poll() is None and not parent_ended:
        # The parent never writes: standard input becomes readable when it is closed.
        parent_ended = bool(select.select([sys.stdin], [], [], _POLL_SECONDS)[0])
    os.killpg(0, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(_STOP_SECONDS)
    shutil.rmtree(socket.parent, ignore_errors=True)
    # Whatever is left of the group, and this process.
    os.killpg(0, signal.SIGKILL)


def _ignore(_signal: int, _frame: FrameType | None) -> None:
    """Handle a signal without an effect. Unlike SIG_IGN, a handler is not inherited by the server."""


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
