"""The form of each service's errors."""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timezone
from http import HTTPStatus
from xml.sax.saxutils import escape

from flask import Response


def json_answer(content: object, status: int = 200) -> Response:
    """Return an answer with a JSON body."""
    return Response(json.dumps(content), status, content_type="application/json; charset=utf-8")


def empty_answer(status: int) -> Response:
    """Return the answer of AML's MLflow API when its gateway, not the API itself, refuses a request.

    403: https://github.com/Azure/azure-sdk-for-python/issues/31429
    404: https://github.com/Azure/azure-sdk-for-python/issues/44896
    The same for 401, 429 and 503 is an assumption.
    """
    return Response(status=status)


def arm_error(status: int, code: str, message: str) -> Response:
    """Return an error of Azure Resource Manager.

    https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/common-deployment-errors
    """
    return json_answer({"error": {"code": code, "message": message}}, status)


def aml_error(status: int, code: str, message: str) -> Response:
    """Return an error of AML's artifact service, whose lower-case keys azure-core understands."""
    return json_answer({"error": {"code": code, "message": message}, "time": _now()}, status)


def mlflow_error(status: int, error_code: str, message: str, code: str = "UserError") -> Response:
    """Return an error of AML's MLflow API, without a ``message`` where MLflow looks for it.

    https://github.com/mlflow/mlflow/issues/15329 quotes an example.
    """
    error = {"Code": code, "Severity": None, "Message": message, "InnerError": None, "Details": []}
    content = {"Error": error, "Correlation": {}, "Time": _now(), "ComponentName": "mlflow"}
    return json_answer(content | {"statusCode": status, "error_code": error_code}, status)


def entra_error(status: int, error: str, number: int, message: str) -> Response:
    """Return an error of Entra ID's token endpoint.

    https://learn.microsoft.com/entra/identity-platform/reference-error-codes
    """
    trace, correlation = uuid.uuid4(), uuid.uuid4()
    description = f"AADSTS{number}: {message} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {_now()}"
    content = {"error": error, "error_description": description, "error_codes": [number]}
    return json_answer(content | {"trace_id": str(trace), "correlation_id": str(correlation)}, status)


def blob_error(status: int, code: str, message: str) -> Response:
    """Return an error of Blob Storage.

    https://learn.microsoft.com/rest/api/storageservices/status-and-error-codes2
    """
    error = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    body = f"<?xml version='1.0' encoding='utf-8'?>{error}"
    return Response(body, status, {"x-ms-error-code": code}, content_type="application/xml")


def service_error(path: str, status: int) -> Response:
    """Return an error in the form of the service behind ``path``."""
    name = HTTPStatus(status).phrase.replace(" ", "")
    message = f"The stand-in was told to answer {status}."
    if path.endswith("/.well-known/openid-configuration") and status == 400:
        # Entra ID's answer for a tenant that does not exist.
        return entra_error(status, "invalid_tenant", 90002, "Tenant 'stand-in' not found.")
    if path.startswith("/adfs/") and status == 429:
        # Entra ID's front door limits requests before Entra ID sees them.
        return empty_answer(status)
    if path.startswith("/adfs/"):
        return entra_error(status, "temporarily_unavailable", 90033, message)
    if path.startswith("/mlflow/"):
        return empty_answer(status)
    if path.startswith("/api/"):
        # https://docs.databricks.com/api/azure/workspace/introduction
        codes = {404: "RESOURCE_DOES_NOT_EXIST", 429: "REQUEST_LIMIT_EXCEEDED", 503: "TEMPORARILY_UNAVAILABLE"}
        return json_answer({"error_code": codes.get(status, name), "message": message}, status)
    if ".blob." in path:
        return blob_error(status, "ServerBusy" if status == 503 else name, message)
    return arm_error(status, name, message)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()
