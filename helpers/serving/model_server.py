"""Serve one model on a Unix domain socket, and end when the process that started this one ends.

    python -m helpers.serving.model_server SETTINGS

The server is `helpers.serving.script_server`, with its settings. A TCP port could be reached by every user of the machine. A
socket in a private folder is open to its owner only.

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

from helpers.serving.script_server import Settings

_POLL_SECONDS = 0.2
_STOP_SECONDS = 10


def main(settings: Settings) -> None:
    """Serve a model until the server or the parent process ends, and end the whole process group then.

    Parameters
    ----------
    settings : helpers.serving.script_server.Settings
        The socket is in a folder of its own, which is removed at the end.
    """
    command = [sys.executable, "-m", "helpers.serving.script_server", settings.text()]
    # MLflow's warnings are about packages that only Azure's container needs.
    environment = os.environ | {"MLFLOW_LOGGING_LEVEL": "ERROR"}
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
    shutil.rmtree(Path(settings.socket).parent, ignore_errors=True)
    # Whatever is left of the group, and this process.
    os.killpg(0, signal.SIGKILL)


def _ignore(_signal: int, _frame: FrameType | None) -> None:
    """Handle a signal without an effect. Unlike SIG_IGN, a handler is not inherited by the server."""


if __name__ == "__main__":
    main(Settings.from_text(sys.argv[1]))
