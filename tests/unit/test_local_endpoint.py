"""The local endpoint as a server: its addresses, its key, its load, and the processes behind it."""

import json
import os
import re
import signal
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pandas as pd
import psutil
import pytest
import requests

from helpers import tracking
from helpers.azureml.collected_data import COLLECTIONS, INPUTS, OUTPUTS
from helpers.serving import ServingError, payload, score, script_server
from helpers.serving.data_collection import local_collectors
from helpers.serving.local_endpoint import LocalEndpoint

pytestmark = pytest.mark.slow

ROWS = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
MODELS = {
    "doubling": """
class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return (2 * model_input["x"]).tolist()
""",
    # This model has its own process, and predicts the names of its environment variables.
    "reporting": """
class Model(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

    def predict(self, context, model_input, params=None):
        return [" ".join(os.environ)] * len(model_input)
""",
}
HIDDEN = {
    "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID", "DATABRICKS_HOST", "DATABRICKS_TOKEN", "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_PASSWORD", "SERVICE_API_KEY", "DATABASE_PASSWORD", "SPARK_REMOTE", "PYSPARK_GATEWAY_SECRET",
    "SPARK_STORAGE_ACCOUNT_KEY", "SOMETHING_ELSE",
}  # fmt: skip
PASSED_ON = {"SPARK_LOCAL_DIRS", "PYSPARK_DRIVER_PYTHON", "JAVA_HOME", "HTTPS_PROXY", "LC_ALL", "PATH", "HOME"}


@pytest.fixture(scope="module")
def session(local_dir, tracking_parameters):
    return tracking.configure(tracking_parameters(experiment_name="local endpoint"))


@pytest.fixture(scope="module")
def versions(session, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    registered = {}
    for name, code in MODELS.items():
        file = folder / f"{name}.py"
        file.write_text(f"import os, subprocess, sys\nimport mlflow\n{code}\nmlflow.models.set_model(Model())\n")
        output = "text" if name == "reporting" else 1.0
        with mlflow.start_run():
            signature = mlflow.models.infer_signature(ROWS, pd.Series([output]))
            # Without requirements, MLflow would load the model here to find them.
            options = {"signature": signature, "pip_requirements": ["mlflow"]}
            model = mlflow.pyfunc.log_model(name="model", python_model=str(file), **options)
            registered[name] = mlflow.register_model(model.model_uri, f"local {name}")
    return registered


@contextmanager
def serving(session, versions, folder):
    """An endpoint with two deployments; ``doubling`` gets all traffic."""
    endpoint = LocalEndpoint("under-test", folder, session)
    with pytest.MonkeyPatch.context() as environment:
        for name in (HIDDEN | PASSED_ON) - {"PATH", "HOME"}:
            environment.setenv(name, "C" if name == "LC_ALL" else "/nowhere")
        endpoint.create("local doubling")
    for name, version in versions.items():
        endpoint.deploy(name, version)
    endpoint.set_traffic({"doubling": 100})
    yield endpoint
    endpoint.delete()


@pytest.fixture(scope="module")
def endpoint(session, versions, tmp_path_factory):
    with serving(session, versions, tmp_path_factory.mktemp("endpoints")) as endpoint:
        yield endpoint


@pytest.fixture
def endpoint_to_kill(session, versions, tmp_path):
    with serving(session, versions, tmp_path) as endpoint:
        yield endpoint


@pytest.fixture
def address(endpoint) -> str:
    return endpoint.state().url.removesuffix("/score")


@pytest.fixture
def key(endpoint) -> dict[str, str]:
    return {"Authorization": f"Bearer {details(endpoint)['key']}"}


def details(endpoint: LocalEndpoint) -> dict:
    return json.loads((endpoint.folder / "endpoint.json").read_text())


def processes(endpoint: LocalEndpoint) -> list[psutil.Process]:
    """Return the process of an endpoint, and all processes that it has started."""
    server = psutil.Process(details(endpoint)["pid"])
    return [server, *server.children(recursive=True)]


def running(started: list[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that run. A process that has ended may exist until its parent reads its exit status."""
    return [process for process in started if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def server_of(endpoint: LocalEndpoint, deployment: str) -> psutil.Process:
    """Return gunicorn's process, which starts a new worker when one ends."""
    return psutil.Process(int(re.findall(r"Listening at: \S+ \((\d+)\)", endpoint.log(deployment))[-1]))


def worker_of(endpoint: LocalEndpoint, deployment: str) -> psutil.Process:
    """Return the process that has the model."""
    return psutil.Process(int(re.findall(r"Booting worker with pid: (\d+)", endpoint.log(deployment))[-1]))


def wait_until_ended(started: list[psutil.Process], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while running(started) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running(started) == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/score"), ("GET", "/state"), ("PUT", "/traffic"), ("PUT", "/mirror"), ("PUT", "/deployments/doubling"),
        ("DELETE", "/deployments/doubling"), ("GET", "/no-such-address"), ("PATCH", "/score"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("authorization", [None, "", "Bearer other", "Bearer \xfc"])
def test_without_the_key_every_request_is_refused(address, endpoint, method, path, authorization):
    before = endpoint.state()
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    response = requests.request(method, address + path, data="not JSON", headers=headers)
    assert (response.status_code, response.json()["message"]) == (401, "the key is missing or wrong")
    assert endpoint.state() == before


def test_only_its_owner_can_read_the_key(endpoint):
    assert stat.S_IMODE((endpoint.folder / "endpoint.json").stat().st_mode) == 0o600


def test_an_unknown_address_is_a_404_and_a_wrong_method_a_405(address, key):
    unknown = [requests.get(address + path, headers=key) for path in ("/", "/scores", "/deployments", "/state/x")]
    assert [response.status_code for response in unknown] == [404] * 4
    wrong = [
        requests.request(method, address + path, headers=key)
        for method, path in (("GET", "/score"), ("POST", "/state"), ("DELETE", "/traffic"), ("GET", "/deployments/x"))
    ]
    assert [response.status_code for response in wrong] == [405] * 4
    assert "POST" in wrong[0].headers["Allow"]
    assert all(response.json()["message"] for response in unknown + wrong)


@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        ("POST", "/score", "", "the body cannot be read: Expecting value"),
        ("POST", "/score", b"\xff", "cannot be decoded as UTF-8"),
        ("POST", "/score", "[1]", "the body has to be a JSON object with input_data"),
        ("PUT", "/traffic", '{"doubling": ', "the body is not JSON"),
        ("PUT", "/traffic", "[]", "the body is not a JSON object"),
        ("PUT", "/traffic", '{"doubling": 90}', "have to add up to 100 or 0"),
        ("PUT", "/traffic", '{"doubling": 150, "reporting": -50}', "have to add up to 100 or 0"),
        ("PUT", "/traffic", '{"doubling": "100"}', "have to be whole numbers"),
        ("PUT", "/traffic", '{"nobody": 100}', "there is no deployment nobody"),
        ("PUT", "/mirror", '{"reporting": 51}', "at most 50 %"),
        ("PUT", "/mirror", '{"reporting": -1}', "at most 50 %"),
        ("PUT", "/mirror", '{"reporting": 0.5}', "have to be whole numbers"),
        ("PUT", "/mirror", '{"doubling": 10}', "can get requests or copies of them, not both"),
        ("PUT", "/mirror", '{"doubling": 10, "reporting": 10}', "to one deployment only"),
        ("PUT", "/mirror", '{"nobody": 10}', "there is no deployment nobody"),
        ("PUT", "/deployments/new", '{"folder": "/model"}', "has to have folder and model"),
        ("PUT", "/deployments/new", '{"folder": 1, "model": "m/1"}', "has to have folder and model"),
        ("PUT", "/deployments/new", '{"workers": 0}', "workers has to be a whole number from 1 on"),
        ("PUT", "/deployments/new", '{"collect_data_rate": 0}', "collect_data_rate has to be a number above 0"),
        ("PUT", "/deployments/new", '{"collect_data_rate": "1"}', "collect_data_rate has to be a number above 0"),
    ],
)
def test_a_body_that_cannot_be_used_is_refused_and_changes_nothing(
    address, key, endpoint, method, path, body, message
):  # fmt: skip
    before = endpoint.state()
    response = requests.request(method, address + path, data=body, headers=key)
    assert response.status_code == 400 and message in response.json()["message"]
    assert endpoint.state() == before


def test_the_header_of_azure_ml_chooses_the_deployment_and_says_which_one_answered(address, key):
    header = "azureml-model-deployment"
    by_traffic = requests.post(f"{address}/score", data=payload(ROWS), headers=key)
    by_name = requests.post(f"{address}/score", data=payload(ROWS), headers=key | {header: "reporting"})
    unknown = requests.post(f"{address}/score", data=payload(ROWS), headers=key | {header: "nobody"})
    assert (by_traffic.json(), by_traffic.headers[header]) == ([2, 4, 6], "doubling")
    assert by_name.status_code == 200 and by_name.headers[header] == "reporting"
    assert unknown.status_code == 404 and "nobody" in unknown.json()["message"]


def test_many_requests_at_once_are_all_answered(address, key):
    def score(number: int) -> tuple[int, list]:
        rows = pd.DataFrame({"x": [float(number)]})
        response = requests.post(f"{address}/score", data=payload(rows), headers=key)
        return response.status_code, response.json()

    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(score, range(300)))
    assert answers == [(200, [2 * number]) for number in range(300)]


def test_callers_never_wait_for_or_see_a_mirrored_deployment_that_hangs_or_dies(endpoint, versions, address, key):
    server, worker = server_of(endpoint, "reporting"), worker_of(endpoint, "reporting")
    worker.suspend()
    endpoint.set_mirror("reporting", 50)
    assert endpoint.state().mirror == {"reporting": 50}
    with pytest.raises(ServingError, match="can get requests or copies of them, not both"):
        endpoint.set_traffic({"doubling": 90, "reporting": 10})
    for _ in range(300):
        answer = endpoint.invoke(ROWS)
        assert (answer.predictions, answer.deployment) == ([2, 4, 6], "doubling")
    # A request that names its deployment, or fails, is not copied.
    assert endpoint.invoke(ROWS, "doubling").deployment == "doubling"
    with pytest.raises(ServingError):
        endpoint.invoke(ROWS.rename(columns={"x": "y"}))
    counts = requests.get(f"{address}/state", headers=key).json()["mirrored"]
    assert counts["answered"] == counts["failed"] == 0 and counts["waiting"] == 100
    assert 10 < counts["dropped"] < 90

    worker.resume()
    endpoint.set_mirror("reporting", 0)
    of_mirror = endpoint.mirror_counts("reporting")
    assert (of_mirror.answered, of_mirror.failed, of_mirror.dropped) == (100, 0, counts["dropped"])
    assert endpoint.state().mirror == {} and endpoint.mirror_counts("doubling") is None

    endpoint.set_mirror("reporting", 50)
    server.kill()
    for _ in range(20):
        assert endpoint.invoke(ROWS).predictions == [2, 4, 6]
    endpoint.delete_deployment("reporting")
    assert endpoint.state().mirror == {}
    assert endpoint.mirror_counts("reporting").failed and "does not answer" in endpoint.mirror_counts("reporting").error
    endpoint.deploy("reporting", versions["reporting"])


def test_a_share_of_the_inputs_is_collected_and_all_outputs(tmp_path):
    of_inputs, of_outputs = local_collectors(tmp_path, 0.25)
    for _ in range(400):
        of_outputs.collect(ROWS, of_inputs.collect(ROWS))
    ids = {}
    for collection in COLLECTIONS:
        (file,) = (tmp_path / collection).rglob("*.jsonl")
        ids[collection] = [json.loads(line)["correlationid"] for line in file.read_text().splitlines()]
    # Over 6 standard deviations of the 100 that are expected.
    assert len(set(ids[OUTPUTS])) == 400 and 45 < len(ids[INPUTS]) < 155
    assert set(ids[INPUTS]) < set(ids[OUTPUTS])


def test_a_client_session_is_answered_each_time_also_after_a_refusal(address, key):
    with requests.Session() as session:
        statuses = []
        for headers in [key, {}, key, key, {}, key] * 5:
            body = payload(pd.DataFrame({"x": [1.0] * 20_000}))
            statuses.append(session.post(f"{address}/score", data=body, headers=headers).status_code)
    assert statuses == [200, 401, 200, 200, 401, 200] * 5


def test_the_only_open_port_is_the_one_that_asks_for_the_key(address, endpoint):
    started = processes(endpoint)
    ports = {
        connection.laddr.port
        for process in started
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert ports == {int(address.rpartition(":")[2])}
    sockets = {
        Path(connection.laddr)
        for process in started
        for connection in process.net_connections(kind="unix")
        if connection.laddr.startswith(os.sep)
    }
    assert len(sockets) == 2 and {stat.S_IMODE(path.parent.stat().st_mode) for path in sockets} == {0o700}
    for name in MODELS:
        assert "Listening at: unix:" in endpoint.log(name) and "127.0.0.1" not in endpoint.log(name)


def test_a_model_sees_no_credentials_and_what_it_needs(endpoint):
    (names, *_) = endpoint.invoke(ROWS, "reporting").predictions
    assert HIDDEN & set(names.split()) == set()
    assert set(names.split()) >= PASSED_ON


def test_deploying_again_ends_the_model_server_that_it_replaces(endpoint, versions):
    before = processes(endpoint)
    with_two = LocalEndpoint(endpoint.name, endpoint.folder.parent, endpoint._session, workers=2)
    with_two.deploy("reporting", versions["doubling"])
    # The endpoint's own process, and the watcher, the server and its worker of `doubling`.
    deadline = time.monotonic() + 30
    while len(running(before)) > 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(running(before)) == 4
    assert len(re.findall("Booting worker", endpoint.log("reporting"))) == 2
    assert endpoint.invoke(ROWS, "reporting").predictions == [2, 4, 6]
    endpoint.deploy("reporting", versions["reporting"])


class Raising(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        raise ZeroDivisionError("only the log says this")


def test_an_error_of_the_model_is_a_500_without_its_text_which_the_log_has(tmp_path, monkeypatch, caplog):
    options = {"signature": mlflow.models.infer_signature(ROWS), "pip_requirements": []}
    mlflow.pyfunc.save_model(tmp_path / "model", python_model=Raising(), **options)
    monkeypatch.setattr(score, "_loaded", {})
    monkeypatch.setenv("AZUREML_MODEL_DIR", "")
    app = script_server.create_app(script_server.Settings(str(tmp_path / "model"), "unused"))
    answer = app.test_client().post("/score", data=payload(ROWS))
    # The words of the vendor's server: azureml_inference_server_http/server/routes.py of 1.5.1.
    assert answer.status_code == 500 and answer.json["message"].startswith("An unexpected error occurred in scoring")
    assert "only the log" not in answer.text and "only the log says this" in caplog.text


def test_a_kill_of_the_endpoints_process_ends_the_model_servers_with_what_they_have_started(endpoint_to_kill):
    started = processes(endpoint_to_kill)
    # The endpoint's own process, a watcher, a server and a worker for each model, and the process of one model.
    assert len(running(started)) == 8
    folders = [
        Path(connection.laddr).parent
        for process in started
        for connection in process.net_connections(kind="unix")
        if connection.laddr.startswith(os.sep)
    ]
    started[0].send_signal(signal.SIGKILL)
    wait_until_ended(started)
    assert folders and not any(folder.exists() for folder in folders)
    assert endpoint_to_kill.state() is None
    with pytest.raises(ServingError, match="does not answer"):
        endpoint_to_kill.invoke(ROWS)


def test_a_kill_while_a_model_server_starts_ends_it_too(session, versions, tmp_path):
    endpoint = LocalEndpoint("starting", tmp_path, session)
    endpoint.create("local doubling")
    try:
        model = tracking.download_model(session, f"models:/{versions['doubling'].name}/1", tmp_path)
        url, key = details(endpoint)["url"], details(endpoint)["key"]
        body = {"folder": str(model), "model": "local doubling/1"}
        headers = {"Authorization": f"Bearer {key}"}
        state = requests.put(f"{url}/deployments/doubling", json=body, headers=headers).json()
        assert state["deployments"]["doubling"]["state"] == "Creating"
        started = processes(endpoint)
        assert len(started) >= 2
        started[0].send_signal(signal.SIGKILL)
        wait_until_ended(started)
    finally:
        endpoint.delete()
    assert not endpoint.folder.exists()
