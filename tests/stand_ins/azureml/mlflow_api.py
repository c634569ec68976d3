"""AML's MLflow API: MLflow's own server with AML's rules and ids."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, request

from tests.stand_ins.azureml import mlflow_ids, mlflow_rules, names
from tests.stand_ins.azureml.errors import empty_answer, json_answer, mlflow_error

_METHODS = ["GET", "POST", "PATCH", "DELETE"]
_API = "/api/2.0/mlflow/"


class MLflowServer:
    """MLflow's Flask app on a SQLite store in a folder, called without a network."""

    def __init__(self, folder: Path) -> None:
        os.environ["_MLFLOW_SERVER_FILE_STORE"] = f"sqlite:///{folder / 'mlflow.db'}"
        os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = "azureml://stand-in"
        # MLflow reads both when it is imported.
        from mlflow.server import app

        self._app = app

    def call(self, method: str, endpoint: str, arguments: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return status and content of the answer to one request."""
        sent = {"query_string": arguments} if method == "GET" else {"json": arguments}
        answer = self._app.test_client().open(_API + endpoint, method=method, **sent)
        return answer.status_code, answer.get_json(silent=True) or {"message": answer.get_data(as_text=True)}

    def run(self, run_id: str) -> dict[str, Any]:
        """Return info and data of a run, or an empty result if it does not exist."""
        arguments = {"run_id": mlflow_ids.to_mlflow("run_id", run_id)}
        return self.call("GET", "runs/get", arguments)[1].get("run", {})


class MLflowApi:
    """The API of one workspace.

    Parameters
    ----------
    host : str
        Host and port of the server.
    mlflow_server : MLflowServer
    artifacts_exist_under : callable
        Whether there are artifacts under ``<origin>/<container>/<path>``.
    workspace : str
        The one of `names.WORKSPACE`, or another one. That has models of its own; they have its name before theirs on the
        MLflow server.
    """

    def __init__(
        self,
        host: str,
        mlflow_server: MLflowServer,
        artifacts_exist_under: Callable[[str], bool],
        workspace: str = names.WORKSPACE,
    ) -> None:
        self._host = host
        self._mlflow = mlflow_server
        self._artifacts_exist_under = artifacts_exist_under
        self._prefix = "" if workspace == names.WORKSPACE else f"{workspace}--"
        resource_id = names.workspace_resource_id(workspace)
        self._run_source = re.compile(
            rf"azureml://{re.escape(host)}/mlflow/v[12]\.0{re.escape(resource_id)}/experiments/[^/]+/runs/([^/]+)/artifacts/(.+)"
        )
        self.blueprint = Blueprint(f"mlflow_api_{workspace}", __name__)
        api = f"/mlflow/<version>{resource_id}/api"
        self.blueprint.post(f"{api}/2.0/preview/mlflow/runs/log-batch-async")(self._log_batch_async)
        self.blueprint.route(f"{api}/2.0/mlflow/<path:endpoint>", methods=_METHODS)(self._answer)
        self.blueprint.route(f"{api}/<path:other>", methods=_METHODS)(_no_such_api)

    def _answer(self, version: str, endpoint: str) -> Response:
        if endpoint not in mlflow_rules.ENDPOINTS:
            return _no_such_api(version, endpoint)
        arguments = _arguments()
        reason = mlflow_rules.refusal(endpoint, arguments, lambda run_id: self._mlflow.run(run_id).get("data", {}))
        if reason is not None:
            return mlflow_error(400, "INVALID_PARAMETER_VALUE", reason, "ValidationError")
        if endpoint == "experiments/get-by-name" and "/" in arguments.get("experiment_name", ""):
            # https://github.com/Azure/azure-sdk-for-python/issues/45209
            message = f"Experiment {arguments['experiment_name']} not found."
            return mlflow_error(404, "RESOURCE_DOES_NOT_EXIST", message)
        if endpoint == "model-versions/create":
            reason = self._refusal_of_version(arguments)
            if reason is not None:
                return mlflow_error(400, "INVALID_PARAMETER_VALUE", reason, "ValidationError")
            # MLflow 3's link to a logged model, which AML does not have.
            arguments.pop("model_id", None)
        of_models = self._prefix and endpoint.startswith(("registered-models/", "model-versions/"))
        if of_models:
            arguments = _with_prefix(arguments, self._prefix)
        status, content = self._mlflow.call(request.method, endpoint, _to_mlflow(arguments))
        if status != 200:
            return mlflow_error(status, content.get("error_code", "INTERNAL_ERROR"), content.get("message", ""))
        answer = mlflow_ids.from_mlflow(content, self._host)
        if of_models:
            answer = _without_prefix(answer, self._prefix)
        if endpoint == "experiments/search":
            answer["experiments"] = [item for item in answer.get("experiments", []) if "/" not in item["name"]]
        return json_answer(answer)

    def _log_batch_async(self, version: str) -> Response:
        answer = self._answer(version, "runs/log-batch")
        # Without an id the plugin does not wait any longer.
        return json_answer({"batch_tracking_id": ""}) if answer.status_code == 200 else answer

    def _refusal_of_version(self, arguments: dict[str, Any]) -> str | None:
        """Return why a model version is refused: only artifacts of this workspace are accepted.

        The wording is that of https://github.com/mlflow/mlflow/issues/15329.
        """
        source, run_id = arguments.get("source", ""), arguments.get("run_id", "")
        if run_id and not self._mlflow.run(run_id):
            return f"Run {run_id} was not found"
        of_run = self._run_source.fullmatch(source)
        if of_run:
            if run_id and run_id != of_run[1]:
                return f"Model source {source} does not belong to run {run_id}"
            artifacts = f"ExperimentRun/dcid.{of_run[1]}/{of_run[2]}"
        elif source.startswith("azureml://artifacts/"):
            artifacts = source.removeprefix("azureml://artifacts/")
        else:
            form = "azureml://artifacts/<origin>/<container>/<artifact_prefix>"
            return f"Model source from file must be in the following format: {form}. Provided model source: {source}"
        if not self._artifacts_exist_under(artifacts):
            return f"No artifacts were found under {artifacts}"
        return None


def _with_prefix(arguments: dict[str, Any], prefix: str) -> dict[str, Any]:
    changed = {"name": f"{prefix}{arguments['name']}"} if "name" in arguments else {}
    if "filter" in arguments:
        changed["filter"] = re.sub(r"name\s*=\s*'", rf"\g<0>{prefix}", arguments["filter"])
    return arguments | changed


def _without_prefix(content: Any, prefix: str) -> Any:
    if isinstance(content, list):
        return [_without_prefix(item, prefix) for item in content]
    if isinstance(content, dict):
        return {key: _without_prefix(value, prefix) for key, value in content.items()}
    return content.removeprefix(prefix) if isinstance(content, str) else content


def _no_such_api(version: str, other: str) -> Response:
    return empty_answer(404)


def _arguments() -> dict[str, Any]:
    if request.method != "GET":
        return json.loads(request.get_data() or b"{}")
    repeated = ("order_by", "experiment_ids")
    return {key: values if key in repeated else values[0] for key, values in request.args.lists()}


def _to_mlflow(arguments: dict[str, Any]) -> dict[str, Any]:
    return {key: mlflow_ids.to_mlflow(key, value) for key, value in arguments.items()}
