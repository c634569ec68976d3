"""Run score.py on a Unix domain socket, as Azure ML's server runs it on a port.

    python -m helpers.serving.script_server SETTINGS

Azure ML's own server, the package ``azureml-inference-server-http``, needs another pydantic than Databricks' runtimes have,
so it is not among the bundle's packages. Like that one, this server is gunicorn with processes that answer one request at a
time, and it gives the same statuses and bodies.
https://learn.microsoft.com/azure/machine-learning/how-to-inference-server-http
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask import Flask

# As the vendor's: a process that is busy with one request for so long is ended, and another started.
_WORKER_SECONDS = 300


@dataclass(frozen=True)
class Settings:
    """What one server serves.

    Attributes
    ----------
    model : str
        The folder with the ``MLmodel`` file.
    socket : str
        The path of the socket, which is created.
    collect_to : str, default ""
        The folder that gets the rows of each request that is answered. Empty: none.
    collect_rate : float, default 1.0
        The share of the requests whose inputs are among them.
    workers : int, default 1
        The processes. Each loads the model, and answers one request at a time.
    """

    model: str
    socket: str
    collect_to: str = ""
    collect_rate: float = 1.0
    workers: int = 1

    def text(self) -> str:
        """Return the settings as an argument of a command, for `from_text`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Settings:
        """Return the settings that `text` has written."""
        return cls(**json.loads(text))


def create_app(settings: Settings) -> Flask:
    """Load the model, and return the HTTP interface of Azure ML's server: ``POST /score``, and ``GET /`` for probes."""
    from flask import Flask, Response, request

    from helpers.serving import score
    from helpers.serving.data_collection import local_collectors

    os.environ["AZUREML_MODEL_DIR"] = settings.model
    folder = settings.collect_to
    score.init(local_collectors(Path(folder), settings.collect_rate) if folder else ())
    app = Flask(__name__, static_folder=None)

    def answer(content: Any, status: int = 200) -> Response:
        return Response(json.dumps(content), status, mimetype="application/json")

    @app.get("/")
    def probe() -> str:
        return "Healthy"

    # The vendor's: azureml_inference_server_http/server/routes.py and input_parsers.py of version 1.5.1.
    @app.post("/score")
    def run() -> Response:
        try:
            body = str(request.get_data(), "utf-8")
        except UnicodeDecodeError as error:
            return answer({"message": f"Input cannot be decoded as UTF-8: {error}"}, 400)
        result = score.run(body)
        return result if isinstance(result, Response) else answer(result)

    # Of whatever the model raises; Flask writes it to the log.
    @app.errorhandler(500)
    def fail(_error: Exception) -> Response:
        message = "An unexpected error occurred in scoring script. Check the logs for more info."
        return answer({"message": message}, 500)

    return app


def main(settings: Settings) -> None:
    """Serve until a signal ends the process."""
    from gunicorn.app.base import BaseApplication

    class Server(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            values = {
                "bind": f"unix:{settings.socket}",
                "workers": settings.workers,
                "timeout": _WORKER_SECONDS,
                # Newer ones open another socket, in a folder that all servers share.
                "control_socket_disable": True,
            }
            for name, value in values.items():
                if name in self.cfg.settings:
                    self.cfg.set(name, value)

        def load(self) -> Flask:
            return create_app(settings)

    Server().run()


if __name__ == "__main__":
    main(Settings.from_text(sys.argv[1]))
