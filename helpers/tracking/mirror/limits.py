"""What Azure Machine Learning takes of a run: items mapped to its limits, and what it leaves out.

https://learn.microsoft.com/azure/machine-learning/resource-limits-capacity
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers.tracking.mirror import names

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run

PARAMETERS, TAGS, TAG_KEY, TAG_VALUE, RUN_NAME = 200, 50, 100, 1000, 256
# Said by the copy's own server, or in the copy's own words.
_NOT_COPIED = names.OF_SOURCE | names.OF_COPY | {"mlflow.parentRunId", "mlflow.rootRunId", "mlflow.runName"}


@dataclass(frozen=True)
class LeftOut:
    """Something of a run that its copy does not have as it was.

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


def tags(source: Mapping[str, str], there: Mapping[str, str]) -> tuple[dict[str, str], list[LeftOut]]:
    """Return the tags that a copy should have, and what is left out or cut.

    The user's come first, MLflow's own (``mlflow.…``) have what room is left.

    Parameters
    ----------
    source : mapping of str to str
        The source's tags.
    there : mapping of str to str
        Those that the copy has.
    """
    wanted: dict[str, str] = {}
    left_out = []
    items = {key: value for key, value in source.items() if key not in _NOT_COPIED}
    # Room for the mirror's tags, for the parent, and for what the server sets itself.
    room = TAGS - len(names.OF_COPY | {"mlflow.parentRunId"} | {key for key in there if key not in items})
    for key in sorted(items, key=lambda key: (key not in there, key.startswith("mlflow."), key)):
        if len(key) > TAG_KEY:
            left_out.append(LeftOut("tag", f"{key[:40]}…", f"its name has {len(key)} characters, {TAG_KEY} are taken"))
        elif len(wanted) == room:
            left_out.append(LeftOut("tag", key, f"a run takes {TAGS} tags"))
        else:
            wanted[key] = items[key][:TAG_VALUE]
            if len(items[key]) > TAG_VALUE:
                left_out.append(LeftOut("tag", key, f"cut from {len(items[key])} to {TAG_VALUE} characters"))
    # Always in the same order, so that the copy's note is written once.
    return wanted, sorted(left_out, key=str)


def parameters(source: Mapping[str, str], there: Mapping[str, str]) -> tuple[dict[str, str], list[LeftOut]]:
    """Return the parameters that a copy should have, and what is left out."""
    keys = sorted(source, key=lambda key: (key not in there, key))
    room = PARAMETERS - len(there.keys() - source.keys())
    wanted = {key: source[key] for key in keys[:room]}
    left_out = [LeftOut("parameter", key, f"a run takes {PARAMETERS} parameters") for key in keys[room:]]
    return wanted, sorted(left_out, key=str)


def logged_model(model: LoggedModel, run: Run) -> list[LeftOut]:
    """Return what a logged model has beside its files; the copy has the files only.

    Its parameters are left out where they differ from the run's, which MLflow gives each model.
    """
    beside = {
        "tags": {key for key in model.tags if not key.startswith("mlflow.")},
        "parameters": {key for key, value in model.params.items() if run.data.params.get(key) != value},
        "links from metrics": {metric.key for metric in model.metrics or []},
    }
    return [
        LeftOut(
            "logged model",
            model.name,
            f"Azure Machine Learning keeps its files only, not the {what} {', '.join(sorted(keys))}",
        )
        for what, keys in beside.items()
        if keys
    ]


REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")


def send(
    items: list[Any], log: Callable[[list[Any]], object], refusals: tuple[str, ...] = REFUSALS
) -> list[tuple[Any, str]]:
    """Log items together; if they are refused, all but those that are to blame.

    Parameters
    ----------
    items : list
    log : callable
        Takes a list of items, and may be called with parts of it.
    refusals : tuple of str
        MLflow's codes of errors that the items are to blame for.

    Returns
    -------
    list of tuple of (object, str)
        Items that the server refuses, each with its reason.

    Raises
    ------
    mlflow.exceptions.MlflowException
        If the server cannot be asked, or for other reasons than the items.
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
            return [(items[0], str(error).strip().splitlines()[0][:300])]
        middle = len(items) // 2
        return send(items[:middle], log, refusals) + send(items[middle:], log, refusals)
    return []
