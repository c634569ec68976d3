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
from contextlib import ExitStack, contextmanager
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
# A process of its own runs this, because pytest's may have a session of its own Spark.
_FORGET_TABLES = """
from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
for table in spark.catalog.listTables("default"):
    spark.sql(f"DROP TABLE default.`{table.name}`")
for schema in spark.catalog.listDatabases():
    if schema.name != "default":
        spark.sql(f"DROP SCHEMA `{schema.name}` CASCADE")
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


class SharedServer:
    """A server that laptops use one after another, each with its own tables.

    Spark fixes the folder of its tables when it starts. In `folder` this is a symbolic link, which exists while a laptop uses
    the server, and points to the laptop's folder. So does the folder of the locks, beside it.

    Parameters
    ----------
    folder : pathlib.Path
        An empty folder. The server starts when a laptop uses it first, and writes its output there.
    java_options : str
        Options for the JVM.
    """

    def __init__(self, folder: Path, java_options: str) -> None:
        self.folder = folder
        self._java_options = java_options
        self._process = ExitStack()
        self._address = ""
        self._local_dir: Path | None = None

    def stop(self) -> None:
        """End the server and its workers, if it has started. The next laptop starts it again."""
        self._process.close()
        self._address = ""

    @contextmanager
    def used_by(self, local_dir: Path) -> Iterator[str]:
        """Give a laptop the server in the block, in which it may ask for it again; yield the address.

        Parameters
        ----------
        local_dir : pathlib.Path
            Folder of the laptop's local state.

        Raises
        ------
        RuntimeError
            If another laptop is using the server.
        """
        if self._local_dir == local_dir:
            yield self._address
            return
        if self._local_dir:
            raise RuntimeError(
                f"the Spark Connect server is used by the laptop in {self._local_dir}, so the one in {local_dir} cannot use it: "
                "end the first one's block before"
            )
        self._forget_tables()
        self._local_dir = local_dir
        links = {self.folder / name: local_dir / name for name in ("warehouse", "locks")}
        try:
            for link, target in links.items():
                target.mkdir(parents=True, exist_ok=True)
                link.symlink_to(target)
            if not self._address:
                self._address = self._process.enter_context(server(self.folder, self._java_options))
            yield self._address
        finally:
            self._local_dir = None
            for link in links:
                link.unlink(missing_ok=True)

    def _forget_tables(self) -> None:
        """Drop the tables of the laptop before. Their files stay, because Spark does not find them without the link."""
        if self._address:
            environment = os.environ | {"SPARK_REMOTE": self._address}
            subprocess.run([sys.executable, "-c", _FORGET_TABLES], env=environment, check=True)


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end and process.poll() is None:
        started = re.search(r"Spark Connect server started at: \S*?:(\d+)\s", log.read_text(errors="replace"))
        if started:
            return int(started[1])
        time.sleep(0.05)
    raise RuntimeError(f"the Spark Connect server did not start:\n{log.read_text(errors='replace')[-4000:]}")
