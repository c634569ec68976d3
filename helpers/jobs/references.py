"""References in double braces, which a job resolves while it runs.

https://learn.microsoft.com/azure/databricks/jobs/dynamic-value-references
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from helpers.parameters import as_text

_REFERENCE = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}")
_NAMESPACES = ("job.", "task.", "tasks.", "workspace.")


class UnknownReference(ValueError):
    """A reference has no value."""


def resolve(text: str, known: Mapping[str, Any]) -> str:
    """Replace the references in a text.

    Parameters
    ----------
    text : str
    known : mapping of str to object
        Value of each reference, by its name without braces.

    Returns
    -------
    str
        Text in braces that is in none of Databricks' namespaces stays as it is, as on Databricks.

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


def start_time_references(now: datetime) -> dict[str, str]:
    """Return the values of ``job.start_time.<part>`` for a time in UTC."""
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
