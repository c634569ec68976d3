"""What AML's MLflow API refuses although MLflow's own server accepts it.

Limits: https://learn.microsoft.com/azure/machine-learning/resource-limits-capacity
Runs: https://learn.microsoft.com/azure/machine-learning/how-to-track-experiments-mlflow (support matrix)
Models: https://learn.microsoft.com/azure/machine-learning/how-to-manage-models-mlflow (support matrix)
Where the documentation only says "not supported", status 400 is an assumption.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

PARAMETERS, TAGS, TAG_KEY, TAG_VALUE, METRIC_ROWS, METRIC_NAMES = 200, 50, 100, 1000, 250, 50
DISPLAY_NAME = 256

# All others (of MLflow 3, or for aliases) get a 404, as logged-models does.
ENDPOINTS = {
    f"{group}/{name}"
    for group, listed in {
        "experiments": "create delete get get-by-name restore search set-experiment-tag update",
        "runs": "create delete delete-tag get log-batch log-inputs log-metric log-model log-parameter restore search"
        " set-tag update",
        "metrics": "get-history",
        "registered-models": "create delete delete-tag get get-latest-versions rename search set-tag update",
        "model-versions": "create delete delete-tag get get-download-uri search set-tag transition-stage update",
    }.items()
    for name in listed.split()
}
_UNSUPPORTED = {
    "experiments/update": "Renaming an experiment is not supported.",
    "registered-models/rename": "Registered models are immutable objects in Azure Machine Learning.",
    "registered-models/delete": "Registered models are immutable objects in Azure Machine Learning.",
}


def refusal(endpoint: str, arguments: dict[str, Any], run: Callable[[str], dict[str, Any]]) -> str | None:
    """Return why a request is refused, or None.

    Parameters
    ----------
    endpoint : str
        Such as ``runs/create``.
    arguments : dict
        From the query or the body.
    run : callable
        Returns the data of a run by its id: ``params`` and ``tags`` as lists.
    """
    if endpoint in _UNSUPPORTED:
        return _UNSUPPORTED[endpoint]
    if endpoint == "runs/search":
        return _search_of_runs(arguments.get("filter") or "", arguments.get("order_by") or [])
    if endpoint == "registered-models/search":
        return _search_of_models(arguments.get("filter") or "")
    if endpoint.startswith("runs/"):
        return _over_the_limits(endpoint, arguments, run)
    return None


def _search_of_runs(condition: str, order_by: list[str]) -> str | None:
    for item in order_by:
        if re.match(r"\s*`?(metrics?|param(eter)?s?|tags?)\.", item, re.IGNORECASE):
            return f"Ordering runs by {item!r} is not supported: only attributes are."
    outside_quotes = re.sub(r"'[^']*'", "''", condition)
    if re.search(r"\sor\s", outside_quotes, re.IGNORECASE):
        return "Operator OR is not supported in a filter."
    if re.search(r"\btags?\.\S+\s*!=", outside_quotes, re.IGNORECASE):
        return "Comparator != is not supported for tags."
    if re.search(r"\bmetrics?\.[`\"]", outside_quotes, re.IGNORECASE):
        return "Names of metrics with special characters are not supported in a filter."
    return None


def _search_of_models(condition: str) -> str | None:
    """Return why a search for models is refused. All searches that MLflow's client has sent since 2.21 are.

    It adds a condition on a tag to leave out prompts: https://github.com/Azure/azure-sdk-for-python/issues/42155
    """
    outside_quotes = re.sub(r"'[^']*'", "''", condition)
    if re.search(r"\bi?like\b|\btags?\.", outside_quotes, re.IGNORECASE):
        support = "Currently unsupported filter string format (we currently do not support OR)."
        return f"{support} Provided filter string: {condition}"
    return None


def _over_the_limits(endpoint: str, arguments: dict[str, Any], run: Callable[[str], dict[str, Any]]) -> str | None:
    if endpoint in ("runs/create", "runs/update") and len(arguments.get("run_name") or "") > DISPLAY_NAME:
        return f"A run's name may have {DISPLAY_NAME} characters."
    metrics = Counter(metric["key"] for metric in arguments.get("metrics") or [])
    if len(metrics) > METRIC_NAMES:
        return f"A request may hold {METRIC_NAMES} metric names; this one has {len(metrics)}."
    for key, rows in metrics.items():
        if rows > METRIC_ROWS:
            return f"A request may hold {METRIC_ROWS} rows of one metric; this one has {rows} of {key!r}."
    tags = list(arguments.get("tags") or [])
    parameters = list(arguments.get("params") or [])
    if endpoint == "runs/set-tag":
        tags = [arguments]
    if endpoint == "runs/log-parameter":
        parameters = [arguments]
    for tag in tags:
        if len(tag["key"]) > TAG_KEY or len(tag.get("value", "")) > TAG_VALUE:
            sizes = f"key may have {TAG_KEY} and its value {TAG_VALUE} characters"
            return f"A tag's {sizes}; tag {tag['key'][:TAG_KEY]!r} has more."
    if not tags and not parameters:
        return None
    data = run(arguments["run_id"]) if "run_id" in arguments else {}
    if len(_keys(data.get("tags", []), tags)) > TAGS:
        return f"A run may have {TAGS} tags."
    if len(_keys(data.get("params", []), parameters)) > PARAMETERS:
        return f"A run may have {PARAMETERS} parameters."
    return None


def _keys(*lists: Iterable[dict[str, Any]]) -> set[str]:
    return {item["key"] for items in lists for item in items}
