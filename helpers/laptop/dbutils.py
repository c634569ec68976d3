"""The part of Databricks' ``dbutils`` that the bundle uses, for a laptop.

Widgets take their values from environment variables ``BUNDLE_PARAM_<NAME>``; task values
go to the JSON file that the job runner names in ``BUNDLE_TASK_VALUES``.
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
    """Parameters: declared with a default, overridden by the environment."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def text(self, name: str, defaultValue: str, label: str | None = None) -> None:  # noqa: N803
        """Declare a parameter."""
        self._values[name] = os.environ.get(PARAMETER_PREFIX + name.upper(), defaultValue)

    def dropdown(self, name: str, defaultValue: str, choices: list[str], label: str | None = None) -> None:  # noqa: N803
        """Declare a parameter with choices (`helpers.parameters` checks them)."""
        self.text(name, defaultValue, label)

    def get(self, name: str) -> str:
        """Return a declared parameter's value."""
        return self._values[name]


class TaskValues:
    """Results that a task hands to the tasks after it."""

    def set(self, key: str, value: Any) -> None:
        """Keep a JSON-serializable value; outside a job this does nothing, as on Databricks."""
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
    """``dbutils``, as far as the bundle needs it."""

    def __init__(self) -> None:
        self.widgets = Widgets()
        self.jobs = Jobs()
