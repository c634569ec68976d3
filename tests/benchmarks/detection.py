"""How often monitoring finds something that is not there, and after how many windows it finds what is.

    python -m tests.benchmarks.detection [--windows 200] [--rows 50 100 1000]

Simulated, without Spark: 5,000 training rows of one number, of which 2 % are missing; a class that depends on it with some
noise; a model with its probability. A shift moves the number, and the relation stays where it was. Printed are the share
of the windows in which each measure is a breach, for shifts in standard deviations, and how many windows it takes from the
first shifted one to an alert, with the defaults of the parameters.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import pandas as pd

from helpers import kinds, parameters
from helpers.data.metrics import CLASSIFIER, measure
from helpers.monitoring import alerts, measures
from helpers.monitoring.baseline import Baseline, number_bins
from helpers.monitoring.bins import CategoryBins, Counted
from helpers.monitoring.quality import Quality

TRAINING_ROWS, GATE_ROWS, MISSING = 5_000, 1_000, 0.02


def main() -> None:
    """Print the rates for each number of rows and each shift."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.detection", description=__doc__)
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--rows", type=int, nargs="+", default=[50, 100, 1_000])
    options = parser.parse_args()
    significance = parameters.FIELDS["drift_significance"].default
    for rows in options.rows:
        for shift in (0.0, 0.25, 0.5, 1.0):
            rates, until = simulate(options.windows, rows, shift, significance)
            listed = ", ".join(f"{name} {rate:.1%}" for name, rate in rates.items())
            after = "no alert" if math.isnan(until) else f"alert after {until:.1f} windows"
            print(f"{rows} rows a window, shift {shift:g}: {after}; breaches: {listed}", flush=True)


def simulate(windows: int, rows: int, shift: float, significance: float) -> tuple[dict[str, float], float]:
    """Return the share of windows in which each measure is a breach, and the mean number of windows until an alert."""
    random = np.random.default_rng(0)
    baseline = _baseline(random)
    items = [measured for number in range(windows) for measured in _window(random, baseline, rows, shift, number)]
    history = pd.DataFrame(items)
    p = parameters.parse(parameters.Monitor, {"drift_significance": significance, "fewest_rows": 1})
    judged = alerts.judge(history, p)
    known = judged[judged["breached"].notna()]
    rates = known.groupby("measure")["breached"].apply(lambda breached: float(breached.astype(bool).mean())).to_dict()
    return {name: rates[name] for name in kinds.DRIFT_THRESHOLDS if name in rates}, _windows_until_alert(judged, p)


def _windows_until_alert(judged: pd.DataFrame, p: parameters.Monitor) -> float:
    """Return the mean over the measures of any kind: windows from each start to the first alert."""
    numbers = sorted(judged["window_start"].unique())
    waits = []
    for start in range(0, len(numbers) - 10, 10):
        since = judged[judged["window_start"] >= start]
        for taken in range(1, 11):
            if alerts.find_alerts(since[since["window_start"] < start + taken], p, 1):
                waits.append(taken)
                break
    return float(np.mean(waits)) if waits else math.nan


def _rows(
    random: np.random.Generator, rows: int, shift: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    number = random.normal(size=rows)
    label = number + random.normal(0, 0.3, rows) > 0
    number = number + shift
    probability = 1 / (1 + np.exp(-5 * number))
    missing = random.random(rows) < MISSING
    return np.where(missing, np.nan, number), label, probability > 0.5, np.maximum(probability, 1 - probability)


def _count(numbers: np.ndarray, bins: object) -> Counted:
    present = numbers[~np.isnan(numbers)]
    ends = [bins.lowest, *bins.cuts, np.nextafter(bins.highest, np.inf)]
    counts = np.bincount(np.searchsorted(ends, present, side="right"), minlength=bins.missing + 1)
    counts[bins.missing] = len(numbers) - len(present)
    return Counted(bins, counts.tolist())


def _baseline(random: np.random.Generator) -> Baseline:
    number, *_ = _rows(random, TRAINING_ROWS, 0)
    present = np.sort(number[~np.isnan(number)])
    tenths = np.quantile(present, [tenth / 10 for tenth in range(1, 10)], method="lower").tolist()
    bins = number_bins(float(present[0]), float(present[-1]), tenths, {})
    _, label, prediction, probability = _rows(random, GATE_ROWS, 0)
    wrong = (label != prediction).astype(float)
    return Baseline(
        description="simulated",
        features={"number": _count(number, bins)},
        model_type=CLASSIFIER,
        metric="accuracy_score",
        metrics=measure(CLASSIFIER, label, prediction),
        predictions=_classes(prediction),
        probability=(float(probability.mean()), float(probability.std(ddof=1)), GATE_ROWS),
        loss=(float(wrong.mean()), float(wrong.std(ddof=1)), GATE_ROWS),
    )


def _classes(prediction: np.ndarray) -> Counted:
    return Counted(CategoryBins(("false", "true")), [int((~prediction).sum()), int(prediction.sum()), 0, 0])


def _window(random: np.random.Generator, baseline: Baseline, rows: int, shift: float, number: int) -> list[dict]:
    values, label, prediction, probability = _rows(random, rows, shift)
    before = baseline.features["number"]
    wrong = (label != prediction).astype(float)
    loss = (float(wrong.mean()), float(wrong.std(ddof=1)), rows)
    quality = Quality(CLASSIFIER, rows, measure(CLASSIFIER, label, prediction), loss)
    certain = (float(probability.mean()), float(probability.std(ddof=1)), rows)
    items = [
        *measures.of_feature("number", before, _count(values, before.bins)),
        *measures.of_predictions(baseline, _classes(prediction), certain, rows, 0),
        *measures.of_quality(baseline, quality),
    ]
    return [vars(item) | {"window": str(number), "window_start": number, "model_version": 1} for item in items]


if __name__ == "__main__":
    main()
