"""A cluster of a Databricks workspace: a kernel that runs notebooks as Databricks does, and the result of each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from helpers.jobs.execute import kernel_sockets
from helpers.laptop.java import java_home
from tests import spark_connect
from tests.stand_ins.databricks_workspace import serverless

USER = "ada@example.com"
WORKSPACE_URL = "adb-1234567890123456.7.azuredatabricks.net"
REDACTED = "[REDACTED]"
# Not in a namespace that notebooks see.
# Guards against a cell that hangs.
_SECONDS_PER_CELL = 1800
_DRIVER = "__import__('sys').modules['tests.stand_ins.databricks_workspace.driver'].the_driver"
# Runs in each Python process with the platform on its path: notebooks, Spark's workers, and what notebooks start.
_EACH_PYTHON = "from tests.stand_ins.databricks_workspace import read_only\n\nread_only.protect({workspace!r})\n"
_START = (
    "import tests.stand_ins.databricks_workspace.driver as driver; driver.the_driver = driver.Driver(**{settings!r})"
)


@dataclass(frozen=True)
class Executed:
    """A notebook that ran.

    Attributes
    ----------
    notebook : nbformat.NotebookNode
        With its outputs, in which secrets are redacted as on Databricks.
    task_values : dict of str to object
    pip_lines : list of str
        The arguments of its ``%pip`` lines.
    restarts : int
        How often it restarted Python.
    imported : list of str
        The files of the workspace that it imported.
    """

    notebook: NotebookNode
    task_values: dict[str, Any]
    pip_lines: list[str]
    restarts: int
    imported: list[str]

    @property
    def shown(self) -> str:
        """The outputs of all cells, as JSON."""
        return json.dumps([cell.outputs for cell in self.notebook.cells if cell.cell_type == "code"])


class Cluster:
    """A cluster.

    Parameters
    ----------
    client : nbclient.NotebookClient
        A client with a kernel.
    loop : asyncio.AbstractEventLoop
        The event loop of the kernel.
    folder : pathlib.Path
        Its subfolder ``Workspace`` contains the workspace's files, ``warehouse`` the tables; ``databricks/driver`` is
        `elsewhere`, a working directory that is not a notebook's folder.
    secrets : dict of str to dict
        Keys and their values by scope.
    """

    def __init__(
        self, client: NotebookClient, loop: asyncio.AbstractEventLoop, folder: Path, secrets: dict[str, dict[str, str]]
    ) -> None:
        self._client, self._loop, self.folder, self._secrets = client, loop, folder, secrets
        self.workspace, self.elsewhere = folder / "Workspace", folder / "databricks" / "driver"
        # What the next notebooks find in their environment in addition.
        self.variables: dict[str, str] = {}

    @classmethod
    @contextlib.contextmanager
    def start(
        cls,
        folder: Path,
        environment: dict[str, str],
        java_options: str,
        secrets: dict[str, dict[str, str]],
        is_serverless: bool = False,
    ) -> Iterator[Cluster]:
        """Start a cluster, or serverless compute, and end it after the block.

        Parameters
        ----------
        folder : pathlib.Path
            An empty folder, for the workspace, the tables, the user's home and all temporary files.
        environment : dict of str to str
            The variables that the platform and the cluster's configuration set. This process's are not passed on.
        java_options : str
            Options of Spark's JVM.
        secrets : dict of str to dict
            Keys and their values by scope.
        is_serverless : bool, default False
            See `tests.stand_ins.databricks_workspace.serverless`.
        """
        workspace, elsewhere, platform = folder / "Workspace", folder / "databricks" / "driver", folder / "platform"
        for new in (workspace, elsewhere, folder / "home", folder / "tmp", platform / "tests" / "stand_ins"):
            new.mkdir(parents=True)
        # From there Python can import the driver's side, and nothing else of this repository.
        (platform / "tests" / "stand_ins" / Path(__file__).parent.name).symlink_to(Path(__file__).parent)
        (platform / "sitecustomize.py").write_text(_EACH_PYTHON.format(workspace=str(workspace)))
        variables = {
            "HOME": str(folder / "home"),
            "JAVA_HOME": str(java_home()),
            "LANG": "C.UTF-8",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYSPARK_PYTHON": sys.executable,
            "PYSPARK_SUBMIT_ARGS": f'--driver-java-options "{java_options}" pyspark-shell',
            "PYTHONPATH": str(platform),
            "SPARK_USER": USER,
            "TMPDIR": str(folder / "tmp"),
        }
        loop = asyncio.new_event_loop()
        with (
            contextlib.closing(loop),
            # The path of a socket is limited to about a hundred characters.
            tempfile.TemporaryDirectory() as sockets,
            (folder / "driver.log").open("wb") as log,
            contextlib.ExitStack() as stack,
        ):
            server = ""
            if is_serverless:
                # Serverless compute starts Spark itself, and has no JVM beside the notebook.
                del variables["PYSPARK_SUBMIT_ARGS"], variables["JAVA_HOME"]
                hidden = (workspace, folder / "home", folder / "tmp")
                settings = {"spark.databricks.workspaceUrl": WORKSPACE_URL}
                server = stack.enter_context(
                    spark_connect.server(
                        folder, java_options, hidden, settings, serverless.each_python(platform, folder), USER
                    )
                )
            client = NotebookClient(
                nbformat.v4.new_notebook(),
                timeout=_SECONDS_PER_CELL,
                kernel_name="python3",
                coalesce_streams=True,
                # Databricks also runs cells with the tag `skip-execution`.
                skip_cells_with_tag="",
                config=kernel_sockets(Path(sockets)),
            )
            kernel = client.async_setup_kernel(env=variables | environment, cwd=str(elsewhere), stdout=log, stderr=log)
            loop.run_until_complete(kernel.__aenter__())
            stack.callback(lambda: loop.run_until_complete(kernel.__aexit__(None, None, None)))
            cluster = cls(client, loop, folder, secrets)
            settings = {
                "folder": str(folder),
                "workspace": str(workspace),
                "workspace_url": WORKSPACE_URL,
                "server": server,
            }
            cluster._execute(_START.format(settings=settings))
            yield cluster

    def run(
        self,
        path: Path,
        given: dict[str, str] | None = None,
        task: str | None = None,
        task_values: dict[str, dict[str, Any]] | None = None,
        until: str | None = None,
        working_directory: Path | None = None,
        missing: Iterable[str] = (),
    ) -> Executed:
        """Run a notebook of the workspace.

        Parameters
        ----------
        path : pathlib.Path
        given, task, task_values
            See `tests.stand_ins.databricks_workspace.strict_dbutils.NotebookRun`.
        until : str, optional
            The last cell to run is the one that contains this text.
        working_directory : pathlib.Path, optional
            If it is not the notebook's folder.
        missing : iterable of str
            Packages that the compute lacks until the notebook installs them.

        Raises
        ------
        nbclient.exceptions.CellExecutionError
            If a cell fails.
        """
        run = {"given": given or {}, "task": task, "task_values": task_values or {}, "secrets": self._secrets}
        place = (str(path), str(working_directory or path.parent), list(missing), self.variables)
        self._execute(f"{_DRIVER}.attach(*{place!r}, **{run!r})")
        notebook = nbformat.read(path, as_version=4)
        self._client.nb = notebook
        self._client.reset_execution_trackers()
        try:
            for index, cell in enumerate(notebook.cells):
                self._loop.run_until_complete(self._client.async_execute_cell(cell, index))
                if until and until in cell.source:
                    break
        finally:
            for cell in notebook.cells:
                self._redact(cell)
        return Executed(notebook, *json.loads(self._execute(f"print({_DRIVER}.report())")))

    def _execute(self, code: str) -> str:
        """Execute code in the kernel, and return what it printed."""
        cell = nbformat.v4.new_code_cell(code)
        self._client.nb = nbformat.v4.new_notebook(cells=[cell])
        self._loop.run_until_complete(self._client.async_execute_cell(cell, 0, store_history=False))
        return "".join(output.text for output in cell.outputs if output.output_type == "stream")

    def _redact(self, cell: NotebookNode) -> None:
        if cell.cell_type == "code":
            cell.outputs = [nbformat.from_dict(self._redacted(output)) for output in cell.outputs]

    def _redacted(self, shown: Any) -> Any:
        if isinstance(shown, dict):
            # A short secret may occur in the base64 of a picture.
            return {key: shown[key] if key.startswith("image/") else self._redacted(shown[key]) for key in shown}
        if isinstance(shown, list):
            return [self._redacted(item) for item in shown]
        for value in [value for values in self._secrets.values() for value in values.values()]:
            shown = shown.replace(value, REDACTED) if isinstance(shown, str) else shown
        return shown
