"""Plots of a rollout, as Matplotlib figures that do not use pyplot's global state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from helpers.serving.health import HealthCheck


def rollout(checks: Sequence[HealthCheck]) -> Figure:
    """Draw the latencies of the health checks of a rollout.

    Parameters
    ----------
    checks : sequence of helpers.serving.health.HealthCheck
        In the order in which they were made.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title("Latency of the health checks by percentage of the requests")
    labels = [_label(check) for check in checks]
    positions = range(len(checks))
    for name, label, color in (("p95_ms", "95th percentile", "lightsteelblue"), ("p50_ms", "median", "steelblue")):
        axes.bar(positions, [getattr(check, name) for check in checks], color=color, label=label)
    top = axes.get_ylim()[1]
    for position, check in zip(positions, checks, strict=True):
        if check.problem:
            text = f"{check.errors} errors" if check.errors else "too slow"
            box = {"facecolor": "white", "edgecolor": "none"}
            axes.text(position, top * 0.03, text, color="firebrick", ha="center", va="bottom", bbox=box)
    axes.set(xlabel="requests that the new version gets, and which deployments answer", ylabel="milliseconds")
    axes.set_xticks(positions, labels)
    axes.grid(axis="y", alpha=0.3)
    # Room for the legend above the bars.
    axes.margins(y=0.25)
    axes.legend(ncols=2)
    return figure


def _label(check: HealthCheck) -> str:
    label = f"{check.percent} %\n{'all' if check.target == 'endpoint' else 'new'}"
    return f"{label}\nmirrored" if check.mirrored else label
