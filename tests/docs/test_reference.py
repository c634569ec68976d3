"""The site's API reference, and the names by which docstrings and pages refer to the code."""

import pkgutil
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "README.ja.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
WITH_NAMES = [*PAGES, *sorted((ROOT / "notebooks").glob("*.ipynb")), *sorted((ROOT / "helpers").rglob("*.py"))]


def test_the_reference_lists_each_module_of_helpers():
    listed = re.findall(r"^   helpers\.(\w+)$", (ROOT / "docs" / "api" / "index.rst").read_text(), re.M)
    modules = {
        path.stem for path in (ROOT / "helpers").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert sorted(listed) == sorted(modules - {"__init__"})


@pytest.mark.parametrize("path", WITH_NAMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_class_or_function_that_is_named_exists(path):
    for name in set(re.findall(r"`(helpers(?:\.\w+)+)", path.read_text(encoding="utf-8"))):
        pkgutil.resolve_name(name)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_table_that_a_page_names_is_in_the_file_that_it_names(path):
    page = path.read_text(encoding="utf-8")
    for table, target in re.findall(r"`([A-Z_]+)`\s+in\s+\[[^]]+\]\(([^)]+)\)", page):
        assert re.search(rf"^{table}\b", (path.parent / target).read_text(), re.M), f"{table} in {target}"
    for text, target in re.findall(r"\[([\w/]+\.py)\]\(([^)]+)\)", page):
        assert target.endswith(text), f"{text} leads to {target}"
