"""An Azure with two Azure ML workspaces and a registry on 127.0.0.1, for unpatched clients in other processes.

    with AzureMLStandIn.start(tmp_path) as aml:
        subprocess.run([...], env=os.environ | aml.environment())

Clients read the cloud's addresses when they import MLflow, so they need their own processes. The server is the package
`tests.stand_ins.azureml`.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from tests.stand_ins.azureml import names
from tests.stand_ins.azureml.certificate import CA_FILE
from tests.stand_ins.azureml.faults import Fault
from tests.stand_ins.azureml.gate import LOG_FILE

ROOT = Path(__file__).parents[2]
_FOLDER_VARIABLE = "AZUREML_STAND_IN_FOLDER"


class Request(NamedTuple):
    """A request that the stand-in received; the status is None if it dropped the request without an answer."""

    method: str
    path: str
    query: str
    body: str | None
    status: int | None


@dataclass(frozen=True)
class AzureMLStandIn:
    """A running stand-in. Any process that knows its folder and address can use it.

    Attributes
    ----------
    folder : pathlib.Path
        Certificates, stores, blobs, model servers, ``requests.jsonl`` and ``server.log``.
    url : str
        The address of all its services, including Azure Resource Manager.
    workspace_parameters : dict of str to str
        The parameters of a notebook that name the workspace.
    """

    folder: Path
    url: str

    subscription_id = names.SUBSCRIPTION_ID
    resource_group = names.RESOURCE_GROUP
    workspace = names.WORKSPACE
    region = names.REGION
    attached_compute = names.ATTACHED_COMPUTE
    cluster = names.CLUSTER
    client_id = names.CLIENT_ID
    other_client_id = names.OTHER_CLIENT_ID
    client_id_without_role = names.CLIENT_ID_WITHOUT_ROLE
    client_secret = names.CLIENT_SECRET
    expired_secret = names.EXPIRED_SECRET
    workspace_resource_id = names.workspace_resource_id()
    prod_workspace = names.PROD_WORKSPACE
    registry = names.REGISTRY
    private_workspace_resource_id = names.workspace_resource_id(names.PRIVATE_WORKSPACE)
    databricks_workspace_resource_id = names.databricks_resource_id()
    private_databricks_workspace_resource_id = names.databricks_resource_id(names.PRIVATE_DATABRICKS_WORKSPACE)
    workspace_parameters: ClassVar[dict[str, str]] = {
        "azureml_subscription_id": names.SUBSCRIPTION_ID,
        "azureml_resource_group": names.RESOURCE_GROUP,
        "azureml_workspace": names.WORKSPACE,
    }

    @classmethod
    @contextmanager
    def start(cls, folder: Path, token_lifetime: int = 3600, python: str = sys.executable) -> Iterator[AzureMLStandIn]:
        """Start the stand-in. It ends after the block, or when this process ends.

        Parameters
        ----------
        folder : pathlib.Path
            An empty folder.
        token_lifetime : int
            Seconds.
        python : str
            The interpreter that runs the server, with its MLflow.

        Raises
        ------
        RuntimeError
            If it does not start; the message ends with its log.
        """
        folder.mkdir(parents=True, exist_ok=True)
        command = [python, "-m", "tests.stand_ins.azureml", "--folder", str(folder)]
        command += ["--token-lifetime", str(token_lifetime)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        log = folder / "server.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(command, cwd=ROOT, env=plain_environment(), stderr=errors, **pipes)
        # Leaving this block closes the server's standard input, which ends it, and waits.
        with process:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"The stand-in did not start: {log.read_text()[-2000:]}")
            yield cls(folder, url)

    @classmethod
    def from_environment(cls) -> AzureMLStandIn:
        """Return the stand-in that this process is a client of."""
        return cls(Path(os.environ[_FOLDER_VARIABLE]), os.environ["AZURE_AUTHORITY_HOST"])

    @property
    def tracking_uri(self) -> str:
        """The URI that Azure Resource Manager gives for the workspace."""
        return f"azureml://{self.url.removeprefix('https://')}/mlflow/v1.0{self.workspace_resource_id}"

    @property
    def ca_file(self) -> Path:
        """The certificate authority that clients must trust."""
        return self.folder / CA_FILE

    @property
    def faults(self) -> Faults:
        """The faults of the stand-in, to switch on and off."""
        return Faults(self)

    def environment(self) -> dict[str, str]:
        """Return the variables that a client's process needs, including those of a service principal."""
        return {
            "ARM_CLOUD_METADATA_URL": f"{self.url}/metadata/endpoints?api-version=2019-05-01",
            "AZUREML_CURRENT_CLOUD": names.CLOUD,
            "AZURE_AUTHORITY_HOST": self.url,
            "AZURE_TENANT_ID": names.TENANT,
            "AZURE_CLIENT_ID": self.client_id,
            "AZURE_CLIENT_SECRET": self.client_secret,
            "REQUESTS_CA_BUNDLE": str(self.ca_file),
            "NO_PROXY": "127.0.0.1",
            _FOLDER_VARIABLE: str(self.folder),
        }

    def requests(self, path: str = "") -> list[Request]:
        """Return the requests so far whose path contains ``path``, oldest first."""
        lines = (self.folder / LOG_FILE).read_text().splitlines()
        entries = [Request(**{"body": None} | json.loads(line)) for line in lines]
        return [entry for entry in entries if path in entry.path]

    def revoke_tokens(self, client_id: str) -> None:
        """Refuse all tokens issued to an application so far, although its clients still consider them valid."""
        self.control("DELETE", f"tokens/{client_id}")

    def front_of(self, url: str) -> str:
        """Return a second address for a server, at which this stand-in's faults and log also apply."""
        return self.control("POST", "databricks", {"url": url})["url"]

    def control(self, method: str, path: str, content: Any = None) -> Any:
        """Call one of the stand-in's own endpoints, and return its answer."""
        body = None if content is None else json.dumps(content).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/stand-in/{path}", body, headers, method=method)
        handler = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=self.ca_file))
        with urllib.request.build_opener(urllib.request.ProxyHandler({}), handler).open(request) as answer:
            return json.loads(answer.read() or "null")


@dataclass(frozen=True)
class Faults:
    """Switches faults of a stand-in on and off. Its control endpoints have no faults."""

    stand_in: AzureMLStandIn

    def add(self, pattern: str, answer: int | str | None = None, **details: Any) -> None:
        """Switch on a fault.

        Parameters
        ----------
        pattern : str
            Regular expression, searched in ``<method> <path>?<query>``.
        answer : int, str or None
            Status, ``drop``, ``lose_answer``, ``kill``, ``kill_after``, or None to answer as usual.
        **details
            ``times``, ``skip``, ``pid``, ``retry_after``, ``delay``, ``together``: see
            `tests.stand_ins.azureml.faults.Fault`.
        """
        self.stand_in.control("POST", "faults", asdict(Fault(pattern, answer, **details)))

    def all(self) -> list[Fault]:
        """Return the faults that are switched on, with their counts."""
        return [Fault(**fault) for fault in self.stand_in.control("GET", "faults")]

    def clear(self) -> list[Fault]:
        """Switch all faults off, and return them with their counts."""
        return [Fault(**fault) for fault in self.stand_in.control("DELETE", "faults")]


def plain_environment() -> dict[str, str]:
    """Return this process's environment without the variables that would make a new server a client of another one."""
    foreign = ("MLFLOW_", "_MLFLOW_", "AZURE", "ARM_", "DATABRICKS_")
    return {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
