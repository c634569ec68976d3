"""MLflow with the unpatched plugin for Azure ML: what a user of the workspace does without this bundle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.rest_utils import http_request
from sklearn.linear_model import LinearRegression

from tests.scenarios.errors import error_of
from tests.stand_ins.azureml_workspace import AzureMLStandIn


def signed_in() -> mlflow.MlflowClient:
    """Point MLflow at the workspace, and return a client of it."""
    uri = AzureMLStandIn.from_environment().tracking_uri
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient()


def log_a_run_and_read_it_back() -> dict[str, Any]:
    """Log parameters, a metric's history, a tag and files with unusual names."""
    client = signed_in()
    mlflow.set_experiment("tracking")
    Path("files/deep").mkdir(parents=True)
    for name, content in {"a.txt": "A", "deep/ü 1.txt": "B", "deep/empty": ""}.items():
        (Path("files") / name).write_text(content)
    with mlflow.start_run(run_name="first") as active:
        mlflow.log_params({"alpha": 0.5})
        for step in range(4):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.set_tag("team", "blue")
        mlflow.log_artifacts("files", "folder")
        mlflow.log_text("note", "note.txt")
    run_id = active.info.run_id
    run = client.get_run(run_id)
    downloaded = Path(client.download_artifacts(run_id, ""))
    by_parameter = mlflow.search_runs(filter_string="params.alpha = '0.5'", order_by=["start_time DESC"])
    return {
        "artifact_uri": run.info.artifact_uri,
        "run_id": run_id,
        "experiment_id": run.info.experiment_id,
        "status": run.info.status,
        "params": run.data.params,
        "team": run.data.tags["team"],
        "history": [[metric.step, metric.value] for metric in client.get_metric_history(run_id, "loss")],
        "root": [[item.path, item.is_dir] for item in client.list_artifacts(run_id)],
        "files": {
            str(path.relative_to(downloaded)): path.read_text() for path in downloaded.rglob("*") if path.is_file()
        },
        "with_the_parameter": list(by_parameter.run_id),
    }


def register_a_model_by_hand() -> dict[str, Any]:
    """Try MLflow's own way to log and register a model, and the way that works."""
    client = signed_in()
    x = np.arange(10.0).reshape(-1, 1)
    model = LinearRegression().fit(x, 2 * x.ravel())
    mlflow.set_experiment("model")
    with mlflow.start_run() as run:
        log_model = error_of(mlflow.sklearn.log_model, model, name="model", pip_requirements=[])
        mlflow.sklearn.save_model(model, "by_hand", pip_requirements=[], skops_trusted_types=[])
        mlflow.log_artifacts("by_hand", "model")
    client.create_registered_model("by-hand")
    source = f"{run.info.artifact_uri}/model"
    versions = [client.create_model_version("by-hand", source, run_id=run.info.run_id) for _ in range(2)]
    client.set_model_version_tag("by-hand", "2", "role", "champion")
    listed = client.search_model_versions("name = 'by-hand'")
    uris = ["models:/by-hand/1", f"runs:/{run.info.run_id}/model"]
    return {
        "log_model": log_model,
        "run_id": run.info.run_id,
        "versions": [[version.version, version.run_id] for version in versions],
        "tags": {version.version: version.tags for version in listed},
        "predictions": [mlflow.pyfunc.load_model(uri).predict(x[:3]).round(6).tolist() for uri in uris],
        "register_model": error_of(mlflow.register_model, uris[1], "by-hand"),
    }


def use_what_is_not_supported() -> dict[str, Any]:
    """Send requests that the documentation calls unsupported, and some that are just within the limits."""
    client = signed_in()
    slashed = client.create_experiment("team/experiment")
    experiment = mlflow.set_experiment("rules")
    run = client.create_run(experiment.experiment_id)
    client.create_registered_model("rules")

    def batch(**kinds: list) -> str | None:
        return error_of(client.log_batch, run.info.run_id, **kinds)

    def search(**terms: Any) -> str | None:
        return error_of(client.search_runs, [experiment.experiment_id], **terms)

    def params(*numbers: int) -> list[Param]:
        return [Param(str(number), "") for number in range(*numbers)]

    def status_of_model_search(condition: str) -> int:
        credentials = client._tracking_client.store.get_host_creds()
        path = "/api/2.0/mlflow/registered-models/search"
        return http_request(credentials, path, "GET", params={"filter": condition}).status_code

    refused = {
        "order by metric": search(order_by=["metrics.loss"]),
        "tags !=": search(filter_string="tags.a != 'b'"),
        # The client adds a condition on a tag.
        "models": error_of(client.search_registered_models, "name = 'rules'"),
        "rename": error_of(client.rename_registered_model, "rules", "other"),
        "delete": error_of(client.delete_registered_model, "rules"),
        "metric rows": batch(metrics=[Metric("m", i, i, i) for i in range(251)]),
        "tag value": batch(tags=[RunTag("t", "v" * 1001)]),
        "tag key": batch(tags=[RunTag("t" * 101, "v")]),
        "tags": batch(tags=[RunTag(str(i), "v") for i in range(51)]),
    }
    return {
        "slashed_by_id": client.get_experiment(slashed).name,
        "slashed_by_name": client.get_experiment_by_name("team/experiment"),
        "slashed_in_search": "team/experiment" in [item.name for item in client.search_experiments()],
        "refused": refused,
        "within": batch(metrics=[Metric("m", i, i, i) for i in range(250)], params=params(100)),
        "more_params": batch(params=params(100, 200)),
        "too_many_params": batch(params=params(200, 201)),
        "model_searches": [status_of_model_search(text) for text in ("name = 'rules'", "name LIKE 'r%'")],
        "alias": error_of(client.set_registered_model_alias, "rules", "champion", "1"),
        "traces": error_of(client.search_traces, locations=[experiment.experiment_id]),
        "by_attribute": search(filter_string="status = 'RUNNING'", order_by=["end_time"]),
    }


def log_a_large_artifact_twice() -> dict[str, Any]:
    """Log a file that is uploaded in several blocks, and another one under the same name."""
    client = signed_in()
    mlflow.set_experiment("large")
    # More than the 64 MiB that the blob client sends in one request.
    content = os.urandom(1024) * 70 * 1024
    Path("large.bin").write_bytes(content)
    with mlflow.start_run() as run:
        mlflow.log_artifact("large.bin")
        Path("large.bin").write_text("other")
        refusal = error_of(mlflow.log_artifact, "large.bin")
    downloaded = Path(client.download_artifacts(run.info.run_id, "large.bin"))
    return {"run_id": run.info.run_id, "refusal": refusal, "same": downloaded.read_bytes() == content}


def register_files_without_a_run() -> dict[str, Any]:
    """Register a model from a local folder, and from sources that the workspace does not have."""
    client = signed_in()
    Path("uploaded").mkdir()
    Path("uploaded/MLmodel").write_text("flavors: {}")
    client.create_registered_model("uploaded")
    folder = Path("uploaded").absolute().as_uri()
    with_run_id = error_of(client.create_model_version, "uploaded", folder, run_id="0" * 32)
    version = client.create_model_version("uploaded", folder)
    foreign = f"https://elsewhere/runs/{'0' * 32}/artifacts/model"
    return {
        "version": version.version,
        "source": version.source,
        "with_run_id": with_run_id,
        "content": (Path(mlflow.artifacts.download_artifacts("models:/uploaded/1")) / "MLmodel").read_text(),
        "foreign": error_of(client.create_model_version, "uploaded", foreign),
        "foreign_run": error_of(client.create_model_version, "uploaded", version.source, run_id="0" * 32),
        "empty_source": error_of(client.create_model_version, "uploaded", version.source + "/no"),
    }


def call_with_credentials_that_do_not_work() -> dict[str, Any]:
    """Send requests with a wrong secret, with a token that is then revoked, and as an application without a role."""
    aml = AzureMLStandIn.from_environment()

    def client_of(path: str, **environment: str) -> mlflow.MlflowClient:
        os.environ.update(environment)
        # The plugin caches credentials per spelling of the address.
        return mlflow.MlflowClient(aml.tracking_uri.replace("/mlflow/v1.0", f"{path}/mlflow/v1.0"))

    wrong = client_of("/1", AZURE_CLIENT_SECRET="wrong")
    right = client_of("/2", AZURE_CLIENT_SECRET=aml.client_secret, AZURE_CLIENT_ID=aml.other_client_id)
    without_role = client_of("/3", AZURE_CLIENT_ID=aml.client_id_without_role)
    before = error_of(right.search_experiments)
    aml.revoke_tokens(aml.other_client_id)
    return {
        "wrong": error_of(wrong.search_experiments),
        "before": before,
        "revoked": error_of(right.search_experiments),
        "without_role": error_of(without_role.search_experiments),
    }


def meet_passing_and_lasting_faults() -> dict[str, Any]:
    """Read an experiment whose requests fail for a while, and then search while requests keep failing."""
    client = signed_in()
    name = client.get_experiment_by_name("Default").name
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"
    return {"name": name, "lasting": error_of(client.search_experiments)}


def log_while_answers_get_lost() -> dict[str, Any]:
    """Start a run and log a text, and return the runs that exist then."""
    client = signed_in()
    experiment = mlflow.set_experiment("lost answer")
    with mlflow.start_run():
        log_text = error_of(mlflow.log_text, "text", "a.txt")
    runs = client.search_runs([experiment.experiment_id])
    return {"statuses": sorted(run.info.status for run in runs), "log_text": log_text}
