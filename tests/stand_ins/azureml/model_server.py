"""MLflow's scoring server for a registered model, in its own process; or Azure ML's own server, if a test asks for it.

MLflow's processes are forked from one that has already imported MLflow, which saves seconds per process.
They end when this process ends, even if it is killed.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import multiprocessing
import os
import re
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from tests.stand_ins.azureml.inference_server import SCORING_SCRIPT, InferenceServer
from tests.stand_ins.azureml.mlflow_api import MLflowServer

# Modules that nearly every model needs; a server imports any others itself.
_PRELOADED = ["mlflow.pyfunc.scoring_server", "mlflow.sklearn", "uvicorn", "skops.io"]
# The modules that AML's scoring script imports, with their packages; since 2026 the image has neither of them:
# https://github.com/Azure/azureml-examples/pull/3904
_IMPORTED_BY_AML = {
    "azureml-inference-server-http": ("azureml_inference_server_http.server.entry", "azureml_inference_server_http"),
    "azureml-ai-monitoring": ("azureml.ai.monitoring", "azureml.ai"),
}
# A file among those of the model servers. While it exists, new deployments of online endpoints are served by Azure ML's own
# server in the environment that it names.
VENDORS_ENVIRONMENT = "vendors_environment.txt"
# Guards against a model that hangs.
_SECONDS_TO_ANSWER = 600


class ModelServerError(Exception):
    """A model that cannot be served; the server's log has the reason."""


@dataclass(frozen=True)
class OwnCode:
    """What a deployment brings instead of AML's scoring script.

    Attributes
    ----------
    script : pathlib.Path
        The uploaded scoring script.
    requirements : list of str
        The lines for pip in the environment's conda file.
    """

    script: Path
    requirements: list[str]


class ModelFiles:
    """The files of registered models.

    Parameters
    ----------
    mlflow_server : MLflowServer
        The registry.
    blobs : pathlib.Path
        The artifacts, by origin, container and path.
    """

    def __init__(self, mlflow_server: MLflowServer, blobs: Path) -> None:
        self._mlflow = mlflow_server
        self._blobs = blobs

    def folder(self, name: str, version: str) -> Path | None:
        """Return the folder with a model version's files, or None if there is no such version."""
        arguments = {"name": name, "version": version}
        status, content = self._mlflow.call("GET", "model-versions/get", arguments)
        if status != 200:
            return None
        source = content["model_version"]["source"]
        of_run = re.search(r"/runs/([^/]+)/artifacts/(.+)", source)
        if of_run:
            return self._blobs / "ExperimentRun" / f"dcid.{of_run[1]}" / of_run[2]
        return self._blobs / source.removeprefix("azureml://artifacts/")


class ModelServer:
    """A running scoring server.

    Parameters
    ----------
    port : int
        Of 127.0.0.1.
    end : callable
        Ends the server.
    takes_azureml : bool, default False
        Whether it takes and gives Azure ML's form, because it is Azure ML's own server. Otherwise it is MLflow's.
    """

    def __init__(self, port: int, end: Callable[[], object], takes_azureml: bool = False) -> None:
        self._port = port
        self._end = end
        self.takes_azureml = takes_azureml
        self._in_flight = 0
        self._idle = threading.Condition()

    def begin(self) -> None:
        """Count a request that `stop` has to wait for."""
        with self._idle:
            self._in_flight += 1

    def end(self) -> None:
        """Count the end of such a request."""
        with self._idle:
            self._in_flight -= 1
            self._idle.notify_all()

    def score(self, payload: bytes) -> tuple[int, bytes]:
        """Return status and body of the server's answer, or 502 if its process has ended.

        Parameters
        ----------
        payload : bytes
            In Azure ML's form or MLflow's: https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally#json-input
        """
        # A new connection each time: the server closes idle ones, perhaps just when a request is on its way.
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_SECONDS_TO_ANSWER)
        try:
            route = "/score" if self.takes_azureml else "/invocations"
            connection.request("POST", route, payload, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError as gone:
            return 502, str(gone).encode()
        finally:
            connection.close()

    def stop(self) -> None:
        """End the server when it has answered its requests."""
        with self._idle:
            self._idle.wait_for(lambda: not self._in_flight)
        self._end()


class ModelServers:
    """Starts scoring servers.

    Parameters
    ----------
    folder : pathlib.Path
        For their models and logs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)
        self._numbers = itertools.count()
        self._starting = threading.Lock()

    def new_log(self) -> Path:
        """Return the path of a log file for a new server."""
        self._folder.mkdir(parents=True, exist_ok=True)
        log_file = self._folder / f"server_{next(self._numbers)}.log"
        log_file.touch()
        return log_file

    def start(
        self,
        model: Path,
        log_file: Path,
        environment: Mapping[str, str],
        needs_aml: bool,
        own: OwnCode | None = None,
    ) -> ModelServer:
        """Start a server, and return it when it answers.

        Parameters
        ----------
        model : pathlib.Path
            The folder with the ``MLmodel`` file; it is copied.
        log_file : pathlib.Path
            From `new_log`.
        environment : dict of str to str
            Variables besides those of this process.
        needs_aml : bool
            Whether the requirements must contain the packages that AML's scoring script imports.
        own : OwnCode, optional
            A scoring script and an environment of the user, instead of AML's script and the model's requirements.

        Raises
        ------
        ModelServerError
            If the model does not load.
        """
        folder = log_file.with_suffix("") / model.name
        shutil.copytree(model, folder)
        if needs_aml:
            requirements = folder / "requirements.txt"
            lines = requirements.read_text().splitlines() if requirements.is_file() else []
            _check_requirements(own.requirements if own else lines, log_file)
            vendors = self._folder / VENDORS_ENVIRONMENT
            if vendors.is_file():
                script = own.script if own else SCORING_SCRIPT
                return _start_vendors(Path(vendors.read_text()), folder, log_file, environment, script)
            if own:
                log_file.write_text("The stand-in runs code of users only where a test names the environment for it.\n")
                raise ModelServerError("no environment")
        read, write = self._context.Pipe(duplex=False)
        arguments = (folder, log_file, dict(environment), write)
        process = self._context.Process(target=_serve, args=arguments, daemon=True)
        # The first start also starts the process to fork from; two at the same time would start two.
        with self._starting:
            process.start()
        # Only the server holds it now, so the pipe ends when the server does.
        write.close()
        try:
            port = read.recv()
        except EOFError:
            process.join()
            raise ModelServerError(f"exit code {process.exitcode}") from None
        finally:
            read.close()

        def end() -> None:
            process.kill()
            process.join()

        return ModelServer(port, end)


def _start_vendors(
    environment: Path, model: Path, log_file: Path, variables: Mapping[str, str], script: Path
) -> ModelServer:
    """Start Azure ML's own server in an environment of `inference_server`, and return it when it is ready."""
    with contextlib.ExitStack() as started:
        server = started.enter_context(InferenceServer.start(environment, model, log_file, variables, script))
        try:
            server.wait()
        except RuntimeError:
            raise ModelServerError("the server ended") from None
        return ModelServer(server.port, started.pop_all().close, takes_azureml=True)


def _check_requirements(lines: list[str], log_file: Path) -> None:
    listed = {re.split(r"[^a-z0-9-]", line.strip().lower().replace("_", "-"))[0] for line in lines}
    for package, (module, not_found) in _IMPORTED_BY_AML.items():
        if package not in listed:
            log_file.write_text(
                "Traceback (most recent call last):\n"
                '  File "/var/mlflow_resources/mlflow_score_script.py", line 1, in <module>\n'
                f"    import {module}\n"
                f"ModuleNotFoundError: No module named '{not_found}'\n"
            )
            raise ModelServerError(f"No module named '{not_found}'")


def _serve(model: Path, log_file: Path, environment: dict[str, str], started: Connection) -> None:
    """Serve a model; the body of the server's process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with log_file.open("ab") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    os.environ.update(environment)
    import uvicorn
    from mlflow.pyfunc import scoring_server

    app = scoring_server.init(scoring_server.load_model_with_mlflow_config(str(model)))
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        # The socket listens already: requests that come before the loop runs wait for it.
        started.send(listener.getsockname()[1])
        started.close()
        uvicorn.Server(uvicorn.Config(app, log_level="info")).run(sockets=[listener])


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(0)
