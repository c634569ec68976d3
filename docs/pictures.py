"""Draw the pictures of the notebooks, `notebooks/images/*.svg`, and README's first picture, `docs/images/overview.svg`.

python -m docs.pictures

Each has a background of its own, follows the reader's dark mode, and can be read at the width of a phone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
OVERVIEW = ROOT / "docs" / "images" / "overview.svg"

WIDTH = 500
MARGIN = 12
# A phone of 390 pixels shows 500 units at 0.7 to 0.75 of their size.
NAME, TEXT, LINE = 17, 16, 20


@dataclass(frozen=True)
class Step:
    """What a notebook does, as its picture shows it.

    Attributes
    ----------
    notebook : str
        Its file, without ending.
    name : str
    goes_in, comes_out : tuple of (icon, text)
        A line break in a text is one in the picture.
    does : tuple of str
        In the order in which it is done.
    """

    notebook: str
    name: str
    goes_in: tuple[tuple[str, str], ...]
    does: tuple[str, ...]
    comes_out: tuple[tuple[str, str], ...]

    @property
    def number(self) -> int:
        """Of the notebook, which is not its place: 8 comes before 4."""
        return int(self.notebook[:2])

    @property
    def label(self) -> str:
        """Number and name."""
        return f"{self.number} {self.name}"

    @property
    def picture(self) -> Path:
        """Beside the notebooks, because only this folder and `helpers` are copied to a workspace."""
        return NOTEBOOKS / "images" / f"{self.notebook}.svg"

    @property
    def description(self) -> str:
        """All of the picture in words, for those who do not see it."""
        goes_in, does, comes_out = (
            "; ".join(text.replace("\n", " ") for text in texts)
            for texts in ([text for _, text in self.goes_in], self.does, [text for _, text in self.comes_out])
        )
        return f"You are at {self.label}. Goes in: {goes_in}. The step: {does}. Comes out: {comes_out}."

    @property
    def markdown(self) -> str:
        """What the notebook's first cell shows below its title."""
        return f"![{self.description}](images/{self.picture.name})"


# In the order in which they are run. The map has two lines, the second from right to left.
STEPS = (
    Step(
        "01_setup",
        "set up",
        (("file", "file or table"), ("people", "where runs and\nmodels belong")),
        ("check the packages", "sign in, choose\nserver and registry", "check the data", "write the tables"),
        (("table", "training table"), ("table", "scoring table"), ("curve", "experiment")),
    ),
    Step(
        "02_train",
        "train",
        (("table", "training table"),),
        ("hold rows out", "tune, if asked", "fit", "measure on the\nheld-out rows"),
        (("curve", "run: metrics,\nplots"), ("model", "model")),
    ),
    Step(
        "03_register",
        "register",
        (("model", "run with\nits model"), ("table", "held-out rows")),
        (
            "score with Spark",
            "compare with the\nthreshold and\nthe champion",
            "make a version",
            "move the alias,\nif all is passed",
        ),
        (("versions", "version with\nits checks"), ("flag", "champion or\nchallenger")),
    ),
    Step(
        "08_approve",
        "approve",
        (("flag", "challenger"), ("list", "what the gate\nfound")),
        ("show both versions\nside by side", "take your decision", "write down who,\nwhen and why"),
        (("flag", "champion,\nor refused"), ("list", "the reason,\nin tags")),
    ),
    Step(
        "04_batch_score",
        "score",
        (("flag", "champion"), ("table", "scoring table")),
        ("which version is\nthe champion?", "check the columns", "predict with Spark", "replace the batch"),
        (("table", "predictions"), ("list", "rejected rows,\nand why")),
    ),
    Step(
        "05_deploy_endpoint",
        "deploy",
        (("flag", "champion"), ("endpoint", "endpoint with\nold version")),
        (
            "deploy beside the\nold version",
            "shift the traffic\nstep by step",
            "check each step",
            "roll back\non an error",
        ),
        (("endpoint", "endpoint with\nnew version"), ("curve", "latencies")),
    ),
    Step(
        "06_monitor",
        "monitor",
        (("table", "predictions"), ("table", "labels that\nhave arrived"), ("list", "baseline of\nthe version")),
        ("compare inputs and\npredictions with\nthe training rows", "measure quality", "tell changes\nfrom chance"),
        (("curve", "measures\nby window"), ("bell", "alerts"), ("loop", "retrain,\nif asked")),
    ),
    Step(
        "07_clean_up",
        "clean up",
        (("list", "all with the\nbundle's mark"),),
        ("list it,\non each server", "delete the kinds\nthat you chose,\nif dry_run=false"),
        (("list", "what there is,\nwhat is deleted"),),
    ),
)

STYLE = """
.card{fill:#fff;stroke:#d0d7de}.box{fill:#f6f8fa;stroke:#b6c0ca}.here{fill:#0b5cad;stroke:#0b5cad}.plain{fill:#fff;stroke:#b6c0ca}
.ink{fill:#1f2933}.soft{fill:#52606d}.on{fill:#fff}.loop{fill:#a34700}
.line{stroke:#52606d;fill:none}.icon{stroke:#0b5cad;fill:none}.back{stroke:#a34700;fill:none}.tip{fill:#52606d}.backtip{fill:#a34700}
@media (prefers-color-scheme:dark){
.card{fill:#151b23;stroke:#3d444d}.box{fill:#1f2731;stroke:#4b5764}.here{fill:#6cb6ff;stroke:#6cb6ff}.plain{fill:#151b23;stroke:#4b5764}
.ink{fill:#e6edf3}.soft{fill:#aab6c3}.on{fill:#0d1117}.loop{fill:#ffb077}
.line{stroke:#aab6c3}.icon{stroke:#6cb6ff}.back{stroke:#ffb077}.tip{fill:#aab6c3}.backtip{fill:#ffb077}}
"""

# Each in a square of 28 units.
ICONS = {
    "file": "M7 2h10l5 5v19H7zM17 2v5h5M11 13h7M11 18h7",
    "table": "M3 5h22v18H3zM3 11h22M3 17h22M10 5v18M18 5v18",
    "people": "M14 3a5 5 0 1 1 0 10a5 5 0 1 1 0-10M4 25c0-11 20-11 20 0z",
    "curve": "M3 3v22h22M6 8c4 12 10 12 18 12",
    "model": "M14 2l11 6v12l-11 6l-11-6V8zM3 8l11 6l11-6M14 14v12",
    "versions": "M3 9h16v16H3zM7 9V5h16v16h-4",
    "flag": "M6 2v24M6 4h17l-4 5l4 5H6",
    "list": "M3 6h3M3 14h3M3 22h3M10 6h15M10 14h15M10 22h15",
    "endpoint": "M4 4h20v8H4zM4 16h20v8H4zM8 8h2M8 20h2M15 8h5M15 20h5",
    "bell": "M4 21h20l-3-4V11c0-9-14-9-14 0v6zM12 21c0 4 4 4 4 0M14 4V2",
    "loop": "M23 14a9 9 0 1 1-3-7M21 2v6h-6",
}


def _text(
    x: float, y: float, content: str, size: int = TEXT, kind: str = "ink", bold: bool = False, at: str = "middle"
) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" font-size="{size}"{weight} text-anchor="{at}">{escape(content)}</text>'


def _box(x: float, y: float, width: float, height: float, kind: str = "box") -> str:
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="7"/>'


def _arrow(path: str, kind: str = "line") -> str:
    return f'<path class="{kind}" stroke-width="1.8" d="{path}" marker-end="url(#{kind})"/>'


def _map(top: float, here: Step | None) -> Iterator[str]:
    """Draw all steps in two lines, the second from right to left, so that 6 is below 2 and retraining one arrow."""
    width, height, gap = 107, 38, 36
    step = (WIDTH - 2 * MARGIN - width) / 3
    second = top + height + gap
    for place, it in enumerate(STEPS):
        column = place if place < 4 else 7 - place
        x, y = MARGIN + column * step, top if place < 4 else second
        yield _box(x, y, width, height, "here" if it is here else "plain")
        yield _text(x + width / 2, y + 25, it.label, NAME, "on" if it is here else "ink", bold=it is here)
        if place < 3:
            yield _arrow(f"M{x + width + 1:g} {y + height / 2:g}H{x + step - 3:g}")
        elif 3 < place < 7:
            yield _arrow(f"M{x - 1:g} {y + height / 2:g}H{x - step + width + 3:g}")
    down = MARGIN + 3 * step + width / 2
    yield _arrow(f"M{down:g} {top + height + 1:g}V{second - 3:g}")
    up = MARGIN + step + width / 2
    yield _arrow(f"M{up:g} {second - 1:g}V{top + height + 3:g}", "back")
    yield _text(up + 9, second - gap / 2 + 5, "retrain", 15, "loop", at="start")


MAP_HEIGHT = 38 + 36 + 38


def picture_of(step: Step) -> str:
    """Return the SVG of a notebook: where it is in the whole, what goes in, what it does, what comes out."""
    top = MARGIN + MAP_HEIGHT + 24
    sides, middle, gap = 136, 172, 16
    heading = 34
    height = heading + max(_height(step.goes_in), _height(step.comes_out), _height(step.does)) + 14
    left, right = MARGIN, WIDTH - MARGIN - sides
    center = left + sides + gap
    parts = [*_map(MARGIN, step)]
    for x, title, items in ((left, "goes in", step.goes_in), (right, "comes out", step.comes_out)):
        parts += [_box(x, top, sides, height), _text(x + sides / 2, top + 24, title, TEXT, "soft")]
        parts += _items(x + sides / 2, top + heading, height - heading, items)
    parts += [_box(center, top, middle, height, "plain"), _box(center, top, middle, heading - 2, "here")]
    parts += [_text(center + middle / 2, top + 23, step.label, NAME, "on", bold=True)]
    parts += _items(center + middle / 2, top + heading, height - heading, step.does)
    at = top + height / 2
    parts += [_arrow(f"M{left + sides + 2} {at:g}H{center - 3}"), _arrow(f"M{center + middle + 2} {at:g}H{right - 3}")]
    return _svg(top + height + MARGIN, step.description, parts)


def _height(items: Sequence[tuple[str, str] | str]) -> float:
    return sum((38 if isinstance(item, tuple) else 0) + LINE * len(_lines(item)) + 12 for item in items)


def _lines(item: tuple[str, str] | str) -> list[str]:
    return (item[1] if isinstance(item, tuple) else item).split("\n")


def _items(x: float, top: float, height: float, items: Sequence[tuple[str, str] | str]) -> Iterator[str]:
    y = top + (height - _height(items)) / 2 + 6
    for item in items:
        if isinstance(item, tuple):
            place = f'transform="translate({x - 14:g} {y + 4:g})"'
            yield f'<path class="icon" stroke-width="1.8" stroke-linejoin="round" stroke-linecap="round" {place} d="{ICONS[item[0]]}"/>'
            y += 38
        for line in _lines(item):
            yield _text(x, y + 15, line)
            y += LINE
        y += 12


def overview() -> str:
    """Return the SVG of the whole: the notebooks, `helpers`, and the modes with where runs and models go."""
    inner = WIDTH - 2 * MARGIN
    half = (inner - 16) / 2
    right = MARGIN + half + 16
    parts = [_text(MARGIN, 34, "The same eight notebooks", 20, bold=True, at="start")]
    parts += [_text(MARGIN, 58, "in a workspace, as Databricks jobs, on a laptop", TEXT, "soft", at="start")]
    parts += _map(76, None)
    y = 76 + MAP_HEIGHT
    parts += [_arrow(f"M{WIDTH / 2:g} {y + 4}V{y + 23}")]
    y += 26
    parts += [
        _box(MARGIN, y, inner, 60),
        _text(WIDTH / 2, y + 25, "helpers: all of the logic, tested", NAME, bold=True),
    ]
    parts += [_text(WIDTH / 2, y + 48, "with real MLflow and Spark, and a stand-in of Azure ML")]
    y += 60
    parts += [_arrow(f"M{WIDTH / 2:g} {y + 2}V{y + 21}")]
    y += 24
    parts += [_text(MARGIN, y + 20, "tracking_mode says where runs and models go:", TEXT, "soft", at="start")]
    y += 34
    parts += _place(
        MARGIN,
        y,
        inner,
        "local",
        "a laptop, no account",
        ("local Spark, MLflow on SQLite,", "an endpoint on this machine"),
    )
    y += 98
    cloud = y
    databricks = ("Spark, jobs, tables", "MLflow runs", "models: Unity Catalog")
    parts += _place(MARGIN, y, half, "databricks", "Azure Databricks", databricks)
    azureml = ("MLflow runs", "models: its registry", "online endpoints")
    parts += _place(right, y, half, "azureml", "Azure ML", azureml)
    y += 138
    parts += [_box(MARGIN, y, inner, 56, "plain"), _tag(MARGIN + 10, y + 15, "dual")]
    parts += [_text(MARGIN + 80, y + 24, "runs in Databricks, and a copy of each in", at="start")]
    parts += [_text(MARGIN + 80, y + 44, "Azure ML; models in either", at="start")]
    parts += [_arrow(f"M{MARGIN + half + 1:g} {cloud + 60}H{right - 3:g}")]
    label = (
        "Eight notebooks call the module helpers, which keeps runs and models on a laptop, in Azure Databricks, "
        "in Azure Machine Learning, or in both"
    )
    return _svg(y + 56 + MARGIN, label, parts, 600)


def _tag(x: float, y: float, name: str) -> str:
    width = 10.2 * len(name) + 14
    return _box(x, y, width, 26, "here") + _text(x + width / 2, y + 19, name, TEXT, "on", bold=True)


def _place(x: float, y: float, width: float, mode: str, name: str, lines: Sequence[str]) -> Iterator[str]:
    stacked = width < 300
    yield _box(x, y, width, (62 if stacked else 42) + LINE * len(lines) + 4)
    yield _tag(x + 10, y + 9, mode)
    if stacked:
        yield _text(x + 10, y + 55, name, NAME, bold=True, at="start")
    else:
        yield _text(x + 90, y + 28, name, NAME, bold=True, at="start")
    for number, line in enumerate(lines):
        yield _text(x + 10, y + (78 if stacked else 58) + LINE * number, line, at="start")


def _svg(height: float, label: str, parts: Sequence[str], width: int = WIDTH) -> str:
    tips = "".join(
        f'<marker id="{kind}" viewBox="0 0 10 10" refX="7" refY="5" markerWidth="5" markerHeight="5" orient="auto">'
        f'<path class="{tip}" d="M0 0L10 5L0 10z"/></marker>'
        for kind, tip in (("line", "tip"), ("back", "backtip"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{width}" '
        "font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif\" "
        f'role="img" aria-label="{escape(label)}">\n'
        f"<style>{STYLE}</style>\n<defs>{tips}</defs>\n"
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:g}" rx="8"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def pictures() -> dict[Path, str]:
    """Return the text of each picture by its file."""
    return {step.picture: picture_of(step) for step in STEPS} | {OVERVIEW: overview()}


def main() -> None:
    """Write the pictures."""
    for file, content in pictures().items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
