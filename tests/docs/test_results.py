"""The notebooks with outputs that can be read in the repository are the notebooks of today."""

import re

import nbformat
import pytest

from docs import results
from tests.docs.pages import parse

FOLDER = results.ROOT / "docs" / "results"


@pytest.mark.parametrize("name", results.NAMES)
def test_a_page_has_each_cell_of_its_notebook_outputs_and_no_error_or_warning(name):
    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    notebook = nbformat.read(results.ROOT / "notebooks" / f"{name}.ipynb", 4)
    cells = [cell for cell in notebook.cells if "skip-execution" not in cell.metadata.get("tags", [])]
    sources = [results.linked(cell.source, FOLDER) if cell.cell_type == "markdown" else cell.source for cell in cells]
    assert [source for source in sources if source not in text] == [], "`make docs` writes it anew"
    assert "<table" in text and not re.search(r"Traceback|Warning|WARN|[^…]/\.local|<style", text)


@pytest.mark.parametrize("name", results.NAMES)
def test_a_link_of_a_page_leads_to_a_file(name):
    links = parse((FOLDER / f"{name}.md").read_text(encoding="utf-8")).links
    targets = [link.split("#")[0] for link in links if not link.startswith(("https:", "http:", "#"))]
    assert len(targets) > 5 and [target for target in targets if not (FOLDER / target).exists()] == []
