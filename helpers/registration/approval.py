"""Who becomes the champion: a version that passed the gate, at once or after somebody has approved it.

The state is in the registry: the alias or tag ``challenger`` is on the version that waits, and the decision, with who,
when and why, is in tags of the version.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal

from helpers import runtime, tracking
from helpers.parameters import ParameterError
from helpers.registration.register import METRIC_TAG

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion

_VERDICTS: dict[str, Literal["approve", "refuse"]] = {tracking.APPROVED: "approve", tracking.REFUSED: "refuse"}


@dataclass(frozen=True)
class Standing:
    """What a version is after it went through the gate.

    Attributes
    ----------
    is_champion, is_challenger : bool
    not_promoted_because : str
        Why it is not the champion; empty if it is.
    """

    is_champion: bool
    is_challenger: bool
    not_promoted_because: str


def take_place(
    session: tracking.Session, version: ModelVersion, failures: str, promote: Literal["auto", "challenger"]
) -> Standing:
    """Make a version the champion or the challenger, if it passed the gate and was not refused before.

    Parameters
    ----------
    session : helpers.tracking.Session
    version : mlflow.entities.model_registry.ModelVersion
    failures : str
        Why it did not pass the gate, from `helpers.registration.validation.failures`; empty if it passed.
    promote : str
        ``auto``: it becomes the champion. ``challenger``: it becomes the challenger and waits for `decide`; the champion
        stays what it is.
    """
    name, number = version.name, str(version.version)
    refusal = tracking.refusal(version)
    if failures or refusal:
        tracking.end_challenge(session, name, number)
        return Standing(False, False, failures or f"it was {refusal}; train another one")
    if promote == "auto":
        tracking.promote(session, name, number)
        tracking.end_challenge(session, name, number)
    elif not _is_champion(session, version):
        tracking.make_challenger(session, name, number)
        return Standing(False, True, "it is the challenger and waits for approval: run 08_approve")
    return Standing(True, False, "")


def waiting_version(session: tracking.Session, model_name: str, model_version: str) -> ModelVersion:
    """Return the version to decide about.

    Parameters
    ----------
    session : helpers.tracking.Session
    model_name : str
    model_version : str
        Empty for the challenger.

    Raises
    ------
    helpers.parameters.ParameterError
        If there is no such model or version, or if no challenger waits.
    """
    if model_version:
        return tracking.resolve_version(session, model_name, model_version)
    version = tracking.challenger(session, model_name)
    if version is not None:
        return version
    decided = [known for known in tracking.versions(session, model_name) if tracking.APPROVAL_TAG in known.tags]
    last = max(decided, key=lambda known: known.tags.get(tracking.APPROVAL_TIME_TAG, ""), default=None)
    since = f" The last decision: version {last.version} was {_decision(last)}." if last else ""
    raise ParameterError(
        "model_version",
        model_version,
        f"no challenger of {model_name} waits in {session.registry.uri}.{since} Register a model with promote=challenger, "
        "or give a version",
    )


def comparison(session: tracking.Session, version: ModelVersion) -> pd.DataFrame:
    """Return a table of what a version was judged by, beside the champion: rows, metrics, checks of the gate.

    Each column has what the gate wrote when that version was registered, so the rows may differ; ``judged_on`` and
    ``held_out_rows`` name them. ``check_champion`` compares the two on the same rows.
    """
    import pandas as pd

    columns = {f"version {version.version}": version.tags}
    champion = tracking.champion(session, version.name)
    if champion is not None and str(champion.version) != str(version.version):
        columns[f"champion, version {champion.version}"] = champion.tags
    shown = ("judged_on", "held_out_rows", METRIC_TAG, tracking.CHECK_TAG)
    return pd.DataFrame(
        {title: {key: value for key, value in tags.items() if key.startswith(shown)} for title, tags in columns.items()}
    ).fillna("")


def decide(
    session: tracking.Session,
    version: ModelVersion,
    decision: Literal["wait", "approve", "refuse"],
    approved_by: str = "",
    reason: str = "",
) -> str:
    """Make a version the champion, or refuse it, and write who decided so and why into its tags.

    If it is killed, run it again: the tags are written first, and the mark of the challenger is removed last.

    Parameters
    ----------
    session : helpers.tracking.Session
    version : mlflow.entities.model_registry.ModelVersion
        From `waiting_version`.
    decision : str
        ``approve`` or ``refuse``. ``wait``: what the version's tag ``approval`` says, which somebody else has written.
    approved_by : str, optional
        Who decides. Empty: who runs this; for ``wait``, what the tags say.
    reason : str, optional

    Returns
    -------
    str
        The decision in words.

    Raises
    ------
    helpers.parameters.ParameterError
        If nobody has decided yet (``wait``), or if the version did not pass the gate, was refused before (``approve``) or
        is the champion already, unless `decide` approved it.
    """
    name, number = version.name, str(version.version)
    written = version.tags.get(tracking.APPROVAL_TAG, "").lower()
    if decision == "wait" and written not in _VERDICTS:
        raise ParameterError(
            "decision",
            decision,
            f"nobody has decided about {name} version {number} yet: its tag {tracking.APPROVAL_TAG} is {written!r}. Run this "
            f"with decision=approve or decision=refuse, or set the tag to {tracking.APPROVED} and run this again",
        )
    verdict = _VERDICTS[written] if decision == "wait" else decision
    is_champion = _is_champion(session, version)
    _check(version, verdict, written, is_champion)
    is_done = is_champion if verdict == "approve" else written == tracking.REFUSED
    if decision != "wait" and not is_done:
        _write(session, version, tracking.APPROVED if verdict == "approve" else tracking.REFUSED, approved_by, reason)
    if verdict == "approve" and not is_champion:
        tracking.promote(session, name, number)
    tracking.end_challenge(session, name, number)
    decided = _decision(session.registry.client().get_model_version(name, number))
    return f"{name} version {number} was {decided}" + ("; it is the champion" if verdict == "approve" else "")


def _check(version: ModelVersion, verdict: str, written: str, is_champion: bool) -> None:
    """Refuse a decision that the state of the version does not allow."""
    number = str(version.version)
    failed = tracking.failed_checks(version)
    problem = ""
    if is_champion and not (verdict == "approve" and written == tracking.APPROVED):
        problem = "is the champion already; promote another version to replace it"
    elif verdict == "approve" and failed is None:
        problem = "never went through the gate of 03_register; register it there first"
    elif verdict == "approve" and failed:
        problem = f"did not pass the gate: {failed}. Train a better one"
    elif verdict == "approve" and written == tracking.REFUSED:
        problem = f"was {tracking.refusal(version)}. Train and register another one"
    if problem:
        raise ParameterError("model_version", number, f"{version.name} version {number} {problem}")


def _write(session: tracking.Session, version: ModelVersion, approval: str, approved_by: str, reason: str) -> None:
    tags = {
        tracking.APPROVAL_TAG: approval,
        tracking.APPROVED_BY_TAG: approved_by or runtime.user(),
        tracking.APPROVAL_TIME_TAG: datetime.now(timezone.utc).isoformat(timespec="seconds"),
        tracking.APPROVAL_REASON_TAG: reason,
    }
    client = session.registry.client()
    # The decision last: until it is there, nothing is decided, and the next one replaces the others.
    for key in reversed(tags):
        if tags[key]:
            client.set_model_version_tag(version.name, version.version, key, tags[key])
        elif key in version.tags:
            client.delete_model_version_tag(version.name, version.version, key)


def _decision(version: ModelVersion) -> str:
    """Return the decision in a version's tags in words."""
    if tracking.refusal(version):
        return tracking.refusal(version)
    by, when = (version.tags.get(key, "") for key in (tracking.APPROVED_BY_TAG, tracking.APPROVAL_TIME_TAG))
    reason = version.tags.get(tracking.APPROVAL_REASON_TAG, "")
    return (
        tracking.APPROVED
        + (f" by {by}" if by else "")
        + (f" at {when}" if when else "")
        + (f": {reason}" if reason else "")
    )


def _is_champion(session: tracking.Session, version: ModelVersion) -> bool:
    champion = tracking.champion(session, version.name)
    return champion is not None and str(champion.version) == str(version.version)
