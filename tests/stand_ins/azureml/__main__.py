"""The stand-in's process: prints its address on standard output, and ends when standard input is closed."""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path

from tests.stand_ins.azureml import app, certificate
from tests.stand_ins.azureml.https import HttpsServer


def main() -> None:
    """Serve until the process that started this one ends or closes standard input."""
    parser = argparse.ArgumentParser(prog="python -m tests.stand_ins.azureml", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where certificates, stores, blobs and the log go")
    parser.add_argument("--token-lifetime", type=int, default=3600, metavar="SECONDS")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    server = HttpsServer(_not_yet, certificate.create(arguments.folder))
    url = f"https://127.0.0.1:{server.port}"
    # The port is known only now; the application needs it for its answers.
    server.app = app.create(url, arguments.folder, arguments.token_lifetime)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(url, flush=True)
    sys.stdin.read()


def _not_yet(environ: object, start_response: object) -> list[bytes]:
    raise RuntimeError("asked before the application was there")


if __name__ == "__main__":
    main()
