"""Exceptions as text, which a test can compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def error_of(function: Callable[..., Any], *arguments: Any, **named: Any) -> str | None:
    """Call a function; return the type and message of its exception, or None if it does not raise one."""
    # MLflow's plugin for Azure ML raises plain Exceptions, too.
    try:
        function(*arguments, **named)
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    return None
