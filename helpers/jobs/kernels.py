"""Start kernels as forks of a process that has imported what notebooks import: `helpers.jobs.preloaded`.

Importing MLflow, Spark, scikit-learn and Matplotlib takes longer than most cells. With these kernels it happens once,
not once per notebook.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

if TYPE_CHECKING:
    from jupyter_client.connect import KernelConnectionInfo
    from nbclient import NotebookClient

_SCRIPT = Path(__file__).with_name("preloaded.py")
# Variables that are read when a notebook runs. Any other may be read when a module is imported, before the fork.
_READ_LATER = ("BUNDLE_", "JAVA_HOME", "JPY_", "PYSPARK_SUBMIT_ARGS", "PYTEST_", "SPARK_REMOTE")


class PreloadedProcess:
    """A process that has imported what notebooks import, or is about to.

    Parameters
    ----------
    requests : socket.socket
        It reads requests from the other end, and ends when this end is closed everywhere.
    environment : mapping of str to str
        Its environment variables. Those of its kernels must be the same, except the ones that are read later.
    process : subprocess.Popen, optional
        If this process has started it.
    """

    def __init__(
        self,
        requests: socket.socket,
        environment: Mapping[str, str],
        process: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self.requests = requests
        self._process = process
        self._environment = _read_at_import(environment)

    @classmethod
    def start(cls, environment: Mapping[str, str]) -> PreloadedProcess:
        """Start one, which ends with this process at the latest."""
        requests, other_end = socket.socketpair()
        with other_end:
            # In a session of its own, because Ctrl-C is for the runner, which then ends the kernels.
            process = subprocess.Popen(
                [sys.executable, str(_SCRIPT), str(other_end.fileno())],
                env=dict(environment), pass_fds=[other_end.fileno()], start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        return cls(requests, environment, process)

    def serves(self, environment: Mapping[str, str]) -> bool:
        """Return whether a kernel with these environment variables may be its fork."""
        return _read_at_import(environment) == self._environment


def _read_at_import(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(_READ_LATER)}


class ForkedKernel:
    """A kernel's process, with those attributes and methods of `subprocess.Popen` that Jupyter needs.

    Parameters
    ----------
    pid : int
    connection : socket.socket
        Receives the exit code. The kernel is killed when this end is closed.
    """

    stdin = stdout = stderr = None

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._connection = connection

    def poll(self) -> int | None:
        """Return the exit code; None while the process runs."""
        if self.returncode is None:
            try:
                code = self._connection.recv(64)
            except BlockingIOError:
                return None
            except ConnectionError:
                code = b""
            # There is none if the whole group was killed.
            self.returncode = int(code or -signal.SIGKILL)
            self._connection.close()
        return self.returncode

    def wait(self) -> int | None:
        """Return the exit code of the process, which has ended."""
        return self.poll()

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


class ForkingProvisioner(LocalProvisioner):
    """Starts kernels of this Python as forks, where it can, and others as Jupyter does.

    https://jupyter-client.readthedocs.io/en/stable/provisioning.html

    Attributes
    ----------
    preloaded : PreloadedProcess or None
        Whose forks the next kernels are, if it has their environment.
    """

    process: Any
    preloaded: PreloadedProcess | None = None

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel; see `jupyter_client.provisioning.KernelProvisionerBase.launch_kernel`."""
        environment, folder = kwargs.get("env") or dict(os.environ), str(kwargs.get("cwd") or Path.cwd())
        if cmd[:3] != [sys.executable, "-m", "ipykernel_launcher"]:
            return await super().launch_kernel(cmd, **kwargs)
        request = {"argv": cmd[2:], "cwd": folder, "env": environment}
        output = [kwargs.get("stdout") or 1, kwargs.get("stderr") or 2]
        try:
            self.process, self.pgid = await _fork(process_for(environment), request, output)
        except OSError:
            # The other process has ended, or an environment is too large for one message.
            return await super().launch_kernel(cmd, **kwargs)
        self.pid, self.cwd = self.process.pid, folder
        return self.connection_info


async def _fork(preloaded: PreloadedProcess, request: dict[str, Any], output: list[Any]) -> tuple[ForkedKernel, int]:
    """Return a new kernel and its process group."""
    connection, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.ExitStack() as unless_it_runs:
        unless_it_runs.callback(connection.close)
        with other_end:
            socket.send_fds(preloaded.requests, [b"."], [other_end.fileno()])
        fds = [stream if isinstance(stream, int) else stream.fileno() for stream in output]
        socket.send_fds(connection, [json.dumps(request).encode()], fds)
        connection.setblocking(False)
        # It may be importing still.
        answer = await asyncio.get_running_loop().sock_recv(connection, 64)
        if not answer:
            raise ConnectionResetError
        unless_it_runs.pop_all()
    pid, group = map(int, answer.split())
    return ForkedKernel(pid, connection), group


def process_for(environment: Mapping[str, str]) -> PreloadedProcess:
    """Return a process for kernels with these environment variables; start one if the last one was for others."""
    running = ForkingProvisioner.preloaded
    if running is None or not running.serves(environment):
        running = ForkingProvisioner.preloaded = PreloadedProcess.start(environment)
    return running


def fork_kernel_of(client: NotebookClient, environment: Mapping[str, str]) -> None:
    """Let a client's kernel be a fork, on Linux, and start the process that it will be a fork of.

    Elsewhere a process that has imported as much cannot be forked safely:
    https://docs.python.org/3/library/multiprocessing.html#contexts-and-start-methods
    """
    if sys.platform != "linux":
        return
    factory, name = KernelProvisionerFactory.instance(), ForkingProvisioner.__name__
    factory.provisioners[name] = EntryPoint(name, f"{__name__}:{name}", factory.GROUP_NAME)
    # https://jupyter-client.readthedocs.io/en/stable/provisioning.html#kernel-specification
    specification: Any = client.create_kernel_manager().kernel_spec
    specification.metadata["kernel_provisioner"] = {"provisioner_name": name}
    process_for(environment)
