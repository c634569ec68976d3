"""Execute one notebook in its own kernel, and keep the executed notebook with an HTML copy."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import runtime
from helpers.jobs.html import write_html
from helpers.jobs.report import CellProgress
from helpers.jobs.results import CANCELED, FAILED, SUCCESS, TIMEDOUT, TaskResult
from helpers.laptop import jvm, spark
from helpers.laptop.dbutils import PARAMETER_PREFIX, TASK_VALUES_FILE
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from traitlets.config import Config

    from helpers.laptop.jvm import SharedJvm


def execute_notebook(
    path: Path, parameters: Mapping[str, str], executed: Path, task: str, seconds: float | None
) -> TaskResult:
    """Execute a notebook.

    Parameters
    ----------
    path : pathlib.Path
        The notebook; its folder is the kernel's working directory.
    parameters : mapping of str to str
        Value of each parameter.
    executed : pathlib.Path
        File for the executed notebook. The HTML copy and the kernel's log go into the same folder.
    task : str
        Name to print.
    seconds : float or None
        Time limit.

    Returns
    -------
    TaskResult
        SUCCESS, FAILED, TIMEDOUT or CANCELED, of one attempt.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    from helpers.jobs.kernels import fork_kernel_of

    notebook = nbformat.read(path, as_version=4)
    html_file, log_file = executed.with_suffix(".html"), executed.with_suffix(".log")
    result = TaskResult(
        SUCCESS, notebook=path.name, executed_notebook=str(executed), html=str(html_file), log=str(log_file)
    )
    with (
        tempfile.TemporaryDirectory() as scratch,
        log_file.open("wb") as log,
        CellProgress(task, notebook) as progress,
    ):
        task_values = Path(scratch, "task_values.json")
        # Only the job's parameters count, not those in the environment of the runner.
        environment = {key: value for key, value in os.environ.items() if not key.startswith(PARAMETER_PREFIX)}
        environment |= {PARAMETER_PREFIX + name.upper(): value for name, value in parameters.items()}
        environment |= {TASK_VALUES_FILE: str(task_values), "BUNDLE_LOCAL_DIR": str(runtime.local_dir())}
        uses_spark = any("spark" in cell.source for cell in notebook.cells if cell.cell_type == "code")
        spark_jvm = spark.shared_jvm(runtime.make_local_dir(), path.parent) if uses_spark else None
        client = NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            resources={"metadata": {"path": str(path.parent)}},
            coalesce_streams=True,
            on_cell_start=progress.on_cell_start,
            config=kernel_sockets(Path(scratch)),
        )
        fork_kernel_of(client, environment)
        try:
            asyncio.run(_execute(client, seconds, spark_jvm, env=environment, stdout=log, stderr=log))
        except CellExecutionError as error:
            result.state, result.error = FAILED, f"{error.ename}: {error.evalue}"
            result.is_retryable = error.ename != ParameterError.__name__
        except DeadKernelError:
            result.state, result.error = FAILED, f"the kernel died; see {result.log}"
        except asyncio.TimeoutError:
            result.state, result.error = TIMEDOUT, f"not done after {seconds:.0f} s (timeout_seconds)"
        except KeyboardInterrupt:
            result.state, result.error = CANCELED, "interrupted"
        if result.state != SUCCESS:
            # Spark may still work for a kernel that had no time to end.
            jvm.stop()
        if result.error:
            result.error = f"{progress.where}: {result.error}"
        if task_values.exists():
            result.task_values = json.loads(task_values.read_text())
    nbformat.write(notebook, executed)
    write_html(notebook, task, path.parent, html_file)
    return result


def kernel_sockets(folder: Path) -> Config:
    """Return the settings with which a kernel uses sockets in a folder instead of ports.

    Jupyter chooses free ports before the kernel opens them: two kernels that start at the same time
    may get the same port, and one of them dies. Windows has no such sockets; kernels use ports there.
    https://jupyter-client.readthedocs.io/en/stable/kernels.html#connection-files
    """
    from traitlets.config import Config

    if os.name != "posix":
        return Config()
    return Config(KernelManager={"transport": "ipc", "connection_file": str(folder / "kernel.json")})


async def _execute(client: Any, seconds: float | None, spark_jvm: SharedJvm | None, **kernel: Any) -> None:
    """Execute a notebook; after a timeout or a signal, end its kernel.

    Raises
    ------
    asyncio.TimeoutError
        If it is not done after `seconds`.
    KeyboardInterrupt
        If the process received SIGINT or SIGTERM.
    """
    if spark_jvm:
        kernel["env"] = kernel["env"] | await _unless_interrupted(asyncio.to_thread(spark_jvm.environment), seconds)
    try:
        await _unless_interrupted(client.async_execute(**kernel), seconds)
    except (KeyboardInterrupt, asyncio.TimeoutError):
        # nbclient ends a kernel that has started, not one that is still starting.
        if client.km is not None and await client.km.is_alive():
            await client.km.shutdown_kernel(now=True)
        raise


async def _unless_interrupted(work: Coroutine[Any, Any, Any], seconds: float | None) -> Any:
    """Return the result of some work, or cancel it and raise what `_execute` raises.

    nbclient itself mistakes a cancellation from outside for the death of the kernel, and on a signal
    it only ends the kernel. So this function watches the clock and the signals.
    """
    interrupted = asyncio.Event()
    working = asyncio.ensure_future(work)
    # nbclient sets its own signal handlers before it waits for the first time.
    await asyncio.sleep(0)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupted.set)
    interruption = asyncio.ensure_future(interrupted.wait())
    await asyncio.wait([working, interruption], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    interruption.cancel()
    if not working.done():
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        raise KeyboardInterrupt if interrupted.is_set() else asyncio.TimeoutError
    return working.result()
