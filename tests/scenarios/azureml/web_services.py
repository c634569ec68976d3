"""Web services of version 1, deployed and called with MLflow's plugin."""

from __future__ import annotations

from typing import Any

import requests
from mlflow.deployments import BaseDeploymentClient

from tests.scenarios.azureml.deploying import ONE_ROW, ROWS, config, plugin, register, save_damaged_model, save_model
from tests.scenarios.errors import error_of
from tests.stand_ins.azureml_workspace import AzureMLStandIn


def register_models() -> None:
    """Register the model ``web``: version 1 doubles, version 2 triples, version 3 does not load."""
    plugin()
    for folder in (save_model(2), save_model(3), save_damaged_model()):
        register("web", folder)


def predictions(client: BaseDeploymentClient, name: str) -> list[float]:
    """Return a web service's predictions."""
    return client.predict(name, ROWS)[0].round().tolist()


def serve_on_a_container_instance() -> dict[str, Any]:
    """Deploy a model, replace it with another one that requires a key, and delete the service."""
    client = plugin()
    created = client.create_deployment("instance", "models:/web/1")
    first = predictions(client, "instance")
    # The plugin recognizes the kind of compute only in lower case.
    changed = config("deploy", computeType="aci", authEnabled=True, tags={"team": "blue"})
    client.update_deployment("instance", "models:/web/2", config=changed)
    service = client.get_deployment("instance")
    second = predictions(client, "instance")
    without_key = requests.post(service["scoringUri"], json=ONE_ROW).status_code
    names = [item["name"] for item in client.list_deployments()]
    client.delete_deployment("instance")
    return {
        "created": created,
        "first": first,
        "second": second,
        "service": service,
        "without_key": without_key,
        "names": names,
        "after_deletion": error_of(client.get_deployment, "instance"),
    }


def serve_on_kubernetes() -> dict[str, Any]:
    """Deploy services with keys and with tokens, and services that Azure ML refuses or that crash."""
    client = plugin()

    def deploy(name: str, model: str = "models:/web/1", **settings: Any) -> None:
        settings = {"computeType": "aks", "computeTargetName": AzureMLStandIn.attached_compute} | settings
        client.create_deployment(name, model, config=config("deploy", **settings))

    def reason(*arguments: str, **settings: str) -> str | None:
        try:
            deploy(*arguments, **settings)
        except Exception as error:  # noqa: BLE001
            return str(error.__cause__)
        return None

    deploy("with-keys")
    deploy("with-tokens", authEnabled=False, tokenAuthEnabled=True)
    answers = {
        "keys": predictions(client, "with-keys"),
        "tokens": predictions(client, "with-tokens"),
        "without": requests.post(client.get_deployment("with-tokens")["scoringUri"], json={}).status_code,
        "not_attached": reason("elsewhere", computeTargetName="no-cluster"),
        "taken": reason("with-keys"),
        "crashed": reason("crashed", "models:/web/3"),
        "state": client.get_deployment("crashed")["state"],
    }
    for name in ("with-keys", "with-tokens", "crashed"):
        client.delete_deployment(name)
    return answers
