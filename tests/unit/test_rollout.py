"""Rollouts at the local endpoint: real model servers, real requests, and versions with different predictions."""

import dataclasses
import functools
import json
import os
import re
import signal
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
import requests
from sklearn.linear_model import LogisticRegression

from helpers import serving, tracking
from helpers.parameters import ParameterError
from helpers.serving import health
from helpers.serving.comparison import compare
from helpers.serving.endpoint import EndpointState
from helpers.serving.endpoint_names import deployment_name, endpoint_name
from helpers.serving.local_endpoint import LocalEndpoint
from tests.callers import Callers

pytestmark = pytest.mark.slow

# The speed of the machine does not affect these rollouts, unless a test sets another limit.
NO_LIMIT_MS = 3_600_000
roll_out = functools.partial(serving.roll_out, latency_limit_ms=NO_LIMIT_MS)

ROWS = pd.DataFrame(np.random.default_rng(0).normal(size=(120, 3)), columns=list("abc"))
NAME = "rolled out"
OLD, NEW = "rolled-out-1", "rolled-out-2"


class CannotBeLoaded(mlflow.pyfunc.PythonModel):
    """A model whose module the model server cannot import."""

    def predict(self, context, model_input: pd.DataFrame):
        return model_input["a"]


@pytest.fixture(scope="module")
def session(local_dir, tracking_parameters):
    return tracking.configure(tracking_parameters(experiment_name="rollout"))


@pytest.fixture(scope="module")
def versions(session):
    """Version 1 predicts from the first column, version 2 from the second, and version 3 cannot be loaded."""
    registered = []
    for column in "ab":
        estimator = LogisticRegression().fit(ROWS, np.where(ROWS[column] > 0, f"{column} high", f"{column} low"))
        signature = mlflow.models.infer_signature(ROWS, estimator.predict(ROWS))
        with mlflow.start_run():
            uri = tracking.log_model(estimator, flavor="sklearn", signature=signature)
            registered.append(mlflow.register_model(uri, NAME))
    with mlflow.start_run():
        options = {"signature": signature, "pip_requirements": ["mlflow"]}
        broken = mlflow.pyfunc.log_model(name="model", python_model=CannotBeLoaded(), **options)
        registered.append(mlflow.register_model(broken.model_uri, NAME))
    return registered


@pytest.fixture(scope="module")
def known(session, versions):
    """The predictions of versions 1 and 2."""
    return {deployment_name(NAME, v.version): serving.examples(session, v, ROWS) for v in versions[:2]}


@pytest.fixture(scope="module")
def endpoint(session, tmp_path_factory):
    """An endpoint that its first rollout creates."""
    endpoint = LocalEndpoint("under-test", tmp_path_factory.mktemp("endpoints"), session)
    yield endpoint
    endpoint.delete()


@pytest.fixture
def serving_old(endpoint, versions, known):
    """An endpoint that serves version 1."""
    roll_out(endpoint, versions[0], known[OLD], steps=[100], requests=3)
    return endpoint


@pytest.mark.parametrize(
    ("model", "starts_with"),
    [
        ("breast_cancer", "breast-cancer"),
        ("main.azureml_mlflow.Breast__Cancer", "breast-cancer"),
        ("7 Zwerge", "model-7-zwerge"),
        ("Größe", "gr-e"),
        ("x", "x"),
        ("模型", "model"),
        ("a" * 200, "aaaa"),
        ("-" * 40 + "b", "b"),
    ],
)
def test_names_are_made_valid_and_stay_the_same(model, starts_with):
    rule = re.compile(r"(?=.{3,32}$)[a-z](-?[a-z0-9])*")
    for name in (endpoint_name(model, "here"), *(deployment_name(model, version) for version in ("1", "12345"))):
        assert rule.fullmatch(name) and name.startswith(starts_with)
    assert endpoint_name(model, "here") == endpoint_name(model, "here") != endpoint_name(model, "there")
    assert endpoint_name(model, "here") != endpoint_name(f"{model}_", "here")
    assert deployment_name(model, "1") != deployment_name(model, "2")


def test_no_request_fails_while_a_version_takes_over_step_by_step_and_each_answer_is_one_of_theirs(
    serving_old, versions, known
):
    lines = []
    with Callers(serving_old, known) as callers:
        # 0.05 minutes: the new version is looked at more than once.
        rollout = roll_out(
            serving_old, versions[1], known[NEW], requests=20, mirror_percent=50, mirror_minutes=0.05, show=lines.append
        )
    print(
        f"{rollout.mirrored}; {callers.answered.total()} requests, {len(callers.failed)} failed, {dict(callers.answered)}"
    )
    assert callers.failed == [] and callers.wrong == []
    assert min(callers.answered[OLD], callers.answered[NEW]) > 20
    targets = [(check.percent, check.mirrored, check.target) for check in rollout.checks]
    mirrored, live = [(0, 50, "endpoint"), (0, 50, NEW)], [(10, 0, "endpoint"), (10, 0, NEW), (50, 0, "endpoint")]
    assert targets == [(0, 0, NEW), *mirrored, *live, (50, 0, NEW), (100, 0, "endpoint")]
    # While requests were mirrored, the old version answered all of them.
    assert rollout.checks[1].answered_by == f"{OLD}: 20"
    assert rollout.mirrored.answered > 20 and (rollout.mirrored.failed, rollout.mirrored.error) == (0, "")
    (comparison,) = rollout.comparison
    different = sum(a != b for a, b in zip(known[OLD].predictions[:20], known[NEW].predictions[:20], strict=True))
    assert (comparison.rows, comparison.different) == (20, different) and different
    assert f"  {comparison}" in lines and f"{NEW}: mirroring has ended; copies: {rollout.mirrored}" in lines
    assert rollout.state.mirror == {}
    assert rollout.changed and rollout.state.traffic == {NEW: 100} and rollout.state.deployments.keys() == {NEW}
    assert all(0 < check.p50_ms <= check.p95_ms and not check.errors for check in rollout.checks)

    again = roll_out(serving_old, versions[1], known[NEW], requests=3)
    assert not again.changed and again.state == rollout.state
    # Then back, as after a mistake that no check has found.
    assert roll_out(serving_old, versions[0], known[OLD], steps=[100], requests=3).state.traffic == {OLD: 100}


def test_a_rollout_that_is_killed_at_any_line_continues_when_it_is_called_again(serving_old, versions, known):
    killed_at, rollout = set(), None

    def show(line):
        place = line.partition(" requests")[0]
        # Lines of the model server are not part of the rollout's.
        if re.match(r" *\d+ %|rolled-out", line) and place not in killed_at:
            killed_at.add(place)
            raise KeyboardInterrupt(line)

    while rollout is None:
        try:
            rollout = roll_out(serving_old, versions[1], known[NEW], requests=3, mirror_percent=50, show=show)
        except KeyboardInterrupt:
            state = serving_old.state()
            assert sum(state.traffic.values()) == 100 and state.mirror in ({}, {NEW: 30})
            if NEW in state.deployments and NEW not in state.traffic:
                # What a rollout leaves whose process is killed while it mirrors.
                serving_old.set_mirror(NEW, 30)
            answer = serving_old.invoke(ROWS)
            assert answer.predictions == known[answer.deployment].predictions
    print(f"killed {len(killed_at)} times: {killed_at}")
    assert len(killed_at) >= 15
    assert rollout.state.traffic == {NEW: 100} and rollout.state.deployments.keys() == {NEW}
    assert rollout.state.mirror == {}


@pytest.mark.parametrize(
    "when", [f"  0 %, {NEW}", "  0 %, 50 % mirrored, endpoint", " 10 %, endpoint", f" 10 %, {NEW}", f" 50 %, {NEW}"]
)
def test_a_model_server_that_dies_in_a_rollout_puts_the_old_traffic_back(serving_old, versions, known, when):
    def show(line):
        if line.startswith(when):
            (process,) = re.findall(r"Listening at: \S+ \((\d+)\)", serving_old.log(NEW))
            os.kill(int(process), signal.SIGKILL)

    findings = serving.Findings()
    with pytest.raises(serving.ServingError, match=f"serves what it served before: {OLD} 100 %") as raised:
        roll_out(
            serving_old, versions[1], known[NEW], requests=40, mirror_percent=50, findings=findings, show=show
        )  # fmt: skip
    assert "The health check at" in str(raised.value) and "log ends with" in str(raised.value)
    assert findings.checks[-1].errors and findings.checks[-1].problem
    state = serving_old.state()
    assert state.traffic == {OLD: 100} and state.deployments.keys() == {OLD} and state.mirror == {}
    assert serving_old.invoke(ROWS).predictions == known[OLD].predictions


def test_a_version_that_does_not_answer_what_callers_send_never_gets_a_request(serving_old, session, tmp_path):
    file = tmp_path / "model.py"
    file.write_text(
        "import mlflow\n"
        "class Model(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input, params=None):\n"
        "        assert model_input['a'].max() < 100, 'too large'\n"
        "        return ['small'] * len(model_input)\n"
        "mlflow.models.set_model(Model())\n"
    )
    with mlflow.start_run():
        options = {"signature": mlflow.models.infer_signature(ROWS, ["small"]), "pip_requirements": ["mlflow"]}
        model = mlflow.pyfunc.log_model(name="model", python_model=str(file), **options)
        version = mlflow.register_model(model.model_uri, NAME)
    examples = serving.examples(session, version, ROWS, allow_pickle=True)

    def show(line):
        if "% mirrored, endpoint" in line:
            for _ in range(20):
                serving_old.invoke(ROWS.head(1).assign(a=1000.0))

    with pytest.raises(
        serving.ServingError, match="did not answer requests that were mirrored to it .*: 500: .*Check the logs"
    ) as raised:
        roll_out(serving_old, version, examples, requests=20, mirror_percent=50, show=show)
    assert f"serves what it served before: {OLD} 100 %" in raised.value.message and "too large" in raised.value.log
    state = serving_old.state()
    assert (state.traffic, state.mirror, state.deployments.keys()) == ({OLD: 100}, {}, {OLD})


@pytest.mark.parametrize("when", [f"{NEW}: mirroring 50 %", "  0 %, 50 % mirrored, endpoint"])
def test_two_rollouts_of_a_version_at_once_both_succeed_and_leave_no_mirror(serving_old, versions, known, when):
    others = []

    def show(line):
        if line.startswith(when) and not others:
            others.append(roll_out(serving_old, versions[1], known[NEW], requests=3, mirror_percent=20))

    rollout = roll_out(serving_old, versions[1], known[NEW], requests=3, mirror_percent=50, show=show)
    assert others[0].mirrored.failed == 0
    assert rollout.state == others[0].state == serving_old.state()
    assert rollout.state.traffic == {NEW: 100} and rollout.state.deployments.keys() == {NEW}
    assert rollout.state.mirror == {}


def test_what_cannot_be_mirrored_is_said_before_anything_changes(serving_old, versions, known):
    class CannotMirror(LocalEndpoint):
        mirrors = False

    endpoint = CannotMirror(serving_old.name, serving_old.folder.parent)
    with pytest.raises(ParameterError, match="mirror_percent=5: endpoint under-test cannot mirror requests; give 0"):
        roll_out(endpoint, versions[1], known[NEW], mirror_percent=5)

    class MirrorsToAnother(LocalEndpoint):
        def state(self):
            return dataclasses.replace(super().state(), mirror={"somebody-elses": 10})

    endpoint = MirrorsToAnother(serving_old.name, serving_old.folder.parent)
    with pytest.raises(ParameterError, match="mirror_percent=5: .* mirrors requests to somebody-elses already"):
        roll_out(endpoint, versions[1], known[NEW], mirror_percent=5)
    assert serving_old.state().deployments.keys() == {OLD}


def test_a_slow_a_wrong_or_a_broken_version_never_gets_a_request(serving_old, versions, known):
    before = serving_old.state()
    with pytest.raises(
        serving.ServingError, match=r"0 % of the requests failed: p95 is \d+ ms, over latency_limit_ms=1"
    ):
        roll_out(serving_old, versions[1], known[NEW], requests=3, latency_limit_ms=1)
    with pytest.raises(serving.ServingError, match=f"{NEW} and the model.* do not agree, at row 0 of 120"):
        roll_out(serving_old, versions[1], health.Examples(ROWS, known[OLD].predictions), requests=3)
    with pytest.raises(serving.ServingError, match="rolled-out-3 does not start") as raised:
        roll_out(serving_old, versions[2], known[NEW], requests=3)
    assert "No module named 'test_rollout'" in raised.value.log
    assert serving_old.state() == before
    assert serving_old.invoke(ROWS).predictions == known[OLD].predictions


def test_a_health_check_counts_the_predictions_that_are_not_the_models(serving_old, known):
    wrong = health.Examples(ROWS, known[NEW].predictions)
    result = health.check_requests(serving_old, OLD, 100, wrong, requests=5, latency_limit_ms=NO_LIMIT_MS)
    assert result.errors == 5 and result.problem.startswith(f"{OLD} answers ['a ")
    # Answers of the old version are not compared with the predictions of the new one.
    assert health.check_requests(serving_old, NEW, 10, wrong, requests=5, latency_limit_ms=NO_LIMIT_MS).errors == 0


def test_an_endpoint_that_is_deleted_in_a_rollout_is_reported_and_stays_deleted(session, versions, known, tmp_path):
    endpoint = LocalEndpoint("ended", tmp_path, session)

    def show(line):
        if line.startswith("  0 %"):
            endpoint.delete()

    with pytest.raises(serving.ServingError, match="Endpoint ended no longer exists") as raised:
        roll_out(endpoint, versions[0], known[OLD], requests=3, show=show)
    assert raised.value.__suppress_context__ and endpoint.state() is None


def test_the_health_checks_of_a_failed_rollout_are_logged_with_a_plot(session, versions, known):
    run = mlflow.get_run(versions[0].run_id)
    failed = health.HealthCheck(10, "endpoint", 3, 2, 4.0, 8.0, "", "no answer")
    mirrored = health.HealthCheck(0, NEW, 3, 0, 5.0, 9.0, "", "", mirrored=20)
    with pytest.raises(serving.ServingError, match="no answer"), serving.log_checks(session, run) as findings:
        findings.checks += [mirrored, failed]
        findings.comparison += compare([{"the %": 1.0, "kind": "a"}], [{"the %": 3.0, "kind": "a"}])
        raise serving.ServingError("no answer")
    logged = mlflow.get_run(run.info.run_id).data.metrics
    assert (logged["endpoint_errors"], logged["endpoint_p95_ms"]) == (2, 8)
    of_mirror = {name: value for name, value in logged.items() if name.startswith("mirror_")}
    assert of_mirror == {
        "mirror_deployment_errors": 0, "mirror_deployment_p50_ms": 5, "mirror_deployment_p95_ms": 9,
        "mirror_difference_share_the _": 1, "mirror_difference_largest_the _": 2, "mirror_difference_mean_the _": 2,
        "mirror_difference_share_kind": 0,
    }  # fmt: skip
    steps = mlflow.MlflowClient().get_metric_history(run.info.run_id, "mirror_difference_share_kind")
    assert [metric.step for metric in steps] == [20]
    plots = mlflow.artifacts.list_artifacts(f"{run.info.artifact_uri}/rollouts")
    assert [Path(plot.path).suffix for plot in plots] == [".png"]


def test_an_error_says_what_is_wrong_with_the_rows_or_the_deployment(serving_old):
    with pytest.raises(serving.ServingError, match=r"400 \(the rows do not fit.*missing inputs.*'b'"):
        serving_old.invoke(ROWS[["a", "c"]])
    with pytest.raises(serving.ServingError, match="400.*column a.*could not convert string to float: 'text'"):
        serving_old.invoke(ROWS.assign(a="text"))
    with pytest.raises(serving.ServingError, match="no deployment rolled-out-9 that serves"):
        serving_old.invoke(ROWS, "rolled-out-9")


def test_an_endpoint_that_is_deleted_leaves_no_process_and_can_be_created_again(serving_old, versions, known):
    url = serving_old.state().url
    server = psutil.Process(json.loads((serving_old.folder / "endpoint.json").read_text())["pid"])
    processes = [server, *server.children(recursive=True)]
    # The endpoint's process, the model server, and the process that watches it.
    assert len(processes) >= 3
    assert serving_old.delete() and not serving_old.delete()
    with pytest.raises(requests.ConnectionError):
        requests.get(url)
    assert [process for process in processes if process.is_running()] == []
    assert serving_old.state() is None and not serving_old.folder.exists()
    assert roll_out(serving_old, versions[0], known[OLD], requests=3).state.traffic == {OLD: 100}


def test_an_endpoint_of_somebody_else_is_not_changed(tmp_path, versions, known):
    class Foreign(LocalEndpoint):
        """An endpoint without the mark of this bundle, which local endpoints always have."""

        def state(self):
            return EndpointState("https://elsewhere/score", is_ours=False)

    with pytest.raises(ParameterError, match="endpoint_name='under-test'.*this bundle did not make it"):
        roll_out(Foreign("under-test", tmp_path), versions[0], known[OLD])
