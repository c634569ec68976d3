"""Models of each flavor in the vendor's own inference server, as Azure ML's no-code deployment serves them."""

from __future__ import annotations

import http.server
import json
import queue
import subprocess
import sys
import threading
import time

import mlflow
import pandas as pd
import pytest
import yaml
from sklearn.dummy import DummyRegressor

from helpers import parameters, serving, tracking, training
from helpers.azureml.collected_data import COLLECTIONS, FOLDER
from helpers.data import split
from helpers.ownership import MARK
from helpers.serving.endpoint import _refusal
from helpers.serving.health import is_equal
from helpers.serving.local_deployments import LocalDeployments
from helpers.serving.no_code import problem_of
from helpers.serving.own_environment import SCRIPT
from tests.stand_ins.azureml import inference_server
from tests.stand_ins.azureml.inference_server import InferenceServer

pytestmark = pytest.mark.slow

# Not Spark: tests/unit/test_no_code.py has the reason.
FLAVORS = ["sklearn", "xgboost"]


@pytest.fixture(scope="module")
def module_session(local_dir, tracking_parameters):
    return tracking.configure(tracking_parameters(experiment_name="inference server"))


@pytest.fixture(scope="module")
def table(spark):
    """Numbers and texts, some of them missing; the first rows have no ``note`` and no ``weight``."""
    spark.sql("CREATE SCHEMA inference_server")
    rows = spark.range(200).selectExpr(
        "id",
        "IF(id % 11 = 0, NULL, id % 3 + (id * 7919) % 100 / 400) AS `size.in cm`",
        "int(id % 7) AS count",
        "IF(id < 40, NULL, id / 10) AS weight",
        "IF(id % 7 = 0, NULL, concat('shop é ', id % 3)) AS `Shop Name`",
        "IF(id < 40, NULL, 'rare') AS note",
        "element_at(array('low', 'mid', 'high'), int(id % 3) + 1) AS label",
    )
    rows.coalesce(1).write.saveAsTable("inference_server.rows")
    return "inference_server.rows"


@pytest.fixture(scope="module")
def models(module_session, spark, table, tmp_path_factory):
    """By flavor: the folder of a model, and rows with its predictions."""
    rows = split.load_split(spark, table, label_column="label", id_column="id", test_fraction=0.3, seed=1)
    made = {}
    for flavor in FLAVORS:
        p = parameters.parse(parameters.Fit, {"model_flavor": flavor, "epochs": 3, "seed": 3})
        with mlflow.start_run():
            trained = training.fit(rows, p)
            uri = tracking.log_model(
                trained.model,
                flavor=trained.flavor,
                signature=trained.signature,
                input_example=trained.input_example,
                classes=trained.classes,
            )
        version = mlflow.register_model(uri, f"inference_{flavor}", tags={MARK: f"inference_{flavor}"})
        # Azure ML mounts a folder that has only this model.
        folder = tmp_path_factory.mktemp("mounted") / "model"
        folder.mkdir()
        folder = tracking.download_model(module_session, uri, folder)
        made[flavor] = folder, serving.examples(module_session, version, rows.held_out.toPandas())
    return made


@pytest.fixture
def data_collector():
    """The address of the container's agent that takes collected data, and what it got, in order."""
    collected = queue.Queue()

    class Agent(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            collected.put((dict(self.headers), json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            """Print nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Agent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, collected
        server.shutdown()


@pytest.fixture
def collecting(data_collector, tmp_path):
    """The variables that Azure ML sets for a deployment that collects its requests, and what the agent got, in order."""
    port, collected = data_collector
    config = tmp_path / "collect.json"
    config.write_text(
        json.dumps({"collections": {name: {"enabled": True} for name in ("model_inputs", "model_outputs")}})
    )
    return {"AZUREML_MDC_CONFIG_PATH": str(config), "AZUREML_MDC_PORT": str(port)}, collected


def collects(collected, known):
    """Check that one request was collected, and return its inputs and outputs."""
    (of_inputs, inputs), (of_outputs, outputs) = [collected.get(timeout=60) for _ in range(2)]
    assert (of_inputs["ce-type"], of_outputs["ce-type"]) == (
        "azureml.inference.model_inputs", "azureml.inference.model_outputs",
    )  # fmt: skip
    assert of_inputs["ce-x-request-id"] == of_outputs["ce-x-request-id"]
    assert is_equal(inputs, json.loads(known.rows.to_json(orient="records")))
    # The script makes a table of the model's array, which has no name.
    assert is_equal([row["0"] for row in outputs], known.predictions)
    return [inputs, outputs]


@pytest.mark.parametrize("flavor", FLAVORS)
def test_the_vendors_server_gives_and_collects_the_models_own_predictions(
    models, inference_environment, collecting, tmp_path, flavor
):
    model, known = models[flavor]
    variables, collected = collecting
    started = time.perf_counter()
    with InferenceServer.start(inference_environment, model, tmp_path / "server.log", variables) as server:
        server.wait()
        print(f"{flavor}: ready after {time.perf_counter() - started:.1f} s")
        answer = server.score(serving.payload(known.rows))
        assert answer.status_code == 200, server.log_file.read_text()
        collects(collected, known)
        refused = _refusal("e", "", server.score(serving.payload(known.rows.drop(columns="count"))))
    assert is_equal(answer.json(), known.predictions)
    assert "(the model server failed, perhaps because the rows do not fit" in refused
    assert "missing inputs ['count']" in server.log_file.read_text()


@pytest.fixture
def local(tmp_path):
    """The deployments of a local endpoint."""
    deployments = LocalDeployments(tmp_path)
    yield deployments
    deployments.end()


def collected_by(deployments, name):
    """Return the inputs and the outputs of the one request that a local deployment has collected."""
    folder = deployments.folder / FOLDER / name
    events = [json.loads(file.read_text()) for each in COLLECTIONS for file in (folder / each).rglob("*.jsonl")]
    assert [event["type"] for event in events] == [f"azureml.inference.{each}" for each in COLLECTIONS]
    assert events[0]["correlationid"] == events[1]["correlationid"] and events[0]["id"] != events[1]["id"]
    return [event["data"] for event in events]


@pytest.mark.parametrize("flavor", FLAVORS)
def test_the_bundles_script_gives_and_collects_the_same_and_says_what_is_wrong_also_at_a_local_endpoint(
    models, inference_environment, collecting, tmp_path, flavor, local
):
    model, known = models[flavor]
    variables, collected = collecting
    body = serving.payload(known.rows)
    content = json.loads(body)["input_data"]
    bad = {
        "Input cannot be decoded as UTF-8": b"\xff",
        "the body cannot be read: Expecting value": "not JSON",
        "the body has to be a JSON object with input_data": json.dumps({"data": content}),
        "missing inputs ['count']": serving.payload(known.rows.drop(columns="count")),
        "could not convert string to float": serving.payload(known.rows.assign(weight="heavy")),
        "4 columns passed": json.dumps({"input_data": content | {"columns": content["columns"][:4]}}),
    }
    local.deploy("local-1", model, "local/1", collect_data=True)
    with InferenceServer.start(inference_environment, model, tmp_path / "server.log", variables, SCRIPT) as server:
        server.wait()
        answer = server.score(body)
        assert answer.status_code == 200, server.log_file.read_text()
        sent = collects(collected, known)
        refused = {reason: server.score(payload) for reason, payload in bad.items()}
    assert is_equal(answer.json(), known.predictions)
    for reason, response in refused.items():
        told = _refusal("e", "", response)
        assert response.status_code == 400 and reason in told and "(the rows do not fit" in told
    assert collected.empty()

    while local.state()["deployments"]["local-1"]["state"] == "Creating":
        time.sleep(0.1)
    here = local.score(body.encode(), "local-1")
    assert (here.status, json.loads(here.body)) == (200, answer.json()), (tmp_path / "local-1.log").read_text()
    assert collected_by(local, "local-1") == sent
    for reason, payload in bad.items():
        here = local.score(payload if isinstance(payload, bytes) else payload.encode(), "local-1")
        assert (here.status, json.loads(here.body)) == (400, refused[reason].json())
    assert collected_by(local, "local-1") == sent


@pytest.mark.parametrize("of_outputs", [25, 100])
def test_the_vendors_collectors_draw_on_their_own_so_only_inputs_are_sampled(
    inference_environment, data_collector, tmp_path, of_outputs
):
    port, _ = data_collector
    rates = {"model_inputs": 25, "model_outputs": of_outputs}
    collections = {name: {"enabled": True, "sampleRatePercentage": rate} for name, rate in rates.items()}
    (tmp_path / "collect.json").write_text(json.dumps({"collections": collections}))
    code = (
        "import pandas as pd\n"
        "from azureml.ai.monitoring import Collector\n"
        "inputs, outputs = (Collector(name=name) for name in ('model_inputs', 'model_outputs'))\n"
        "drawn = 0, 0\n"
        "rows = pd.DataFrame({'x': [1.0]})\n"
        "for _ in range(400):\n"
        "    context = inputs.collect(rows)\n"
        "    both = context.is_success() and outputs.collect(rows, context).is_success()\n"
        "    drawn = drawn[0] + context.is_success(), drawn[1] + both\n"
        "print(*drawn)\n"
    )
    # The package tells only then what was drawn.
    debug = {"AZUREML_MDC_DEBUG": "true"}
    variables = {"AZUREML_MDC_CONFIG_PATH": str(tmp_path / "collect.json"), "AZUREML_MDC_PORT": str(port)} | debug
    ran = subprocess.run(
        [inference_environment / "bin" / "python", "-c", code],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    inputs, both = map(int, ran.stdout.split()[-2:])
    # Over 6 standard deviations of the 100 that are expected, and over 5 of the quarter of these.
    assert 45 < inputs < 155 and (both == inputs if of_outputs == 100 else both < inputs / 2)


def test_the_environment_is_that_of_the_models_whether_it_is_made_with_pip_or_with_conda(models, inference_environment):
    lines = {}
    for flavor, (folder, _) in models.items():
        lines[flavor] = (folder / "requirements.txt").read_text().splitlines()
        # The container makes its environment from this file.
        conda = yaml.safe_load((folder / "conda.yaml").read_text())
        assert conda["dependencies"][-1] == {"pip": lines[flavor]}
        assert problem_of(folder) == ""
    assert inference_server.installed(inference_environment) == {*lines["sklearn"], *lines["xgboost"]}


def test_a_model_that_is_refused_before_it_is_deployed_would_not_have_been_served(inference_environment, tmp_path):
    rows = pd.DataFrame({"size": [0.5, 1.0, 2.5], "note": [None, None, "rare"]})
    signature = mlflow.models.infer_signature(rows, pd.Series([0.0], name="prediction"))
    model = DummyRegressor().fit(rows[["size"]], rows["size"])
    options = {"signature": signature, "input_example": rows.head(2), "pip_requirements": ["scikit-learn"]}
    mlflow.sklearn.save_model(model, tmp_path / "model", **options)
    assert "converts column note to float64" in problem_of(tmp_path / "model")
    with InferenceServer.start(inference_environment, tmp_path / "model", tmp_path / "server.log") as server:
        server.wait()
        answer = server.score(serving.payload(rows))
    assert answer.status_code == 500 and "could not convert string to float: 'rare'" in server.log_file.read_text()


@pytest.fixture
def without_monitoring(inference_environment, tmp_path):
    """The same inference_environment, had `azureml-ai-monitoring` not been among the requirements."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "other"], check=True)
    (there,) = (tmp_path / "other" / "lib").glob("*/site-packages")
    for path in (inference_environment / there.relative_to(tmp_path / "other")).iterdir():
        if path.name != "azureml":
            (there / path.name).symlink_to(path)
    return tmp_path / "other"


def test_without_one_of_the_two_packages_the_server_ends_and_its_log_names_it(models, without_monitoring, tmp_path):
    folder, _ = models["sklearn"]
    server = InferenceServer.start(without_monitoring, folder, tmp_path / "server.log")
    with server as started, pytest.raises(RuntimeError, match="ModuleNotFoundError: No module named 'azureml'"):
        started.wait()
