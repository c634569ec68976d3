"""Finding and reaching the AML workspace: each failure is one line that says what to do, after a bounded number
of tries.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

import certifi
import pytest

from tests.azureml import names
from tests.azureml.python_process import PythonProcess
from tests.azureml.stand_in import AzureMLStandIn

SUBSCRIPTION = "99999999-bbbb-4bbb-8bbb-000000000009"
CONNECT = """
import json, os
from helpers import azureml, parameters

defaults = {name: parameters.FIELDS[name].default for name in parameters.TRACKING}
workspace = azureml.connect(parameters.parse(defaults | json.loads(os.environ["PARAMETERS"])))
answer(name=workspace.name, uri=workspace.tracking_uri, page=workspace.studio_url("home"))
"""
ROLES = "https://learn.microsoft.com/azure/machine-learning/how-to-assign-roles"


@pytest.fixture(scope="module")
def notebook(aml: AzureMLStandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PythonProcess]:
    with PythonProcess.start(tmp_path_factory.mktemp("notebook"), os.environ | aml.environment()) as process:
        yield process


@pytest.fixture
def connect(aml: AzureMLStandIn, notebook: PythonProcess):
    """Connect with parameters in place of the right ones, and return what came of it."""
    right = {"azureml_subscription_id": aml.subscription_id, "azureml_resource_group": aml.resource_group}
    right |= {"tracking_mode": "azureml", "azureml_workspace": aml.workspace}

    def run(environment: dict[str, str] | None = None, **parameters: str):
        return notebook.run(CONNECT, PARAMETERS=json.dumps(right | parameters), **environment or {})

    yield run
    aml.faults.clear()


@pytest.fixture
def statuses(aml: AzureMLStandIn):
    """Return the answers of this test to requests whose path holds a text."""
    before = len(aml.requests())
    return lambda path: [request.status for request in aml.requests()[before:] if path in request.path]


@pytest.fixture
def proxy(aml: AzureMLStandIn) -> Iterator[str]:
    """A proxy for which every host is the stand-in."""

    class Tunnel(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            with socket.create_connection(("127.0.0.1", urlsplit(aml.url).port)) as there:
                self.send_response(200)
                self.end_headers()
                ends = {self.connection: there, there: self.connection}
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


def test_the_workspaces_address_is_asked_for_or_given(aml, connect, statuses):
    expected = {"name": aml.workspace, "uri": aml.tracking_uri}
    page = f"/subscriptions/{aml.subscription_id}/resourcegroups/{aml.resource_group}/workspaces/{aml.workspace}"
    assert connect() == expected | {"page": f"https://ml.azure.com/home?wsid={page}"}
    outright = {"azureml_subscription_id": "", "azureml_resource_group": "", "azureml_workspace": ""}
    assert connect(**outright, azureml_tracking_uri=aml.tracking_uri)["uri"] == aml.tracking_uri
    # Azure Resource Manager once, the workspace's MLflow server each time.
    assert statuses("/providers/") == [200, 200, 200]


def test_with_a_region_the_address_is_built_and_nobody_is_asked_for_it(aml, connect, statuses, proxy):
    found = connect({"HTTPS_PROXY": proxy}, azureml_region=names.REGION)
    assert found["uri"] == aml.tracking_uri.replace(aml.url.removeprefix("https://"), names.REGIONAL_HOST)
    # The one request that sees whether the workspace may be used; Azure Resource Manager has none.
    assert statuses("/providers/") == statuses("/mlflow/") == [200]


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"azureml_subscription_id": SUBSCRIPTION}, f"azureml_subscription_id='{SUBSCRIPTION}': Azure has none"),
        ({"azureml_resource_group": "other"}, "azureml_resource_group='other': Azure has none of that name"),
        ({"azureml_workspace": "other"}, "azureml_workspace='other': Azure has none of that name (ResourceNotFound"),
        ({"azureml_resource_group": ""}, "azureml_resource_group='': is needed for Azure Machine Learning"),
        ({"azureml_workspace": "x"}, "azureml_workspace='x': not accepted: 3 to 33 of a-z"),
    ],
)
def test_a_parameter_that_names_nothing_is_told_by_its_name(connect, parameters, told):
    error = connect(**parameters)["error"]
    assert error.startswith(f"ParameterError: {told}") and "\n" not in error


def test_without_a_role_it_is_told_who_needs_which(aml, connect, statuses):
    outsider = {"AZURE_CLIENT_ID": names.CLIENT_ID_WITHOUT_ROLE}
    for parameters in ({}, {"azureml_tracking_uri": aml.tracking_uri}):
        error = connect(outsider, **parameters)["error"]
        assert error.startswith("AzureError: No permission to ") and "\n" not in error
        assert f"give application {names.CLIENT_ID_WITHOUT_ROLE} the role AzureML Data Scientist" in error
        assert ROLES in error
    assert statuses("/providers/Microsoft.MachineLearningServices") == [403, 403]


def test_a_workspace_that_the_server_of_the_given_address_does_not_know_is_told(aml, connect):
    aml.faults.add("POST /mlflow/", 404)
    error = connect(azureml_tracking_uri=aml.tracking_uri)["error"]
    host = aml.url.removeprefix("https://")
    assert error.startswith(
        f"AzureError: {host} does not know the workspace {aml.workspace}; check azureml_tracking_uri"
    )
    error = connect()["error"]
    assert error.endswith(f"does not know the workspace {aml.workspace}")


def test_a_host_that_cannot_be_reached_is_told_with_the_parameter_that_named_it(aml, connect):
    closed = aml.tracking_uri.replace(aml.url.removeprefix("https://"), "127.0.0.1:1")
    error = connect(azureml_tracking_uri=closed)["error"]
    assert error.startswith("AzureError: https://127.0.0.1:1 cannot be reached ([Errno 111] Connection refused)")
    assert "; check azureml_tracking_uri" in error and "private endpoint" in error and "\n" not in error
    # The proxy keeps the name of the host from being looked up.
    error = connect({"HTTPS_PROXY": "http://127.0.0.1:1"}, azureml_region="nowhere")["error"]
    host = "https://nowhere.api.azureml.ms"
    assert error.startswith(f"AzureError: {host} cannot be reached through the proxy of HTTPS_PROXY (")
    assert "; check azureml_region='nowhere', or leave it empty" in error and "\n" not in error


@pytest.mark.parametrize(
    ("fault", "expected", "told"),
    [
        ({"answer": 503}, [503] * 4, "answered 503 ServiceUnavailable after 4 attempts: The stand-in was told"),
        ({"answer": 429, "retry_after": 3600}, [429], "answered 429 TooManyRequests and asks to wait 3600 s: The"),
        ({"answer": 429, "retry_after": 1, "times": 1}, [429, 200], None),
        ({"answer": "drop", "times": 2}, [None, None, 200], None),
    ],
)
def test_passing_trouble_is_sat_out_and_lasting_trouble_told(aml, connect, statuses, fault, expected, told):
    aml.faults.add("GET /subscriptions/", **fault)
    found = connect()
    assert statuses("/subscriptions/")[: len(expected)] == expected
    assert found.get("name") == aml.workspace if told is None else told in found["error"]


def test_a_question_to_mlflow_is_asked_again_too(aml, connect, statuses):
    aml.faults.add("POST /mlflow/.*/experiments/search", "drop", times=1)
    assert connect()["name"] == aml.workspace
    assert statuses("/experiments/search") == [None, 200]


def test_a_certificate_that_is_not_trusted_and_a_cloud_that_is_none_are_told(aml, connect, statuses):
    error = connect({"REQUESTS_CA_BUNDLE": certifi.where()})["error"]
    assert "has a certificate that is not trusted here" in error and "REQUESTS_CA_BUNDLE" in error and "\n" not in error
    error = connect({"AZUREML_CURRENT_CLOUD": "AzureMoon"})["error"]
    assert error == f"AzureError: AZUREML_CURRENT_CLOUD='AzureMoon' is not an Azure cloud; known are: {names.CLOUD}"
    assert statuses("/subscriptions/") == []


def test_later_calls_of_mlflow_do_not_wait_for_hours(aml, notebook, connect, statuses):
    configure = CONNECT.replace("workspace = azureml.connect(", "servers = tracking.configure(")
    configure = configure.replace("import azureml,", "import tracking,").partition("answer(")[0]
    run = "import mlflow\nwith mlflow.start_run():\n    mlflow.log_metric('loss', 0.5)\nanswer(done=True)"
    aml.faults.add("POST /mlflow/.*/runs/log-metric", 429, retry_after=3600, times=1)
    right = {"azureml_tracking_uri": aml.tracking_uri, "tracking_mode": "azureml"}
    assert notebook.run(configure + run, PARAMETERS=json.dumps(right)) == {"done": True}
    assert statuses("/runs/log-metric") == [429, 200]
