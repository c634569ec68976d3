"""Distances, their probabilities, and how often monitoring is right; without Spark."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from helpers.monitoring import statistics
from tests.benchmarks.detection import simulate


@pytest.mark.parametrize("seed", range(5))
def test_distances_are_those_of_scipy_and_of_the_formula(seed):
    random = np.random.default_rng(seed)
    p, q = random.integers(1, 100, (2, 10))
    shares = p / p.sum(), q / q.sum()
    assert statistics.js_distance(p, q) == pytest.approx(jensenshannon(*shares), abs=1e-12)
    # Twice the symmetric Kullback-Leibler divergence.
    expected = stats.entropy(shares[0], shares[1]) + stats.entropy(shares[1], shares[0])
    assert statistics.psi(p, q) == pytest.approx(expected, abs=1e-9)
    assert statistics.psi(p, p * 3) == pytest.approx(0, abs=1e-12)
    higher = stats.fisher_exact([[q[0], q.sum() - q[0]], [p[0], p.sum() - p[0]]], alternative="greater")
    assert statistics.higher_share((p[0], p.sum()), (q[0], q.sum())) == pytest.approx(higher.pvalue, rel=1e-9)


def test_without_drift_each_measure_is_a_breach_no_more_often_than_the_significance_says():
    rates, _ = simulate(windows=400, rows=100, shift=0.0, significance=0.01)
    # 1 % is promised for each; four standard deviations of a rate of 400 windows are 2 %.
    assert all(rate <= 0.03 for rate in rates.values()), rates
    assert {"psi", "js_distance", "null_share", "outside_range", "mean_probability", "quality"} <= set(rates)


def test_a_shift_of_one_standard_deviation_is_found_in_each_window_of_100_rows():
    rates, until = simulate(windows=50, rows=100, shift=1.0, significance=0.001)
    assert rates["psi"] == rates["js_distance"] == rates["quality"] == 1
    # The default needs two breaches.
    assert until == 2
