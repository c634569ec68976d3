"""Operations that take longer than a request: work in a thread, and the addresses that report its status.

https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations
"""

from __future__ import annotations

import threading
import traceback
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from flask import Blueprint, Response, request

from tests.stand_ins.azureml import names
from tests.stand_ins.azureml.arm import missing
from tests.stand_ins.azureml.errors import arm_error, json_answer

# A fraction, so that tests are quick: azure-core treats 0 as a missing header, and then waits 30 seconds.
RETRY_AFTER = "0.2"
_LOCATION = "/subscriptions/<subscription>/providers/Microsoft.MachineLearningServices/locations/<location>"


class OperationError(Exception):
    """The reason why an operation failed.

    Parameters
    ----------
    message : str
    code : str or None
        AML has no code where it passes on a container's error.
    """

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message}


class Operation:
    """Work in progress; ``status`` is InProgress, Succeeded or Failed.

    Parameters
    ----------
    work : callable
        May raise `OperationError`.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self.id = str(uuid.uuid4())
        self.start_time = datetime.now(timezone.utc).isoformat()
        self.error: dict[str, Any] | None = None
        self._status = "InProgress"
        self._asked = False
        threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def status(self) -> str:
        """Return the status. The first answer is InProgress, so that every client has to ask again."""
        status = self._status if self._asked else "InProgress"
        self._asked = True
        return status

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OperationError as failure:
            self.error = failure.error
        except Exception as failure:  # noqa: BLE001
            traceback.print_exc()
            self.error = {"code": "InternalServerError", "message": f"{type(failure).__name__}: {failure}"}
        self._status = "Failed" if self.error else "Succeeded"


class Operations:
    """Operations by id.

    Parameters
    ----------
    url : str
        Of the server.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._operations: dict[str, Operation] = {}
        self.blueprint = routes = Blueprint("operations", __name__)
        routes.before_request(missing)
        routes.get(f"{_LOCATION}/mfeOperationsStatus/<operation>")(self._status)
        routes.get(f"{_LOCATION}/mfeOperationResults/<operation>")(self._result)

    def start(self, work: Callable[[], None]) -> Operation:
        """Start an operation."""
        operation = Operation(work)
        self._operations[operation.id] = operation
        return operation

    def get(self, operation_id: str) -> Operation | None:
        """Return an operation, or None if it does not exist."""
        return self._operations.get(operation_id)

    def accepted(self, content: Any, status: int, operation: Operation) -> Response:
        """Return the answer to the request that started an operation."""
        answer = json_answer(content, status) if content is not None else Response(status=status)
        region = f"/subscriptions/{names.SUBSCRIPTION_ID}/providers/Microsoft.MachineLearningServices/locations"
        address = f"{self._url}{region}/{names.REGION}/{{}}/{operation.id}?api-version={request.args['api-version']}"
        answer.headers["Azure-AsyncOperation"] = address.format("mfeOperationsStatus")
        answer.headers["Location"] = address.format("mfeOperationResults")
        answer.headers["x-ms-async-operation-timeout"] = "PT1H"
        # Not Retry-After: AML's generated clients expect a whole number there.
        answer.headers["x-ms-retry-after-ms"] = str(int(float(RETRY_AFTER) * 1000))
        return answer

    def _status(self, operation: str, **_: str) -> Response:
        started = self.get(operation)
        if started is None:
            return _no_such_operation(operation)
        content = {"id": request.path, "name": operation, "status": started.status(), "startTime": started.start_time}
        if content["status"] == "Failed":
            content["error"] = started.error
        answer = json_answer(content)
        answer.headers["Retry-After"] = RETRY_AFTER
        return answer

    def _result(self, operation: str, **_: str) -> Response:
        started = self.get(operation)
        if started is None:
            return _no_such_operation(operation)
        status = started.status()
        if status == "Failed":
            return json_answer({"error": started.error}, 400)
        answer = Response(status=202 if status == "InProgress" else 204)
        answer.headers |= {"Retry-After": RETRY_AFTER, "Location": request.url}
        return answer


def _no_such_operation(operation: str) -> Response:
    return arm_error(404, "NotFound", f"The operation '{operation}' was not found.")
