"""A Spark Connect server in a process of its own, as serverless and standard compute of Databricks have one."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyspark

from helpers.laptop import java, spark

SECONDS_TO_START = 120
# Runs in each Python process of the server: the folders of its client are not there.
_SITECUSTOMIZE = """
import os
import sys

HIDDEN = {hidden!r}


def refuse(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], (str, bytes, os.PathLike)):
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if any(path == folder or path.startswith(folder + os.sep) for folder in HIDDEN):
            raise FileNotFoundError(2, "on the disk of the client", path)


sys.addaudithook(refuse)
"""


def is_installed() -> bool:
    """Return whether the packages of a client are there; `requirements.txt` has them."""
    return importlib.util.find_spec("grpc") is not None


@contextmanager
def server(
    local_dir: Path,
    java_options: str,
    hidden: tuple[Path, ...] = (),
    more_settings: dict[str, str] | None = None,
    each_python: str = "",
    user: str = "",
) -> Iterator[str]:
    """Start a server whose tables are those of a laptop; yield its address, and end it and its workers afterwards.

    Parameters
    ----------
    local_dir : pathlib.Path
        Folder of the laptop's local state.
    java_options : str
        Options for the JVM.
    hidden : tuple of pathlib.Path
        Folders that the server's Python processes do not see, as if they were on another machine.
    more_settings : dict of str to str, optional
        Of Spark.
    each_python : str, optional
        Code that each Python process of the server runs first.
    user : str, optional
        Whom ``current_user()`` names; by default who runs this process.
    """
    own = local_dir / "spark_connect"
    own.mkdir(parents=True, exist_ok=True)
    (own / "sitecustomize.py").write_text(
        _SITECUSTOMIZE.format(hidden=[str(folder) for folder in hidden]) + each_python
    )
    settings = spark.settings(local_dir, java_options) | {
        "spark.master": "local[*]",
        "spark.connect.grpc.binding.address": "127.0.0.1",
        # Any free port; the log says which.
        "spark.connect.grpc.binding.port": "0",
        **(more_settings or {}),
    }
    command = [str(Path(pyspark.__file__).parent / "bin" / "spark-submit")]
    command += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer"]
    command += [part for name, value in settings.items() for part in ("--conf", f"{name}={value}")]
    (jar,) = (Path(pyspark.__file__).parent / "jars").glob("spark-connect_*.jar")
    environment = os.environ | {
        "JAVA_HOME": str(java.java_home()),
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": str(own),
    }
    if user:
        environment["SPARK_USER"] = user
    for name in ("SPARK_REMOTE", "PYSPARK_SUBMIT_ARGS"):
        environment.pop(name, None)
    log = local_dir / "spark_connect.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, str(jar)], env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            cwd=own, start_new_session=True,
        )  # fmt: skip
    try:
        yield f"sc://127.0.0.1:{_port(process, log)}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end and process.poll() is None:
        started = re.search(r"Spark Connect server started at: \S*?:(\d+)\s", log.read_text(errors="replace"))
        if started:
            return int(started[1])
        time.sleep(0.05)
    raise RuntimeError(f"the Spark Connect server did not start:\n{log.read_text(errors='replace')[-4000:]}")
