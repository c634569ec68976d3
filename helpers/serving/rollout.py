"""Shift an endpoint's traffic to a new model version step by step, and back if a health check fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers.parameters import ParameterError
from helpers.serving import health
from helpers.serving.endpoint import Endpoint, EndpointState, ServingError
from helpers.serving.endpoint_names import deployment_name

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Rollout:
    """The result of `roll_out`.

    Attributes
    ----------
    deployment : str
        The deployment of the version.
    changed : bool
        False if the endpoint served the version already.
    checks : list of helpers.serving.health.HealthCheck
    state : helpers.serving.endpoint.EndpointState
        What the endpoint serves now.
    """

    deployment: str
    changed: bool
    checks: list[health.HealthCheck]
    state: EndpointState


@dataclass
class _Checker:
    """Runs the health checks of one rollout, and collects and shows their results."""

    endpoint: Endpoint
    new: str
    examples: health.Examples
    requests: int
    latency_limit_ms: float
    show: Callable[[str], Any]
    checks: list[health.HealthCheck]

    def check(self, percent: int) -> None:
        """Check what callers get, and what the new version answers, while it gets a percentage of the requests.

        Raises
        ------
        ServingError
            If a check fails.
        """
        if percent > 0:
            self._check(percent, "")
        # At 100 % the callers' requests are those of the new version.
        if percent < 100:
            self._check(percent, self.new)

    def _check(self, percent: int, deployment: str) -> None:
        result = health.check_requests(
            self.endpoint, self.new, percent, self.examples, self.requests, self.latency_limit_ms, deployment
        )
        self.checks.append(result)
        self.show(str(result))
        if result.problem:
            raise ServingError(f"The health check at {percent} % of the requests failed: {result.problem}")


def roll_out(
    endpoint: Endpoint,
    version: ModelVersion,
    examples: health.Examples,
    *,
    steps: Sequence[int] = (10, 50, 100),
    requests: int = 20,
    latency_limit_ms: float = 2_000,
    checks: list[health.HealthCheck] | None = None,
    show: Callable[[str], Any] = print,
) -> Rollout:
    """Make an endpoint serve a model version.

    The version is deployed next to the current one, without traffic, and its predictions for the examples must be
    the model's. Then its percentage of the requests rises step by step. After each step, health checks send requests.
    All of them must be answered, and the answers of the new version must be correct. If a step or a check fails, the
    traffic is shifted back and the new deployment is deleted. The old deployment is deleted only at the end.

    A rollout that was killed continues when this is called again.

    Parameters
    ----------
    endpoint : Endpoint
        Created if it does not exist.
    version : mlflow.entities.model_registry.ModelVersion
    examples : helpers.serving.health.Examples
        With the predictions of this version.
    steps : sequence of int, default (10, 50, 100)
        Rising percentages, the last of them 100. An endpoint that serves nothing yet goes to 100 at once.
    requests : int, default 20
        Requests of each health check.
    latency_limit_ms : float, default 2000
        The highest 95th percentile of the latencies that passes.
    checks : list of helpers.serving.health.HealthCheck, optional
        Gets each health check as soon as it is done, so that the caller has them even after an error.
    show : callable
        Called with each line about the progress.

    Returns
    -------
    Rollout

    Raises
    ------
    helpers.parameters.ParameterError
        If somebody else made the endpoint.
    ServingError
        If the version cannot be rolled out. The endpoint then serves what it served before, or the message says
        what it serves instead.
    """
    new = deployment_name(version.name, version.version)
    state = endpoint.state()
    if state is None and not endpoint.single_version:
        show(f"endpoint {endpoint.name}: creating")
        endpoint.create(version.name)
        state = endpoint.state()
    state = state or EndpointState("", is_ours=True)
    if not state.is_ours:
        raise ParameterError(
            "endpoint_name", endpoint.name, "exists, and this bundle did not make it; give another name"
        )
    checker = _Checker(endpoint, new, examples, requests, latency_limit_ms, show, [] if checks is None else checks)
    others = [name for name, deployment in state.deployments.items() if name != new and deployment.is_ours]
    percent = state.traffic.get(new, 0)
    if percent == 100 and not others and state.deployments[new].state == "Succeeded":
        show(f"endpoint {endpoint.name} serves {new} already: nothing is changed")
        # The caller logs the checks of rollouts only, and this is not one.
        checker.checks = []
        checker.check(100)
        return Rollout(new, False, checker.checks, state)
    if endpoint.single_version:
        return _replace(checker, version, state)
    before = _traffic_of_others(state, new)
    try:
        _deploy(endpoint, new, version, state, show)
        health.check_predictions(endpoint, new, examples)
        show(f"{new} predicts {len(examples.rows)} held-out rows as the model that was loaded here")
        # This is over 0 if an earlier attempt was killed.
        checker.check(percent)
        for step in steps if before else [100]:
            if step > percent:
                endpoint.set_traffic(_scaled(before, 100 - step) | {new: step})
                checker.check(step)
    except ServingError as error:
        raise _put_back(endpoint, new, before, error) from None
    for name in others:
        show(f"{name}: deleting, because it no longer gets requests")
        endpoint.delete_deployment(name)
    return Rollout(new, True, checker.checks, _state_after(endpoint, new))


def _replace(checker: _Checker, version: ModelVersion, before: EndpointState) -> Rollout:
    """Replace the version of an endpoint that holds only one, and deploy the old one again if a check fails."""
    from mlflow.entities.model_registry import ModelVersion

    endpoint, new, show = checker.endpoint, checker.new, checker.show
    try:
        show(f"{new}: deploying {version.name} version {version.version}, which replaces what is served")
        endpoint.deploy(new, version, show)
        health.check_predictions(endpoint, new, checker.examples)
        checker.check(100)
    except ServingError as error:
        old = next(iter(before.deployments.values()), None)
        if old is None:
            endpoint.delete()
            raise ServingError(
                f"{error.message} There is no web service {endpoint.name}, as before.", error.log
            ) from None
        name, number = old.model.rsplit("/", 1)
        endpoint.deploy(old.name, ModelVersion(name, number, 0), show)
        raise ServingError(f"{error.message} {old.name} was put back in its place.", error.log) from None
    return Rollout(new, True, checker.checks, _state_after(endpoint, new))


def _state_after(endpoint: Endpoint, new: str) -> EndpointState:
    state = endpoint.state()
    if state is None:
        raise ServingError(f"{new} was rolled out, but endpoint {endpoint.name} no longer exists. Run this again.")
    return state


def _deploy(
    endpoint: Endpoint, new: str, version: ModelVersion, state: EndpointState, show: Callable[[str], Any]
) -> None:
    """Deploy the new version, unless an earlier attempt has done so or is doing so."""
    existing = state.deployments.get(new)
    if existing is not None and existing.state == "Succeeded":
        show(f"{new}: already deployed")
        return
    if existing is not None and existing.state in ("Creating", "Updating"):
        show(f"{new}: is {existing.state}, by an earlier attempt")
        endpoint.wait(new, show)
        return
    if existing is not None:
        show(f"{new}: is {existing.state}, from an earlier attempt; deleting it")
        endpoint.delete_deployment(new)
    show(f"{new}: deploying {version.name} version {version.version}")
    endpoint.deploy(new, version, show)


def _traffic_of_others(state: EndpointState, new: str) -> dict[str, int]:
    """Return the traffic before the new version got any of it: 100 in total, or none."""
    others = {name: percent for name, percent in state.traffic.items() if name != new}
    if not others and new in state.traffic:
        # An attempt was killed after the last step, before it deleted the old deployments.
        served = [name for name, other in state.deployments.items() if name != new and other.state == "Succeeded"]
        others = dict.fromkeys(served[-1:], 100)
    return _scaled(others, 100)


def _scaled(traffic: dict[str, int], total: int) -> dict[str, int]:
    """Return traffic with another total and the same proportions."""
    old_total = sum(traffic.values())
    scaled = {name: total * percent // old_total for name, percent in traffic.items()}
    for name in list(scaled)[:1]:
        scaled[name] += total - sum(scaled.values())
    return scaled


def _put_back(endpoint: Endpoint, new: str, before: dict[str, int], error: ServingError) -> ServingError:
    """Restore the old traffic and delete the new deployment; return the error, with what is served now."""
    log = error.log
    try:
        state = endpoint.state()
        if state is None:
            return ServingError(f"{error.message} Endpoint {endpoint.name} no longer exists.", log)
        if new in state.traffic:
            endpoint.set_traffic(before | {new: 0})
        if new in state.deployments:
            log = log or endpoint.log(new)
            endpoint.delete_deployment(new)
    except ServingError as second:
        return ServingError(
            f"{error.message} Then the traffic of endpoint {endpoint.name} could not be put back to {_words(before)}: "
            f"{second.message} Run this again when the endpoint can be reached, or set its traffic in the studio.",
            log,
        )
    return ServingError(
        f"{error.message} Endpoint {endpoint.name} serves what it served before: {_words(before)}.", log
    )


def _words(traffic: dict[str, int]) -> str:
    return ", ".join(f"{name} {percent} %" for name, percent in traffic.items()) or "nothing"
