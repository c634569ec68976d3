"""The part of Databricks' ``dbutils`` that this bundle uses, as strict as the real one.

Any other attribute raises AttributeError. Error messages are those of Databricks Runtime where a public source quotes
them: https://learn.microsoft.com/azure/databricks/dev-tools/databricks-utils
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError

MOST_BYTES_OF_A_TASK_VALUE = 48 * 1024


class JavaError(Py4JJavaError):
    """The error that py4j raises for an exception in the driver's JVM; here without a JVM."""

    def __init__(self, method: str, exception: str, message: str) -> None:
        Exception.__init__(self, f"An error occurred while calling o412.{method}.\n: {exception}: {message}")

    def __str__(self) -> str:
        return self.args[0]


@dataclass
class NotebookRun:
    """What the platform knows about one run of a notebook.

    Attributes
    ----------
    path : str
        Of the notebook in the workspace, without the ending of its file.
    task : str or None
        Key of the job's task; None if a user runs the notebook.
    given : dict of str to str
        In a job, its parameters. Otherwise, what a user typed into widgets after they were declared.
    task_values : dict of str to dict
        What each task of the job has set so far.
    secrets : dict of str to dict
        Keys and their values by scope.
    """

    path: str
    task: str | None = None
    given: dict[str, str] = field(default_factory=dict)
    task_values: dict[str, dict[str, Any]] = field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)


class Widgets:
    """``dbutils.widgets``."""

    def __init__(self, run: NotebookRun) -> None:
        # A job's parameters exist before any widget is declared.
        self._values = dict(run.given) if run.task else {}
        self._typed = {} if run.task else run.given

    def text(self, name: str, defaultValue: str, label: str | None = None) -> None:  # noqa: N803
        self._declare("text", name, defaultValue, None, label)

    def dropdown(self, name: str, defaultValue: str, choices: list[str], label: str | None = None) -> None:  # noqa: N803
        self._declare("dropdown", name, defaultValue, choices, label)

    def combobox(self, name: str, defaultValue: str, choices: list[str], label: str | None = None) -> None:  # noqa: N803
        self._declare("combobox", name, defaultValue, choices, label)

    def multiselect(self, name: str, defaultValue: str, choices: list[str], label: str | None = None) -> None:  # noqa: N803
        self._declare("multiselect", name, defaultValue, choices, label)

    def _declare(self, kind: str, name: str, default: str, choices: list[str] | None, label: str | None) -> None:
        texts = [name, default, *(choices or []), *([] if label is None else [label])]
        if not all(isinstance(text, str) for text in texts):
            classes = ", ".join(f"class {type(text).__name__}" for text in texts)
            raise Py4JError(
                f"An error occurred while calling o412.{kind}. Trace:\nMethod {kind}([{classes}]) not there"
            )
        value = self._typed.get(name, default)
        # A combobox accepts any text; only the other two are limited to their choices.
        if kind in ("dropdown", "multiselect") and not {default, value} <= set(choices or []):
            raise JavaError(
                kind, "java.lang.IllegalArgumentException", f"{value!r} of {name} must be one of its choices, {choices}"
            )
        # An existing widget keeps its value.
        self._values.setdefault(name, value)

    def get(self, name: str) -> str:
        self._require(name, "get")
        return self._values[name]

    def getAll(self) -> dict[str, str]:  # noqa: N802
        return dict(self._values)

    def remove(self, name: str) -> None:
        self._require(name, "remove")
        del self._values[name]

    def removeAll(self) -> None:  # noqa: N802
        self._values.clear()

    def _require(self, name: str, method: str) -> None:
        if name not in self._values:
            raise JavaError(
                method, "com.databricks.dbutils_v1.InputWidgetNotDefined", f"No input widget named {name} is defined"
            )


class TaskValues:
    """``dbutils.jobs.taskValues``."""

    def __init__(self, run: NotebookRun) -> None:
        self._run = run

    def get(self, taskKey: str, key: str, default: Any = None, debugValue: Any = None) -> Any:  # noqa: N803
        if self._run.task is None:
            if debugValue is None:
                raise TypeError(
                    "Must pass debugValue when calling get outside of a job context. debugValue cannot be None."
                )
            return debugValue
        if taskKey not in self._run.task_values:
            raise ValueError(f"Task key does not exist in run: {taskKey}")
        value = self._run.task_values[taskKey].get(key, default)
        if value is None:
            raise ValueError(f"Task {taskKey} has no value of key {key}, and no default was given")
        return value

    def set(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"key must be a string, not {key!r}")
        size = len(json.dumps(value, allow_nan=False).encode())
        if size > MOST_BYTES_OF_A_TASK_VALUE:
            raise ValueError(f"The JSON of {key} has {size} bytes, more than {MOST_BYTES_OF_A_TASK_VALUE}")
        if self._run.task is not None:
            self._run.task_values.setdefault(self._run.task, {})[key] = value


class Secrets:
    """``dbutils.secrets``. The notebook, not this class, redacts secrets in the output of a cell."""

    def __init__(self, run: NotebookRun) -> None:
        self._scopes = run.secrets

    def get(self, scope: str, key: str) -> str:
        if key not in self._scopes.get(scope, {}):
            message = f"Secret does not exist with scope: {scope} and key: {key}"
            raise JavaError("get", "java.lang.IllegalArgumentException", message)
        return self._scopes[scope][key]


class FileSystem:
    """``dbutils.fs``, for the paths that the driver sees."""

    def rm(self, dir: str, recurse: bool = False) -> bool:
        path = Path(dir)
        if path.is_dir() and any(path.iterdir()) and not recurse:
            raise JavaError("rm", "java.io.IOException", f"Directory {dir} is not empty")
        if path.is_dir():
            shutil.rmtree(path)
            return True
        existed = path.exists()
        path.unlink(missing_ok=True)
        return existed


class Notebook:
    """``dbutils.notebook``."""

    def __init__(self, run: NotebookRun) -> None:
        attributes = {"notebook_path": run.path} | ({"jobId": "1", "taskKey": run.task} if run.task else {})
        path = SimpleNamespace(get=lambda: run.path)
        context = SimpleNamespace(safeToJson=lambda: json.dumps({"attributes": attributes}), notebookPath=lambda: path)
        in_jvm = SimpleNamespace(notebook=lambda: SimpleNamespace(getContext=lambda: context))
        self.entry_point = SimpleNamespace(getDbutils=lambda: in_jvm)


class StrictDbutils:
    """``dbutils`` of one run of a notebook."""

    def __init__(self, run: NotebookRun, restart_python: Callable[[], None]) -> None:
        self.widgets = Widgets(run)
        self.jobs = SimpleNamespace(taskValues=TaskValues(run))
        self.secrets = Secrets(run)
        self.fs = FileSystem()
        self.notebook = Notebook(run)
        self.library = SimpleNamespace(restartPython=restart_python)
