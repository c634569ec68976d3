"""The pictures of the notebooks: made by docs/pictures.py, shown by the notebooks, and readable."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import nbformat
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from docs import pictures

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
PHONE = 350  # What a page leaves of 390 pixels.

DRAWN = pictures.pictures()

of_each_picture = pytest.mark.parametrize("file", DRAWN, ids=lambda file: file.stem)


@of_each_picture
def test_a_picture_is_what_its_description_makes(file):
    assert file.read_text(encoding="utf-8") == DRAWN[file], "It is stale: python -m docs.pictures"


def test_each_notebook_shows_its_picture_below_its_title_and_says_it_in_words():
    steps = {step.notebook: step for step in pictures.STEPS}
    notebooks = {path.stem: path for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert steps.keys() == notebooks.keys()
    for name, path in notebooks.items():
        first = nbformat.read(path, as_version=4).cells[0].source
        assert first.split("\n\n")[1] == steps[name].markdown, f"{path.name} should have {steps[name].markdown}"
        assert steps[name].picture == path.parent / re.search(r"\]\((.+?)\)", first)[1]


def test_the_map_has_the_order_of_the_links_below_each_picture():
    for step in pictures.STEPS:
        path = ROOT / "notebooks" / f"{step.notebook}.ipynb"
        links = nbformat.read(path, as_version=4).cells[0].source.splitlines()[-1]
        assert re.sub(r"\[(.+?)\]\(.+?\)|\*\*(.+?)\*\*", r"\1\2", links).split(" → ") == [
            it.name for it in pictures.STEPS
        ]


def words(content):
    """Each text of an SVG with its left, top, right and bottom, and the size of its letters."""
    for text in ET.fromstring(content).iter(f"{SVG}text"):
        size, x, y = (float(text.get(name)) for name in ("font-size", "x", "y"))
        # DejaVu, which a Linux without other fonts has, is the widest that readers will see.
        font = FontProperties(family="DejaVu Sans", weight="bold" if text.get("font-weight") else "normal")
        width = TextPath((0, 0), text.text, size=size, prop=font).get_extents().x1
        left = x - {"start": 0, "middle": width / 2}[text.get("text-anchor")]
        yield text.text, (left, y - size * 0.75, left + width, y + size * 0.2), size


@of_each_picture
def test_no_text_leaves_its_box_or_meets_another(file):
    boxes = []
    for box in ET.fromstring(DRAWN[file]).iter(f"{SVG}rect"):
        x, y, width, height = (float(box.get(name)) for name in ("x", "y", "width", "height"))
        boxes.append((x, y, x + width, y + height))
    texts = list(words(DRAWN[file]))
    for content, (left, top, right, bottom), _ in texts:
        across = [it for it in boxes if it[1] < (top + bottom) / 2 < it[3] and it[0] < (left + right) / 2 < it[2]]
        smallest = min(across, key=lambda it: (it[2] - it[0]) * (it[3] - it[1]))
        assert smallest[0] + 2 < left and right < smallest[2] - 2, content
        assert smallest[1] < top and bottom < smallest[3], content
    for number, (one, a, _) in enumerate(texts):
        for other, b, _ in texts[:number]:
            assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1], (one, other)


@of_each_picture
def test_all_letters_can_be_read_on_a_phone(file):
    width = float(ET.fromstring(DRAWN[file]).get("viewBox").split()[2])
    assert min(size for _, _, size in words(DRAWN[file])) * PHONE / width > 10


def luminance(color):
    digits = color if len(color) == 6 else "".join(2 * digit for digit in color)
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (it / 12.92 if it <= 0.04045 else ((it + 0.055) / 1.055) ** 2.4 for it in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_letters_contrast_with_what_is_behind_them(mode):
    # https://www.w3.org/TR/WCAG22/#contrast-minimum
    light, dark = pictures.STYLE.split("@media (prefers-color-scheme:dark){")
    fills = dict(re.findall(r"\.(\w+)\{fill:#(\w+)", light if mode == "light" else dark))
    pairs = [(letters, behind) for letters in ("ink", "soft", "loop") for behind in ("card", "box", "plain")]
    for letters, behind in [*pairs, ("on", "here")]:
        one, other = sorted((luminance(fills[letters]), luminance(fills[behind])))
        assert (other + 0.05) / (one + 0.05) >= 4.5, (letters, behind)
