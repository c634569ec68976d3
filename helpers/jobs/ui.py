"""Open MLflow's UI on the local store: ``python -m helpers.jobs.ui [--port 5000]``."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser

from helpers import parameters, runtime
from helpers.azureml import Connection
from helpers.tracking.servers.base import path_in_ui
from helpers.tracking.servers.local import LocalServer

_POLL_SECONDS = 0.2


def main() -> int:
    """Run ``mlflow ui``, which gets the options of the command line, and show the page of the newest experiment.

    MLflow's own first page shows no runs. The page is opened in a browser if this is a terminal on a desktop.

    Returns
    -------
    int
        Exit status of ``mlflow ui``; 1 if the local store does not exist yet.
    """
    store = runtime.local_dir() / "mlflow.db"
    if not store.exists():
        print(f"The local MLflow store {store} does not exist yet. `make run` creates it.", file=sys.stderr)
        return 1
    address = LocalServer(Connection(parameters.AzureML())).uri
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", address, *sys.argv[1:]]
    server = subprocess.Popen(command, cwd=runtime.local_dir())
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    # Ctrl-C reaches the server, too, and this process ends with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    home = _home(sys.argv[1:])
    page = f"{home}/#/{path_in_ui('experiment', _newest_experiment(address), '')}"
    if _answers(server, home):
        print(f"\nMLflow's page of your runs: {page}\n", flush=True)
        if sys.stdout.isatty() and _is_desktop():
            webbrowser.open(page)
    return server.wait()


def _home(options: list[str]) -> str:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--host", "-h", default="127.0.0.1")
    parser.add_argument("--port", "-p", default="5000")
    address, _ = parser.parse_known_args(options)
    return f"http://{address.host}:{address.port}"


def _newest_experiment(address: str) -> str:
    """Return the id of the experiment with the newest run, or else of the newest one."""
    import mlflow

    client = mlflow.MlflowClient(address)
    experiments = client.search_experiments(order_by=["creation_time DESC"])
    ids = [experiment.experiment_id for experiment in experiments]
    runs = client.search_runs(ids, order_by=["attributes.start_time DESC"], max_results=1)
    return runs[0].info.experiment_id if runs else ids[0]


def _answers(server: subprocess.Popen[bytes], home: str) -> bool:
    """Wait until the server answers; return False if it ends before."""
    # A proxy cannot reach this machine's own address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while server.poll() is None:
        try:
            with opener.open(f"{home}/health", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(_POLL_SECONDS)
    return False


def _is_desktop() -> bool:
    """Return whether a browser would get a window; elsewhere Python may start one in the terminal."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


if __name__ == "__main__":
    sys.exit(main())
