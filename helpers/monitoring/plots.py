"""Pictures of what monitoring found: which feature in which window, how a feature's values moved, and the quality."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from helpers import figures
from helpers.monitoring.bins import Counted, NumberBins

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from helpers.monitoring.baseline import Baseline

_MOST_WINDOWS = 40
# With as many windows, there is room for the value in each cell.
_MOST_WINDOWS_WITH_VALUES = 8


@figures.styled
def heat_map(judged: pd.DataFrame, measure: str = "psi", most_features: int = 25) -> Figure:
    """Draw a measure of each feature in each window; features that moved most are on top, breaches have a frame.

    Parameters
    ----------
    judged : pandas.DataFrame
        The measures of one version, from `helpers.monitoring.alerts.judge`.
    measure : str, default "psi"
    most_features : int, default 25
        How many features to draw.
    """
    import numpy as np
    from matplotlib.colors import TwoSlopeNorm
    from matplotlib.patches import Rectangle

    rows = judged[judged["measure"] == measure]
    threshold = float(rows["threshold"].iloc[0])
    windows = list(dict.fromkeys(rows.sort_values("window_start")["window"]))[-_MOST_WINDOWS:]
    values = rows.pivot_table(index="feature", columns="window", values="value").reindex(columns=windows)
    values = values.loc[values.max(axis=1).sort_values(ascending=False).index].head(most_features)
    breaches = rows.pivot_table(index="feature", columns="window", values="breached", aggfunc="max", dropna=False)
    breaches = breaches.reindex(index=values.index, columns=windows)
    all_features = rows["feature"].nunique()
    number = "" if len(values) == all_features else f" ({len(values)} of {all_features})"
    title = f"{measure.upper()} by feature{number} and window, against the training rows"
    width = min(figures.WIDTH, 4.6 + 0.5 * len(windows))
    figure, axes = figures.one_plot(1.7 + 0.27 * max(len(values), 5), title, width)
    # Twice the threshold and more has the darkest colour: otherwise one feature would make all others look alike.
    norm = TwoSlopeNorm(vmin=0, vcenter=threshold, vmax=max(2.5 * threshold, 1e-9))
    numbers = values.to_numpy(dtype=float)
    image = axes.imshow(numbers, aspect="auto", cmap="RdYlBu_r", norm=norm)
    if len(windows) <= _MOST_WINDOWS_WITH_VALUES:
        for row, column in np.argwhere(np.isfinite(numbers)):
            shade = norm(numbers[row, column])
            color = "white" if shade < 0.15 or shade > 0.85 else "black"
            axes.text(column, row, f"{numbers[row, column]:.2f}", ha="center", va="center", color=color, fontsize=9)
    for row, column in np.argwhere(breaches.eq(True).to_numpy()):
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.4))
    axes.set_facecolor("#e4e8ec")  # Not measured.
    axes.grid(visible=False)
    figures.label_some(axes.xaxis, windows, most=14)
    axes.set_yticks(range(len(values)), [figures.short(name) for name in values.index])
    bar = figure.colorbar(image, ax=axes, extend="max", aspect=25)
    bar.set_label(f"{measure.upper()}; threshold {threshold:g},\na frame marks a breach")
    return figure


@figures.styled
def histograms(judged: pd.DataFrame, baseline: Baseline, most_features: int = 6) -> Figure:
    """Draw the shares of each bin of the features that have moved most, in the newest window beside the training rows.

    Parameters
    ----------
    judged : pandas.DataFrame
        The measures of one version, from `helpers.monitoring.alerts.judge`.
    baseline : Baseline
        Of that version.
    most_features : int, default 6
    """
    from matplotlib.figure import Figure

    distances = judged[judged["measure"] == "psi"].sort_values("window_start")
    window = distances["window"].iloc[-1]
    most = distances[distances["window"] == window].sort_values("value", ascending=False).head(most_features)
    now = {
        row.feature: Counted(baseline.features[row.feature].bins, json.loads(row.detail)) for row in most.itertuples()
    }
    columns = min(len(now), 2)
    lines = -(-len(now) // columns)
    figure = Figure(figsize=(figures.WIDTH if columns == 2 else 5, 2.6 * lines + 0.4), layout="constrained")
    figure.set_layout_engine("constrained", h_pad=0.1)
    for axes, (name, counted) in zip(figure.subplots(lines, columns, squeeze=False).flat, now.items(), strict=False):
        _histogram(axes, name, baseline.features[name], counted)
    for axes in figure.axes[len(now) :]:
        axes.remove()
    handles, _ = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, ["training rows", window], loc="outside upper center", ncols=2)
    return figure


def _histogram(axes: Axes, name: str, before: Counted, now: Counted) -> None:
    import numpy as np

    places = np.arange(len(before.distribution))
    for offset, counted, label in ((-0.2, before, "before"), (0.2, now, "now")):
        counts = np.array(counted.distribution)
        axes.bar(places + offset, counts / max(counts.sum(), 1), width=0.4, label=label)
    if isinstance(before.bins, NumberBins):
        # Where a bin ends and the next one begins.
        ends = [f"{end:.3g}" for end in (before.bins.lowest, *before.bins.cuts, before.bins.highest)]
        shown = range(0, len(ends), -(-len(ends) // 12))
        axes.set_xticks([end - 0.5 for end in shown], [ends[end] for end in shown], **figures.SLANTED)
    else:
        figures.label_some(axes.xaxis, before.bins.names, most=12, most_characters=18)
    axes.tick_params(axis="x", labelsize=9)
    axes.set_title(figures.short(name, 36), fontsize=10)
    axes.set_ylabel("share of the rows")
    axes.grid(visible=False, axis="x")


@figures.styled
def quality_over_time(judged: pd.DataFrame) -> Figure:
    """Draw the metric of the gate by window and version, on the labels that have arrived, with the value at the gate.

    Parameters
    ----------
    judged : pandas.DataFrame
        From `helpers.monitoring.alerts.judge`.
    """
    rows = judged[judged["measure"] == "quality"]
    windows = list(dict.fromkeys(judged.sort_values("window_start")["window"]))[-_MOST_WINDOWS:]
    places = {name: place for place, name in enumerate(windows)}
    title = "Quality on the labels that have arrived; a ring marks a breach"
    figure, axes = figures.one_plot(4, title)
    ends: list[tuple[float, float, str, str]] = []
    for number, (version, of_version) in enumerate(rows.groupby("model_version")):
        shown = of_version[of_version["window"].isin(places)].sort_values("window_start")
        if shown.empty:
            continue
        color, marker = figures.COLORS[number % len(figures.COLORS)], "os^Dv"[number % 5]
        x = [places[name] for name in shown["window"]]
        axes.plot(x, shown["value"], marker=marker, markersize=5, color=color, linestyle="-")
        gate = shown["baseline"].iloc[-1]
        axes.axhline(gate, color=color, linestyle=":", linewidth=1.2)
        off = shown[shown["breached"].eq(True)]
        axes.plot([places[name] for name in off["window"]], off["value"], "o", markersize=12, mfc="none", mec="black")
        ends.append((x[-1], shown["value"].iloc[-1], color, f"version {version}"))
        ends.append((len(windows) - 0.5, gate, color, f"version {version} at the gate"))
    figures.label_some(axes.xaxis, windows, most=14)
    axes.set_xlim(-0.5, len(windows) - 0.5)
    axes.set_ylabel(" or ".join(sorted(set(rows["detail"]))).replace("_", " "))
    figures.label_lines(axes, ends)
    return figure
