"""Move an endpoint's requests to a new model version step by step, and back if a check fails."""

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
    """What `roll_out` did.

    Attributes
    ----------
    deployment : str
        Of the version.
    changed : bool
        False if the endpoint served the version already.
    checks : list of helpers.serving.health.Check
    state : helpers.serving.endpoint.EndpointState
        What the endpoint serves now.
    """

    deployment: str
    changed: bool
    checks: list[health.Check]
    state: EndpointState


@dataclass
class _Plan:
    endpoint: Endpoint
    new: str
    known: health.Examples
    requests: int
    latency_limit_ms: float
    show: Callable[[str], Any]
    checks: list[health.Check]

    def check(self, percent: int) -> None:
        """Check what callers get, and what the new version answers.

        Raises
        ------
        ServingError
            If a check fails.
        """
        # Callers, once it gets requests; and the new version by name, as long as it does not get all.
        for asked in [""] * (percent > 0) + [self.new] * (percent < 100):
            outcome = health.check(
                self.endpoint, self.new, percent, self.known, self.requests, self.latency_limit_ms, asked
            )
            self.checks.append(outcome)
            self.show(str(outcome))
            if outcome.problem:
                raise ServingError(f"The check with {percent} % of the requests failed: {outcome.problem}")


def roll_out(
    endpoint: Endpoint,
    version: ModelVersion,
    known: health.Examples,
    *,
    steps: Sequence[int] = (10, 50, 100),
    requests: int = 20,
    latency_limit_ms: float = 2_000,
    checks: list[health.Check] | None = None,
    show: Callable[[str], Any] = print,
) -> Rollout:
    """Have an endpoint serve a model version.

    The version is deployed beside what is served, with no traffic, and has to answer the examples as the model does.
    Then it gets its share of the requests step by step; after each, requests are sent and have to be answered, by
    the new version rightly. If a step or a check fails, the old distribution is put back and the new deployment
    deleted. What was served before is deleted at the end only.

    Called again after it was killed, it goes on from what the endpoint serves.

    Parameters
    ----------
    endpoint : Endpoint
        Created if it is missing.
    version : mlflow.entities.model_registry.ModelVersion
    known : helpers.serving.health.Examples
    steps : sequence of int, default (10, 50, 100)
        Rising percentages, the last 100. An endpoint that serves nothing yet goes to 100 at once.
    requests : int, default 20
        Of each check.
    latency_limit_ms : float, default 2000
        Greatest 95th percentile of a check's latencies.
    checks : list of helpers.serving.health.Check, optional
        Gets each check when it is done, so that they are there also after an error.
    show : callable
        Called with each line about the progress.

    Returns
    -------
    Rollout

    Raises
    ------
    helpers.parameters.ParameterError
        If the endpoint is somebody else's.
    ServingError
        If the version does not get to serve; the endpoint serves what it served before, or the message says what
        else it does.
    """
    new = deployment_name(version.name, version.version)
    state = endpoint.state()
    if state is None and not endpoint.replaces:
        show(f"endpoint {endpoint.name}: creating")
        endpoint.create(version.name)
        state = endpoint.state()
    state = state or EndpointState("", is_ours=True)
    if not state.is_ours:
        raise ParameterError(
            "endpoint_name", endpoint.name, "exists, and this bundle did not make it; give another name"
        )
    plan = _Plan(endpoint, new, known, requests, latency_limit_ms, show, [] if checks is None else checks)
    others = [name for name, deployment in state.deployments.items() if name != new and deployment.is_ours]
    percent = state.traffic.get(new, 0)
    if percent == 100 and not others and state.deployments[new].state == "Succeeded":
        show(f"endpoint {endpoint.name} serves {new} already: nothing is changed")
        # Nor is there a check of a rollout to be logged.
        plan.checks = []
        plan.check(100)
        return Rollout(new, False, plan.checks, state)
    if endpoint.replaces:
        return _replace(plan, version, state)
    before = _others_traffic(state, new)
    try:
        _deploy(endpoint, new, version, state, show)
        health.check_all(endpoint, new, known)
        show(f"{new} answers {len(known.rows)} held-out rows as the model that was loaded directly")
        # Also where an attempt that was killed has left it.
        plan.check(percent)
        for step in [step for step in (steps if before else [100]) if step > percent]:
            endpoint.set_traffic(_shared(before, 100 - step) | {new: step})
            plan.check(step)
    except ServingError as error:
        raise _put_back(endpoint, new, before, error) from None
    for name in others:
        show(f"{name}: deleting, it gets no requests any more")
        endpoint.delete_deployment(name)
    return Rollout(new, True, plan.checks, _state_after(endpoint, new))


def _replace(plan: _Plan, version: ModelVersion, before: EndpointState) -> Rollout:
    """Put a version in the place of the one that is served, and that one back if it does not answer rightly."""
    from mlflow.entities.model_registry import ModelVersion

    endpoint, new = plan.endpoint, plan.new
    try:
        plan.show(f"{new}: deploying {version.name} version {version.version}, in the place of what is served")
        endpoint.deploy(new, version, plan.show)
        health.check_all(endpoint, new, plan.known)
        plan.check(100)
    except ServingError as error:
        old = next(iter(before.deployments.values()), None)
        if old is None and endpoint.state() is not None:
            endpoint.delete()
        if old is None:
            raise ServingError(
                f"{error.message} There is no web service {endpoint.name}, as before.", error.log
            ) from None
        name, number = old.model.rsplit("/", 1)
        endpoint.deploy(old.name, ModelVersion(name, number, 0), plan.show)
        raise ServingError(f"{error.message} {old.name} was put back in its place.", error.log) from None
    return Rollout(new, True, plan.checks, _state_after(endpoint, new))


def _state_after(endpoint: Endpoint, new: str) -> EndpointState:
    state = endpoint.state()
    if state is None:
        raise ServingError(f"{new} was rolled out, and then endpoint {endpoint.name} is gone. Run this again.")
    return state


def _deploy(
    endpoint: Endpoint, new: str, version: ModelVersion, state: EndpointState, show: Callable[[str], Any]
) -> None:
    there = state.deployments.get(new)
    if there is not None and there.state == "Succeeded":
        show(f"{new}: there already")
        return
    if there is not None and there.state in ("Creating", "Updating"):
        show(f"{new}: is {there.state}, by an earlier attempt")
        endpoint.wait(new, show)
        return
    if there is not None:
        show(f"{new}: is {there.state}, from an earlier attempt; deleting it")
        endpoint.delete_deployment(new)
    show(f"{new}: deploying {version.name} version {version.version}")
    endpoint.deploy(new, version, show)


def _others_traffic(state: EndpointState, new: str) -> dict[str, int]:
    """Return how the requests were shared out before the new version got any."""
    others = {name: percent for name, percent in state.traffic.items() if name != new}
    if not others and new in state.traffic:
        # An attempt that was killed at the end has left what it had not deleted yet.
        served = [name for name, there in state.deployments.items() if name != new and there.state == "Succeeded"]
        others = dict.fromkeys(served[-1:], 100)
    return _shared(others, 100)


def _shared(before: dict[str, int], percent: int) -> dict[str, int]:
    """Share a percentage out in the proportions that there were."""
    total = sum(before.values())
    shares = {name: percent * share // total for name, share in before.items()}
    for name in list(shares)[:1]:
        shares[name] += percent - sum(shares.values())
    return shares


def _put_back(endpoint: Endpoint, new: str, before: dict[str, int], error: ServingError) -> ServingError:
    """Put the old distribution back and delete the new deployment; return the error with what is served now."""
    log = error.log
    try:
        state = endpoint.state()
        if state is None:
            return ServingError(f"{error.message} Endpoint {endpoint.name} is gone.", log)
        if new in state.traffic:
            endpoint.set_traffic(before | {new: 0})
        if new in state.deployments:
            log = log or endpoint.log(new)
            endpoint.delete_deployment(new)
    except ServingError as second:
        return ServingError(
            f"{error.message} Then endpoint {endpoint.name} could not be put back to {_words(before)}: {second.message} "
            "Run this again when it can be reached, or set its traffic in the studio.",
            log,
        )
    return ServingError(
        f"{error.message} Endpoint {endpoint.name} serves what it served before: {_words(before)}.", log
    )


def _words(traffic: dict[str, int]) -> str:
    return ", ".join(f"{name} {percent} %" for name, percent in traffic.items()) or "nothing"
