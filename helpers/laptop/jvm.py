"""The JVM that the notebooks of local jobs share, as the tasks of a Databricks job share a cluster.

A JVM is slow until it has run some queries, and a job has up to eight notebooks. Each of them still has a Spark context of
its own, with its own tables and settings.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helpers.laptop import java

VARIABLE = "BUNDLE_SPARK_JVM"
"""The environment variable with the port of the JVM and its secret, for a process whose Spark context may be in it."""
# With these, PySpark uses a JVM that runs already:
# https://github.com/apache/spark/blob/v4.1.0/python/pyspark/java_gateway.py
_PORT, _SECRET = "PYSPARK_GATEWAY_PORT", "PYSPARK_GATEWAY_SECRET"
# They decide whether a notebook needs a JVM, and how PySpark starts it.
_DECISIVE = ("JAVA_HOME", "PYSPARK_SUBMIT_ARGS", "SPARK_HOME", "SPARK_REMOTE", _PORT)
_SECONDS_TO_EXIT = 30
_running: SharedJvm | None = None


def shared(folder: Path, settings: Mapping[str, str], log: Path) -> SharedJvm | None:
    """Return the JVM for the next notebook: the one of the last notebook, or a new one if that one cannot be used.

    Parameters
    ----------
    folder : pathlib.Path
        The notebook's folder: Spark looks there for files with relative paths.
    settings : mapping of str to str
        Spark's, which include the options of the JVM.
    log : pathlib.Path
        File for the output of the JVM.

    Returns
    -------
    SharedJvm or None
        None if there is nothing to start: the environment names a Spark Connect server or a JVM, or there is no Java, which
        the notebook then reports.
    """
    global _running
    if os.environ.get("SPARK_REMOTE") or os.environ.get(_PORT):
        return None
    if _running is None or not _running.serves(folder, settings):
        stop()
        try:
            os.environ["JAVA_HOME"] = str(java.java_home())
        except java.JavaNotFound:
            return None
        _running = SharedJvm(folder, settings, log)
    return _running


def stop() -> None:
    """End the JVM of this process's notebooks, if there is one."""
    global _running
    if _running is not None:
        _running.stop()
    _running = None


class SharedJvm:
    """A JVM in which one Spark context after another can run. It ends with this process at the latest.

    It starts in the background, because a notebook's kernel starts at the same time.

    Parameters
    ----------
    folder, settings, log
        See `shared`.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], log: Path) -> None:
        self._key = _key(folder, settings)
        self._gateway: Any = None
        self._start = threading.Thread(target=self._launch, args=[folder, settings, log], daemon=True)
        self._start.start()

    def serves(self, folder: Path, settings: Mapping[str, str]) -> bool:
        """Return whether it runs, and was started with what a new one would get."""
        return self._key == _key(folder, settings) and bool(self.environment())

    def environment(self) -> dict[str, str]:
        """Return the environment variable with which `connect` uses it; none if it does not run.

        A notebook without the variable starts a JVM of its own, and reports what prevents that.
        """
        self._start.join()
        if self._gateway is None or self._gateway.proc.poll() is not None:
            return {}
        settings = self._gateway.gateway_parameters
        return {VARIABLE: f"{settings.port}:{settings.auth_token}"}

    def stop(self) -> None:
        """End it, and whatever Spark still does in it."""
        self._start.join()
        if self._gateway is None:
            return
        process = self._gateway.proc
        with contextlib.suppress(OSError):
            # It then removes its temporary files and exits.
            process.stdin.close()
        try:
            process.wait(_SECONDS_TO_EXIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _launch(self, folder: Path, settings: Mapping[str, str], log: Path) -> None:
        from pyspark import SparkConf
        from pyspark.errors import PySparkRuntimeError
        from pyspark.java_gateway import launch_gateway

        conf = SparkConf(loadDefaults=False).setAll(list(settings.items()))
        # The notebook meets the same error, and reports it.
        with contextlib.suppress(OSError, PySparkRuntimeError), log.open("ab") as output:
            self._gateway = launch_gateway(conf, {"cwd": folder, "stdout": output, "stderr": output})


def _key(folder: Path, settings: Mapping[str, str]) -> tuple[object, ...]:
    return folder, dict(settings), *map(os.environ.get, _DECISIVE)


def connect() -> None:
    """Let the next Spark context of this process be in the JVM that the environment names, if it names one.

    The context of the notebook before ends. Child processes need a JVM of their own, so the variable is removed.
    """
    port, _, secret = os.environ.pop(VARIABLE, "").partition(":")
    if not port:
        return
    from pyspark import SparkContext

    os.environ.update({_PORT: port, _SECRET: secret})
    try:
        SparkContext._ensure_initialized()
    finally:
        del os.environ[_PORT], os.environ[_SECRET]
    jvm: Any = SparkContext._jvm
    session_before = jvm.SparkSession.getDefaultSession()
    if session_before.isDefined():
        session_before.get().stop()
