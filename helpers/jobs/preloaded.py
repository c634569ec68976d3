"""A process that has imported what notebooks import. Its forks become kernels, which need not import it again.

`helpers.jobs.kernels` starts this file as a script, and sends requests through a socket. A request is one byte and the
file descriptor of another socket, which is for one kernel:

- The client sends JSON with ``argv``, ``cwd`` and ``env``, and two file descriptors for the kernel's output.
- It receives the ids of the kernel and of its process group and, when the kernel has ended, the exit code.
- If the client closes the socket, or dies, the whole group is killed.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import threading

# None of them starts a thread of Python, or connects to a server, when it is imported.
MODULES = (
    "sklearn.compose",
    "sklearn.ensemble",
    "sklearn.impute",
    "sklearn.linear_model",
    "sklearn.pipeline",
    # Early, because it searches all modules that are there for hundreds of names.
    "skops.io",
    "ipykernel.kernelapp",
    "matplotlib.backends.backend_agg",
    "matplotlib.pyplot",
    "mlflow",
    "mlflow.models",
    "mlflow.pyfunc",
    "mlflow.sklearn",
    "mlflow.spark",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "pyspark.ml",
    "pyspark.sql.connect.session",
    "pyspark.sql.functions",
)


def main() -> None:
    """Serve until nobody holds the other end of the socket; in a fork, be a kernel."""
    # A notebook must not find the modules beside this file.
    del sys.path[0]
    # ipykernel sets it, but Matplotlib reads it once, when it is imported.
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    before = dict(os.environ)
    for module in MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    # Otherwise each kernel would examine and copy all of it. https://docs.python.org/3/library/gc.html#gc.freeze
    gc.freeze()
    set_by_modules = dict(os.environ.items() - before.items())
    sys.argv = _serve(socket.socket(fileno=int(sys.argv[1])))
    os.environ.update(set_by_modules)
    runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)


def _serve(requests: socket.socket) -> list[str]:
    """Fork for each request. Return in a kernel only: its arguments."""
    # The system forgets a fork that has ended.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        _, fds, _, _ = socket.recv_fds(requests, 1, 1)
        if not fds:
            sys.exit()
        with socket.socket(fileno=fds[0]) as connection:
            if os.fork() == 0:
                requests.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return _supervise(connection)


def _supervise(connection: socket.socket) -> list[str]:
    """Fork a kernel, and tell the client when it has ended. Return in the kernel only: its arguments."""
    text, fds, _, _ = socket.recv_fds(connection, 1 << 20, 2)
    if not text:
        os._exit(0)
    request = json.loads(text)
    # Signals to the group are for the kernel and its child processes.
    os.setsid()
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    kernel = os.fork()
    if kernel == 0:
        connection.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _take_over(request, fds)
        return request["argv"]
    for fd in fds:
        os.close(fd)
    threading.Thread(target=_kill_when_closed, args=[connection], daemon=True).start()
    with contextlib.suppress(OSError):
        connection.send(b"%d %d" % (kernel, os.getpgid(0)))
    _, status = os.waitpid(kernel, 0)
    with contextlib.suppress(OSError):
        connection.send(b"%d" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _take_over(request: dict, fds: list[int]) -> None:
    """Give this process the kernel's output, working directory and environment."""
    for number, fd in enumerate(fds, start=1):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    if "numpy" in sys.modules:
        # Kernels must not share their random numbers. Python itself cares for those of `random`.
        sys.modules["numpy"].random.seed()


def _kill_when_closed(connection: socket.socket) -> None:
    connection.recv(1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
