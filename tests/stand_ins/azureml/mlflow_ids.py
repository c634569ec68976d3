"""Conversion between AML's ids of experiments and runs, which are UUIDs, and those of the MLflow server behind it.

https://github.com/mlflow/mlflow/issues/11103 shows both, and a run's artifact URI.
"""

from __future__ import annotations

import re
import uuid
from typing import Any

from tests.stand_ins.azureml import names

_EXPERIMENTS = "44444444-dddd-4ddd-8ddd-"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_RUN_ID_CLAUSE = re.compile(r"^(?:attributes?\.)?`?run_id\b")


def to_mlflow(key: str, value: Any) -> Any:
    """Return an argument of a request with the ids of the MLflow server."""
    if key in ("experiment_ids", "order_by"):
        return [to_mlflow("experiment_id" if key == "experiment_ids" else "", item) for item in value]
    if key == "experiment_id" and isinstance(value, str) and value.startswith(_EXPERIMENTS):
        return str(int(value.removeprefix(_EXPERIMENTS)))
    if key in ("run_id", "run_uuid") and isinstance(value, str):
        return _without_dashes(value)
    if key == "filter" and isinstance(value, str):
        clauses = re.split(r"(\s+and\s+)", value, flags=re.IGNORECASE)
        return "".join(_without_dashes(item) if _RUN_ID_CLAUSE.match(item.strip()) else item for item in clauses)
    return value


def from_mlflow(content: Any, host: str) -> Any:
    """Return an answer with AML's ids and artifact URIs at any depth."""
    if isinstance(content, list):
        return [from_mlflow(item, host) for item in content]
    if not isinstance(content, dict):
        return content
    answer = {key: _from_mlflow(key, from_mlflow(value, host)) for key, value in content.items()}
    if "artifact_uri" in answer and "run_id" in answer:
        run = f"experiments/{answer['experiment_id']}/runs/{answer['run_id']}/artifacts"
        answer["artifact_uri"] = f"azureml://{host}/mlflow/v2.0{names.workspace_resource_id()}/{run}"
    return answer


def _from_mlflow(key: str, value: Any) -> Any:
    if key == "experiment_id":
        return f"{_EXPERIMENTS}{int(value):012d}"
    if key in ("run_id", "run_uuid") and re.fullmatch(r"[0-9a-f]{32}", value):
        return str(uuid.UUID(value))
    # Only the answers for runs have an artifact URI, those for experiments do not.
    return "" if key == "artifact_location" else value


def _without_dashes(text: str) -> str:
    return _UUID.sub(lambda found: found[0].replace("-", ""), text)
