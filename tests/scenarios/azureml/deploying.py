"""Shared parts of endpoint scenarios: models to deploy, MLflow's plugin, and requests without a client library."""

from __future__ import annotations

import itertools
import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import requests
from azure.identity import ClientSecretCredential
from mlflow.deployments import BaseDeploymentClient, get_deploy_client
from sklearn.linear_model import LinearRegression

from tests.scenarios.azureml import plain_mlflow
from tests.scenarios.errors import error_of
from tests.stand_ins.azureml_workspace import AzureMLStandIn

WORKSPACE = AzureMLStandIn.workspace_resource_id
ROWS = pd.DataFrame({"x": [1.0, 2.0]})
ONE_ROW = {"input_data": {"columns": ["x"], "index": [0], "data": [[1.0]]}}
# The packages that the container of an online endpoint needs.
FOR_AML = ("azureml-inference-server-http==1.5.1", "azureml_ai_monitoring")
_numbers = itertools.count()


def plugin() -> BaseDeploymentClient:
    """Return the client of MLflow's plugin for the workspace."""
    warnings.filterwarnings("ignore")
    logging.getLogger("mlflow").setLevel("ERROR")
    plain_mlflow.signed_in()
    return get_deploy_client(AzureMLStandIn.from_environment().tracking_uri)


def save_model(slope: float, *requirements: str) -> str:
    """Save a model that multiplies by ``slope``, and return its folder."""
    x = pd.DataFrame({"x": [0.0, 1.0, 2.0]})
    model = LinearRegression().fit(x, slope * x["x"])
    signature = mlflow.models.infer_signature(x, pd.Series(model.predict(x), name="y"))
    folder = f"model_{next(_numbers)}"
    mlflow.sklearn.save_model(model, folder, signature=signature, pip_requirements=["scikit-learn", *requirements])
    return folder


def save_damaged_model(*requirements: str) -> str:
    """Save a model that does not load, and return its folder."""
    folder = save_model(4, *requirements)
    Path(folder, "model.skops").write_bytes(b"damaged")
    return folder


def register(name: str, folder: str) -> str:
    """Log a saved model with a run, register it, and return its version."""
    registry = plain_mlflow.signed_in()
    mlflow.set_experiment("deployed")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(folder, "model")
    if error_of(registry.get_registered_model, name):
        registry.create_registered_model(name)
    source = f"{run.info.artifact_uri}/model"
    return registry.create_model_version(name, source, run_id=run.info.run_id).version


def config(kind: str, **content: Any) -> dict[str, str]:
    """Return the plugin's option that names a file with settings.

    Parameters
    ----------
    kind : {"deploy", "endpoint"}
    **content
        The settings.
    """
    path = Path(f"config_{next(_numbers)}.json")
    path.write_text(json.dumps(content))
    return {f"{kind}-config-file": str(path)}


def deployment_config(**content: Any) -> dict[str, str]:
    """Return the plugin's option for a deployment of an online endpoint."""
    return config("deploy", **{"instance_type": "Standard_DS2_v2", "instance_count": 1} | content)


def signed_in(client_id: str = AzureMLStandIn.client_id) -> dict[str, str]:
    """Sign in as an application, and return the header of its requests."""
    credential = ClientSecretCredential("adfs", client_id, os.environ["AZURE_CLIENT_SECRET"])
    token = credential.get_token(f"{os.environ['AZURE_AUTHORITY_HOST']}/.default").token
    return {"Authorization": f"Bearer {token}"}


def arm(
    method: str, path: str, body: Any = None, version: str = "2024-04-01", headers: dict[str, str] | None = None
) -> requests.Response:
    """Send a request about online endpoints to Azure Resource Manager."""
    address = f"{os.environ['AZURE_AUTHORITY_HOST']}{WORKSPACE}/onlineEndpoints{path}"
    sent = {"params": {"api-version": version}, "json": body, "headers": headers or signed_in()}
    return requests.request(method, address, **sent)


def wait_for(answer: requests.Response, statuses: list[str] | None = None) -> dict[str, Any]:
    """Ask for the status of an operation until it has ended, and return its last description.

    Parameters
    ----------
    answer : requests.Response
        The answer to the request that started the operation.
    statuses : list of str, optional
        Gets each status.
    """
    while True:
        operation = requests.get(answer.headers["Azure-AsyncOperation"], headers=signed_in()).json()
        if statuses is not None:
            statuses.append(operation["status"])
        if operation["status"] != "InProgress":
            return operation


def put_endpoint(name: str, mode: str = "Key") -> None:
    """Create an online endpoint."""
    wait_for(arm("PUT", f"/{name}", {"location": "westeurope", "properties": {"authMode": mode}}))


def deployment(model: str, **properties: Any) -> dict[str, Any]:
    """Return the description of a deployment for the model ``name/version``."""
    name, _, version = model.partition("/")
    defaults = {
        "model": f"{WORKSPACE}/models/{name}/versions/{version}",
        "instanceType": "Standard_DS2_v2",
        "endpointComputeType": "Managed",
    }
    sku = {"name": "Default", "capacity": 1}
    return {"location": "westeurope", "sku": sku, "properties": defaults | properties}


def score(name: str, data: Any = ONE_ROW, key: str | None = None, by: str | None = None) -> requests.Response:
    """Ask an online endpoint for a prediction.

    Parameters
    ----------
    name : str
        The endpoint.
    data : object
        The body.
    key : str, optional
        By default the primary key.
    by : str, optional
        The deployment that should answer.
    """
    key = key or arm("POST", f"/{name}/listKeys").json()["primaryKey"]
    headers = {"Authorization": f"Bearer {key}"} | ({"azureml-model-deployment": by} if by else {})
    return requests.post(f"{os.environ['AZURE_AUTHORITY_HOST']}/online/{name}/score", json=data, headers=headers)
