"""Shift an endpoint's traffic to a new model version step by step, and back if a health check fails.

Before that, the new version can get copies of requests: https://learn.microsoft.com/azure/machine-learning/how-to-safely-rollout-online-endpoints
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from helpers.parameters import ParameterError
from helpers.serving import health
from helpers.serving.comparison import Comparison, compare
from helpers.serving.endpoint import Answer, Endpoint, EndpointState, MirrorCounts, ServingError
from helpers.serving.endpoint_names import deployment_name

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


# While requests are mirrored, the new version is looked at, and the progress shown, this often.
_LOOK_SECONDS = 10
_SHOW_SECONDS = 60


@dataclass
class Findings:
    """What a rollout has found so far; its caller has it even after an error.

    Attributes
    ----------
    checks : list of helpers.serving.health.HealthCheck
    comparison : list of helpers.serving.comparison.Comparison
    """

    checks: list[health.HealthCheck] = field(default_factory=list)
    comparison: list[Comparison] = field(default_factory=list)


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
    comparison : list of helpers.serving.comparison.Comparison
        How the answers of the old and of the new version differ, for each output; empty if no requests were mirrored.
    mirrored : helpers.serving.endpoint.MirrorCounts or None
        What became of the mirrored requests; None if there were none, or if it is not known.
    """

    deployment: str
    changed: bool
    checks: list[health.HealthCheck]
    state: EndpointState
    comparison: list[Comparison] = field(default_factory=list)
    mirrored: MirrorCounts | None = None


@dataclass
class _Checker:
    """Runs the health checks of one rollout, and collects and shows their results."""

    endpoint: Endpoint
    new: str
    examples: health.Examples
    requests: int
    latency_limit_ms: float
    show: Callable[[str], Any]
    findings: Findings

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

    def compare(self, mirrored: int) -> None:
        """Check as `check` while a percentage of the requests is mirrored, and compare the answers of the two versions.

        Raises
        ------
        ServingError
            If a check fails. Answers that differ are not a reason to fail.
        """
        served, new = self._check(0, "", mirrored), self._check(0, self.new, mirrored)
        # Another rollout of the version may have gone on meanwhile.
        pairs = [(a.predictions, b.predictions) for a, b in zip(served, new, strict=True) if a.deployment != self.new]
        self.findings.comparison[:] = compare([old[0] for old, _ in pairs], [new[0] for _, new in pairs])
        for each in self.findings.comparison:
            self.show(f"  {each}")

    def _check(self, percent: int, deployment: str, mirrored: int = 0) -> list[Answer]:
        answered: list[Answer] = []
        result = health.check_requests(
            self.endpoint,
            self.new,
            percent,
            self.examples,
            self.requests,
            self.latency_limit_ms,
            deployment,
            mirrored,
            answered,
        )
        self.findings.checks.append(result)
        self.show(str(result))
        if result.problem:
            meanwhile = f", {mirrored} % mirrored," if mirrored else ""
            raise ServingError(f"The health check at {percent} % of the requests{meanwhile} failed: {result.problem}")
        return answered


def roll_out(
    endpoint: Endpoint,
    version: ModelVersion,
    examples: health.Examples,
    *,
    steps: Sequence[int] = (10, 50, 100),
    requests: int = 20,
    latency_limit_ms: float = 2_000,
    mirror_percent: int = 0,
    mirror_minutes: float = 0,
    findings: Findings | None = None,
    show: Callable[[str], Any] = print,
) -> Rollout:
    """Make an endpoint serve a model version.

    The version is deployed next to the current one, without traffic, and its predictions for the examples must be
    the model's. With `mirror_percent` it then gets copies of requests that the current version answers. The answers of the
    two are compared, and mirroring ends. Then its percentage of the requests rises step by step. After each step, health checks send requests.
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
    mirror_percent : int, default 0
        Percentage of the requests, up to 50, of which the new version gets a copy before it gets any itself. An endpoint
        that serves nothing yet has none.
    mirror_minutes : float, default 0
        How long. 0: only while the health check sends its requests.
    findings : Findings, optional
        Gets each health check and the comparison as soon as they are done, so that the caller has them even after an error.
    show : callable
        Called with each line about the progress.

    Returns
    -------
    Rollout

    Raises
    ------
    helpers.parameters.ParameterError
        If somebody else made the endpoint or mirrors its requests, or if it cannot mirror them.
    ServingError
        If the version cannot be rolled out. The endpoint then serves what it served before, or the message says
        what it serves instead.
    """
    new = deployment_name(version.name, version.version)
    if mirror_percent and not endpoint.mirrors:
        raise ParameterError(
            "mirror_percent", mirror_percent, f"endpoint {endpoint.name} cannot mirror requests; give 0"
        )
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
    _end_mirror(endpoint, state, mirror_percent, show)
    checker = _Checker(endpoint, new, examples, requests, latency_limit_ms, show, findings or Findings())
    others = [name for name, deployment in state.deployments.items() if name != new and deployment.is_ours]
    percent = state.traffic.get(new, 0)
    if percent == 100 and not others and state.deployments[new].state == "Succeeded":
        show(f"endpoint {endpoint.name} serves {new} already: nothing is changed")
        # The caller logs the checks of rollouts only, and this is not one.
        checker.findings = Findings()
        checker.check(100)
        return Rollout(new, False, checker.findings.checks, state)
    if endpoint.single_version:
        return _replace(checker, version, state)
    before = _traffic_of_others(state, new)
    try:
        _deploy(endpoint, new, version, state, show)
        health.check_predictions(endpoint, new, examples)
        show(f"{new} predicts {len(examples.rows)} held-out rows as the model that was loaded here")
        # This is over 0 if an earlier attempt was killed.
        checker.check(percent)
        mirrored = None
        if mirror_percent and not before:
            show(f"endpoint {endpoint.name} serves nothing yet: no requests are mirrored")
        elif mirror_percent and not percent:
            mirrored = _mirror(checker, mirror_percent, 60 * mirror_minutes)
            # Another rollout of the version may have gone on meanwhile.
            percent = _state_now(endpoint).traffic.get(new, 0)
        for step in steps if before else [100]:
            if step > percent:
                endpoint.set_traffic(_scaled(before, 100 - step) | {new: step})
                checker.check(step)
    except ServingError as error:
        raise _put_back(endpoint, new, before, error) from None
    for name in others:
        show(f"{name}: deleting, because it no longer gets requests")
        endpoint.delete_deployment(name)
    found = checker.findings
    return Rollout(new, True, found.checks, _state_after(endpoint, new), found.comparison, mirrored)


def _end_mirror(endpoint: Endpoint, state: EndpointState, mirror_percent: int, show: Callable[[str], Any]) -> None:
    """End the mirror that a killed rollout has left; one of somebody else stays, but Azure ML allows only one."""
    for name, percent in state.mirror.items():
        if name in state.deployments and state.deployments[name].is_ours:
            show(f"{name}: {percent} % of the requests are mirrored to it, from an earlier attempt; ending that")
            endpoint.set_mirror(name, 0)
        elif mirror_percent:
            raise ParameterError(
                "mirror_percent",
                mirror_percent,
                f"endpoint {endpoint.name} mirrors requests to {name} already, which this bundle did not make; end that, or "
                "give 0",
            )


def _mirror(checker: _Checker, percent: int, seconds: float) -> MirrorCounts | None:
    """Mirror requests to the new version for some time, compare its answers, and return what became of the copies."""
    endpoint, new, show = checker.endpoint, checker.new, checker.show
    show(f"{new}: mirroring {percent} % of the requests to it; callers get the old version's answers")
    ends = time.monotonic() + seconds
    with contextlib.ExitStack() as if_it_fails:
        if_it_fails.callback(_try_to_end_mirror, endpoint, new)
        try:
            endpoint.set_mirror(new, percent)
        except ServingError:
            if new not in _state_now(endpoint).traffic:
                raise
            show(f"{new}: gets requests already, from another rollout: they are not mirrored")
            if_it_fails.pop_all()
            return None
        checker.compare(percent)
        _watch(checker, ends)
        endpoint.set_mirror(new, 0)
        if_it_fails.pop_all()
    counts = _counts(endpoint, new)
    show(f"{new}: mirroring has ended" + (f"; copies: {counts}" if counts else ""))
    return counts


def _try_to_end_mirror(endpoint: Endpoint, deployment: str) -> None:
    # If this fails, `_put_back` does it, or after an interrupt the next rollout.
    with contextlib.suppress(ServingError):
        endpoint.set_mirror(deployment, 0)


def _watch(checker: _Checker, ends: float) -> None:
    """Look at the new version until the mirror ends.

    Raises
    ------
    ServingError
        If it no longer runs, or does not answer copies or requests that name it as the model.
    """
    endpoint, new, show = checker.endpoint, checker.new, checker.show
    shown = time.monotonic()
    while True:
        state = _state_now(endpoint)
        if new not in state.mirror:
            show(f"{new}: somebody else has ended the mirror")
            return
        now = state.deployments[new].state if new in state.deployments else "deleted"
        if now != "Succeeded":
            raise ServingError(f"{new} is {now} while requests are mirrored to it.")
        health.check_predictions(endpoint, new, checker.examples)
        counts = _counts(endpoint, new)
        remaining = ends - time.monotonic()
        if remaining <= 0:
            return
        if time.monotonic() - shown >= _SHOW_SECONDS:
            shown = time.monotonic()
            copies = f"copies: {counts}" if counts else f"{new} is {now}"
            show(f"  mirroring for {remaining / 60:.0f} more minutes; {copies}")
        time.sleep(min(remaining, _LOOK_SECONDS))


def _counts(endpoint: Endpoint, new: str) -> MirrorCounts | None:
    """Return what became of the copies, and raise a `ServingError` if the new version does not answer some of them."""
    counts = endpoint.mirror_counts(new)
    if counts and counts.failed:
        raise ServingError(f"{new} did not answer requests that were mirrored to it ({counts}): {counts.error}")
    return counts


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
    return Rollout(new, True, checker.findings.checks, _state_after(endpoint, new))


def _state_now(endpoint: Endpoint) -> EndpointState:
    state = endpoint.state()
    if state is None:
        raise ServingError(f"Endpoint {endpoint.name} was deleted meanwhile.")
    return state


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
        if new in state.mirror:
            endpoint.set_mirror(new, 0)
        if new in state.traffic:
            endpoint.set_traffic(before | {new: 0})
        if new in state.deployments:
            log = log or endpoint.log(new)
            endpoint.delete_deployment(new)
    except ServingError as second:
        return ServingError(f"{error.message} {_left(endpoint, new, before, second)}", log)
    return ServingError(
        f"{error.message} Endpoint {endpoint.name} serves what it served before: {_words(before)}.", log
    )


def _left(endpoint: Endpoint, new: str, before: dict[str, int], error: ServingError) -> str:
    """Return what a rollout has left on an endpoint, after an error has kept it from putting everything back."""
    try:
        state = endpoint.state()
    except ServingError:
        state = None
    if state is None or new in state.traffic:
        return (
            f"Then the traffic of endpoint {endpoint.name} could not be put back to {_words(before)}: {error.message} "
            "Run this again when the endpoint can be reached, or set its traffic in the studio."
        )
    mirrored = f", and still gets copies of {state.mirror[new]} % of the requests" if new in state.mirror else ""
    return (
        f"Endpoint {endpoint.name} serves what it served before: {_words(before)}. But {new} was not deleted{mirrored}: "
        f"{error.message} The next rollout or clean-up ends that."
    )


def _words(traffic: dict[str, int]) -> str:
    return ", ".join(f"{name} {percent} %" for name, percent in traffic.items()) or "nothing"
