"""The limits of Azure Machine Learning: what a copy can have of a run, and what is left out of it.

https://learn.microsoft.com/azure/machine-learning/resource-limits-capacity
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers.tracking.mirror import names
from helpers.tracking.mirror.errors import one_line

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run

PARAMETERS, TAGS, TAG_KEY, TAG_VALUE, RUN_NAME = 200, 50, 100, 1000, 256
# The copy has its own values of these tags.
_NOT_COPIED = names.OF_SOURCE | names.OF_COPY | {"mlflow.parentRunId", "mlflow.rootRunId", "mlflow.runName"}
# Error codes of a server that refuses the items of a request.
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")


@dataclass(frozen=True)
class Omission:
    """An item of a run that its copy lacks, or has in a shortened form.

    Attributes
    ----------
    kind : str
        ``tag``, ``parameter``, ``metric``, ``file`` and so on.
    name : str
    reason : str
    """

    kind: str
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.reason}"


def tags(source: Mapping[str, str], copied: Mapping[str, str]) -> tuple[dict[str, str], list[Omission]]:
    """Return the tags that a copy should have, and those that are left out or cut.

    The user's tags come first. MLflow's own tags (``mlflow.…``) get the remaining room.

    Parameters
    ----------
    source : mapping of str to str
        The tags of the source.
    copied : mapping of str to str
        The tags that the copy has.
    """
    chosen: dict[str, str] = {}
    omissions = []
    items = {key: value for key, value in source.items() if key not in _NOT_COPIED}
    # Leave room for the mirror's tags, for the parent, and for the tags that the server sets itself.
    room = TAGS - len(names.OF_COPY | {"mlflow.parentRunId"} | {key for key in copied if key not in items})
    for key in sorted(items, key=lambda key: (key not in copied, key.startswith("mlflow."), key)):
        if len(key) > TAG_KEY:
            reason = f"its name has {len(key)} characters, the limit is {TAG_KEY}"
            omissions.append(Omission("tag", f"{key[:40]}…", reason))
        elif len(chosen) == room:
            omissions.append(Omission("tag", key, f"a run can have {TAGS} tags"))
        else:
            chosen[key] = items[key][:TAG_VALUE]
            if len(items[key]) > TAG_VALUE:
                omissions.append(Omission("tag", key, f"cut from {len(items[key])} to {TAG_VALUE} characters"))
    # Always in the same order, so that the copy's note is written only once.
    return chosen, sorted(omissions, key=str)


def parameters(source: Mapping[str, str], copied: Mapping[str, str]) -> tuple[dict[str, str], list[Omission]]:
    """Return the parameters that a copy should have, and those that are left out."""
    keys = sorted(source, key=lambda key: (key not in copied, key))
    room = PARAMETERS - len(copied.keys() - source.keys())
    chosen = {key: source[key] for key in keys[:room]}
    omissions = [Omission("parameter", key, f"a run can have {PARAMETERS} parameters") for key in keys[room:]]
    return chosen, sorted(omissions, key=str)


def logged_model(model: LoggedModel, run: Run) -> list[Omission]:
    """Return what the copy lacks of a logged model, because it has only the model's files.

    A parameter counts only if the run has no parameter of this name and value: MLflow gives the parameters of a run
    to each of its models.
    """
    lacking = {
        "tags": {key for key in model.tags if not key.startswith("mlflow.")},
        "parameters": {key for key, value in model.params.items() if run.data.params.get(key) != value},
        "links from metrics": {metric.key for metric in model.metrics or []},
    }
    return [
        Omission(
            "logged model",
            model.name,
            f"Azure Machine Learning keeps its files only, not the {what} {', '.join(sorted(keys))}",
        )
        for what, keys in lacking.items()
        if keys
    ]


def send(
    items: list[Any], log: Callable[[list[Any]], object], refusals: tuple[str, ...] = REFUSALS
) -> list[tuple[Any, str]]:
    """Log items together; if the server refuses them, log all but the invalid ones.

    Parameters
    ----------
    items : list
    log : callable
        Logs a list of items. It may be called with parts of `items`.
    refusals : tuple of str
        MLflow's error codes that mean that an item is invalid.

    Returns
    -------
    list of tuple of (object, str)
        Items that the server refuses, each with the reason.

    Raises
    ------
    mlflow.exceptions.MlflowException
        If the server cannot be reached, or fails for another reason.
    """
    from mlflow.exceptions import MlflowException

    if not items:
        return []
    try:
        log(items)
    except MlflowException as error:
        if error.error_code not in refusals:
            raise
        if len(items) == 1:
            return [(items[0], one_line(error))]
        middle = len(items) // 2
        return send(items[:middle], log, refusals) + send(items[middle:], log, refusals)
    return []
