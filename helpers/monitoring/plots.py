"""Pictures of what monitoring found: which feature in which window, how a feature's values moved, and the quality."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from helpers.monitoring.bins import Counted

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from helpers.monitoring.baseline import Baseline

_MOST_WINDOWS = 40
_MOST_CHARACTERS = 30


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
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    rows = judged[judged["measure"] == measure]
    threshold = float(rows["threshold"].iloc[0])
    windows = list(dict.fromkeys(rows.sort_values("window_start")["window"]))[-_MOST_WINDOWS:]
    values = rows.pivot_table(index="feature", columns="window", values="value").reindex(columns=windows)
    values = values.loc[values.max(axis=1).sort_values(ascending=False).index].head(most_features)
    breaches = rows.pivot_table(index="feature", columns="window", values="breached", aggfunc="max", dropna=False)
    breaches = breaches.reindex(index=values.index, columns=windows)
    figure = Figure(figsize=(3.2 + 0.5 * max(len(windows), 6), 1.6 + 0.27 * len(values)), layout="constrained")
    axes = figure.subplots()
    # Twice the threshold and more has the darkest colour: otherwise one feature would make all others look alike.
    norm = TwoSlopeNorm(vmin=0, vcenter=threshold, vmax=max(2.5 * threshold, 1e-9))
    image = axes.imshow(values.to_numpy(dtype=float), aspect="auto", cmap="RdYlBu_r", norm=norm)
    for row, column in np.argwhere(breaches.eq(True).to_numpy()):
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.4))
    axes.set_xticks(range(len(windows)), [_short(name) for name in windows], rotation=45, ha="right")
    axes.set_yticks(range(len(values)), [_short(name) for name in values.index])
    all_features = rows["feature"].nunique()
    axes.set_title(f"{measure.upper()} of each feature against the training rows ({len(values)} of {all_features})")
    bar = figure.colorbar(image, ax=axes, extend="max", shrink=0.8)
    bar.set_label(f"{measure.upper()}; threshold {threshold:g}, a frame marks a breach")
    return figure


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
    columns = min(len(now), 3)
    lines = -(-len(now) // columns)
    figure = Figure(figsize=(4.3 * columns, 3.1 * lines), layout="constrained")
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
    names = before.bins.names
    shown = places if len(places) <= 14 else places[:: len(places) // 12]
    axes.set_xticks(shown, [_short(names[place]) for place in shown], rotation=60, ha="right", fontsize=7)
    axes.set_title(_short(name), fontsize=10)
    axes.set_ylabel("share of the rows", fontsize=8)
    axes.grid(axis="y", alpha=0.3)


def quality_over_time(judged: pd.DataFrame) -> Figure:
    """Draw the metric of the gate by window and version, on the labels that have arrived, with the value at the gate.

    Parameters
    ----------
    judged : pandas.DataFrame
        From `helpers.monitoring.alerts.judge`.
    """
    from matplotlib.figure import Figure

    rows = judged[judged["measure"] == "quality"]
    windows = list(dict.fromkeys(judged.sort_values("window_start")["window"]))[-_MOST_WINDOWS:]
    places = {name: place for place, name in enumerate(windows)}
    figure = Figure(figsize=(3.5 + 0.45 * max(len(windows), 8), 4), layout="constrained")
    axes = figure.subplots()
    for number, (version, of_version) in enumerate(rows.groupby("model_version")):
        shown = of_version[of_version["window"].isin(places)]
        x = [places[name] for name in shown["window"]]
        axes.plot(x, shown["value"], "o-", color=f"C{number}", label=f"version {version}")
        axes.axhline(
            shown["baseline"].iloc[-1], color=f"C{number}", linestyle=":", label=f"version {version} at the gate"
        )
        off = shown[shown["breached"].eq(True)]
        axes.plot([places[name] for name in off["window"]], off["value"], "o", markersize=13, mfc="none", mec="black")
    axes.set_xticks(range(len(windows)), [_short(name) for name in windows], rotation=45, ha="right")
    axes.set(
        ylabel=" or ".join(sorted(set(rows["detail"]))).replace("_", " "),
        title="Quality on the labels that have arrived (a ring marks a breach)",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _short(name: object) -> str:
    text = str(name).replace("$", r"\$")
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + "…"
