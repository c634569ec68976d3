"""README and the guides: links lead to files, commands exist, and both languages have the same code and links."""

import itertools
import json
import re
from pathlib import Path

import pytest

from helpers import parameters
from helpers.jobs.bundle import Bundle
from tests.docs.pages import parse

ROOT = Path(__file__).parents[2]
JAPANESE = ROOT / "docs" / "README.ja.md"
PAGES = [ROOT / "README.md", JAPANESE, *sorted((ROOT / "docs" / "guide").glob("*.md"))]

of_each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)


def read(path):
    return path.read_text(encoding="utf-8")


@of_each_page
def test_a_link_to_a_file_leads_to_one(path):
    targets = [link.split("#")[0] for link in parse(read(path)).links if not link.startswith(("https:", "#"))]
    assert [target for target in targets if not (path.parent / target).exists()] == []


@of_each_page
def test_a_make_command_has_its_target(path):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    lists = [file.stem for file in (ROOT / "tests" / "runtimes").glob("*.txt")]
    targets |= {f"test-{kind}-{name}" for kind in ("runtime", "imports") for name in lists}
    commands = [*re.findall(r"`(make [^`]+)`", read(path)), *parse(read(path)).commands]
    named = [command.split()[1] for command in commands if command.startswith("make ")]
    assert [name for name in named if name not in targets] == []


@of_each_page
def test_a_job_and_each_of_its_parameters_exist(path):
    bundle = Bundle(ROOT)
    for command in parse(read(path)).commands:
        _, _, arguments = command.partition("-m helpers.jobs ")
        if arguments:
            keys = itertools.takewhile(lambda word: not word.startswith("--"), arguments.split())
            declared = {name for key in keys for name in bundle.job(key).parameters}
            assert set(re.findall(r"--param (\w+)=", arguments)) <= declared, command


def test_the_readme_counts_and_lists_the_notebooks():
    names = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    number = {6: "Six", 7: "Seven", 8: "Eight", 9: "Nine"}[len(names)]
    for path, counted in ((PAGES[0], f"{number} notebooks"), (JAPANESE, f"{len(names)} つのノートブック")):
        assert read(path).count(counted) == 2 and f"notebooks/           {'  '.join(names)}\n" in read(path)
    picture = read(ROOT / "docs" / "images" / "overview.svg")
    assert f"{number} notebooks" in picture and f"same {number.lower()} notebooks" in picture


def test_a_parameter_that_a_sentence_sets_exists():
    for path in PAGES:
        named = re.findall(r"`(\w+)=[^`]*`", read(path))
        assert [name for name in named if name not in parameters.FIELDS and name != "PYTHON"] == [], path.name


def test_the_japanese_page_has_the_headings_code_tables_and_links_of_the_english_one():
    english, japanese = parse(read(PAGES[0])), parse(read(JAPANESE))
    assert japanese.headings == english.headings
    assert japanese.blocks == english.blocks
    assert japanese.tables == english.tables
    moved = [link if link.startswith(("https:", "#")) else f"../{link}" for link in english.links]
    moved = [link.replace("../docs/README.ja.md", "../README.md").replace("../docs/", "") for link in moved]
    assert japanese.links == sorted(moved)


def headings(path):
    text = read(path)
    if path.suffix == ".ipynb":
        text = "\n".join(
            "".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"
        )
    return re.findall(r"^#+ (.+)$", text, re.M)


@pytest.mark.parametrize("path", PAGES[:2], ids=lambda path: path.stem)
def test_a_file_that_stands_for_a_section_of_the_article_has_the_heading(path):
    named = re.findall(r"\]\((?!https:)([^)]+)\)[,、] ?\*([^*]+)\*", read(path))
    assert len(named) >= 9
    assert [(target, name) for target, name in named if name not in headings(path.parent / target)] == []


def test_the_guide_lists_each_of_its_pages():
    listed = re.findall(r"^guide/(.+)$", read(ROOT / "docs" / "guide.md"), re.M)
    assert sorted(listed) == [path.stem for path in PAGES[2:]]


def test_the_pages_on_errors_count_those_of_the_other_page():
    readme, page = read(PAGES[0]), ROOT / "docs" / "guide" / "troubleshooting.md"
    (here,) = parse(readme.partition("## Troubleshooting")[2].partition("\n## ")[0]).tables
    (there,) = parse(read(page)).tables
    words = {5: "five", 7: "seven"}
    # A table has two lines above its rows.
    assert f"the {words[len(here) - 2]} most common errors" in read(page)
    assert f"has {words[len(there) - 2]} more" in readme and f"Here are {words[len(there) - 2]} more" in read(page)
