"""A kind of endpoint is added with one class and one line in the table; tested with endpoints in memory."""

from __future__ import annotations

import json
import random
from typing import ClassVar

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
from mlflow.entities.model_registry import ModelVersion
from sklearn.linear_model import LogisticRegression

from helpers import kinds, parameters, serving, tracking
from helpers.azureml import Connection
from helpers.parameters import ParameterError
from helpers.serving import inventory
from helpers.serving.endpoint import DEPLOYMENT_HEADER, Deployment, Endpoint, EndpointState, ExistingEndpoint
from helpers.serving.opening import requested_kind

ROWS = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 2)), columns=list("ab"))
NAME = "in memory"
OLD, NEW = "in-memory-1", "in-memory-2"


class MemoryEndpoint(Endpoint):
    """An endpoint that loads models into this process."""

    made: ClassVar[dict[str, MemoryEndpoint]] = {}

    def __init__(self, name: str, model_name: str) -> None:
        super().__init__(name)
        self.model_name, self._traffic, self._models = model_name, {}, {}

    @classmethod
    def open(cls, session, p, model_name):
        return cls.made.get(p.endpoint_name) or cls(p.endpoint_name, model_name)

    @classmethod
    def existing(cls, session):
        for endpoint in list(cls.made.values()):
            yield ExistingEndpoint(endpoint, "memory", endpoint.model_name)

    def state(self):
        if self.name not in self.made:
            return None
        deployments = {name: Deployment(name, name, "Succeeded", is_ours=True) for name in self._models}
        return EndpointState(f"memory:{self.name}", True, dict(self._traffic), deployments)

    def create(self, model_name):
        self.made[self.name] = self

    def deploy(self, deployment, version, show=print):
        self._models[deployment] = mlflow.pyfunc.load_model(f"models:/{version.name}/{version.version}")

    def wait(self, deployment, show=print):
        pass

    def set_traffic(self, traffic):
        self._traffic = {name: percent for name, percent in traffic.items() if percent}

    def delete_deployment(self, deployment):
        del self._models[deployment]

    def delete(self):
        return self.made.pop(self.name, None) is not None

    def log(self, deployment):
        return ""

    def _post(self, body, headers):
        name = headers.get(DEPLOYMENT_HEADER) or random.choices(list(self._traffic), list(self._traffic.values()))[0]
        rows = json.loads(body)["input_data"]
        predictions = self._models[name].predict(pd.DataFrame(rows["data"], columns=rows["columns"]))
        response = requests.Response()
        response.status_code, response.headers[DEPLOYMENT_HEADER] = 200, name
        response._content = json.dumps(predictions.tolist()).encode()
        return response


@pytest.fixture
def memory_kind(monkeypatch):
    """The table of kinds with one more line."""
    monkeypatch.setitem(kinds.ENDPOINTS, "memory", f"{__name__}:MemoryEndpoint")
    yield
    MemoryEndpoint.made.clear()


def deploy_parameters(**changes):
    return parameters.parse(parameters.Deploy, {"experiment_name": "kinds"} | changes)


def unopened_session(p):
    """A session that has not sent a request to its servers."""
    connection = Connection(p)
    return tracking.Session(*tracking.open_servers(p, connection), connection)


@pytest.fixture
def session(local_dir):
    return tracking.configure(deploy_parameters())


@pytest.fixture
def versions(session):
    """Version 1 predicts from the first column, version 2 from the second."""
    registered = []
    for column in "ab":
        estimator = LogisticRegression().fit(ROWS, np.where(ROWS[column] > 0, f"{column} high", f"{column} low"))
        signature = mlflow.models.infer_signature(ROWS, estimator.predict(ROWS))
        with mlflow.start_run():
            uri = tracking.log_model(estimator, flavor="sklearn", signature=signature)
            registered.append(mlflow.register_model(uri, NAME))
    return registered


@pytest.mark.slow
def test_a_kind_that_is_added_to_the_table_is_opened_rolled_out_listed_and_deleted(memory_kind, session, versions):
    p = deploy_parameters(endpoint_target="memory", endpoint_name="added")
    for version in versions:
        endpoint, deployable = serving.open_endpoint(session, p, version)
        rollout = serving.roll_out(
            endpoint, deployable, serving.examples(session, version, ROWS), requests=10, latency_limit_ms=3_600_000
        )
    assert isinstance(endpoint, MemoryEndpoint)
    assert [check.percent for check in rollout.checks] == [0, 10, 10, 50, 50, 100]
    assert rollout.state.traffic == {NEW: 100} and rollout.state.deployments.keys() == {NEW}
    with pytest.raises(serving.ServingError, match=f"added cannot mirror 5 % of its requests to {NEW}"):
        endpoint.set_mirror(NEW, 5)
    assert endpoint.mirror_counts(NEW) is None

    with pytest.raises(serving.ServingError, match=f"serves what it served before: {NEW} 100 %"):
        wrong = serving.examples(session, versions[1], ROWS)
        serving.roll_out(endpoint, versions[0], wrong, latency_limit_ms=3_600_000)
    assert endpoint.state() == rollout.state

    def keep_reasons(model_name, force=False):
        return {item.name: item.keep_reason for item in items_in_memory(session, model_name, force)}

    assert keep_reasons(NAME) == {
        "added": f"serves requests: {NEW} gets 100 %; force=true deletes it",
        f"added/{NEW}": "gets 100 % of the requests; force=true deletes it",
    }
    assert set(keep_reasons("another", force=True).values()) == {
        "made by this bundle, and not named by these parameters"
    }
    assert keep_reasons(NAME, force=True) == {"added": "", f"added/{NEW}": ""}
    items = items_in_memory(session, NAME, True)
    assert [(item.kind, item.delete()) for item in items] == [("deployments", True), ("endpoints", True)]
    assert [item.delete() for item in items] == [False, False] and keep_reasons(NAME) == {}


def items_in_memory(session, model_name, force):
    p = parameters.CleanUp(model_name=model_name, force=force)
    return [item for item in inventory.items(None, session, p) if item.where == "memory"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"endpoint_target": "aks"}, "aks_compute='': is needed for endpoint_target=aks"),
        (
            {"endpoint_target": "aks", "aks_compute": "c", "endpoint_auth": "aad_token"},
            "endpoint_target=aks accepts only key",
        ),
        ({"endpoint_target": "aci", "endpoint_auth": "aad_token"}, "endpoint_target=aci accepts only key"),
        (
            {"endpoint_target": "aci", "endpoint_environment": "own"},
            "endpoint_environment='own': needs endpoint_target=managed, kubernetes or local; endpoint_target is aci",
        ),
        (
            {"endpoint_target": "managed", "endpoint_conda_file": "conda.yml"},
            "endpoint_conda_file='conda.yml': is used with endpoint_environment=own only",
        ),
        (
            {"endpoint_target": "local", "endpoint_image": "python:3.12"},
            "endpoint_image='python:3.12': is not used by a local endpoint",
        ),
        (
            {"endpoint_target": "local", "endpoint_environment": "own", "endpoint_conda_file": "conda.yml"},
            "endpoint_conda_file='conda.yml': is not used by a local endpoint",
        ),
        (
            {"endpoint_target": "local", "collect_data_rate": "0.1"},
            "collect_data_rate='0.1': is used with collect_data=true only",
        ),
        ({"endpoint_target": "managed", "instance_type": "larger"}, "instance_type='larger': is not a virtual machine"),
        ({"endpoint_target": "kubernetes"}, "endpoint_compute='': is needed for endpoint_target=kubernetes"),
        (
            {"endpoint_target": "kubernetes", "endpoint_compute": "c", "endpoint_auth": "aad_token"},
            "endpoint_target=kubernetes accepts only key",
        ),
        (
            {"endpoint_target": "kubernetes", "endpoint_compute": "c", "public_network_access": "disabled"},
            "public_network_access='disabled': is for managed endpoints",
        ),
        (
            {"endpoint_target": "kubernetes", "endpoint_compute": "c", "instance_type": "Standard_DS3_v2"},
            "instance_type='Standard_DS3_v2': is a virtual machine",
        ),
        *(
            (
                {"endpoint_target": kind, "mirror_percent": "20"},
                f"mirror_percent='20': needs endpoint_target=managed or local; endpoint_target is {kind}",
            )
            for kind in ("kubernetes", "aci", "aks", "memory")
        ),
        (
            {"endpoint_target": "local", "mirror_minutes": "5"},
            "mirror_minutes='5': is used with mirror_percent only",
        ),
        ({"endpoint_target": "managed"}, "azureml_subscription_id='': is needed for Azure Machine Learning"),
    ],
)
def test_parameters_that_do_not_go_with_a_kind_are_refused(memory_kind, changes, message):
    p = deploy_parameters(**changes)
    with pytest.raises(ParameterError, match=message):
        serving.open_endpoint(unopened_session(p), p, ModelVersion(NAME, "1", 0))


def test_auto_is_this_machine_without_a_workspace_and_azure_with_one():
    for workspace, kind in (("", "local"), ("ml-workspace", "managed")):
        p = deploy_parameters(azureml_workspace=workspace)
        assert requested_kind(unopened_session(p), p) == kind
