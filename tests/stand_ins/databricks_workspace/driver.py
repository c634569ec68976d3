"""The driver's side of a cluster: what Databricks does in the Python process of a notebook before its first cell.

Databricks starts one process per notebook, and one JVM for all. Here one process runs all notebooks, which saves the
time of starting and importing. Each notebook gets a new namespace, gets the original ``sys.path`` and environment, and
imports the files of the workspace again. Installed packages keep their state, such as MLflow's tracking URI.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import IPython.display
from IPython import get_ipython
from pyspark.sql import SparkSession

from tests.stand_ins.databricks_workspace import delta_on_parquet, serverless
from tests.stand_ins.databricks_workspace.strict_dbutils import NotebookRun, StrictDbutils

MOST_ROWS_DISPLAYED = 10_000


class Driver:
    """The process, with the session that its notebooks share.

    Parameters
    ----------
    folder : str
        Of the cluster, for tables and temporary files.
    workspace : str
        Root of the workspace's files.
    workspace_url : str
        Host name of the workspace.
    server : str
        Of serverless compute: the address of its Spark Connect server. Empty for a cluster.
    """

    def __init__(self, folder: str, workspace: str, workspace_url: str, server: str) -> None:
        self._workspace = workspace
        self._spark = serverless.session(server, Path(folder)) if server else _session(Path(folder), workspace_url)
        delta_on_parquet.install(type(self._spark.range(0)), Path(folder, "copies"))
        self._path, self._environment = list(sys.path), dict(os.environ)
        self._run: NotebookRun | None = None
        self._variables: dict[str, str] = {}
        self._working_directory = ""
        get_ipython().register_magic_function(self._pip, magic_name="pip")
        self.pip_lines: list[str] = []
        self._restarts = 0
        self._missing: set[str] = set()
        self._discover = importlib.metadata.Distribution.discover
        importlib.metadata.Distribution.discover = self._installed
        sys.path_hooks.insert(0, self._finder)

    def attach(
        self, path: str, working_directory: str, missing: Iterable[str], variables: dict[str, str], **known: Any
    ) -> None:
        """Prepare this process for a notebook.

        Parameters
        ----------
        path : str
            Its file in the workspace.
        working_directory : str
        missing : iterable of str
            Packages that are not installed until a ``%pip`` line names them.
        variables : dict of str to str
            What the environment has in addition.
        **known : object
            See `NotebookRun`.
        """
        # Databricks names the notebook with or without /Workspace; notebooks that others published expect both.
        prefix = "/Workspace" if known["task"] else ""
        self._run = NotebookRun(prefix + path.removeprefix(self._workspace).removesuffix(".ipynb"), **known)
        self._working_directory, self._missing, self._variables = working_directory, set(missing), variables
        self.pip_lines, self._restarts = [], 0
        self._begin(StrictDbutils(self._run, self._restart))

    def report(self) -> str:
        """Return as JSON the fields of `cluster.Executed` that only this process knows."""
        files = [module.__file__ for module in self._imported().values()]
        task_values = self._run.task_values.get(self._run.task, {})
        return json.dumps([task_values, self.pip_lines, self._restarts, files])

    def _restart(self) -> None:
        self._restarts += 1
        self._begin(get_ipython().user_ns["dbutils"])

    def _begin(self, dbutils: StrictDbutils) -> None:
        shell = get_ipython()
        shell.reset(new_session=False)
        for name in self._imported():
            del sys.modules[name]
        # Without this, it would resolve ".." relative to the previous notebook.
        sys.path_importer_cache.clear()
        sys.path[:] = self._path
        os.environ.clear()
        os.environ.update(self._environment | self._variables)
        os.chdir(self._working_directory)
        shell.user_ns.update(spark=self._spark, dbutils=dbutils, display=display)

    def _imported(self) -> dict[str, ModuleType]:
        files = {name: str(getattr(module, "__file__", None)) for name, module in sys.modules.items()}
        return {name: sys.modules[name] for name, file in files.items() if file.startswith(self._workspace)}

    def _pip(self, line: str) -> None:
        # Nothing is installed: the test environment has these packages, and tests have no network.
        self.pip_lines.append(line)
        self._missing -= {word.partition("==")[0] for word in line.split()}

    def _installed(self, **wanted: Any) -> Iterator[importlib.metadata.Distribution]:
        return (it for it in self._discover(**wanted) if not self._missing or it.metadata["Name"] not in self._missing)

    def _finder(self, folder: str) -> FileFinder:
        """Import from ``/Workspace`` what is in the workspace's folder."""
        if not folder.startswith("/Workspace/"):
            raise ImportError(folder)
        return FileFinder(self._workspace + folder.removeprefix("/Workspace"), (SourceFileLoader, SOURCE_SUFFIXES))


def display(thing: Any) -> None:
    """Show a Spark DataFrame as a table, and anything else as IPython does."""
    if hasattr(thing, "toPandas"):
        thing = thing.limit(MOST_ROWS_DISPLAYED).toPandas()
    IPython.display.display(thing)


def _session(folder: Path, workspace_url: str) -> SparkSession:
    return (
        SparkSession.builder.appName("Databricks Shell")
        .master("local[2]")
        .config("spark.databricks.workspaceUrl", workspace_url)
        .config("spark.sql.warehouse.dir", str(folder / "warehouse"))
        .config("spark.local.dir", str(folder / "local_disk"))
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.legacy.createHiveTableByDefault", "false")
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "4")
        .config("spark.ui.enabled", "false")
        # Databricks does not show progress in the output of a cell; Spark does if a query takes half a second or more.
        .config("spark.ui.showConsoleProgress", "false")
        .getOrCreate()
    )
