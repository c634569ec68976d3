"""How all plots look: letters, colours that colour-blind readers can tell apart, and labels beside lines.

A plot is a function with the decorator `styled` that returns a Matplotlib figure. The letters, sizes and colours that a
user has set for Matplotlib neither change these plots nor are changed by them. The figures are not registered with
``matplotlib.pyplot``, so nobody has to close them.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis
    from matplotlib.figure import Figure

P = ParamSpec("P")

WIDTH = 7.6
"""Inches of a plot that is as wide as a notebook shows it: wider ones are shrunk, and their letters with them."""

# Okabe and Ito, https://jfly.uni-koeln.de/color/; without yellow, which is hardly seen on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
QUIET = "#6b7785"
"""For what other lines are compared with: a diagonal, a threshold."""
ALARM = "#B00020"

SLANTED: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
"""For names on an x-axis that have no room side by side."""

_INK = "#1f2933"
# So many letters have room side by side below the smallest axes.
_ONE_LINE = 28
_TITLE_SIZE = 12


def _style() -> dict[str, Any]:
    from cycler import cycler

    colors = cycler(color=[*COLORS, *COLORS], linestyle=["-"] * len(COLORS) + ["--"] * len(COLORS))
    return {
        "font.family": "DejaVu Sans",  # Matplotlib brings it.
        "font.size": 10,
        "text.color": _INK,
        "axes.prop_cycle": colors,
        "axes.titlesize": _TITLE_SIZE,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 10,
        "axes.labelcolor": _INK,
        "axes.edgecolor": QUIET,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": "#dde3e9",
        "xtick.color": QUIET,
        "ytick.color": QUIET,
        "xtick.labelcolor": _INK,
        "ytick.labelcolor": _INK,
        "lines.linewidth": 1.8,
        "legend.frameon": False,
    }


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Have a function draw in the style of all plots."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        from matplotlib import style

        with style.context(_style(), after_reset=True):
            figure = draw(*args, **kwargs)
            for axes in figure.axes:
                for axis in (axes.xaxis, axes.yaxis):
                    # Matplotlib makes ticks when it needs them, like the first one, and as many as their size allows.
                    first = axis.get_major_ticks(1)[0]
                    axis.set_tick_params(labelsize=first.label1.get_fontsize())
        return figure

    return drawn


def one_plot(height: float, title: str, width: float = WIDTH) -> tuple[Figure, Axes]:
    """Return a figure with axes and a title.

    Parameters
    ----------
    height : float
        In inches.
    title : str
        What is seen. It takes a second line if it is too long for one.
    width : float, default WIDTH
        In inches.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(wrapped(title, width - 0.9))
    return figure, axes


def wrapped(title: str, width: float) -> str:
    """Break a title into lines of a width in inches."""
    return plain(textwrap.fill(title, int(width * 72 / (0.62 * _TITLE_SIZE)), break_on_hyphens=False))


def plain(name: object) -> str:
    """Return a name as text that Matplotlib does not read as mathematics."""
    return str(name).replace("$", r"\$")


def cut(name: object, most: int) -> str:
    """Return a name without its middle if it is long: names often differ only at their ends."""
    text, end = str(name), most // 2
    return text if len(text) <= most else f"{text[: most - end - 1]}…{text[-end:]}"


def short(name: object, most: int = 30) -> str:
    """Return a name as `cut` does, and plain."""
    return plain(cut(name, most))


def label_lines(axes: Axes, ends: Sequence[tuple[float, float, Any, str]]) -> None:
    """Write what each line shows beside its right end, one below the other where the ends are close.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        With the limits that they will keep.
    ends : sequence of (x, y, color, label)
    """
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    # A line of text, as a share of the axes' height, which the layout may still shrink a little.
    apart = 1.5 * 10 / 72 * axes.figure.dpi / axes.bbox.height
    wanted = sorted(((y - low) / (high - low), x, y, color, label) for x, y, color, label in ends)
    places: list[float] = []
    for place, *_ in wanted:
        places.append(max(place, places[-1] + apart) if places else place)
    # If the uppermost was pushed out of the axes, push back from above.
    limit = 1.0
    for number in reversed(range(len(places))):
        places[number] = min(places[number], limit)
        limit = places[number] - apart
    for place, (_, x, y, color, label) in zip(places, wanted, strict=True):
        line = {"arrowstyle": "-", "color": color, "linewidth": 1.0, "shrinkA": 1, "shrinkB": 0}
        axes.annotate(
            label, (x, y), xytext=(1.03, place), textcoords="axes fraction", va="center", arrowprops=line,
            annotation_clip=False,
        )  # fmt: skip


def label_some(axis: XAxis, names: Sequence[object], most: int = 20, most_characters: int = 30) -> None:
    """Name places 0, 1, … on an x-axis; of many only each second, third, …, and always the last.

    Parameters
    ----------
    axis : matplotlib.axis.XAxis
    names : sequence
    most : int, default 20
        How many names have room.
    most_characters : int, default 30
        Longer names lose their middle.
    """
    step = -(-len(names) // most) or 1
    places = sorted(range(len(names) - 1, -1, -step))
    shown = [short(names[place], most_characters) for place in places]
    side_by_side = len(shown) * max(map(len, shown), default=0) <= _ONE_LINE
    axis.set_ticks(places, shown, **({} if side_by_side else SLANTED))
