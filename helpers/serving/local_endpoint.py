"""An endpoint on this machine, which keeps running after the notebook that made it has ended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from helpers import runtime, tracking
from helpers.azureml.collected_data import FOLDER
from helpers.serving.endpoint import (
    REQUEST_SECONDS,
    Deployment,
    Endpoint,
    EndpointState,
    ExistingEndpoint,
    MirrorCounts,
    ServingError,
)
from helpers.serving.endpoint_names import endpoint_name
from helpers.serving.model_environment import model_environment

if TYPE_CHECKING:
    import requests
    from mlflow.entities.model_registry import ModelVersion

    from helpers import parameters
    from helpers.tracking import Session


ADDRESS_FILE = "endpoint.json"
_ROOT = Path(__file__).parents[2]
_LOG_LINES = 100
_START_SECONDS = 60
_STOP_SECONDS = 60
# For the copies of requests that wait when mirroring ends.
_DRAIN_SECONDS = 5
_POLL_SECONDS = 0.1


class LocalEndpoint(Endpoint):
    """The script score.py with each model version, behind one address on 127.0.0.1.

    The process `helpers.serving.local_server` runs until the endpoint is deleted or the machine is shut down. After a
    shutdown, the next rollout creates the endpoint anew.

    Parameters
    ----------
    name : str
    folder : pathlib.Path
        The folder of all local endpoints.
    session : helpers.tracking.Session, optional
        Its registry has the models; only needed to deploy.
    collect_data : bool, default False
        Whether new deployments collect their requests.
    collect_data_rate : float, default 1.0
        The share of the requests whose inputs they collect.
    workers : int, default 1
        The processes of a new deployment. Each loads the model, and answers one request at a time.
    """

    collects_data = True
    takes_own_environment = True
    mirrors = True

    def __init__(
        self,
        name: str,
        folder: Path,
        session: Session | None = None,
        collect_data: bool = False,
        collect_data_rate: float = 1.0,
        workers: int = 1,
    ) -> None:
        super().__init__(name)
        self._session = session
        self._settings = {"collect_data": collect_data, "collect_data_rate": collect_data_rate, "workers": workers}
        self.folder = folder / name

    @classmethod
    def open(cls, session: Session, p: parameters.Endpoint, model_name: str) -> LocalEndpoint:
        folder = _folder()
        name = p.endpoint_name or endpoint_name(model_name, str(folder))
        return cls(name, folder, session, p.collect_data, p.collect_data_rate, p.max_concurrent_requests)

    @classmethod
    def existing(cls, session: Session) -> Iterator[ExistingEndpoint]:  # noqa: ARG003 - it is not in Azure
        for endpoint in cls.all(_folder()):
            yield ExistingEndpoint(endpoint, "this machine", endpoint._address()["model_name"])

    @classmethod
    def all(cls, folder: Path) -> list[LocalEndpoint]:
        """Return the endpoints in a folder, whether they run or not."""
        return [cls(path.parent.name, folder) for path in sorted(folder.glob(f"*/{ADDRESS_FILE}"))]

    def state(self) -> EndpointState | None:
        import requests

        try:
            content = self._send("GET", "/state").json()
        except (FileNotFoundError, requests.ConnectionError):
            return None
        deployments = {
            name: Deployment(name, details["model"], details["state"], is_ours=True)
            for name, details in content["deployments"].items()
        }
        url = f"{self._address()['url']}/score"
        return EndpointState(url, True, content["traffic"], deployments, content.get("mirror") or {})

    def create(self, model_name: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / ADDRESS_FILE).unlink(missing_ok=True)
        log = self.folder / "endpoint.log"
        with log.open("wb") as output:
            # In its own session, because Jupyter ends the whole process group of a kernel. Without the notebook's
            # credentials, because it runs longer than the notebook and passes its environment to the models.
            process = subprocess.Popen(
                [sys.executable, "-m", "helpers.serving.local_server", str(self.folder), model_name],
                cwd=_ROOT, env=model_environment(os.environ),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if (self.folder / ADDRESS_FILE).exists():
                return
            time.sleep(_POLL_SECONDS)
        process.kill()
        raise ServingError(f"The local endpoint {self.name} does not start.", log.read_text())

    def deploy(self, deployment: str, version: ModelVersion, show: Callable[[str], Any] = print) -> None:
        model_folder = self.folder / deployment
        shutil.rmtree(model_folder, ignore_errors=True)
        model_folder.mkdir(parents=True)
        if self._session is None:
            raise ServingError(f"The local endpoint {self.name} was opened without a session, so it cannot deploy.")
        folder = tracking.download_model(self._session, f"models:/{version.name}/{version.version}", model_folder)
        model = f"{version.name}/{version.version}"
        content = {"folder": str(folder), "model": model} | self._settings
        self._request("PUT", f"/deployments/{deployment}", content)
        self.wait(deployment, show)

    def wait(self, deployment: str, show: Callable[[str], Any] = print) -> None:
        lines_shown, state = 0, "Creating"
        # The process of the endpoint gives up on a model server that does not start.
        while state == "Creating":
            time.sleep(_POLL_SECONDS)
            state = self._request("GET", "/state")["deployments"][deployment]["state"]
            lines = self._log_lines(deployment)
            for line in lines[lines_shown:]:
                show(f"  {line}")
            lines_shown = len(lines)
        if state != "Succeeded":
            raise ServingError(f"Deployment {deployment} does not start.", self.log(deployment))

    def set_traffic(self, traffic: dict[str, int]) -> None:
        self._request("PUT", "/traffic", traffic)

    def set_mirror(self, deployment: str, percent: int) -> None:
        content = self._request("PUT", "/mirror", {deployment: percent} if percent else {})
        deadline = time.monotonic() + _DRAIN_SECONDS
        # Copies that wait are still sent, so that `mirror_counts` has all of them.
        while not percent and (content["mirrored"] or {}).get("waiting") and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            content = self._request("GET", "/state")

    def mirror_counts(self, deployment: str) -> MirrorCounts | None:
        counts = self._request("GET", "/state")["mirrored"]
        if counts is None or counts["deployment"] != deployment:
            return None
        return MirrorCounts(counts["answered"], counts["failed"], counts["dropped"], counts["error"])

    def delete_deployment(self, deployment: str) -> None:
        self._request("DELETE", f"/deployments/{deployment}")
        shutil.rmtree(self.folder / deployment, ignore_errors=True)

    def delete(self) -> bool:
        if not (self.folder / ADDRESS_FILE).exists():
            return False
        pid = self._address()["pid"]
        # The process looks for this file, and ends its model servers when the file is gone.
        (self.folder / ADDRESS_FILE).unlink()
        deadline = time.monotonic() + _STOP_SECONDS
        while _is_running(pid) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        shutil.rmtree(self.folder)
        return True

    def collected_data(self) -> str:
        folder = self.folder / FOLDER
        return str(folder) if folder.exists() else ""

    def log(self, deployment: str) -> str:
        return "\n".join(self._log_lines(deployment)[-_LOG_LINES:])

    def _log_lines(self, deployment: str) -> list[str]:
        file = self.folder / f"{deployment}.log"
        # The last line may be incomplete.
        return file.read_text(errors="replace").split("\n")[:-1] if file.exists() else []

    def _address(self) -> dict[str, Any]:
        return json.loads((self.folder / ADDRESS_FILE).read_text())

    def _post(self, body: str, headers: dict[str, str]) -> requests.Response:
        try:
            return self._send("POST", "/score", body, headers)
        except FileNotFoundError:
            raise self._not_reached(f"there is no {ADDRESS_FILE}") from None

    def _request(self, method: str, path: str, content: Any = None) -> dict[str, Any]:
        import requests

        try:
            response = self._send(method, path, json.dumps(content))
        except (FileNotFoundError, requests.RequestException) as error:
            raise self._not_reached(error) from None
        if response.status_code != 200:
            raise ServingError(f"The local endpoint {self.name} refuses {method} {path}: {response.text}")
        return response.json()

    def _not_reached(self, reason: object) -> ServingError:
        return ServingError(f"The local endpoint {self.name} has ended or does not answer ({reason}).")

    def _send(
        self, method: str, path: str, body: str | None = None, headers: Mapping[str, str] = MappingProxyType({})
    ) -> requests.Response:
        import requests

        address = self._address()
        with requests.Session() as session:
            # A proxy cannot reach this machine's own address.
            session.trust_env = False
            headers = {**headers, "Authorization": f"Bearer {address['key']}"}
            return session.request(method, address["url"] + path, data=body, headers=headers, timeout=REQUEST_SECONDS)


def _folder() -> Path:
    """Return the folder of all local endpoints."""
    return runtime.local_dir() / "endpoints"


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        # It has ended, and the id may now belong to another user's process.
        return False
    # A child process that has ended exists until this process waits for it.
    try:
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return True
