"""How far two distributions are apart, and how likely chance alone makes such a difference; all computed from counts.

Each p-value is the probability of a difference at least this large if the window's rows come from the same distribution
as the baseline's. A breach needs both: a difference above its threshold, and a p-value below ``drift_significance``. With
few rows, a PSI of 0.3 means nothing; with five million rows, any PSI has a small p-value.
"""

from __future__ import annotations

from collections.abc import Sequence

# An empty bin would make the PSI infinite. Evidently replaces its share by the same number.
SMALLEST_SHARE = 1e-4
# The chi-squared approximation needs this many expected values in a bin: Cochran's rule.
_FEWEST_EXPECTED = 5


def psi(baseline: Sequence[int], window: Sequence[int]) -> float:
    """Return the population stability index of two histograms with the same bins.

    The sum over the bins of ``(q - p) * ln(q / p)``, with the shares ``p`` of the baseline and ``q`` of the window. An
    empty bin has the share `SMALLEST_SHARE`.

    Parameters
    ----------
    baseline, window : sequence of int, shape (n_bins,)
        Number of values. Each has at least one.
    """
    import numpy as np

    shares = [np.asarray(counts, dtype=float) / sum(counts) for counts in (baseline, window)]
    p, q = (np.where(share == 0, SMALLEST_SHARE, share) for share in shares)
    return float(np.sum((q - p) * np.log(q / p)))


def js_distance(baseline: Sequence[int], window: Sequence[int]) -> float:
    """Return the Jensen-Shannon distance of two histograms, from 0 to 0.83 (the root of ln 2).

    https://docs.scipy.org/doc/scipy/reference/generated/scipy.spatial.distance.jensenshannon.html
    """
    from scipy.spatial.distance import jensenshannon

    return float(jensenshannon(baseline, window))


def same_distribution(baseline: Sequence[int], window: Sequence[int]) -> float:
    """Return the p-value of the chi-squared test that two histograms have the same distribution.

    Bins with few expected values are pooled first.
    https://docs.scipy.org/doc/scipy/reference/generated/scipy.stats.chi2_contingency.html
    """
    import numpy as np
    from scipy.stats import chi2_contingency

    table = np.array([baseline, window], dtype=float)
    expected = table.sum(axis=0) * table.sum(axis=1).min() / table.sum()
    few = expected < _FEWEST_EXPECTED
    if few.any():
        pooled = table[:, few].sum(axis=1, keepdims=True)
        table = np.hstack([table[:, ~few], pooled])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0
    return float(chi2_contingency(table, correction=False).pvalue)


def higher_share(baseline: tuple[int, int], window: tuple[int, int]) -> float:
    """Return the p-value of Fisher's exact test that a share is not higher in the window than in the baseline.

    Parameters
    ----------
    baseline, window : tuple of int
        How many rows have a property, and how many rows there are.
    """
    from scipy.stats import hypergeom

    (before, rows_before), (now, rows_now) = baseline, window
    return float(hypergeom.sf(now - 1, rows_before + rows_now, before + now, rows_now))


def outside_range(baseline_rows: int, outside: int, rows: int) -> float:
    """Return the p-value of the number of values outside the range of the baseline.

    A new value is outside the range of `baseline_rows` others with a probability that has the distribution Beta(2,
    baseline_rows - 1), so the number of such values is beta-binomial.
    """
    from scipy.stats import betabinom

    return float(betabinom.sf(outside - 1, rows, 2, max(baseline_rows - 1, 1)))


def other_mean(baseline: tuple[float, float, int], window: tuple[float, float, int]) -> float:
    """Return the p-value of Welch's test that two means are equal.

    Parameters
    ----------
    baseline, window : tuple
        Mean, standard deviation, number of values.

    https://docs.scipy.org/doc/scipy/reference/generated/scipy.stats.ttest_ind_from_stats.html
    """
    from scipy.stats import ttest_ind_from_stats

    if baseline[1] == window[1] == 0:
        return 1.0 if baseline[0] == window[0] else 0.0
    return float(ttest_ind_from_stats(*baseline, *window, equal_var=False).pvalue)
