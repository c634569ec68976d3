"""References in double braces that a job resolves while it runs, and condition tasks.

https://learn.microsoft.com/azure/databricks/jobs/dynamic-value-references
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from helpers.jobs.bundle import as_text

_REFERENCE = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}")
_NAMESPACES = ("job.", "task.", "tasks.", "workspace.")
_COMPARISONS = {
    "GREATER_THAN": operator.gt,
    "GREATER_THAN_OR_EQUAL": operator.ge,
    "LESS_THAN": operator.lt,
    "LESS_THAN_OR_EQUAL": operator.le,
}


class UnknownReference(ValueError):
    """A reference names something that is not there."""


def resolve(text: str, known: Mapping[str, Any]) -> str:
    """Replace the references in a text.

    Parameters
    ----------
    text : str
    known : mapping of str to object
        Value by reference.

    Returns
    -------
    str
        What is in braces but in no namespace of Databricks stays as it is, as there.

    Raises
    ------
    UnknownReference
        If a reference has no value.
    """

    def value(match: re.Match) -> str:
        name = match[1].replace("`", "")
        if name in known:
            return as_text(known[name])
        if not name.startswith(_NAMESPACES):
            return match[0]
        near = [key for key in known if key.rsplit(".", 1)[0] == name.rsplit(".", 1)[0]]
        hint = f"; there are: {', '.join(near)}" if near else "; no task that ran before has set it"
        raise UnknownReference(f"{match[0]} has no value{hint}")

    return _REFERENCE.sub(value, text)


def condition_holds(op: str, left: str, right: str) -> bool:
    """Evaluate a condition task: equality compares texts, order compares numbers.

    Raises
    ------
    UnknownReference
        If an operand of an order is not a number.
    """
    if op in ("EQUAL_TO", "NOT_EQUAL"):
        return (left == right) == (op == "EQUAL_TO")
    try:
        return _COMPARISONS[op](float(left), float(right))
    except ValueError:
        raise UnknownReference(f"condition {left!r} {op} {right!r}: both must be numbers") from None


def start_time_references(now: datetime) -> dict[str, str]:
    """Return the references ``job.start_time.<part>`` for a time in UTC."""
    parts = {
        "year": f"{now.year}",
        "month": f"{now.month}",
        "day": f"{now.day}",
        "hour": f"{now.hour}",
        "minute": f"{now.minute}",
        "second": f"{now.second}",
        "timestamp_ms": f"{int(now.timestamp() * 1000)}",
        "iso_date": now.date().isoformat(),
        "iso_datetime": now.replace(tzinfo=None).isoformat(timespec="seconds"),
        "iso_weekday": f"{now.isoweekday()}",
        "is_weekday": as_text(now.isoweekday() < 6),
    }
    return {f"job.start_time.{part}": value for part, value in parts.items()}
