"""Decide from the measures whether something is off, and say so in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers.kinds import DRIFT_THRESHOLDS
from helpers.monitoring.measures import Measured, is_breach

if TYPE_CHECKING:
    import pandas as pd

    from helpers.parameters import Monitor

_WORDS = {
    "psi": "its distribution has shifted: PSI",
    "js_distance": "its distribution has shifted: Jensen-Shannon distance",
    "null_share": "more values are missing: share",
    "outside_range": "values are outside the range of the training rows: share",
    "unseen_share": "it has categories that the training rows do not have: share",
    "prediction_psi": "the predictions have shifted: PSI",
    "prediction_js_distance": "the predictions have shifted: Jensen-Shannon distance",
    "mean_probability": "the mean probability of the predicted class has changed to",
    "quarantine_share": "rows cannot be scored: share",
}


class DriftFound(RuntimeError):
    """Something is off, and ``on_drift=notify`` asks for a job that fails then."""


@dataclass(frozen=True)
class Alert:
    """A measure that is off in the newest window, and was in enough of the windows before.

    Attributes
    ----------
    version : int
    measure, feature : str
    value, baseline, threshold : float
        Of the newest window; baseline is None where there is none.
    p_value : float or None
        The largest of the windows that are off: the probability of such a difference by chance in one window.
    since : str
        The first of the windows that are off without a break up to the newest one.
    breaches, windows : int
        How many of the last windows that were judged are off.
    labelled : int
        How many rows of the windows from `since` on have a label by now.
    detail : str
    """

    version: int
    measure: str
    feature: str
    value: float
    baseline: float | None
    threshold: float
    p_value: float | None
    since: str
    breaches: int
    windows: int
    labelled: int
    detail: str

    def __str__(self) -> str:
        if self.measure == "quality":
            what = f"{self.detail} on the labels that have arrived is"
        else:
            what = _WORDS[self.measure]
        before = "" if self.baseline is None else f", at the baseline {self.baseline:.3g}"
        sure = "" if self.p_value is None else f"; by chance in a window with probability {_probability(self.p_value)}"
        named = f" ({self.detail})" if self.detail and self.measure == "unseen_share" else ""
        feature = f"{self.feature}: " if self.feature else ""
        return (
            f"{feature}{what} {self.value:.3g}{named}{before}, threshold {self.threshold:g}; since {self.since}, in "
            f"{self.breaches} of the last {self.windows} windows{sure}"
        )


def _probability(p_value: float) -> str:
    return "below 0.0001" if p_value < 0.0001 else f"at most {p_value:.4f}"


def judge(history: pd.DataFrame, p: Monitor) -> pd.DataFrame:
    """Return the measures with the columns ``threshold`` and ``breached``, which is null for what is not judged.

    Parameters
    ----------
    history : pandas.DataFrame
        From `helpers.monitoring.table.read`.
    p : helpers.parameters.Monitor
    """
    thresholds = DRIFT_THRESHOLDS | dict(p.drift_thresholds)
    breached = [_is_breach(row, thresholds, p) for row in history.to_dict("records")]
    return history.assign(threshold=history["measure"].map(thresholds), breached=breached)


def _is_breach(row: Mapping, thresholds: Mapping[str, float], p: Monitor) -> bool | None:
    difference, p_value = (
        None if row[name] is None or row[name] != row[name] else row[name] for name in ("difference", "p_value")
    )
    measured = Measured(row["measure"], row["feature"], row["value"], None, difference, p_value, row["rows"])
    return is_breach(measured, thresholds, p.drift_significance, p.fewest_rows)


def find_alerts(judged: pd.DataFrame, p: Monitor, version: int) -> list[Alert]:
    """Return what is off for a version: in its newest window, and in ``alert_breaches`` of the last ``alert_windows``.

    Parameters
    ----------
    judged : pandas.DataFrame
        From `judge`.
    p : helpers.parameters.Monitor
    version : int
        The version that scores now.
    """
    alerts = []
    of_version = judged[judged["model_version"] == version]
    known, labelled = of_version[of_version["breached"].notna()], of_version[of_version["measure"] == "labelled_rows"]
    for (measure, feature), rows in known.groupby(["measure", "feature"], sort=False):
        rows = rows.sort_values("window_start")
        last = rows.tail(p.alert_windows)
        off = last["breached"].astype(bool)
        if not off.iloc[-1] or off.sum() < p.alert_breaches:
            continue
        newest = last.iloc[-1]
        all_off = rows["breached"].astype(bool).to_numpy()
        first = len(all_off) - 1
        while first and all_off[first - 1]:
            first -= 1
        since = rows.iloc[first]
        p_values = last[off]["p_value"].dropna()
        baseline = newest["baseline"]
        alerts.append(
            Alert(
                version=version,
                measure=measure,
                feature=feature,
                value=newest["value"],
                baseline=None if baseline != baseline else baseline,
                threshold=newest["threshold"],
                p_value=float(p_values.max()) if len(p_values) else None,
                since=since["window"],
                breaches=int(off.sum()),
                windows=len(last),
                labelled=int(labelled[labelled["window_start"] >= since["window_start"]]["value"].sum()),
                detail=newest["detail"],
            )
        )
    return alerts


def notify(alerts: Sequence[Alert], p: Monitor) -> None:
    """Fail if there is an alert and ``on_drift=notify``.

    Raises
    ------
    DriftFound
        With the alerts, which are the last lines of the job then.
    """
    if alerts and p.on_drift == "notify":
        raise DriftFound(f"on_drift=notify, and {len(alerts)} alerts: " + "; ".join(map(str, alerts)))
