"""A client of the stand-in that registers and deploys models: one process for all scripts of a module."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.azureml.client import PRELUDE
from tests.azureml.python_process import PythonProcess
from tests.azureml.stand_in import AzureMLStandIn

# The plugin as users call it, and the same addresses called by hand.
DEPLOY = """
import logging, time, warnings
from concurrent.futures import ThreadPoolExecutor
warnings.filterwarnings("ignore")
import mlflow, requests
import pandas as pd
from azure.identity import ClientSecretCredential
from mlflow.deployments import get_deploy_client

logging.getLogger("mlflow").setLevel("ERROR")
mlflow.set_tracking_uri(os.environ["TRACKING_URI"])
mlflow.set_registry_uri(os.environ["TRACKING_URI"])
client = get_deploy_client(os.environ["TRACKING_URI"])
rows = pd.DataFrame({"x": [1.0, 2.0]})
url, workspace = os.environ["AZURE_AUTHORITY_HOST"], os.environ["WORKSPACE"]

def config(kind, **content):
    path = Path(f"config_{time.time_ns()}.json")
    path.write_text(json.dumps(content))
    return {f"{kind}-config-file": str(path)}

def deployment_config(**content):
    return config("deploy", **{"instance_type": "Standard_DS2_v2", "instance_count": 1} | content)

def signed_in(client_id=os.environ["AZURE_CLIENT_ID"]):
    credential = ClientSecretCredential("adfs", client_id, os.environ["AZURE_CLIENT_SECRET"])
    return {"Authorization": f"Bearer {credential.get_token(f'{url}/.default').token}"}

def arm(method, path, body=None, version="2024-04-01", headers=None):
    address = f"{url}{workspace}/onlineEndpoints{path}"
    sent = {"params": {"api-version": version}, "json": body, "headers": headers or signed_in()}
    return requests.request(method, address, **sent)

def status(answer):
    # Of an operation, as often as it takes, at the pace of the stand-in's answers.
    while True:
        found = requests.get(answer.headers["Azure-AsyncOperation"], headers=signed_in()).json()
        seen.append(found["status"])
        if found["status"] != "InProgress":
            return found

seen = []

def put_endpoint(name, mode="Key"):
    status(arm("PUT", f"/{name}", {"location": "westeurope", "properties": {"authMode": mode}}))

def deployment(model, **properties):
    model = f"{workspace}/models/{model.replace('/', '/versions/')}"
    properties = {"model": model, "instanceType": "Standard_DS2_v2", "endpointComputeType": "Managed"} | properties
    return {"location": "westeurope", "sku": {"name": "Default", "capacity": 1}, "properties": properties}

def score(name, data=None, key=None, **headers):
    key = key or arm("POST", f"/{name}/listKeys").json()["primaryKey"]
    headers = {"Authorization": f"Bearer {key}"} | {k.replace("_", "-"): v for k, v in headers.items()}
    data = {"input_data": {"columns": ["x"], "index": [0], "data": [[1.0]]}} if data is None else data
    return requests.post(f"{url}/online/{name}/score", json=data, headers=headers)
"""
# ``register("name", 2)`` makes a model that doubles.
REGISTER = """
from sklearn.linear_model import LinearRegression

mlflow.set_experiment("deployed")
FOR_AML = ("azureml-inference-server-http==1.5.1", "azureml_ai_monitoring")

def save(slope, *requirements):
    x = pd.DataFrame({"x": [0.0, 1.0, 2.0]})
    model = LinearRegression().fit(x, slope * x["x"])
    signature = mlflow.models.infer_signature(x, pd.Series(model.predict(x), name="y"))
    folder = f"model_{time.time_ns()}"
    mlflow.sklearn.save_model(model, folder, signature=signature, pip_requirements=["scikit-learn", *requirements])
    return folder

def register(name, folder):
    registry = mlflow.MlflowClient()
    with mlflow.start_run() as run:
        mlflow.log_artifacts(folder, "model")
    if error(registry.get_registered_model, name):
        registry.create_registered_model(name)
    return registry.create_model_version(name, f"{run.info.artifact_uri}/model", run_id=run.info.run_id).version
"""


class DeployingClient:
    """Runs scripts in one process, each in a namespace of its own."""

    def __init__(self, process: PythonProcess) -> None:
        self._process = process

    @classmethod
    @contextmanager
    def start(cls, aml: AzureMLStandIn, folder: Path) -> Iterator[DeployingClient]:
        """Start the process, and end it after the block."""
        more = {"TRACKING_URI": aml.tracking_uri, "WORKSPACE": aml.workspace_resource_id}
        with PythonProcess.start(folder, os.environ | aml.environment() | more) as process:
            yield cls(process)

    def run(self, *code: str) -> dict[str, Any]:
        """Return what the script gave to ``answer(name=value)``; it must not raise."""
        found = self._process.run("\n".join([PRELUDE, DEPLOY, *map(textwrap.dedent, code)]))
        assert "error" not in found, self._process.output_file.read_text()[-4000:]
        return found
