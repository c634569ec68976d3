"""The servers that the parameters select, and what is created on the local one."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import mlflow
import pytest

from helpers import parameters, tracking
from helpers.azureml import Connection
from helpers.parameters import ParameterError
from helpers.tracking.servers.databricks import UnityCatalog
from helpers.tracking.servers.local import LocalServer


@pytest.mark.parametrize(
    ("mode", "registry", "expected"),
    [
        ("auto", "auto", ("local", "local")),
        ("local", "auto", ("local", "local")),
        ("databricks", "auto", ("databricks", "databricks-uc")),
        ("databricks", "databricks", ("databricks", "databricks")),
        ("local", "databricks-uc", ("local", "databricks-uc")),
    ],
)
def test_a_mode_means_a_server_and_its_registry_unless_another_is_named(local_dir, mode, registry, expected):
    local = f"sqlite:///{local_dir / 'mlflow.db'}"
    p = parameters.Tracking(tracking_mode=mode, model_registry=registry)
    uris = tuple(server.uri for server in tracking.open_servers(p))
    assert uris == tuple(local if name == "local" else name for name in expected)


def test_an_experiment_is_made_once_with_its_artifacts_in_the_local_folder(
    local_dir, tracking_parameters, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    first, again = (tracking.configure(tracking_parameters(experiment_name="team/one")) for _ in range(2))
    assert first.experiment_id == again.experiment_id and first.experiment_name == "team/one"
    with mlflow.start_run() as run:
        mlflow.log_text("text", "note.txt")
    assert run.info.experiment_id == first.experiment_id
    (folder,) = (local_dir / "mlartifacts").glob("team_one_*")
    assert next(folder.rglob("note.txt")).read_text() == "text"
    # MLflow 2 creates an empty ./mlruns, its default location.
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("registry", "accepted", "refused"),
    [
        ("azureml", ["wine-2_b"], ["wine 2", "größe", "main.ml.wine", "-wine", "w" * 256]),
        ("databricks-uc", ["wine-2", "größe", "main.ml.wine"], ["ml.wine", "wine 2", "a.b.", "main.ml." + "w" * 256]),
        ("local", ["wine 2", "größe", "main.ml.wine"], ["..", "w" * 257]),
    ],
)
def test_a_model_name_that_the_registry_does_not_accept_is_refused_before_anything_is_written(
    tmp_path, monkeypatch, registry, accepted, refused
):
    monkeypatch.setenv("BUNDLE_LOCAL_DIR", str(tmp_path / "local"))
    for name in refused:
        p = parameters.parse(
            parameters.Train, {"model_name": name, "tracking_mode": "local", "model_registry": registry}
        )
        with pytest.raises(ParameterError, match="^model_name=.*accepts"):
            tracking.configure(p)
    assert not (tmp_path / "local").exists()
    _, server = tracking.open_servers(p)
    for name in accepted:
        server.check_model_name(name)


class WithoutRegistry(BaseHTTPRequestHandler):
    """A workspace that refuses what is asked of its own registry."""

    def do_GET(self):
        body = json.dumps({"error_code": "FEATURE_DISABLED", "message": "Model Registry is disabled."}).encode()
        self.send_response(400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def test_a_workspace_without_a_registry_of_its_own_is_named_before_a_model_is_trained(
    tmp_path, monkeypatch, local_dir, session
):
    server = ThreadingHTTPServer(("127.0.0.1", 0), WithoutRegistry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("DATABRICKS_HOST", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("DATABRICKS_TOKEN", "a-token")
    names = {"tracking_mode": "local", "model_registry": "databricks", "experiment_name": "without_registry"}
    with pytest.raises(ParameterError, match="Model Registry is disabled.*databricks-uc") as caught:
        tracking.configure(parameters.parse(parameters.Train, names))
    server.shutdown()
    server.server_close()
    assert str(caught.value).startswith("model_registry='databricks': the workspace's own registry answers ")
    assert mlflow.get_experiment_by_name("without_registry") is None


def test_artifacts_of_an_experiment_with_any_name_have_a_folder(tracking_parameters):
    for name in ("ä" * 500, '100% "it\'s" #1?'):
        tracking.configure(tracking_parameters(experiment_name=name))
        with mlflow.start_run() as run:
            mlflow.log_text("text", "note.txt")
        assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/note.txt") == "text"


def test_unity_catalog_has_a_client_whose_tracking_server_is_the_workspaces(monkeypatch):
    monkeypatch.setenv("DATABRICKS_HOST", "http://127.0.0.1:9")
    monkeypatch.setenv("DATABRICKS_TOKEN", "none")
    catalog = UnityCatalog(Connection(parameters.AzureML()))
    # MLflow refuses the catalog as a tracking server.
    assert catalog.client().tracking_uri == "databricks"
    assert catalog.plain_model_name("main.ml.wine") == "wine"


def test_a_model_in_unity_catalog_has_three_levels_and_elsewhere_its_plain_name(spark):
    catalog = UnityCatalog(Connection(parameters.AzureML()))
    assert catalog.registered_model_name("wine", "main", "ml") == "main.ml.wine"
    assert catalog.registered_model_name("main.other.wine", "", "ml") == "main.other.wine"
    with pytest.raises(ParameterError, match="catalog='spark_catalog': holds no models"):
        catalog.registered_model_name("wine", "", "ml")
    assert LocalServer(Connection(parameters.AzureML())).registered_model_name("wine", "main", "ml") == "wine"


def test_a_run_of_the_environment_that_is_not_there_is_refused_with_the_variable(
    session, tracking_parameters, monkeypatch
):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(ParameterError, match=f"MLFLOW_RUN_ID='{'0' * 32}'.*no such run on sqlite.*unset it"):
        tracking.configure(tracking_parameters())
    monkeypatch.delenv("MLFLOW_RUN_ID")
    with mlflow.start_run() as run:
        pass
    monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
    tracking.configure(tracking_parameters(experiment_name=session.experiment_name))
