"""Online endpoints, deployed and called with MLflow's plugin and with requests without a client library."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import requests

from tests.scenarios.azureml import waiting_model
from tests.scenarios.azureml.deploying import (
    FOR_AML,
    ONE_ROW,
    ROWS,
    arm,
    config,
    deployment,
    deployment_config,
    plugin,
    put_endpoint,
    register,
    save_damaged_model,
    save_model,
    score,
    signed_in,
    wait_for,
)
from tests.scenarios.errors import error_of
from tests.stand_ins.azureml_workspace import AzureMLStandIn

BOTH = "blue-and-green"
# The only version of the REST API whose PATCH changes the traffic.
PREVIEW = "2022-02-01-preview"


def register_models() -> None:
    """Register ``served`` and ``waiting``.

    Version 1 of ``served`` doubles, 2 triples, 3 does not load, and 4 lacks a package that the container needs.
    """
    plugin()
    folders = save_model(2, *FOR_AML), save_model(3, *FOR_AML), save_damaged_model(*FOR_AML), save_model(5, FOR_AML[0])
    for folder in folders:
        register("served", folder)
    mlflow.pyfunc.save_model("waiting", python_model=waiting_model.__file__, pip_requirements=[*FOR_AML])
    register("waiting", "waiting")


def deploy_blue_and_green() -> None:
    """Create an endpoint with two deployments and no traffic: blue doubles, green triples."""
    put_endpoint(BOTH)
    answers = [
        arm("PUT", f"/{BOTH}/deployments/{name}", deployment(model))
        for name, model in {"blue": "served/1", "green": "served/2"}.items()
    ]
    statuses = [wait_for(answer)["status"] for answer in answers]
    assert statuses == ["Succeeded", "Succeeded"], statuses


def deploy_with_the_plugin() -> dict[str, Any]:
    """Deploy a model, give it traffic, replace it, and delete everything."""
    client = plugin()

    def predict(name: str | None = None) -> list[float]:
        return client.predict(name, ROWS, endpoint="plugin")[0].round().tolist()

    client.create_endpoint("plugin", config("endpoint", auth_mode="key", tags={"team": "blue"}))
    created = client.create_deployment("blue", "models:/served/1", config=deployment_config(), endpoint="plugin")
    without_traffic = [error_of(predict), predict("blue")]
    client.update_endpoint("plugin", config("endpoint", traffic={"blue": 100}))
    with_traffic = predict()
    client.update_deployment("blue", "models:/served/2", endpoint="plugin")
    answers = {
        "created": created,
        "without_traffic": without_traffic,
        "with_traffic": with_traffic,
        "updated": predict(),
        "endpoint": client.get_endpoint("plugin"),
        "deployments": client.list_deployments("plugin"),
        "no_endpoint": error_of(client.get_endpoint, "nobody"),
        "no_deployment": error_of(client.get_deployment, "no", "plugin"),
        "no_deployments": error_of(client.list_deployments, "nobody"),
    }
    client.delete_deployment("blue", "plugin")
    left = client.list_deployments("plugin")
    client.delete_endpoint("plugin")
    return answers | {"left": left, "gone": error_of(client.get_endpoint, "plugin")}


def list_page_by_page() -> dict[str, Any]:
    """List more endpoints than a page has, and deployments one per page."""
    client = plugin()
    for name in ("listed-1", "listed-2"):
        put_endpoint(name)
    first = arm("GET", f"/{BOTH}/deployments?count=1").json()
    return {
        "endpoints": [item["name"] for item in client.list_endpoints()],
        "page": len(arm("GET", "").json()["value"]),
        "deployments": [item["name"] for item in client.list_deployments(BOTH)],
        "first": first["value"][0]["name"],
        "second": requests.get(first["nextLink"], headers=signed_in()).json(),
    }


def deploy_while_the_model_does_not_load() -> dict[str, Any]:
    """Deploy a model that waits while it loads, deploy it again meanwhile, and delete the endpoint."""
    put_endpoint("states")
    path = "/states/deployments/blue"
    loading = os.path.abspath("loading")  # noqa: PTH100
    os.mkfifo(loading)
    waiting = deployment("waiting/1", environmentVariables={"HOLD_LOADING": loading})
    put, twice = arm("PUT", path, waiting), arm("PUT", path, waiting)
    state = arm("GET", path).json()["properties"]["provisioningState"]
    statuses: list[str] = []
    Path(loading).write_text("")
    wait_for(put, statuses)
    deleted = arm("DELETE", "/states")
    wait_for(deleted)
    return {
        "put": [put.status_code, put.json()["properties"]["provisioningState"]],
        "twice": twice.status_code,
        "state": state,
        "statuses": statuses,
        "deleted": [deleted.status_code, arm("GET", path).status_code, arm("DELETE", "/states").status_code],
    }


def split_traffic() -> dict[str, Any]:
    """Send requests while the traffic is split, while it changes, and after green gets all of it."""

    def set_traffic(**traffic: int) -> requests.Response:
        return arm("PATCH", f"/{BOTH}", {"properties": {"traffic": traffic}}, PREVIEW)

    key = arm("POST", f"/{BOTH}/listKeys").json()["primaryKey"]

    def ask(by: str | None = None) -> list[Any]:
        answer = score(BOTH, key=key, by=by)
        return [answer.status_code, answer.headers.get("azureml-model-deployment"), round(answer.json()[0])]

    wait_for(set_traffic(blue=50, green=50))
    with ThreadPoolExecutor(4) as pool:
        half = list(pool.map(ask, [None] * 60))
        asked = [pool.submit(ask) for _ in range(60)]
        for share in (0, 10, 20):
            wait_for(set_traffic(blue=share, green=100 - share))
        during = [future.result() for future in asked]
    all_to_green = {"authMode": "Key", "traffic": {"green": 100, "blue": 0}}
    put = wait_for(arm("PUT", f"/{BOTH}", {"location": "westeurope", "properties": all_to_green}))
    answers = {
        "half": half,
        "during": during,
        "put": put["status"],
        "all_green": [ask() for _ in range(10)],
        "picked": ask("blue"),
        "unknown": score(BOTH, key=key, by="red").status_code,
        "with_traffic": arm("DELETE", f"/{BOTH}/deployments/green").json(),
    }
    wait_for(set_traffic())
    return answers


def ask_with_keys_and_tokens() -> dict[str, Any]:
    """Call endpoints of each authentication mode with right and wrong keys and tokens."""
    put_endpoint("by-token", "AMLToken")
    put_endpoint("by-identity", "AADToken")
    keys = arm("POST", f"/{BOTH}/listKeys").json()
    token, identity = (arm("POST", f"/{name}/token").json()["accessToken"] for name in ("by-token", "by-identity"))
    nobody = signed_in(AzureMLStandIn.client_id_without_role)

    def ask(name: str, *credentials: str) -> list[int]:
        return [score(name, key=credential, by="blue").status_code for credential in credentials]

    return {
        "keys": ask(BOTH, *keys.values(), "wrong", token),
        "tokens": ask("by-token", token, identity, "wrong"),
        "identities": ask("by-identity", identity, token, nobody["Authorization"].removeprefix("Bearer ")),
        "keys_of_token": arm("POST", "/by-token/listKeys").status_code,
        "token_of_key": arm("POST", f"/{BOTH}/token").status_code,
        "for_arm": arm("GET", "", headers={"Authorization": f"Bearer {token}"}).status_code,
        "forbidden": arm("POST", f"/{BOTH}/listKeys", headers=nobody).json()["error"],
        "swagger": requests.get(f"{os.environ['AZURE_AUTHORITY_HOST']}/online/{BOTH}/swagger.json").status_code,
    }


def deploy_what_is_refused() -> dict[str, Any]:
    """Send requests that Azure ML does not accept."""
    client = plugin()
    put_endpoint("refused")
    endpoint = {"location": "westeurope", "properties": {"authMode": "Key"}}

    def make(name: str, body: dict[str, Any]) -> requests.Response:
        return arm("PUT", f"/refused/deployments/{name}", body)

    def set_traffic(version: str, **shares: int) -> requests.Response:
        return arm("PATCH", "/refused", {"properties": {"traffic": shares}}, version)

    large = deployment("served/1", instanceType="standard_ds5_v2") | {"sku": {"name": "Default", "capacity": 6}}
    answers = {
        "endpoint_name": arm("PUT", "/1st", endpoint),
        "two_dashes": arm("PUT", "/a--b", endpoint),
        "deployment_name": make("x", deployment("served/1")),
        "other_mode": arm("PUT", "/refused", endpoint | {"properties": {"authMode": "AMLToken"}}),
        "no_such_mode": arm("PUT", "/refused-2", endpoint | {"properties": {"authMode": "key"}}),
        "quota": make("large", large),
        "instance_type": make("blue", deployment("served/1", instanceType="Standard_No")),
        "model": make("blue", deployment("served/99")),
        "no_such_deployment": set_traffic(PREVIEW, blue=100),
        "patch_of_later_version": set_traffic("2024-04-01"),
        "parent": arm("PUT", "/nobody/deployments/blue", deployment("served/1")),
    }
    settings = deployment_config(instance_type="Standard_DS5_v2", instance_count=6)
    large_by_plugin = error_of(
        client.create_deployment, "large", "models:/served/1", endpoint="refused", config=settings
    )
    return {
        "answers": {name: [answer.status_code, answer.json()["error"]] for name, answer in answers.items()},
        "plugin": large_by_plugin,
        "deployments": arm("GET", "/refused/deployments").json(),
    }


def deploy_a_model_that_does_not_load(version: str) -> dict[str, Any]:
    """Deploy a version of ``served`` whose container crashes, and call, change and delete it."""
    client = plugin()
    name = f"failing-{version}"
    path = f"/{name}/deployments/new"
    put_endpoint(name)

    def logs(**options: Any) -> str:
        return arm("POST", f"{path}/getLogs", options).json()["content"]

    failed = error_of(
        client.create_deployment, "new", f"models:/served/{version}", config=deployment_config(), endpoint=name
    )
    return {
        "failed": failed,
        "state": arm("GET", path).json()["properties"]["provisioningState"],
        "log": logs(containerType="InferenceServer", tail=50),
        "tail": logs(tail=1),
        "initializer": logs(containerType="StorageInitializer"),
        "again": arm("PUT", path, deployment("served/1")).json()["error"]["details"][0]["message"],
        "asked": score(name, by="new").status_code,
        "traffic": arm("PATCH", f"/{name}", {"properties": {"traffic": {"new": 100}}}).status_code,
        "deleted": wait_for(arm("DELETE", path))["status"],
    }


def fail_to_update() -> dict[str, Any]:
    """Replace blue's model with one that does not load, and then with the original one."""
    path = f"/{BOTH}/deployments/blue"
    failed = wait_for(arm("PUT", path, deployment("served/3")))
    return {
        "failed": failed["error"],
        "predictions": score(BOTH, by="blue").json(),
        "state": arm("GET", path).json()["properties"]["provisioningState"],
        "mended": wait_for(arm("PUT", path, deployment("served/1")))["status"],
    }


def send_wrong_payloads() -> dict[str, Any]:
    """Send bodies that are not in Azure ML's form, rows that the model refuses, and tensors."""
    client = plugin()

    def ask(data: Any) -> requests.Response:
        return score(BOTH, data, by="blue")

    def frame(name: str, value: Any) -> dict[str, Any]:
        return {"input_data": ONE_ROW["input_data"] | {"columns": [name], "data": [[value]]}}

    answers = [ask(data) for data in ({"data": []}, [1], frame("y", 1.0), frame("x", "text"))]
    return {
        "answers": [[answer.status_code, answer.json()["error"]["message"]] for answer in answers],
        "container": answers[2].headers.get("ms-azureml-model-error-statuscode"),
        "tensors": [ask({"input_data": data}).json() for data in ([{"x": 1.0}], {"x": [1.0]})],
        "plugin": error_of(client.predict, "blue", pd.DataFrame({"y": [1.0]}), endpoint=BOTH),
    }


def delete_while_a_request_is_answered() -> dict[str, Any]:
    """Delete a deployment that has received a request and has not answered yet."""
    put_endpoint("waiting")
    path = "/waiting/deployments/blue"
    pipes = {name: os.path.abspath(name.lower()) for name in ("ASKED", "ANSWERS")}  # noqa: PTH100
    for pipe in pipes.values():
        os.mkfifo(pipe)
    created = wait_for(arm("PUT", path, deployment("waiting/1", environmentVariables=pipes)))
    assert created["status"] == "Succeeded", created
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(score, "waiting", by="blue")
        Path(pipes["ASKED"]).read_text()
        deleted = arm("DELETE", path)
        state = arm("GET", path).json()["properties"]["provisioningState"]
        answered_meanwhile = asked.done()
        refused = score("waiting", by="blue").status_code
        Path(pipes["ANSWERS"]).write_text("")
        answer = asked.result()
    return {
        "state": state,
        "answered_meanwhile": answered_meanwhile,
        "refused": refused,
        "answer": [answer.status_code, answer.json()],
        "ended": wait_for(deleted)["status"],
        "after": arm("GET", path).status_code,
    }


def change_and_ask_while_requests_fail() -> dict[str, Any]:
    """Give green all the traffic, send two requests, and read blue's log."""
    client = plugin()

    def predict() -> list[float]:
        return client.predict(df=ROWS, endpoint=BOTH)[0].round().tolist()

    client.update_endpoint(BOTH, config("endpoint", traffic={"green": 100}))
    answers = {
        "failed": error_of(predict),
        "predictions": predict(),
        "logs": arm("POST", f"/{BOTH}/deployments/blue/getLogs", {}).status_code,
    }
    wait_for(arm("PATCH", f"/{BOTH}", {"properties": {"traffic": {}}}, PREVIEW))
    return answers
