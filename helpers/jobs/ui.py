"""Open MLflow's UI on the local store: ``python -m helpers.jobs.ui [--port 5000]``."""

from __future__ import annotations

import os
import sys

from helpers import runtime, tracking


def main() -> None:
    """Start ``mlflow ui`` in place of this process; options are passed on to it.

    Exits with a clear line if nothing has been run here yet.
    """
    store = runtime.local_dir() / "mlflow.db"
    if not store.exists():
        sys.exit(f"There is no local MLflow store ({store}) yet: `make run` makes it.")
    address = tracking.servers("local", "local", azureml_uri="").tracking_uri
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", address, *sys.argv[1:]]
    os.chdir(runtime.local_dir())
    os.execv(sys.executable, command)  # noqa: S606


if __name__ == "__main__":
    main()
