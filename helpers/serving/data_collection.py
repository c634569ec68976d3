"""Collect the requests of a local endpoint in files, as Azure ML does for a managed one.

https://learn.microsoft.com/azure/machine-learning/how-to-collect-production-data
"""

from __future__ import annotations

import datetime
import json
import os
import threading
import uuid
from pathlib import Path
from typing import Any

from helpers.azureml.collected_data import COLLECTIONS
from helpers.serving.endpoint import by_row


class DataCollector:
    """Writes a line for each request and collection, into a file for each hour.

    Parameters
    ----------
    folder : pathlib.Path
        Of the deployment: ``…/modelDataCollector/<endpoint>/<deployment>``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # The machine may have run this deployment before, in another process that was killed in the middle of a line.
        self._file_name = f"{uuid.uuid4().hex}.jsonl"
        self._writing = threading.Lock()

    def collect(self, input_data: Any, predictions: Any) -> None:
        """Write the rows of a request that was answered.

        Parameters
        ----------
        input_data : object
            As the request has it. Rows of a tensor without columns get the columns ``0``, ``1``, ….
        predictions : object
            As MLflow's server returns them.
        """
        now = datetime.datetime.now(datetime.timezone.utc)
        correlation = str(uuid.uuid4())
        rows = (_records(input_data), [_record(row, "prediction") for row in by_row(predictions)])
        for collection, data in zip(COLLECTIONS, rows, strict=True):
            event = {
                "specversion": "1.0",
                "id": str(uuid.uuid4()),
                "type": f"azureml.inference.{collection}",
                "datacontenttype": "application/json",
                "time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "correlationid": correlation,
                "data": data,
            }
            folder = self._folder / collection / now.strftime("%Y/%m/%d/%H")
            line = json.dumps(event).encode() + b"\n"
            with self._writing:
                folder.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(folder / self._file_name, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
                with os.fdopen(descriptor, "ab") as output:
                    output.write(line)


def _records(input_data: Any) -> list[dict[str, Any]]:
    if isinstance(input_data, dict) and {"columns", "data"} <= input_data.keys():
        return [dict(zip(map(str, input_data["columns"]), row, strict=True)) for row in input_data["data"]]
    return [_record(row, "0") for row in by_row(input_data)]


def _record(row: Any, name: str) -> dict[str, Any]:
    if isinstance(row, dict):
        return row
    if isinstance(row, list):
        return {str(place): value for place, value in enumerate(row)}
    return {name: row}
