"""An endpoint on this machine, which is not ended with the notebook that made it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from helpers import tracking
from helpers.serving.endpoint import REQUEST_SECONDS, Deployment, Endpoint, EndpointState, ServingError
from helpers.serving.local_server import ADDRESS_FILE

if TYPE_CHECKING:
    import requests
    from mlflow.entities.model_registry import ModelVersion

_ROOT = Path(__file__).parents[2]
_LOG_LINES = 100
_START_SECONDS = 60
_LOOK_SECONDS = 0.1


class LocalEndpoint(Endpoint):
    """``mlflow models serve`` behind one address on 127.0.0.1.

    The process `helpers.serving.local_server` lives until the endpoint is deleted, or the machine is shut down;
    after that the endpoint is made anew.

    Parameters
    ----------
    name : str
    folder : pathlib.Path
        Of all local endpoints.
    """

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name)
        self.folder = folder / name

    @classmethod
    def all(cls, folder: Path) -> list[LocalEndpoint]:
        """Return the endpoints of a folder, whether they run or not."""
        return [cls(path.parent.name, folder) for path in sorted(folder.glob(f"*/{ADDRESS_FILE}"))]

    @property
    def model_name(self) -> str:
        """The model that it was made for."""
        return self._address()["model_name"]

    def state(self) -> EndpointState | None:
        import requests

        try:
            found = self._send("GET", "/state").json()
        except (FileNotFoundError, requests.ConnectionError):
            return None
        deployments = {
            name: Deployment(name, details["model"], details["state"], is_ours=True)
            for name, details in found["deployments"].items()
        }
        return EndpointState(f"{self._address()['url']}/score", True, found["traffic"], deployments)

    def create(self, model_name: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / ADDRESS_FILE).unlink(missing_ok=True)
        log = self.folder / "endpoint.log"
        with log.open("wb") as output:
            # In a session of its own: Jupyter ends the whole group of a kernel's processes.
            process = subprocess.Popen(
                [sys.executable, "-m", "helpers.serving.local_server", str(self.folder), model_name],
                cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        pause = threading.Event()
        for _ in range(round(_START_SECONDS / _LOOK_SECONDS)):
            if (self.folder / ADDRESS_FILE).exists():
                return
            if process.poll() is not None:
                break
            pause.wait(_LOOK_SECONDS)
        process.kill()
        raise ServingError(f"The local endpoint {self.name} does not start.", log.read_text())

    def deploy(self, deployment: str, version: ModelVersion, show: Callable[[str], Any] = print) -> None:
        model = self.folder / deployment
        shutil.rmtree(model, ignore_errors=True)
        model.mkdir(parents=True)
        folder = tracking.download_model(f"models:/{version.name}/{version.version}", model)
        wanted = {"folder": str(folder), "model": f"{version.name}/{version.version}"}
        self._ask("PUT", f"/deployments/{deployment}", wanted)
        self.wait(deployment, show)

    def wait(self, deployment: str, show: Callable[[str], Any] = print) -> None:
        pause, lines, state = threading.Event(), 0, "Creating"
        while state == "Creating":
            pause.wait(_LOOK_SECONDS)
            state = self._ask("GET", "/state")["deployments"][deployment]["state"]
            log = self._log_lines(deployment)
            for line in log[lines:]:
                show(f"  {line}")
            lines = len(log)
        if state != "Succeeded":
            raise ServingError(f"Deployment {deployment} does not start.", self.log(deployment))

    def set_traffic(self, traffic: dict[str, int]) -> None:
        self._ask("PUT", "/traffic", traffic)

    def delete_deployment(self, deployment: str) -> None:
        self._ask("DELETE", f"/deployments/{deployment}")
        shutil.rmtree(self.folder / deployment, ignore_errors=True)

    def delete(self) -> None:
        if not (self.folder / ADDRESS_FILE).exists():
            return
        pid = self._address()["pid"]
        (self.folder / ADDRESS_FILE).unlink()
        # It looks for the file, and ends its model servers first.
        pause = threading.Event()
        for _ in range(round(_START_SECONDS / _LOOK_SECONDS)):
            if not _is_running(pid):
                break
            pause.wait(_LOOK_SECONDS)
        shutil.rmtree(self.folder)

    def log(self, deployment: str) -> str:
        return "\n".join(self._log_lines(deployment)[-_LOG_LINES:])

    def _log_lines(self, deployment: str) -> list[str]:
        file = self.folder / f"{deployment}.log"
        # The last one may not be complete.
        return file.read_text(errors="replace").split("\n")[:-1] if file.exists() else []

    def _address(self) -> dict[str, Any]:
        return json.loads((self.folder / ADDRESS_FILE).read_text())

    def _post(self, body: str, headers: dict[str, str]) -> requests.Response:
        try:
            return self._send("POST", "/score", body, headers)
        except FileNotFoundError:
            raise self._gone("there is no endpoint.json") from None

    def _ask(self, method: str, path: str, content: Any = None) -> dict[str, Any]:
        import requests

        try:
            response = self._send(method, path, json.dumps(content))
            response.raise_for_status()
        except (FileNotFoundError, requests.RequestException) as error:
            raise self._gone(error) from None
        return response.json()

    def _gone(self, reason: object) -> ServingError:
        return ServingError(f"The local endpoint {self.name} has ended, or does not answer ({reason}).")

    def _send(
        self, method: str, path: str, body: str | None = None, headers: Mapping[str, str] = MappingProxyType({})
    ) -> requests.Response:
        import requests

        address = self._address()
        with requests.Session() as session:
            # A proxy of the machine's has no way to it.
            session.trust_env = False
            headers = {**headers, "Authorization": f"Bearer {address['key']}"}
            return session.request(method, address["url"] + path, data=body, headers=headers, timeout=REQUEST_SECONDS)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that has ended, and that the process here which started it has not looked after.
    try:
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return True
