"""Collect the requests of a local endpoint in files, as Azure ML does for a managed one.

https://learn.microsoft.com/azure/machine-learning/how-to-collect-production-data
"""

from __future__ import annotations

import datetime
import json
import os
import random
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.azureml.collected_data import INPUTS, OUTPUTS

if TYPE_CHECKING:
    import pandas as pd


class LocalCollector:
    """Writes one line per request into a file for each hour, in place of `azureml.ai.monitoring.Collector`.

    Parameters
    ----------
    folder : pathlib.Path
        Of the collection: ``…/modelDataCollector/<endpoint>/<deployment>/<collection>``.
    rate : float, default 1.0
        The share of the requests that is written. Chance decides for each request, as in Azure ML's package.
    """

    def __init__(self, folder: Path, rate: float = 1.0) -> None:
        self._folder, self._rate = folder, rate
        # Each process writes files of its own. One that was killed may have left a file that ends in the middle of a line.
        self._file_name = f"{uuid.uuid4().hex}.jsonl"

    def collect(self, data: pd.DataFrame, correlation: str = "") -> str:
        """Write the rows of a request, in the form that Azure ML's package sends them in.

        Parameters
        ----------
        data : pandas.DataFrame
        correlation : str, default ""
            What the inputs of the same request returned. The default begins a request.

        Returns
        -------
        str
            What the outputs of the same request need.

        Raises
        ------
        OSError
            If they cannot be written.
        """
        correlation = correlation or str(uuid.uuid4())
        # Not for anything that has to be secret.
        if random.random() >= self._rate:  # noqa: S311
            return correlation
        now = datetime.datetime.now(datetime.timezone.utc)
        event = {
            "specversion": "1.0",
            "id": str(uuid.uuid4()),
            "type": f"azureml.inference.{self._folder.name}",
            "datacontenttype": "application/json",
            "time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "correlationid": correlation,
            "data": json.loads(data.to_json(orient="records")),
        }
        folder = self._folder / now.strftime("%Y/%m/%d/%H")
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / self._file_name, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as output:
            output.write(json.dumps(event).encode() + b"\n")
        return correlation


def local_collectors(folder: Path, rate: float = 1.0) -> tuple[LocalCollector, LocalCollector]:
    """Return the collectors of inputs and of outputs.

    Parameters
    ----------
    folder : pathlib.Path
        Of the deployment: ``…/modelDataCollector/<endpoint>/<deployment>``.
    rate : float, default 1.0
        The share of the requests whose inputs are written. The outputs are written of all.
    """
    return LocalCollector(folder / INPUTS, rate), LocalCollector(folder / OUTPUTS)
