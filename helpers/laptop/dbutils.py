"""``dbutils`` on a laptop: the part of it that the bundle uses.

Widgets read their values from environment variables ``BUNDLE_PARAM_<NAME>``. Task values are
written to the JSON file that the job runner names in ``BUNDLE_TASK_VALUES``.
https://learn.microsoft.com/azure/databricks/dev-tools/databricks-utils
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

PARAMETER_PREFIX = "BUNDLE_PARAM_"
TASK_VALUES_FILE = "BUNDLE_TASK_VALUES"


class Widgets:
    """``dbutils.widgets``: parameters with a default, which an environment variable overrides."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def text(self, name: str, defaultValue: str, label: str | None = None) -> None:  # noqa: N803
        """Declare a parameter."""
        self._values[name] = os.environ.get(PARAMETER_PREFIX + name.upper(), defaultValue)

    def dropdown(self, name: str, defaultValue: str, choices: list[str], label: str | None = None) -> None:  # noqa: N803
        """Declare a parameter with choices (`helpers.parameters` checks them)."""
        self.text(name, defaultValue, label)

    def combobox(self, name: str, defaultValue: str, choices: list[str], label: str | None = None) -> None:  # noqa: N803
        """Declare a parameter with choices that also accepts other values."""
        self.text(name, defaultValue, label)

    def get(self, name: str) -> str:
        """Return a declared parameter's value."""
        return self._values[name]


class TaskValues:
    """``dbutils.jobs.taskValues``: results that a task passes to later tasks."""

    def set(self, key: str, value: Any) -> None:
        """Store a JSON-serializable value.

        Outside a job this only checks that the value is serializable, as on Databricks.
        """
        path = os.environ.get(TASK_VALUES_FILE)
        if not path:
            json.dumps(value)
            return
        file = Path(path)
        values = json.loads(file.read_text()) if file.exists() else {}
        draft = file.with_suffix(".draft")
        draft.write_text(json.dumps(values | {key: value}))
        draft.replace(file)


class Jobs:
    """``dbutils.jobs``."""

    def __init__(self) -> None:
        self.taskValues = TaskValues()


class LocalDbutils:
    """``dbutils``."""

    def __init__(self) -> None:
        self.widgets = Widgets()
        self.jobs = Jobs()
