"""Plots of a rollout, as Matplotlib figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from helpers import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from helpers.serving.health import HealthCheck


@figures.styled
def rollout(checks: Sequence[HealthCheck]) -> Figure:
    """Draw the latencies of the health checks of a rollout.

    Parameters
    ----------
    checks : sequence of helpers.serving.health.HealthCheck
        In the order in which they were made.
    """
    figure, axes = figures.one_plot(4, "How long the health checks took, and what they found")
    labels = [_label(check) for check in checks]
    for offset, name, label in ((-0.2, "p50_ms", "median"), (0.2, "p95_ms", "95th percentile")):
        latencies = [getattr(check, name) for check in checks]
        bars = axes.bar([place + offset for place in range(len(checks))], latencies, width=0.38, label=label)
        axes.bar_label(bars, fmt="%.0f", padding=2)
    for place, check in enumerate(checks):
        if check.problem:
            text = f"{check.errors} errors" if check.errors else "too slow"
            highest = max((it for it in (check.p50_ms, check.p95_ms) if it == it), default=0)
            axes.annotate(
                text, (place, highest), xytext=(0, 18), textcoords="offset points", ha="center",
                color=figures.ALARM, weight="bold",
            )  # fmt: skip
    axes.set(xlabel="requests that the new version gets, and which deployments answer", ylabel="milliseconds")
    axes.set_xticks(range(len(checks)), labels)
    axes.set_xlim(-0.6, max(len(checks), 3) - 0.4)
    axes.grid(visible=False, axis="x")
    # Room for what is above the bars.
    axes.margins(y=0.18)
    axes.autoscale_view()
    axes.set_ylim(0, axes.get_ylim()[1] if any(check.p95_ms > 0 for check in checks) else 1)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _label(check: HealthCheck) -> str:
    label = f"{check.percent} %\n{'all' if check.target == 'endpoint' else 'new'}"
    return f"{label}\nmirrored" if check.mirrored else label
