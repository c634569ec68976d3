"""All services of the stand-in as one application."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flask import Blueprint, Flask, Response, jsonify, request

from tests.stand_ins.azureml import cloud_metadata, databricks_front, names
from tests.stand_ins.azureml.arm import ResourceManager
from tests.stand_ins.azureml.artifacts import Artifacts
from tests.stand_ins.azureml.assets import Assets
from tests.stand_ins.azureml.blobs import CONTAINER, BlobStorage, RegistryStorage
from tests.stand_ins.azureml.entra import Entra
from tests.stand_ins.azureml.errors import aml_error
from tests.stand_ins.azureml.faults import Fault, FaultList
from tests.stand_ins.azureml.gate import Gate
from tests.stand_ins.azureml.long_running import Operations
from tests.stand_ins.azureml.mlflow_api import MLflowApi, MLflowServer
from tests.stand_ins.azureml.model_server import ModelFiles, ModelServers
from tests.stand_ins.azureml.online_endpoints import OnlineEndpoints
from tests.stand_ins.azureml.registries import Registries
from tests.stand_ins.azureml.schedules import Schedules
from tests.stand_ins.azureml.web_services import WebServices


def create(url: str, folder: Path, token_lifetime: int) -> Gate:
    """Return the application, which keeps its state in ``folder``.

    Parameters
    ----------
    url : str
        Where it will be reached.
    folder : pathlib.Path
    token_lifetime : int
        Seconds.
    """
    entra = Entra(url, token_lifetime)
    faults = FaultList()
    mlflow_server = MLflowServer(folder)
    # Create the store now: it takes a second or two, for which the first client would have to wait.
    mlflow_server.call("GET", "experiments/get", {"experiment_id": "0"})
    storage = BlobStorage(url, folder / "blobs")
    artifacts = Artifacts(storage, run_exists=lambda run_id: bool(mlflow_server.run(run_id)))
    mlflow_apis = [
        MLflowApi(url.removeprefix("https://"), mlflow_server, artifacts.exist_under, workspace)
        for workspace in (names.WORKSPACE, names.PROD_WORKSPACE)
    ]
    operations = Operations(url)
    registry_storage = RegistryStorage(url, folder / "blobs")
    registries = Registries(url, operations, registry_storage)
    models = ModelFiles(mlflow_server, folder / "blobs" / CONTAINER), ModelServers(folder / "model_servers")
    assets = Assets(url, storage, folder / "blobs")
    endpoints = OnlineEndpoints(url, entra, operations, *models, assets)
    web_services = WebServices(url, entra, operations, *models)

    app = Flask("stand_in", static_folder=None)
    app.json.sort_keys = False
    sign_in = (cloud_metadata.blueprint(url), entra.blueprint, entra.machine)
    gate = Gate(app, faults, folder)
    scoring = (endpoints.scoring, web_services.scoring)
    for public in (*sign_in, storage.blueprint, registry_storage.blueprint, *scoring, _control(entra, faults, gate)):
        app.register_blueprint(public)
    protected = Blueprint("protected", __name__)
    protected.before_request(entra.refusal)
    resources = (ResourceManager(url), operations, endpoints, assets, Schedules(url, operations))
    for service in (item.blueprint for item in (*resources, registries, artifacts, *mlflow_apis, web_services)):
        protected.register_blueprint(service)
    app.register_blueprint(protected)
    app.register_error_handler(404, _unknown_address(entra.refusal))
    return gate


def _unknown_address(refusal: Callable[[], Response | None]) -> Callable[[Exception], Response]:
    def answer(_: Exception) -> Response:
        return refusal() or aml_error(404, "UserError", f"{request.path} was not found.")

    return answer


def _control(entra: Entra, faults: FaultList, gate: Gate) -> Blueprint:
    """Return the tests' own endpoints."""
    routes = Blueprint("control", __name__, url_prefix="/stand-in")

    @routes.post("/faults")
    def add_fault() -> Response:
        faults.add(Fault(**request.get_json()))
        return Response(status=204)

    @routes.get("/faults")
    def list_faults() -> Response:
        return jsonify(faults.all())

    @routes.delete("/faults")
    def clear_faults() -> Response:
        return jsonify(faults.clear())

    @routes.delete("/tokens/<client_id>")
    def revoke_tokens(client_id: str) -> Response:
        entra.revoke_tokens(client_id)
        return Response(status=204)

    @routes.post("/databricks")
    def open_databricks_front() -> Response:
        return jsonify(url=databricks_front.open_front(request.get_json()["url"], gate))

    return routes
