"""Requests for predictions: conversion from AML's form to MLflow's and back.

AML: https://learn.microsoft.com/azure/machine-learning/how-to-deploy-mlflow-models
(its scoring script's input is under ``input_data``, its output is a list)
MLflow: https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

from flask import Response

from tests.stand_ins.azureml.errors import json_answer
from tests.stand_ins.azureml.model_server import ModelServer

# The part of the answer to swagger.json with version=3 that azureml-mlflow reads.
SWAGGER = {
    "openapi": "3.0.3",
    "paths": {"/score": {"post": {"operationId": "RunMLService"}}},
    "components": {"schemas": {"ServiceInput": {"type": "object"}, "ServiceOutput": {"type": "array"}}},
}


def answer(server: ModelServer, body: bytes, status_of_errors: int) -> Response:
    """Return a server's predictions, or its error.

    https://learn.microsoft.com/azure/machine-learning/how-to-troubleshoot-online-endpoints#http-status-codes

    Parameters
    ----------
    server : ModelServer
    body : bytes
        In AML's form; the answer to any other body is 400.
    status_of_errors : int
        The status that the client gets if the container's is not 200.
    """
    try:
        payload = body if server.takes_azureml else _to_mlflow(body)
    except ValueError as invalid:
        return scoring_error(400, "BadRequest", str(invalid))
    status, answered = server.score(payload)
    if status == 200:
        content = json.loads(answered)
        return json_answer(content if server.takes_azureml else content["predictions"])
    text = answered.decode(errors="replace")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        text = json.loads(text)["message"]
    failure = scoring_error(status_of_errors, "ModelError", text)
    failure.headers["ms-azureml-model-error-statuscode"] = str(status)
    failure.headers["ms-azureml-model-error-reason"] = "model_error"
    return failure


def scoring_error(status: int, code: str, message: str) -> Response:
    """Return an error where azureml-mlflow looks for its message."""
    return json_answer({"error": {"code": code, "message": message}}, status)


def _to_mlflow(body: bytes) -> bytes:
    """Convert a body in AML's form to the one that MLflow's scoring server accepts, or raise ValueError."""
    try:
        content = json.loads(body)
    except ValueError as invalid:
        raise ValueError(f"The request body is not valid JSON: {invalid}") from None
    if not isinstance(content, dict) or "input_data" not in content:
        raise ValueError("The request must be a JSON object with a top level key named 'input_data'.")
    data = content["input_data"]
    is_frame = isinstance(data, dict) and {"columns", "data"} <= data.keys()
    translated: dict[str, Any] = {"dataframe_split" if is_frame else "inputs": data}
    if "params" in content:
        translated["params"] = content["params"]
    return json.dumps(translated).encode()
