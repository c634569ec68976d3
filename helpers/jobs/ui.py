"""Open MLflow's UI on the local store: ``python -m helpers.jobs.ui [--port 5000]``."""

from __future__ import annotations

import os
import sys

from helpers import parameters, runtime
from helpers.azureml import Connection
from helpers.tracking.servers.local import LocalServer


def main() -> None:
    """Replace this process with ``mlflow ui``, which gets the options of the command line.

    If there is no local store yet, it exits with one line that says so.
    """
    store = runtime.local_dir() / "mlflow.db"
    if not store.exists():
        sys.exit(f"There is no local MLflow store ({store}) yet: `make run` makes it.")
    address = LocalServer(Connection(parameters.AzureML())).uri
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", address, *sys.argv[1:]]
    os.chdir(runtime.local_dir())
    os.execv(sys.executable, command)  # noqa: S606


if __name__ == "__main__":
    main()
