"""Adding a kind of endpoint takes one class and one line in the table: shown with endpoints in memory."""

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

from helpers import parameters, serving, tracking, training
from helpers.parameters import ParameterError
from helpers.serving import kinds
from helpers.serving.endpoint import DEPLOYMENT_HEADER, Deployment, Endpoint, EndpointState, ExistingEndpoint

ROWS = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 2)), columns=list("ab"))
NAME = "in memory"
OLD, NEW = "in-memory-1", "in-memory-2"


class MemoryEndpoint(Endpoint):
    """Loads models into this process."""

    made: ClassVar[dict[str, MemoryEndpoint]] = {}

    def __init__(self, name: str, model_name: str) -> None:
        super().__init__(name)
        self.model_name, self._traffic, self._models = model_name, {}, {}

    @classmethod
    def open(cls, p, model_name, connect):
        return cls.made.get(p.endpoint_name) or cls(p.endpoint_name, model_name)

    @classmethod
    def existing(cls, workspace):
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
    """The table with one line more."""
    monkeypatch.setitem(kinds.KINDS, "memory", MemoryEndpoint)
    yield
    MemoryEndpoint.made.clear()


@pytest.fixture
def set_parameters(tracking_parameters):
    """Make what `open_endpoint` takes. The declared choices of endpoint_target do not have the new kind."""

    def set_parameters(**changes):
        p = tracking_parameters(experiment_name="kinds")
        for name in parameters.ENDPOINT:
            setattr(p, name, changes.get(name, parameters.FIELDS[name].default))
        return p

    return set_parameters


@pytest.fixture
def versions(set_parameters):
    """Version 1 predicts from the first column, version 2 from the second."""
    tracking.configure(set_parameters())
    registered = []
    for column in "ab":
        estimator = LogisticRegression().fit(ROWS, np.where(ROWS[column] > 0, f"{column} high", f"{column} low"))
        signature = mlflow.models.infer_signature(ROWS, estimator.predict(ROWS))
        with mlflow.start_run():
            uri = tracking.log_model(training.TrainedModel(estimator, "sklearn", [], signature, None, {}, {}))
            registered.append(mlflow.register_model(uri, NAME))
    return registered


def test_a_kind_that_is_added_to_the_table_is_opened_rolled_out_listed_and_deleted(
    memory_kind, set_parameters, versions
):
    p = set_parameters(endpoint_target="memory", endpoint_name="added")
    for version in versions:
        endpoint, deployable = serving.open_endpoint(p, version)
        rollout = serving.roll_out(endpoint, deployable, serving.examples(version, ROWS), requests=10)
    assert isinstance(endpoint, MemoryEndpoint)
    assert [check.percent for check in rollout.checks] == [0, 10, 10, 50, 50, 100]
    assert rollout.state.traffic == {NEW: 100} and rollout.state.deployments.keys() == {NEW}

    with pytest.raises(serving.ServingError, match=f"serves what it served before: {NEW} 100 %"):
        wrong = serving.examples(versions[1], ROWS)
        serving.roll_out(endpoint, versions[0], wrong)
    assert endpoint.state() == rollout.state

    def keep_reasons(model_name, force=False):
        items = serving.items(p, model_name, force)
        return {item.name: item.keep_reason for item in items if item.where == "memory"}

    assert keep_reasons(NAME) == {
        "added": f"serves requests: {NEW} gets 100 %; force=true deletes it",
        f"added/{NEW}": "gets 100 % of the requests; force=true deletes it",
    }
    assert set(keep_reasons("another", force=True).values()) == {
        "made by this bundle, and not named by these parameters"
    }
    assert keep_reasons(NAME, force=True) == {"added": "", f"added/{NEW}": ""}
    items = [item for item in serving.items(p, NAME, True) if item.where == "memory"]
    assert [(item.kind, item.delete()) for item in items] == [("deployments", True), ("endpoints", True)]
    assert [item.delete() for item in items] == [False, False] and keep_reasons(NAME) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"endpoint_target": "aks"}, "aks_compute='': is needed for endpoint_target=aks"),
        (
            {"endpoint_target": "aks", "aks_compute": "c", "endpoint_auth": "aad_token"},
            "endpoint_target=aks accepts only key",
        ),
        ({"endpoint_target": "aci", "endpoint_auth": "aad_token"}, "endpoint_target=aci accepts only key"),
        ({"endpoint_target": "managed"}, "azureml_subscription_id='': is needed for Azure Machine Learning"),
    ],
)
def test_parameters_that_do_not_go_with_a_kind_are_refused(set_parameters, changes, message):
    with pytest.raises(ParameterError, match=message):
        serving.open_endpoint(set_parameters(**changes), ModelVersion(NAME, "1", 0))


def test_auto_is_this_machine_without_a_workspace_and_azure_with_one(set_parameters):
    p = set_parameters()
    assert kinds.requested_kind(p) == "local"
    p.azureml_workspace = "ml-workspace"
    assert kinds.requested_kind(p) == "managed"


def test_the_parameter_offers_each_kind_of_the_table():
    assert set(parameters.choices("endpoint_target")) == {"auto", *kinds.KINDS}
