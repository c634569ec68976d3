"""Rollouts to endpoints of Azure ML, by `helpers.serving`."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.deployments import BaseDeploymentClient, get_deploy_client
from sklearn.linear_model import LogisticRegression

from helpers import parameters, serving, tracking, training
from helpers.ownership import MARK
from helpers.serving import Endpoint
from helpers.serving.endpoint import EndpointState
from tests.callers import Callers
from tests.scenarios.errors import error_of
from tests.stand_ins.azureml_workspace import AzureMLStandIn

MODEL = "rolled"
ROWS = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=list("abc"))
# No check of a rollout is to fail because this machine is slow.
NO_LIMIT_MS = 600_000
# A fault, and what it does: the pattern of requests, their answer, and details.
FAULTS: dict[str, tuple[str, int | str, dict[str, int]]] = {
    "the deployment is refused": ("PUT .*/deployments/rolled-2", 403, {}),
    "the deployment's state cannot be read": ("GET .*/deployments/rolled-2", 403, {}),
    "the rows are not scored": ("POST /online/faults/score", 500, {}),
    "the check at 0 % fails": ("POST /online/faults/score", 500, {"skip": 1}),
    "the answer gets lost": ("POST /online/faults/score", "lose_answer", {"skip": 3}),
    "the first share is refused": ("PATCH .*/onlineEndpoints/faults", 403, {"times": 1}),
    "callers get an error at 10 %": ("POST /online/faults/score", 503, {"skip": 6}),
    "the new version fails at 10 %": ("POST /online/faults/score", 424, {"skip": 10}),
    "the second share is refused": ("PATCH .*/onlineEndpoints/faults", 409, {"times": 1, "skip": 1}),
    "callers get an error at 50 %": ("POST /online/faults/score", 500, {"skip": 15}),
    "the last share is refused": ("PATCH .*/onlineEndpoints/faults", 400, {"times": 1, "skip": 2}),
    "callers get an error at 100 %": ("POST /online/faults/score", 500, {"skip": 22}),
}


def configure(**changes: Any) -> SimpleNamespace:
    """Use Azure ML, and return the parameters: the defaults with these changes."""
    warnings.filterwarnings("ignore")
    logging.getLogger("mlflow").setLevel("ERROR")
    names = (*parameters.TRACKING, *parameters.ENDPOINT)
    defaults = {name: parameters.FIELDS[name].default for name in names}
    workspace = AzureMLStandIn.workspace_parameters | {"tracking_mode": "azureml", "experiment_name": "endpoints"}
    p = parameters.parse(defaults | workspace | changes)
    tracking.configure(p)
    return p


def train(column: str, model_name: str) -> mlflow.entities.model_registry.ModelVersion:
    """Register a classifier whose answers depend on one column."""
    estimator = LogisticRegression().fit(ROWS, np.where(ROWS[column] > 0, f"{column} high", f"{column} low"))
    signature = mlflow.models.infer_signature(ROWS, pd.Series(estimator.predict(ROWS), name="prediction"))
    with mlflow.start_run() as active:
        uri = tracking.log_model(training.TrainedModel(estimator, "sklearn", [], signature, None, {}, {}))
    run = mlflow.get_run(active.info.run_id)
    return tracking.create_version(run, uri, model_name, {"check_threshold": "passed"})


def register_models() -> None:
    """Register ``rolled``: version 1 looks at column a, version 2 at column b, version 3 does not load."""
    configure()
    train("a", MODEL)
    train("b", MODEL)
    save = mlflow.sklearn.save_model

    def save_damaged(model: Any, path: str, **options: Any) -> None:
        save(model, path, **options)
        (file,) = [file for file in Path(path).iterdir() if file.name.startswith("model.")]
        file.write_bytes(b"damaged")

    mlflow.sklearn.save_model = save_damaged
    try:
        train("c", MODEL)
    finally:
        mlflow.sklearn.save_model = save


def delete_endpoints() -> None:
    """Delete what this module deployed: other tests need the same quota."""
    configure()
    client = plugin()
    for endpoint in client.list_endpoints():
        if MARK in (endpoint["tags"] or {}):
            client.delete_endpoint(endpoint["name"])


def plugin() -> BaseDeploymentClient:
    """Return the client of MLflow's plugin."""
    return get_deploy_client(AzureMLStandIn.from_environment().tracking_uri)


def versions() -> list:
    """Return the versions of ``rolled``, the first one first."""
    return tracking.versions(MODEL)


def open_endpoint(name: str, **changes: Any) -> Endpoint:
    """Return the endpoint of these parameters."""
    p = configure(endpoint_name=name, **changes)
    return serving.open_endpoint(p, versions()[0])[0]


def roll_out(endpoint: Endpoint, version: Any, known: Any = None, **options: Any) -> tuple[Any, list[str]]:
    """Roll a version out; return the rollout and the lines that it showed."""
    lines: list[str] = []
    options = {"requests": 4, "latency_limit_ms": NO_LIMIT_MS} | options
    known = known or serving.examples(version, ROWS)
    return serving.roll_out(endpoint, version, known, show=lines.append, **options), lines


def refusal(endpoint: Endpoint, version: Any, known: Any = None, **options: Any) -> serving.ServingError | None:
    """Return why a rollout fails, or None if it does not."""
    try:
        roll_out(endpoint, version, known, **options)
    except serving.ServingError as error:
        return error
    return None


def shown(state: EndpointState) -> dict[str, Any]:
    """Return what tests compare of a state."""
    return {"traffic": state.traffic, "deployments": sorted(state.deployments), "ours": state.is_ours}


def take_over_under_load() -> dict[str, Any]:
    """Roll version 2 out while callers keep asking, and once more."""
    endpoint = open_endpoint("under-load")
    first, first_lines = roll_out(endpoint, versions()[0])
    known = {f"rolled-{version.version}": serving.examples(version, ROWS) for version in versions()[:2]}
    with Callers(endpoint, known) as callers:
        rollout, lines = roll_out(endpoint, versions()[1], known["rolled-2"], requests=10)
    again, again_lines = roll_out(endpoint, versions()[1], known["rolled-2"])
    client = plugin()
    return {
        "first": shown(first.state),
        "first_lines": first_lines,
        "failed": callers.failed,
        "wrong": len(callers.wrong),
        "answered": callers.answered,
        "after": shown(rollout.state),
        "checks": [[check.percent, check.asked, check.errors] for check in rollout.checks],
        "lines": lines,
        "changed_again": again.changed,
        "again_lines": again_lines,
        "endpoint": client.get_endpoint("under-load"),
        "deployments": client.list_deployments("under-load"),
    }


def fail_at_each_step() -> dict[str, Any]:
    """Roll version 2 out with each of `FAULTS`, and at last without any."""
    faults = AzureMLStandIn.from_environment().faults
    endpoint = open_endpoint("faults")
    roll_out(endpoint, versions()[0])
    known = [serving.examples(version, ROWS) for version in versions()[:2]]
    outcomes = {}
    for name, (pattern, status, details) in FAULTS.items():
        faults.add(pattern, status, **details)
        error = refusal(endpoint, versions()[1], known[1])
        outcomes[name] = {
            "error": error and error.message,
            "met": sum(fault.taken for fault in faults.clear()),
            "state": shown(endpoint.state()),
            "right": endpoint.invoke(ROWS).predictions == known[0].predictions,
        }
    rollout, _ = roll_out(endpoint, versions()[1], known[1])
    return {"outcomes": outcomes, "after": shown(rollout.state)}


def get_stuck_half_way() -> dict[str, Any]:
    """Fail to put the old shares back, go on, fail to delete the old deployment, and finish."""
    faults = AzureMLStandIn.from_environment().faults
    endpoint = open_endpoint("half-way")
    roll_out(endpoint, versions()[0])
    known = serving.examples(versions()[1], ROWS)
    # Callers get errors at 10 %, and from then on Azure refuses all changes.
    faults.add("POST /online/half-way/score", 500, skip=6)
    faults.add("PATCH .*/onlineEndpoints/half-way", 403, skip=1)
    stuck = refusal(endpoint, versions()[1], known)
    half_way = shown(endpoint.state())
    faults.clear()
    went_on, lines = roll_out(endpoint, versions()[1], known)
    # At the end the old deployment cannot be deleted.
    faults.add("DELETE .*/deployments/rolled-2", 403)
    left = refusal(endpoint, versions()[0])
    with_both = shown(endpoint.state())
    faults.clear()
    done, _ = roll_out(endpoint, versions()[0])
    return {
        "stuck": stuck.message,
        "half_way": half_way,
        "went_on": shown(went_on.state),
        "lines": lines,
        "shares": [check.percent for check in went_on.checks],
        "left": left.message,
        "with_both": with_both,
        "done": shown(done.state),
    }


def ask_for_what_azure_refuses() -> dict[str, Any]:
    """Roll out and ask what Azure ML, the model or the helpers do not accept."""
    faults = AzureMLStandIn.from_environment().faults
    endpoint = open_endpoint("refusals")
    roll_out(endpoint, versions()[0])
    new, broken = versions()[1:]
    known = serving.examples(new, ROWS)
    before = shown(endpoint.state())
    answers = {
        "too_many": refusal(open_endpoint("refusals", instance_count=100), new, known).message,
        "no_such_size": refusal(open_endpoint("refusals", instance_type="Standard_None"), new, known).message,
    }
    crash = refusal(endpoint, broken, known)
    answers |= {
        "crash": crash.message,
        "log": crash.log,
        "column": error_of(endpoint.invoke, ROWS[["a", "c"]]),
        "kind": error_of(endpoint.invoke, ROWS.assign(a="text")),
        "other_auth": error_of(roll_out, open_endpoint("refusals", endpoint_auth="aad_token"), new, known),
    }
    plugin().create_endpoint("somebody-elses")
    answers["foreign"] = error_of(roll_out, open_endpoint("somebody-elses"), new, known)
    # The key is no longer valid, and the next one is.
    faults.add("POST /online/refusals/score", 401, times=1)
    answers["renewed"] = endpoint.invoke(ROWS).deployment
    faults.add("POST /online/refusals/score", 401)
    answers["unauthorized"] = error_of(endpoint.invoke, ROWS)
    faults.clear()
    return answers | {"before": before, "after": shown(endpoint.state())}


def create_without_a_role() -> dict[str, Any]:
    """Create an endpoint without permission."""
    endpoint = open_endpoint("no-role")
    AzureMLStandIn.from_environment().faults.add("PUT .*/onlineEndpoints/no-role", 403)
    return {"refused": error_of(endpoint.create, MODEL), "state": endpoint.state()}


def serve_with_tokens() -> dict[str, Any]:
    """Serve where callers sign in with Entra ID, ask, and delete the endpoint."""
    endpoint = open_endpoint("with-token", endpoint_auth="aad_token")
    rollout, _ = roll_out(endpoint, versions()[0])
    answered = endpoint.invoke(ROWS).deployment
    endpoint.delete()
    return {"state": shown(rollout.state), "answered": answered, "after_deletion": endpoint.state()}


def serve_a_model_of_another_registry() -> dict[str, Any]:
    """Serve a version of the local registry, and open its endpoint again."""
    p = configure(tracking_mode="databricks", model_registry="local", experiment_name="/Shared/elsewhere")
    version = train("a", "elsewhere")
    local = mlflow.get_registry_uri()
    (endpoint, deployable), (_, again) = (serving.open_endpoint(p, version) for _ in range(2))
    rollout, _ = roll_out(endpoint, deployable, serving.examples(version, ROWS))
    return {
        "state": shown(rollout.state),
        "name": endpoint.name,
        "tags": deployable.tags,
        "local": local,
        "own_tags": version.tags,
        "versions": [deployable.version, again.version],
        "registry": mlflow.get_registry_uri(),
    }


def list_for_clean_up() -> dict[str, Any]:
    """List and delete the endpoints of ``rolled``, beside those of another model and of somebody else."""
    names = ("listed", "listed-service", "other-model", "not-ours")
    roll_out(open_endpoint("listed"), versions()[0])
    roll_out(open_endpoint("listed-service", endpoint_target="aci"), versions()[0])
    p = configure(endpoint_name="other-model")
    other = train("a", "other")
    roll_out(serving.open_endpoint(p, other)[0], other)
    plugin().create_endpoint("not-ours")

    def listed(force: bool) -> dict[str, Any]:
        items = serving.items(p, MODEL, force)
        return {item.name: item for item in items if item.name.split("/")[0] in names}

    kept = {name: item.kept for name, item in listed(False).items()}
    forced = listed(True)
    own = [item for item in forced.values() if not item.kept]
    return {
        "kinds": sorted((item.kind, item.name) for item in own),
        "kept": kept,
        "kept_by_force": {name: item.kept for name, item in forced.items()},
        "where": sorted({item.where for item in own}),
        "deleted": [item.delete() for item in own],
        "deleted_again": [item.delete() for item in own],
        "left": sorted(listed(True)),
    }


def serve_as_a_web_service(kind: str) -> dict[str, Any]:
    """Serve two versions in turn as a web service, and try two that do not answer rightly.

    Parameters
    ----------
    kind : {"aci", "aks"}
    """
    compute = {"aks_compute": AzureMLStandIn.attached_compute} if kind == "aks" else {}
    service = open_endpoint(f"service-{kind}", endpoint_target=kind, **compute)
    first, _ = roll_out(service, versions()[0])
    second, _ = roll_out(service, versions()[1])
    again, _ = roll_out(service, versions()[1])
    known = serving.examples(versions()[1], ROWS)
    broken = refusal(service, versions()[2], known)
    wrong = refusal(service, versions()[0], known)
    state, answer = service.state(), service.invoke(ROWS)
    service.delete()
    return {
        "first": shown(first.state),
        "checks": [[check.percent, check.errors] for check in second.checks],
        "changed_again": again.changed,
        "broken": broken.message,
        "wrong": wrong.message,
        "state": shown(state),
        "right": answer.predictions == known.predictions,
        "after_deletion": service.state(),
        "no_cluster": error_of(open_endpoint, "service-aks", endpoint_target="aks"),
    }
