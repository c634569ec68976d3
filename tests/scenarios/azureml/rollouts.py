"""Rollouts to endpoints of Azure ML, by `helpers.serving`."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import yaml
from mlflow.deployments import BaseDeploymentClient, get_deploy_client
from mlflow.entities.model_registry import ModelVersion
from sklearn.linear_model import LogisticRegression

from helpers import cleanup, parameters, serving, tracking
from helpers.azureml.workspace import API_VERSION
from helpers.ownership import MARK, Item
from helpers.serving import Endpoint, managed_endpoint, own_environment
from helpers.serving.endpoint import EndpointState
from helpers.serving.health import Examples
from helpers.serving.rollout import Rollout
from tests.callers import Callers
from tests.scenarios.azureml import deploying
from tests.scenarios.errors import error_of
from tests.stand_ins import both_servers
from tests.stand_ins.azureml_workspace import AzureMLStandIn

MODEL = "rolled"
ROWS = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=list("abc"))
# No check of a rollout should fail because this machine is slow.
NO_LIMIT_MS = 600_000
# Each fault with its arguments: the pattern of requests, their answer, and details.
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
# The same, in rollouts that mirror requests.
MIRROR_FAULTS: dict[str, tuple[str, int | str, dict[str, int]]] = {
    "mirroring is refused": ("PATCH .*/onlineEndpoints/faults", 403, {"times": 1}),
    "mirroring begins, and the answer is an error": ("GET .*/mfeOperationsStatus/", 403, {"times": 1}),
    "callers get an error while requests are mirrored": ("POST /online/faults/score", 503, {"skip": 5}),
    "the new version fails while requests are mirrored": ("POST /online/faults/score", 424, {"skip": 9}),
    # Azure's client alone would repeat each of these for over seven minutes.
    "mirroring is always answered with 500": ("PATCH .*/onlineEndpoints/faults", 500, {}),
    "mirroring does not end": ("PATCH .*/onlineEndpoints/faults", 403, {"times": 1, "skip": 1}),
}


def configure(group: type = parameters.Deploy, **changes: Any) -> tuple[tracking.Session, Any]:
    """Use Azure ML, unless the changes set another mode; return the session and the parameters of a group."""
    warnings.filterwarnings("ignore")
    logging.getLogger("mlflow").setLevel("ERROR")
    p = both_servers.parameters(group, **{"tracking_mode": "azureml", "experiment_name": "endpoints"} | changes)
    return tracking.configure(p), p


def train(session: tracking.Session, column: str, model_name: str) -> ModelVersion:
    """Register a classifier whose answers depend on one column."""
    estimator = LogisticRegression().fit(ROWS, np.where(ROWS[column] > 0, f"{column} high", f"{column} low"))
    signature = mlflow.models.infer_signature(ROWS, pd.Series(estimator.predict(ROWS), name="prediction"))
    with mlflow.start_run() as active:
        uri = tracking.log_model(estimator, flavor="sklearn", signature=signature)
    return register(session, active.info.run_id, uri, model_name)


def register(session: tracking.Session, run_id: str, model_uri: str, model_name: str) -> ModelVersion:
    """Register the model of a run."""
    return tracking.create_version(
        session, mlflow.get_run(run_id), model_uri, model_name, {"check_threshold": "passed"}
    )


def register_models() -> None:
    """Register ``rolled``: version 1 looks at column a, version 2 at column b, version 3 does not load."""
    session, _ = configure()
    train(session, "a", MODEL)
    train(session, "b", MODEL)
    folder = deploying.save_damaged_model(*deploying.FOR_AML)
    with mlflow.start_run() as active:
        mlflow.log_artifacts(folder, "model")
    register(session, active.info.run_id, f"runs:/{active.info.run_id}/model", MODEL)


def register_spark_model(session: tracking.Session, model_name: str) -> ModelVersion:
    """Register a model that its files describe as one of Spark ML; it needs no Spark to be made."""
    folder = Path(deploying.save_model(1.0, *deploying.FOR_AML))
    described = yaml.safe_load((folder / "MLmodel").read_text())
    described["flavors"]["spark"] = {"model_data": "sparkml"}
    (folder / "MLmodel").write_text(yaml.safe_dump(described))
    with mlflow.start_run() as active:
        mlflow.log_artifacts(str(folder), "model")
    return register(session, active.info.run_id, f"runs:/{active.info.run_id}/model", model_name)


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


def start(name: str, **changes: Any) -> tuple[Endpoint, list[ModelVersion], list[Examples]]:
    """Return the endpoint of these parameters, the versions of ``rolled``, and the predictions of the first two."""
    session, p = configure(endpoint_name=name, **changes)
    versions = tracking.versions(session, MODEL)
    known = [serving.examples(session, version, ROWS) for version in versions[:2]]
    return serving.open_endpoint(session, p, versions[0])[0], versions, known


def open_endpoint(name: str, **changes: Any) -> Endpoint:
    """Return the endpoint of these parameters, in a new session."""
    session, p = configure(endpoint_name=name, **changes)
    return serving.open_endpoint(session, p, tracking.versions(session, MODEL)[0])[0]


def roll_out(
    endpoint: Endpoint,
    version: ModelVersion,
    known: Examples,
    requests: int = 4,
    after_line: Callable[[str], None] = lambda line: None,
    mirror_percent: int = 0,
) -> tuple[Rollout, list[str]]:
    """Roll a version out; return the rollout and the lines that it printed."""
    lines: list[str] = []

    def show(line: str) -> None:
        lines.append(line)
        after_line(line)

    rollout = serving.roll_out(
        endpoint,
        version,
        known,
        requests=requests,
        latency_limit_ms=NO_LIMIT_MS,
        mirror_percent=mirror_percent,
        show=show,
    )
    return rollout, lines


def refusal(
    endpoint: Endpoint, version: ModelVersion, known: Examples, mirror_percent: int = 0
) -> serving.ServingError | None:
    """Return why a rollout fails, or None if it succeeds."""
    try:
        roll_out(endpoint, version, known, mirror_percent=mirror_percent)
    except serving.ServingError as error:
        return error
    return None


def shown(state: EndpointState) -> dict[str, Any]:
    """Return the parts of a state that tests compare."""
    mirror = {"mirror": state.mirror} if state.mirror else {}
    return {"traffic": state.traffic, "deployments": sorted(state.deployments), "ours": state.is_ours} | mirror


def take_over_under_load() -> dict[str, Any]:
    """Roll version 2 out while callers keep sending requests, and once more."""
    session, _ = configure()
    endpoint, (old, new, _), (of_old, of_new) = start(
        "under-load",
        collect_data="true",
        collect_data_rate="0.25",
        request_timeout_s="30",
        start_timeout_s="95",
        max_concurrent_requests="2",
    )
    first, first_lines = roll_out(endpoint, old, of_old)
    with Callers(endpoint, {"rolled-1": of_old, "rolled-2": of_new}) as callers:

        def wait_for_callers(line: str) -> None:
            # Callers send requests between any two steps, however slow this machine is.
            # Lines of the container are not steps.
            goal = callers.answered.total() + 20
            while (not line.startswith("  ") or "%" in line) and callers.answered.total() < goal and not callers.failed:
                time.sleep(0.01)

        rollout, lines = roll_out(
            endpoint, new, of_new, requests=10, after_line=wait_for_callers, mirror_percent=50
        )  # fmt: skip
    again, again_lines = roll_out(endpoint, new, of_new)
    client = plugin()
    deployments = client.list_deployments("under-load")
    # Errors that only a mirrored deployment has, and those that it has in common with the one that serves.
    endpoint.deploy("rolled-1", old)
    endpoint.set_mirror("rolled-1", 10)
    errors = [endpoint.mirror_counts("rolled-1")]
    for name in ("rolled-1", "rolled-2"):
        error_of(endpoint.invoke, ROWS[["a", "c"]], name)
        errors.append(endpoint.mirror_counts("rolled-1"))
    properties = endpoint.resource("rolled-2")["properties"]
    azure, collections = session.workspace.manager, properties["dataCollector"]["collections"].values()
    return {
        "first": shown(first.state),
        "first_lines": first_lines,
        "failed": callers.failed,
        "wrong": len(callers.wrong),
        "answered": callers.answered,
        "after": shown(rollout.state),
        "checks": [[check.percent, check.mirrored, check.target, check.errors] for check in rollout.checks],
        "while_mirrored": rollout.checks[1].answered_by,
        "mirrored": asdict(rollout.mirrored),
        "comparison": [asdict(each) for each in rollout.comparison],
        "comparison_lines": [str(each) for each in rollout.comparison],
        "different": sum(a != b for a, b in zip(of_old.predictions[:10], of_new.predictions[:10], strict=True)),
        "lines": lines,
        "changed_again": again.changed,
        "again_lines": again_lines,
        "endpoint": client.get_endpoint("under-load"),
        "deployments": deployments,
        "errors": [asdict(each) for each in errors],
        "properties": properties,
        "assets": {
            each["dataId"]: azure.get(each["dataId"], api_version=API_VERSION)["properties"]["dataUri"]
            for each in collections
        },
        "collected_data": endpoint.collected_data(),
        "workers": workers_of(endpoint, "rolled-1"),
    }


def workers_of(endpoint: Endpoint, deployment: str) -> int:
    """Return how many processes of Azure ML's own server are ready; the second gets ready some time after the first."""
    deadline = time.monotonic() + 60
    ready: set[str] = set()
    while len(ready) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
        ready = {line for line in endpoint.log_lines(deployment) if "ready for serving traffic" in line}
    return len(ready)


def fail_at_each_step() -> dict[str, Any]:
    """Roll version 2 out with each of `FAULTS`; finally after a rollout was killed while it mirrored, with one error 500."""
    faults = AzureMLStandIn.from_environment().faults
    endpoint, (old, new, _), (of_old, of_new) = start("faults")
    roll_out(endpoint, old, of_old)
    outcomes = {}
    for name, (pattern, status, details) in (FAULTS | MIRROR_FAULTS).items():
        faults.add(pattern, status, **details)
        error = refusal(endpoint, new, of_new, mirror_percent=50 if name in MIRROR_FAULTS else 0)
        outcomes[name] = {
            "error": error and error.message,
            "met": sum(fault.taken for fault in faults.clear()),
            "state": shown(endpoint.state()),
            "right": endpoint.invoke(ROWS).predictions == of_old.predictions,
        }
    # What a killed rollout leaves.
    endpoint.deploy("rolled-2", new)
    endpoint.set_mirror("rolled-2", 30)
    left = shown(endpoint.state())
    faults.add("PATCH .*/onlineEndpoints/faults", 500, times=1)
    rollout, lines = roll_out(endpoint, new, of_new, mirror_percent=50)
    met = sum(fault.taken for fault in faults.clear())
    return {"outcomes": outcomes, "left": left, "lines": lines, "met": met, "after": shown(rollout.state)}


def be_killed_while_mirroring() -> dict[str, Any]:
    """Roll version 2 out in processes that are killed while they mirror requests, and then in one that is not."""
    faults = AzureMLStandIn.from_environment().faults
    endpoint, (old, new, _), (of_old, of_new) = start("killed")
    roll_out(endpoint, old, of_old)
    ends, states, right = [], [], []
    # When mirroring has begun, in the middle of it, and when it is to end. After the first kill, a rollout sends one request
    # for all rows, 4 to the new version, and 4 to both versions in turn; and it ends the old mirror before it begins one.
    for pattern, answer, skip in (
        ("PATCH .*/onlineEndpoints/killed", "kill_after", 0),
        ("POST /online/killed/score", "kill", 1 + 4 + 2),
        ("PATCH .*/onlineEndpoints/killed", "kill", 2),
    ):
        pid = os.fork()
        if pid == 0:
            faults.add(pattern, answer, times=1, skip=skip, pid=os.getpid())
            # With connections of its own.
            roll_out(open_endpoint("killed"), new, of_new, mirror_percent=50)
            os._exit(0)
        ends.append(os.waitpid(pid, 0)[1])
        faults.clear()
        states.append(shown(endpoint.state()))
        answer_now = endpoint.invoke(ROWS)
        right.append(answer_now.deployment == "rolled-1" and answer_now.predictions == of_old.predictions)
    rollout, lines = roll_out(endpoint, new, of_new, mirror_percent=50)
    result = {"ends": ends, "states": states, "right": right, "lines": lines, "after": shown(rollout.state)}
    endpoint.delete()
    return result


def lose_azure_while_mirroring() -> dict[str, Any]:
    """Roll version 2 out while Azure answers 500 from the moment when requests are mirrored, and then while it does not."""
    faults = AzureMLStandIn.from_environment().faults
    endpoint, (old, new, _), (of_old, of_new) = start("lasting")
    roll_out(endpoint, old, of_old)
    outcomes = []
    # Azure refuses changes, or does not even say what there is.
    for pattern in ("PATCH .*/onlineEndpoints/lasting[?]", "(GET|PATCH) .*/onlineEndpoints/lasting[?]"):

        def begin(line: str, pattern: str = pattern) -> None:
            if "50 % mirrored, endpoint" in line:
                faults.add(pattern, 500)

        error = error_of(roll_out, endpoint, new, of_new, after_line=begin, mirror_percent=50)
        faults.clear()
        right = endpoint.invoke(ROWS).predictions == of_old.predictions
        outcomes.append({"error": error, "state": shown(endpoint.state()), "right": right})
    rollout, lines = roll_out(endpoint, new, of_new, mirror_percent=50)
    result = {"outcomes": outcomes, "lines": lines, "after": shown(rollout.state)}
    endpoint.delete()
    return result


def give_up_waiting() -> dict[str, Any]:
    """Roll version 2 out, and delete the endpoint, with no patience for what Azure has not ended, and then with some."""
    endpoint, (old, new, _), (of_old, of_new) = start("slow")
    roll_out(endpoint, old, of_old)
    limits = {name: getattr(managed_endpoint, name) for name in ("_LONGEST_CHANGE_SECONDS", "_LONGEST_WAIT_SECONDS")}

    def impatiently(limit: str, function: Callable[..., Any], *arguments: Any) -> str | None:
        # The stand-in's first answer about an operation is always that it is in progress.
        setattr(managed_endpoint, limit, 0)
        try:
            return error_of(function, *arguments)
        finally:
            setattr(managed_endpoint, limit, limits[limit])

    traffic = impatiently("_LONGEST_CHANGE_SECONDS", roll_out, endpoint, new, of_new)
    rollout, lines = roll_out(endpoint, new, of_new)
    deletion = impatiently("_LONGEST_WAIT_SECONDS", endpoint.delete)
    return {"traffic": traffic, "lines": lines, "after": shown(rollout.state), "deletion": deletion}


def get_stuck_half_way() -> dict[str, Any]:
    """Fail to restore the old traffic, continue, fail to delete the old deployment, and finish."""
    faults = AzureMLStandIn.from_environment().faults
    endpoint, (old, new, _), (of_old, of_new) = start("half-way")
    roll_out(endpoint, old, of_old)
    # Callers get errors at 10 %, and from then on Azure refuses all changes.
    faults.add("POST /online/half-way/score", 500, skip=6)
    faults.add("PATCH .*/onlineEndpoints/half-way", 403, skip=1)
    stuck = refusal(endpoint, new, of_new)
    half_way = shown(endpoint.state())
    faults.clear()
    went_on, lines = roll_out(endpoint, new, of_new)
    # At the end the old deployment cannot be deleted.
    faults.add("DELETE .*/deployments/rolled-2", 403)
    left = refusal(endpoint, old, of_old)
    with_both = shown(endpoint.state())
    faults.clear()
    done, _ = roll_out(endpoint, old, of_old)
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
    """Roll out with, and send requests with, values that Azure ML, the model or the helpers do not accept."""
    faults = AzureMLStandIn.from_environment().faults
    endpoint, (old, new, broken), (of_old, of_new) = start("refusals")
    roll_out(endpoint, old, of_old)
    before = shown(endpoint.state())
    answers = {
        "too_many": refusal(open_endpoint("refusals", instance_count=100), new, of_new).message,
        "no_such_size": refusal(open_endpoint("refusals", instance_type="Standard_None"), new, of_new).message,
    }
    crash = refusal(endpoint, broken, of_new)
    answers |= {
        "crash": crash.message,
        "log": crash.log,
        "column": error_of(endpoint.invoke, ROWS[["a", "c"]]),
        "kind": error_of(endpoint.invoke, ROWS.assign(a="text")),
        "other_auth": error_of(roll_out, open_endpoint("refusals", endpoint_auth="aad_token"), new, of_new),
    }
    plugin().create_endpoint("somebody-elses")
    answers["foreign"] = error_of(roll_out, open_endpoint("somebody-elses"), new, of_new)
    # The key is no longer valid; the new one is.
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
    """Serve with sign-in by Entra ID, send requests, and delete the endpoint."""
    endpoint, (old, *_), (of_old, _) = start("with-token", endpoint_auth="aad_token")
    rollout, _ = roll_out(endpoint, old, of_old)
    answered = endpoint.invoke(ROWS).deployment
    endpoint.delete()
    return {"state": shown(rollout.state), "answered": answered, "after_deletion": endpoint.state()}


def serve_a_model_of_another_registry() -> dict[str, Any]:
    """Serve a version of the local registry, open its endpoint again, and try to serve a Spark ML model."""
    session, p = configure(tracking_mode="databricks", model_registry="local", experiment_name="/Shared/elsewhere")
    version = train(session, "a", "elsewhere")
    (endpoint, deployable), (_, again) = (serving.open_endpoint(session, p, version) for _ in range(2))
    rollout, _ = roll_out(endpoint, deployable, serving.examples(session, version, ROWS))
    of_spark = register_spark_model(session, "needs_java")
    return {
        "state": shown(rollout.state),
        "name": endpoint.name,
        "needs_java": error_of(serving.open_endpoint, session, p, of_spark),
        "not_registered": error_of(session.azureml_server.client().get_registered_model, "needs_java"),
        "tags": deployable.tags,
        "local": session.registry.uri,
        "own_tags": version.tags,
        "versions": [deployable.version, again.version],
        "registry": mlflow.get_registry_uri(),
    }


def serve_with_own_code() -> dict[str, Any]:
    """Roll out with this bundle's scoring script, after faults; make its assets at the same time; and clean up."""
    faults = AzureMLStandIn.from_environment().faults
    endpoint, (old, *_), (of_old, _) = start("own-code", endpoint_environment="own", collect_data="true")
    session, p = configure(endpoint_name="own-code", endpoint_environment="own")
    workspace = session.workspace

    def assets(model: str = MODEL) -> list[str]:
        return sorted(item.name for item in own_environment.items(workspace, model, ()))

    left_by_faults = {}
    for fault, status in (
        ("PUT .*/upload-.*", 403),
        ("PUT .*/upload-.*", "lose_answer"),
        ("PUT .*/environments/.*", 403),
        ("PUT .*/deployments/rolled-1", 403),
    ):
        faults.add(fault, status, **({"times": 1} if status == "lose_answer" else {}))
        if status == "lose_answer":
            # Another one follows, so that this attempt ends, too.
            faults.add("PUT .*/codes/.*", 403)
        error = refusal(endpoint, old, of_old)
        met = all(item.taken for item in faults.clear())
        left_by_faults[f"{fault} {status}"] = [met, assets(), sorted(endpoint.state().deployments), error.message]
    faults.add("PUT .*/environments/.*", "lose_answer", times=1)
    conda = "dependencies: [python=3.11, pip: [mlflow]]"
    by_lost_answer = own_environment.settings(workspace, p, "other", conda)
    faults.clear()
    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(lambda _: own_environment.settings(workspace, p, "at-once", conda), range(4)))
    made = {name: assets(name) for name in ("other", "at-once")}
    rollout, _ = roll_out(endpoint, old, of_old)
    bad = error_of(endpoint.invoke, ROWS[["a", "c"]])
    of_model = assets()

    def planned(force: bool) -> list[Item]:
        _, cleaning = configure(parameters.CleanUp, model_name=MODEL, force=force)
        mine = [
            item
            for item in serving.items(None, session, cleaning)
            if item.kind == "environments" or item.name.startswith("own-code")
        ]
        # Endpoints of other scenarios are not deleted here.
        mine = [replace(item, delete_first=tuple(each for each in mine if each in item.delete_first)) for item in mine]
        return cleanup.plan(mine, cleaning.clean_up)

    kept = {item.name: item.keep_reason for item in planned(False) if item.kind == "environments"}
    outcomes = [outcome.result for outcome in cleanup.delete(planned(True))]
    return {
        "left_by_faults": left_by_faults,
        "lost_answer": by_lost_answer,
        "at_once": at_once,
        "made": made,
        "state": shown(rollout.state),
        "of_model": of_model,
        "bad": bad,
        "kept": kept,
        "outcomes": outcomes,
        "left": assets(),
        "others": [assets(name) for name in ("other", "at-once")],
    }


def serve_on_a_cluster() -> dict[str, Any]:
    """Roll out to a Kubernetes online endpoint, ask for what it does not accept, list it and delete it."""
    cluster = {"endpoint_target": "kubernetes", "endpoint_compute": AzureMLStandIn.cluster}
    endpoint, (old, new, _), (of_old, of_new) = start("on-cluster", **cluster)
    rollout, _ = roll_out(endpoint, old, of_old)
    refused = {
        "instance_type": refusal(
            open_endpoint("on-cluster", **cluster, instance_type="none-such"), new, of_new
        ).message,
        "managed": error_of(roll_out, open_endpoint("on-cluster"), new, of_new),
    }
    open_endpoint("not-on-cluster").create(MODEL)
    refused["other_way"] = error_of(roll_out, open_endpoint("not-on-cluster", **cluster), old, of_old)
    session, p = configure(parameters.CleanUp, model_name=MODEL, force="true")
    listed = [item for item in serving.items(None, session, p) if "on-cluster" in item.name]
    return {
        "state": shown(rollout.state),
        "compute": plugin().get_endpoint("on-cluster")["properties"]["compute"],
        "refused": refused,
        "listed": sorted((item.kind, item.name, item.keep_reason) for item in listed),
        "deleted": [item.delete() for item in listed],
        "after_deletion": endpoint.state(),
    }


def ask_for_another_cluster() -> dict[str, Any]:
    """Open Kubernetes endpoints whose parameters do not fit."""
    there = {"endpoint_target": "kubernetes", "endpoint_compute": AzureMLStandIn.cluster}
    changes = {
        "no_such": there | {"endpoint_compute": "none-such"},
        "mirror": there | {"mirror_percent": "10"},
        "of_version_1": there | {"endpoint_compute": AzureMLStandIn.attached_compute},
    }
    return {name: error_of(open_endpoint, "refused-cluster", **each) for name, each in changes.items()}


def list_for_clean_up() -> dict[str, Any]:
    """List and delete the endpoints of ``rolled``, when another model and somebody else also have endpoints."""
    names = ("listed", "listed-service", "other-model", "not-ours")
    endpoint, (old, new, _), (of_old, _) = start("listed")
    roll_out(endpoint, old, of_old)
    # What a rollout leaves that is killed while it mirrors.
    endpoint.deploy("rolled-2", new)
    endpoint.set_mirror("rolled-2", 10)
    roll_out(open_endpoint("listed-service", endpoint_target="aci"), old, of_old)
    session, p = configure(endpoint_name="other-model")
    other = train(session, "a", "other")
    roll_out(serving.open_endpoint(session, p, other)[0], other, serving.examples(session, other, ROWS))
    plugin().create_endpoint("not-ours")

    def listed(force: bool) -> dict[str, Item]:
        session, p = configure(parameters.CleanUp, model_name=MODEL, force=force)
        # Endpoints do not need Spark.
        items = serving.items(None, session, p)
        return {item.name: item for item in items if item.name.split("/")[0] in names}

    kept = {name: item.keep_reason for name, item in listed(False).items()}
    forced = listed(True)
    own = [item for item in forced.values() if not item.keep_reason]
    return {
        "kinds": sorted((item.kind, item.name) for item in own),
        "kept": kept,
        "kept_by_force": {name: item.keep_reason for name, item in forced.items()},
        "where": sorted({item.where for item in own}),
        "deleted": [item.delete() for item in own],
        "deleted_again": [item.delete() for item in own],
        "left": sorted(listed(True)),
    }


def serve_as_a_web_service(kind: str) -> dict[str, Any]:
    """Serve two versions in turn as a web service, and try two that do not answer correctly.

    Parameters
    ----------
    kind : {"aci", "aks"}
    """
    compute = {"aks_compute": AzureMLStandIn.attached_compute} if kind == "aks" else {}
    service, (old, new, broken), (of_old, of_new) = start(f"service-{kind}", endpoint_target=kind, **compute)
    first, lines = roll_out(service, old, of_old)
    second, _ = roll_out(service, new, of_new)
    again, _ = roll_out(service, new, of_new)
    crash = refusal(service, broken, of_new)
    # The old version's answers differ from those of the new one.
    wrong = refusal(service, old, of_new)
    state, answer = service.state(), service.invoke(ROWS)
    service.delete()
    return {
        "first": shown(first.state),
        "lines": lines,
        "checks": [[check.percent, check.errors] for check in second.checks],
        "changed_again": again.changed,
        "broken": crash.message,
        "wrong": wrong.message,
        "state": shown(state),
        "right": answer.predictions == of_new.predictions,
        "after_deletion": service.state(),
        "no_cluster": error_of(open_endpoint, "service-aks", endpoint_target="aks"),
    }
