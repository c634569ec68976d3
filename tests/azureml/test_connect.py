"""Finding and reaching the Azure ML workspace.

Each failure is one line that says what to do, after a bounded number of attempts.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

import certifi
import pytest

from tests.scenarios.azureml.connect import connect, log_a_metric, refusal
from tests.scenarios.process import ScenarioProcess
from tests.stand_ins.azureml import names
from tests.stand_ins.azureml_workspace import AzureMLStandIn

SUBSCRIPTION = "99999999-bbbb-4bbb-8bbb-000000000009"
ROLES = "https://learn.microsoft.com/azure/machine-learning/how-to-assign-roles"


@pytest.fixture
def process(aml: AzureMLStandIn, azureml_process: ScenarioProcess) -> Iterator[ScenarioProcess]:
    yield azureml_process
    aml.faults.clear()


@pytest.fixture
def statuses(aml: AzureMLStandIn):
    """Return the statuses of this test's requests whose path contains a text."""
    before = len(aml.requests())
    return lambda path: [request.status for request in aml.requests()[before:] if path in request.path]


@pytest.fixture
def proxy(aml: AzureMLStandIn) -> Iterator[str]:
    """A proxy that sends the requests for every host to the stand-in."""

    class Tunnel(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            with socket.create_connection(("127.0.0.1", urlsplit(aml.url).port)) as server:
                self.send_response(200)
                self.end_headers()
                ends = {self.connection: server, server: self.connection}
                with contextlib.suppress(ConnectionError):
                    while True:
                        for end in select.select(list(ends), [], [])[0]:
                            received = end.recv(65536)
                            if not received:
                                return
                            ends[end].sendall(received)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Tunnel) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_workspaces_address_is_looked_up_or_given(aml, process, statuses):
    workspace = process.run(connect)
    page = f"/subscriptions/{aml.subscription_id}/resourcegroups/{aml.resource_group}/workspaces/{aml.workspace}"
    assert (workspace["name"], workspace["uri"]) == (aml.workspace, aml.tracking_uri)
    assert workspace["page"] == f"https://ml.azure.com/home?wsid={page}"
    only_address = dict.fromkeys(aml.workspace_parameters, "") | {"azureml_tracking_uri": aml.tracking_uri}
    assert process.run(connect, **only_address)["uri"] == aml.tracking_uri
    # One request to Azure Resource Manager, and one to the workspace's MLflow server per connection.
    assert statuses("/providers/") == [200, 200, 200]


def test_with_a_region_the_address_is_built_and_not_looked_up(aml, process, statuses, proxy):
    workspace = process.run(connect, azureml_region=names.REGION, environment={"HTTPS_PROXY": proxy})
    assert workspace["uri"] == aml.tracking_uri.replace(aml.url.removeprefix("https://"), names.REGIONAL_HOST)
    # The request that checks access to the workspace. Azure Resource Manager gets none.
    assert statuses("/providers/") == statuses("/mlflow/") == [200]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"azureml_subscription_id": SUBSCRIPTION}, f"azureml_subscription_id='{SUBSCRIPTION}': Azure has none"),
        ({"azureml_resource_group": "other"}, "azureml_resource_group='other': Azure has none of that name"),
        ({"azureml_workspace": "other"}, "azureml_workspace='other': Azure has none of that name (ResourceNotFound"),
        ({"azureml_resource_group": ""}, "azureml_resource_group='': is needed for Azure Machine Learning"),
        ({"azureml_workspace": "x"}, "azureml_workspace='x': not accepted: 3 to 33 of a-z"),
    ],
)
def test_a_parameter_that_names_nothing_is_named_in_the_error(process, parameters, message):
    error = process.run(refusal, **parameters)
    assert error.startswith(f"ParameterError: {message}") and "\n" not in error


def test_without_a_role_the_error_says_who_needs_which(aml, process, statuses):
    outsider = {"AZURE_CLIENT_ID": names.CLIENT_ID_WITHOUT_ROLE}
    for parameters in ({}, {"azureml_tracking_uri": aml.tracking_uri}):
        error = process.run(refusal, **parameters, environment=outsider)
        assert error.startswith("AzureError: No permission to ") and "\n" not in error
        assert f"give application {names.CLIENT_ID_WITHOUT_ROLE} the role AzureML Data Scientist" in error
        assert ROLES in error
    assert statuses("/providers/Microsoft.MachineLearningServices") == [403, 403]


def test_a_workspace_that_the_server_of_the_given_address_does_not_know_is_named(aml, process):
    aml.faults.add("POST /mlflow/", 404)
    error = process.run(refusal, azureml_tracking_uri=aml.tracking_uri)
    host = aml.url.removeprefix("https://")
    assert error.startswith(
        f"AzureError: {host} does not know the workspace {aml.workspace}; check azureml_tracking_uri"
    )
    error = process.run(refusal)
    assert error.endswith(f"does not know the workspace {aml.workspace}")


def test_the_error_for_a_host_that_cannot_be_reached_names_the_parameter_to_check(aml, process):
    closed = aml.tracking_uri.replace(aml.url.removeprefix("https://"), "127.0.0.1:1")
    error = process.run(refusal, azureml_tracking_uri=closed)
    assert error.startswith("AzureError: https://127.0.0.1:1 cannot be reached ([Errno 111] Connection refused)")
    assert "; check azureml_tracking_uri" in error and "private endpoint" in error and "\n" not in error
    # With the proxy, the host name is not looked up here.
    error = process.run(refusal, azureml_region="nowhere", environment={"HTTPS_PROXY": "http://127.0.0.1:1"})
    host = "https://nowhere.api.azureml.ms"
    assert error.startswith(f"AzureError: {host} cannot be reached through the proxy of HTTPS_PROXY (")
    assert "; check azureml_region='nowhere', or leave it empty" in error and "\n" not in error


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"answer": 429, "retry_after": 1, "times": 1}, [429, 200]),
        ({"answer": "drop", "times": 2}, [None, None, 200]),
    ],
)
def test_a_request_that_fails_for_a_while_is_sent_again(aml, process, statuses, fault, expected):
    aml.faults.add("GET /subscriptions/", **fault)
    assert process.run(connect)["name"] == aml.workspace
    assert statuses("/subscriptions/")[: len(expected)] == expected


@pytest.mark.parametrize(
    ("fault", "expected", "message"),
    [
        ({"answer": 503}, [503] * 4, "answered 503 ServiceUnavailable after 4 attempts: The stand-in was told"),
        ({"answer": 429, "retry_after": 3600}, [429], "answered 429 TooManyRequests and asks to wait 3600 s: The"),
    ],
)
def test_a_lasting_failure_ends_with_the_servers_answer(aml, process, statuses, fault, expected, message):
    aml.faults.add("GET /subscriptions/", **fault)
    assert message in process.run(refusal)
    assert statuses("/subscriptions/") == expected


def test_a_request_to_mlflow_that_fails_for_a_while_is_sent_again_too(aml, process, statuses):
    aml.faults.add("POST /mlflow/.*/experiments/search", "drop", times=1)
    assert process.run(connect)["name"] == aml.workspace
    assert statuses("/experiments/search") == [None, 200]


def test_a_certificate_that_is_not_trusted_is_named_before_any_request(process, statuses):
    error = process.run(refusal, environment={"REQUESTS_CA_BUNDLE": certifi.where()})
    assert "has a certificate that is not trusted here" in error and "REQUESTS_CA_BUNDLE" in error and "\n" not in error
    assert statuses("/subscriptions/") == []


def test_a_cloud_that_azure_does_not_have_is_named_before_any_request(process, statuses):
    error = process.run(refusal, environment={"AZUREML_CURRENT_CLOUD": "AzureMoon"})
    assert error == f"AzureError: AZUREML_CURRENT_CLOUD='AzureMoon' is not an Azure cloud; known are: {names.CLOUD}"
    assert statuses("/subscriptions/") == []


def test_later_calls_of_mlflow_do_not_wait_as_long_as_a_server_asks_for(aml, process, statuses):
    aml.faults.add("POST /mlflow/.*/runs/log-metric", 429, retry_after=3600, times=1)
    process.run(log_a_metric, azureml_tracking_uri=aml.tracking_uri)
    assert statuses("/runs/log-metric") == [429, 200]
