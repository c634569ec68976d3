"""What is measured in a window, and from which value on it is a breach.

To add a measure of a feature, of the predictions or of the quality, yield one more `Measured` in the function for it, and
add its threshold to `helpers.kinds.DRIFT_THRESHOLDS`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers.data.metrics import METRICS
from helpers.monitoring import statistics
from helpers.monitoring.bins import CategoryBins, Counted

if TYPE_CHECKING:
    from helpers.monitoring.baseline import Baseline
    from helpers.monitoring.quality import Quality


@dataclass(frozen=True)
class Measured:
    """A measure of one window.

    Attributes
    ----------
    measure : str
        One of `helpers.kinds.DRIFT_THRESHOLDS`, or another that is shown and not judged.
    feature : str
        Column; empty for the predictions as a whole.
    value : float
    baseline : float or None
        The value that the version had when it was trained or judged.
    difference : float or None
        What is compared with the threshold. None: not judged.
    p_value : float or None
        Probability of such a difference by chance. None where the difference alone decides.
    rows : int
        On how many rows it was measured.
    detail : str
    """

    measure: str
    feature: str
    value: float
    baseline: float | None
    difference: float | None
    p_value: float | None
    rows: int
    detail: str = ""


def of_feature(name: str, before: Counted, now: Counted) -> Iterator[Measured]:
    """Compare the values of a feature with those of the training rows.

    Parameters
    ----------
    name : str
    before, now : Counted
        Of the baseline and of the window, in the same bins.
    """
    rows, missing = now.rows, now.missing
    share = (before.missing / before.rows, missing / rows)
    p_value = statistics.higher_share((before.missing, before.rows), (missing, rows))
    yield Measured("null_share", name, share[1], share[0], share[1] - share[0], p_value, rows)
    present = rows - missing
    if not present:
        return
    yield from _distances("", name, before, now, present)
    if isinstance(now.bins, CategoryBins):
        others = now.bins.others
        share = (before.counts[others] / max(before.rows - before.missing, 1), now.counts[others] / present)
        p_value = statistics.higher_share(
            (before.counts[others], before.rows - before.missing), (now.counts[others], present)
        )
        yield Measured("unseen_share", name, share[1], share[0], share[1] - share[0], p_value, present)
    else:
        outside = now.counts[0] + now.counts[now.bins.above]
        p_value = statistics.outside_range(before.rows - before.missing, outside, present)
        yield Measured("outside_range", name, outside / present, 0.0, outside / present, p_value, present)


def _distances(prefix: str, name: str, before: Counted, now: Counted, rows: int) -> Iterator[Measured]:
    p, q = before.distribution, now.distribution
    p_value = statistics.same_distribution(p, q)
    for measure, value in (("psi", statistics.psi(p, q)), ("js_distance", statistics.js_distance(p, q))):
        # The picture of a feature needs no other pass over the rows.
        yield Measured(prefix + measure, name, value, 0.0, value, p_value, rows, json.dumps(now.counts))


def of_predictions(
    baseline: Baseline, counted: Counted | None, probability: tuple[float, float, int] | None, rows: int, refused: int
) -> Iterator[Measured]:
    """Compare predictions with those for the rows that judged the version.

    Parameters
    ----------
    baseline : Baseline
    counted : Counted or None
        The predictions of the window, in the bins of the baseline.
    probability : tuple of float, float, int, or None
        Mean, standard deviation and number of the predicted classes' probabilities.
    rows, refused : int
        How many rows were scored, and how many went to the quarantine.
    """
    share = refused / (rows + refused)
    yield Measured("quarantine_share", "", share, 0.0, share, None, rows + refused)
    if baseline.predictions and counted and counted.rows > counted.missing:
        yield from _distances("prediction_", "", baseline.predictions, counted, counted.rows)
    if baseline.probability and probability and min(baseline.probability[2], probability[2]) > 1:
        before, now = baseline.probability, probability
        p_value = statistics.other_mean(before, now)
        yield Measured("mean_probability", "", now[0], before[0], abs(now[0] - before[0]), p_value, now[2])


def of_quality(baseline: Baseline, quality: Quality) -> Iterator[Measured]:
    """Compare the metrics of rows whose labels have arrived with those at the gate.

    The metric of the gate is judged, or the default one where it needs the probabilities of all classes. Chance is judged
    by the loss of each row: wrong or right, or the squared error.

    Parameters
    ----------
    baseline : Baseline
    quality : Quality
    """
    judged = quality.judged_metric(baseline.metric)
    for name, value in quality.metrics.items():
        before = baseline.metrics.get(name)
        if name != judged or before is None:
            yield Measured(name, "", value, before, None, None, quality.rows)
            continue
        worse = (before - value if METRICS[name].greater_is_better else value - before) / max(abs(before), 1e-12)
        if quality.is_classifier:
            wrong = tuple(round(mean * count) for mean, _, count in (baseline.loss, quality.loss))
            p_value = statistics.higher_share((wrong[0], baseline.loss[2]), (wrong[1], quality.rows))
        else:
            is_worse = quality.loss[0] > baseline.loss[0]
            p_value = statistics.other_mean(baseline.loss, quality.loss) / 2
            p_value = p_value if is_worse else 1 - p_value
        yield Measured("quality", "", value, before, worse, p_value, quality.rows, name)


def is_breach(
    measured: Measured, thresholds: Mapping[str, float], significance: float, fewest_rows: int
) -> bool | None:
    """Return whether a measure is off; None if it is not judged, because it has no threshold or too few rows."""
    if measured.difference is None or measured.measure not in thresholds or measured.rows < fewest_rows:
        return None
    by_chance = measured.p_value is not None and measured.p_value > significance
    return measured.difference > thresholds[measured.measure] and not by_chance
