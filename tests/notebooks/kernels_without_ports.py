"""A plugin for pytest with nbmake, whose kernels choose ports that another kernel may take first.

https://github.com/treebeardtech/nbmake has no setting for it. The kernels may also be forks, as those of jobs are, and share
a JVM.
"""

import functools
import os
import socket
import tempfile
from pathlib import Path

import pytest
from nbclient import NotebookClient

from helpers import runtime
from helpers.jobs.execute import kernel_sockets
from helpers.jobs.kernels import ForkingProvisioner, PreloadedProcess, fork_kernel_of
from helpers.laptop import spark

ROOT = Path(__file__).parents[2]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--preloaded-requests", type=int, help="file descriptor of a socket: helpers.jobs.kernels.PreloadedProcess"
    )


def pytest_configure(config: pytest.Config) -> None:
    requests = config.getoption("--preloaded-requests")
    if requests is not None:
        ForkingProvisioner.preloaded = PreloadedProcess(socket.socket(fileno=requests), os.environ)


@functools.wraps(NotebookClient.__init__)
def _with_sockets(self: NotebookClient, *arguments: object, **named: object) -> None:
    # The client holds the folder, and it is removed with the client.
    self._sockets = tempfile.TemporaryDirectory()
    config = kernel_sockets(Path(self._sockets.name))
    # Jupyter kills a kernel that has not ended after 5 s. On a busy machine, that is in the middle of its clean-up.
    config.KernelManager.shutdown_wait_time = 60.0
    _init(self, *arguments, config=config, **named)
    if ForkingProvisioner.preloaded:
        fork_kernel_of(self, os.environ)


@functools.wraps(NotebookClient.execute)
def _in_shared_jvm(self: NotebookClient, *arguments: object, **named: object) -> object:
    shared = spark.shared_jvm(runtime.make_local_dir(), ROOT / "notebooks")
    environment = os.environ | (shared.environment() if shared else {})
    return _execute(self, *arguments, env=environment, **named)


_init, NotebookClient.__init__ = NotebookClient.__init__, _with_sockets
_execute, NotebookClient.execute = NotebookClient.execute, _in_shared_jvm
