"""`helpers.serving` against online endpoints of the Azure ML stand-in: rollouts, refusals, and faults at every step."""

from __future__ import annotations

import os
import textwrap

import pytest

from tests.azureml import both_servers
from tests.azureml.client import PRELUDE
from tests.azureml.python_process import PythonProcess

HELPERS = """
import logging, warnings
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from helpers import parameters, serving, tracking, training
from helpers.serving import health
from tests.azureml import both_servers
from tests.callers import Callers

warnings.filterwarnings("ignore")
logging.getLogger("mlflow").setLevel("ERROR")
aml = both_servers.stand_in()
rows = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=list("abc"))

def configure(**changes):
    defaults = {name: parameters.FIELDS[name].default for name in (*parameters.TRACKING, *parameters.ENDPOINT)}
    workspace = {name: os.environ[name.upper()] for name in both_servers.WORKSPACE}
    p = parameters.parse(defaults | workspace | {"tracking_mode": "azureml"} | changes)
    tracking.configure(p)
    return p

def train(column, model_name):
    estimator = LogisticRegression().fit(rows, np.where(rows[column] > 0, f"{column} high", f"{column} low"))
    signature = mlflow.models.infer_signature(rows, pd.Series(estimator.predict(rows), name="prediction"))
    with mlflow.start_run() as run:
        uri = tracking.log_model(training.TrainedModel(estimator, "sklearn", [], signature, None, {}, {}))
    run = mlflow.get_run(run.info.run_id)
    return tracking.create_version(run, uri, model_name, {"check_threshold": "passed"})

def versions(name="rolled"):
    return tracking.versions(name)

def roll_out(endpoint, version, known=None, **options):
    lines = []
    known = known or serving.examples(version, rows)
    found = serving.roll_out(endpoint, version, known, show=lines.append, **{"requests": 4} | options)
    return found, lines

def refused(endpoint, version, known=None, **options):
    try:
        roll_out(endpoint, version, known, **options)
    except serving.ServingError as raised:
        return SimpleNamespace(message=raised.message, log=raised.log, text=str(raised))

def shown(state):
    return {"traffic": state.traffic, "deployments": sorted(state.deployments), "ours": state.is_ours}

def open_endpoint(name, version=None, **changes):
    return serving.open_endpoint(configure(endpoint_name=name, **changes), version or versions()[0])[0]

p = configure(experiment_name="endpoints")
"""
OLD, NEW = "rolled-1", "rolled-2"


@pytest.fixture(scope="module")
def process(aml, databricks, tmp_path_factory):
    """A process that has registered the model ``rolled``: version 1 looks at column a, 2 at b, 3 cannot be loaded."""
    folder = tmp_path_factory.mktemp("client")
    environment = both_servers.environment(aml, databricks) | {"BUNDLE_LOCAL_DIR": str(folder / "local")}
    with PythonProcess.start(folder, os.environ | environment) as started:
        yield started


@pytest.fixture(scope="module")
def run_script(process):
    """Run a script in the process, after what all have in common; it must not raise."""

    def run_script(*code, **environment):
        found = process.run("\n".join([PRELUDE, HELPERS, *map(textwrap.dedent, code)]), **environment)
        assert "error" not in found, process.output_file.read_text()[-4000:]
        return found

    run_script(
        """
        for column in "ab":
            train(column, "rolled")
        save = mlflow.sklearn.save_model
        def damaged(model, path, **options):
            save(model, path, **options)
            (file,) = [file for file in Path(path).iterdir() if file.name.startswith("model.")]
            file.write_bytes(b"damaged")
        mlflow.sklearn.save_model = damaged
        train("c", "rolled")
        mlflow.sklearn.save_model = save
        """
    )
    yield run_script
    # The other tests' deployments need the same quota.
    run_script(
        """
        plugin = mlflow.deployments.get_deploy_client(aml.tracking_uri)
        for one in plugin.list_endpoints():
            if "azureml_mlflow" in (one["tags"] or {}):
                plugin.delete_endpoint(one["name"])
        """
    )


@pytest.fixture
def run(run_script, aml):
    yield run_script
    aml.faults.clear()


def test_no_request_fails_while_a_version_takes_over_and_the_plugin_sees_what_it_left(run, aml):
    found = run(
        """
        endpoint = open_endpoint("under-load")
        first, first_lines = roll_out(endpoint, versions()[0])
        known = {f"rolled-{v.version}": serving.examples(v, rows) for v in versions()[:2]}
        with Callers(endpoint, known) as callers:
            rollout, lines = roll_out(endpoint, versions()[1], known["rolled-2"], requests=10)
        again, again_lines = roll_out(endpoint, versions()[1], known["rolled-2"])
        plugin = mlflow.deployments.get_deploy_client(aml.tracking_uri)
        answer(
            first=shown(first.state), first_lines=first_lines, failed=callers.failed, wrong=len(callers.wrong),
            answered=callers.answered,
            after=shown(rollout.state), checks=[[c.percent, c.target, c.errors] for c in rollout.checks], lines=lines,
            again=[again.changed, again_lines], endpoint=plugin.get_endpoint("under-load"),
            deployments=plugin.list_deployments("under-load"),
        )
        """
    )
    print(f"{sum(found['answered'].values())} requests, {len(found['failed'])} failed, {found['answered']}")
    assert found["first"] == {"traffic": {OLD: 100}, "deployments": [OLD], "ours": True}
    assert found["failed"] == [] and found["wrong"] == 0
    assert min(found["answered"][OLD], found["answered"][NEW]) > 10
    assert found["after"] == {"traffic": {NEW: 100}, "deployments": [NEW], "ours": True}
    assert found["checks"] == [
        [0, NEW, 0], [10, "endpoint", 0], [10, NEW, 0], [50, "endpoint", 0], [50, NEW, 0], [100, "endpoint", 0]
    ]  # fmt: skip
    # What the container says while it starts is shown.
    for lines, deployment in ((found["first_lines"], OLD), (found["lines"], NEW)):
        # The model server says so itself, when it looks for what the container needs.
        assert f"  {deployment}: Succeeded" in lines and any("azureml-inference-server-http" in line for line in lines)
    assert found["again"][0] is False and "nothing is changed" in found["again"][1][0]
    assert found["endpoint"]["tags"] == {"azureml_mlflow": "rolled"}
    (deployment,) = found["deployments"]
    assert deployment["sku"]["capacity"] == 1 and deployment["properties"]["instanceType"] == "Standard_DS3_v2"
    assert deployment["properties"]["model"].endswith("/models/rolled/versions/2")
    keys = {request.path for request in aml.requests("listKeys")}
    assert any(path.endswith("under-load/listKeys") for path in keys)


FAULTS = {
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


def test_whatever_fails_in_a_rollout_the_endpoint_serves_what_it_served_before(run):
    found = run(
        f"""
        faults = {FAULTS!r}
        endpoint = open_endpoint("faults")
        roll_out(endpoint, versions()[0])
        known = [serving.examples(version, rows) for version in versions()[:2]]
        outcomes = {{}}
        for name, (pattern, status, more) in faults.items():
            aml.faults.add(pattern, status, **more)
            got = refused(endpoint, versions()[1], known[1])
            met = sum(fault.taken for fault in aml.faults.clear())
            right = endpoint.invoke(rows).predictions == known[0].predictions
            outcomes[name] = [got and got.message, met, shown(endpoint.state()), right]
        rollout, _ = roll_out(endpoint, versions()[1], known[1])
        answer(outcomes=outcomes, after=shown(rollout.state))
        """
    )
    print(f"{len(FAULTS)} fault points")
    for name, (message, met, state, right) in found["outcomes"].items():
        assert met, name
        assert state == {"traffic": {OLD: 100}, "deployments": [OLD], "ours": True}, name
        assert right, name
        assert message and f"Endpoint faults serves what it served before: {OLD} 100 %." in message, name
    assert found["after"] == {"traffic": {NEW: 100}, "deployments": [NEW], "ours": True}


def test_what_could_not_be_put_back_or_taken_away_is_told_and_made_good_by_the_next_rollout(run):
    found = run(
        """
        endpoint = open_endpoint("half-way")
        roll_out(endpoint, versions()[0])
        known = serving.examples(versions()[1], rows)
        # Callers get errors at 10 %, and from then on Azure refuses all changes.
        aml.faults.add("POST /online/half-way/score", 500, skip=6)
        aml.faults.add("PATCH .*/onlineEndpoints/half-way", 403, skip=1)
        stuck = refused(endpoint, versions()[1], known)
        half_way = shown(endpoint.state())
        aml.faults.clear()
        went_on, lines = roll_out(endpoint, versions()[1], known)
        # The old deployment cannot be deleted at the end.
        aml.faults.add("DELETE .*/deployments/rolled-2", 403)
        left = refused(endpoint, versions()[0])
        with_both = shown(endpoint.state())
        aml.faults.clear()
        done, _ = roll_out(endpoint, versions()[0])
        answer(
            stuck=stuck.message, half_way=half_way, went_on=shown(went_on.state), lines=lines,
            shares=[check.percent for check in went_on.checks], left=left.message, with_both=with_both,
            done=shown(done.state),
        )
        """
    )
    assert "could not be put back to rolled-1 100 %" in found["stuck"] and "Run this again" in found["stuck"]
    assert found["half_way"]["traffic"] == {OLD: 90, NEW: 10}
    assert found["shares"] == [10, 10, 50, 50, 100] and any("already deployed" in line for line in found["lines"])
    assert found["went_on"] == {"traffic": {NEW: 100}, "deployments": [NEW], "ours": True}
    assert "Deployment rolled-2 of endpoint half-way was not deleted" in found["left"]
    assert found["with_both"] == {"traffic": {OLD: 100}, "deployments": [OLD, NEW], "ours": True}
    assert found["done"] == {"traffic": {OLD: 100}, "deployments": [OLD], "ours": True}


def test_what_azure_does_not_accept_is_told_in_its_words_and_changes_nothing(run, aml):
    found = run(
        """
        endpoint = open_endpoint("refusals")
        roll_out(endpoint, versions()[0])
        new, broken = versions()[1:]
        known = serving.examples(new, rows)
        before = shown(endpoint.state())
        too_many = refused(open_endpoint("refusals", instance_count=100), new, known)
        no_such_size = refused(open_endpoint("refusals", instance_type="Standard_None"), new, known)
        fails = refused(endpoint, broken, known)
        column = error(endpoint.invoke, rows[["a", "c"]])
        kind = error(endpoint.invoke, rows.assign(a="text"))
        other_auth = error(roll_out, open_endpoint("refusals", endpoint_auth="aad_token"), new, known)
        mlflow.deployments.get_deploy_client(aml.tracking_uri).create_endpoint("somebody-elses")
        foreign = error(roll_out, open_endpoint("somebody-elses"), new, known)
        # The key that was given out is not good any more, and the next one is.
        aml.faults.add("POST /online/refusals/score", 401, times=1)
        renewed = endpoint.invoke(rows).deployment
        aml.faults.add("POST /online/refusals/score", 401)
        unauthorized = error(endpoint.invoke, rows)
        aml.faults.clear()
        answer(
            too_many=too_many.message, no_such_size=no_such_size.message, fails=fails.message, log=fails.log,
            column=column, kind=kind, foreign=foreign, other_auth=other_auth, unauthorized=unauthorized, renewed=renewed,
            unchanged=[before, shown(endpoint.state())],
        )
        """
    )
    assert "Not enough quota" in found["too_many"] and "smaller instance_type" in found["too_many"]
    assert "Standard_None" in found["no_such_size"]
    assert "container" in found["fails"] and "Traceback" in found["log"]
    assert "the rows do not fit" in found["column"] and "missing inputs" in found["column"] and "'b'" in found["column"]
    assert "column a" in found["kind"] and "text" in found["kind"]
    assert "ParameterError: endpoint_name='somebody-elses'" in found["foreign"]
    assert "ParameterError: endpoint_auth='aad_token'" in found["other_auth"]
    assert found["renewed"] == OLD
    assert "answered 401" in found["unauthorized"] and "key or token" in found["unauthorized"]
    assert found["unchanged"][0] == found["unchanged"][1]
    told = "".join(map(str, found.values()))
    assert aml.client_secret not in told and "Bearer" not in told


def test_an_identity_without_the_role_is_told_which_one_it_needs(run):
    found = run(
        """
        endpoint = open_endpoint("no-role")
        aml.faults.add("PUT .*/onlineEndpoints/no-role", 403)
        answer(refused=error(endpoint.create, "rolled"), state=endpoint.state())
        """
    )
    assert "cannot be created" in found["refused"] and "AzureML Data Scientist" in found["refused"]
    assert found["state"] is None


def test_a_token_serves_as_the_key_where_callers_sign_in_with_entra_id(run):
    found = run(
        """
        endpoint = open_endpoint("with-token", endpoint_auth="aad_token")
        rollout, _ = roll_out(endpoint, versions()[0])
        answer(state=shown(rollout.state), answered=endpoint.invoke(rows).deployment)
        endpoint.delete()
        answer(gone=endpoint.state())
        """
    )
    assert found["state"]["traffic"] == {OLD: 100} and found["answered"] == OLD and found["gone"] is None


def test_a_model_of_another_registry_is_registered_in_azure_ml_once_with_where_it_comes_from(run):
    found = run(
        """
        p = configure(tracking_mode="databricks", model_registry="local", experiment_name="/Shared/elsewhere")
        version = train("a", "elsewhere")
        local = mlflow.get_registry_uri()
        opened = [serving.open_endpoint(p, version) for _ in range(2)]
        endpoint, there = opened[0]
        rollout, _ = roll_out(endpoint, there, serving.examples(version, rows))
        answer(
            state=shown(rollout.state), name=endpoint.name, tags=there.tags, local=local, own=version.tags,
            versions=[v.version for _, v in opened], registry=mlflow.get_registry_uri(),
        )
        """
    )
    assert found["versions"] == ["1", "1"] and found["registry"] == found["local"]
    assert found["tags"]["registered_from"] == f"{found['local']} elsewhere/1"
    assert found["own"].items() <= found["tags"].items() and found["own"]["run_id"]
    assert found["state"]["traffic"] == {"elsewhere-1": 100} and found["name"].startswith("elsewhere-")


def test_clean_up_is_told_of_the_models_endpoints_and_deletes_what_serves_if_forced_only(run):
    found = run(
        """
        endpoint = open_endpoint("listed")
        roll_out(endpoint, versions()[0])
        p = configure(endpoint_name="other-model")
        other = train("a", "other")
        roll_out(serving.open_endpoint(p, other)[0], other)
        roll_out(open_endpoint("listed-service", endpoint_target="aci"), versions()[0])
        plugin = mlflow.deployments.get_deploy_client(aml.tracking_uri)
        plugin.create_endpoint("not-ours")

        def listed(force):
            there = serving.items(p, "rolled", force)
            return {item.name: item for item in there if item.name.split("/")[0] in
                    ("listed", "listed-service", "other-model", "not-ours")}

        kept = {name: item.keep_reason for name, item in listed(False).items()}
        forced = listed(True)
        kept_by_force = {name: item.keep_reason for name, item in forced.items()}
        mine = [item for item in forced.values() if not item.keep_reason]
        answer(
            kinds=sorted((item.kind, item.name) for item in mine), kept=kept, kept_by_force=kept_by_force,
            where=sorted({item.where for item in mine}), deleted=[item.delete() for item in mine],
            again=[item.delete() for item in mine], left=sorted(listed(True)),
        )
        """
    )
    others = {
        "other-model": "made by this bundle, and not named by these parameters",
        "other-model/other-1": "made by this bundle, and not named by these parameters",
        "not-ours": "not made by this bundle",
    }
    assert found["kept"] == others | {
        "listed": "serves requests: rolled-1 gets 100 %; force=true deletes it",
        "listed/rolled-1": "gets 100 % of the requests; force=true deletes it",
        "listed-service": "serves requests: rolled-1 gets 100 %; force=true deletes it",
    }
    assert found["kept_by_force"] == others | {"listed": "", "listed/rolled-1": "", "listed-service": ""}
    assert found["kinds"] == [
        ["deployments", "listed/rolled-1"],
        ["endpoints", "listed"],
        ["endpoints", "listed-service"],
    ]
    assert found["where"] == ["Azure ML workspace ml-workspace"]
    assert found["deleted"] == [True, True, True] and found["again"] == [False, False, False]
    assert found["left"] == sorted(others)


@pytest.mark.parametrize("kind", ["aci", "aks"])
def test_a_web_service_has_one_version_which_the_next_replaces_unless_it_does_not_answer_rightly(run, aml, kind):
    found = run(
        f"""
        compute = {{"aks_compute": {aml.attached_compute!r}}} if {kind!r} == "aks" else {{}}
        service = open_endpoint("service-{kind}", endpoint_target={kind!r}, **compute)
        first, _ = roll_out(service, versions()[0])
        second, _ = roll_out(service, versions()[1])
        again, _ = roll_out(service, versions()[1])
        broken = refused(service, versions()[2], serving.examples(versions()[1], rows))
        wrong = refused(service, versions()[0], serving.examples(versions()[1], rows))
        state, told = service.state(), service.invoke(rows)
        right = told.predictions == serving.examples(versions()[1], rows).predictions
        service.delete()
        answer(
            first=shown(first.state), checks=[[c.percent, c.errors] for c in second.checks], again=again.changed,
            broken=broken.message, wrong=wrong.message, state=shown(state), right=right, gone=service.state(),
            no_cluster=error(open_endpoint, "service-aks", endpoint_target="aks"),
        )
        """
    )
    assert found["first"] == {"traffic": {OLD: 100}, "deployments": [OLD], "ours": True}
    assert found["checks"] == [[100, 0]] and found["again"] is False
    assert "rolled-2 was put back in its place." in found["broken"]
    assert "do not agree" in found["wrong"] and "rolled-2 was put back" in found["wrong"]
    assert found["state"] == {"traffic": {NEW: 100}, "deployments": [NEW], "ours": True}
    assert found["right"] and found["gone"] is None
    assert found["no_cluster"].startswith("ParameterError: aks_compute=''")
