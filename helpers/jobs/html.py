"""The HTML copies of executed notebooks, and the links between them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from helpers.jobs.results import TaskResult

_LINK = re.compile(r'<a href="(?P<notebook>[^":/#]+\.ipynb)(?:#[^"]*)?">(?P<text>.*?)</a>', re.DOTALL)


def write_html(notebook: Any, title: str, folder: Path, file: Path) -> None:
    """Write a notebook with its outputs as a page that can be moved: pictures of the notebook's folder are in it.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
    title : str
        Title of the page.
    folder : pathlib.Path
        Of the notebook.
    file : pathlib.Path
    """
    from nbconvert import HTMLExporter

    resources = {"metadata": {"name": title, "path": str(folder)}}
    page, _ = HTMLExporter(embed_images=True).from_notebook_node(notebook, resources=resources)
    file.write_text(page, encoding="utf-8")


def link_pages(tasks: Iterable[TaskResult]) -> None:
    """Make the links between notebooks lead to the pages of the same run.

    In the folder ``notebooks`` a link leads to the notebook beside it, which the folder of the pages does not have. A link to
    a notebook that has no page becomes plain text.

    Parameters
    ----------
    tasks : iterable of helpers.jobs.results.TaskResult
        All of the run. If a notebook has run several times, links lead to its last page.
    """
    written = [(task.notebook, Path(task.html)) for task in tasks if task.notebook and task.html]
    last = dict(written)
    for _, page in written:
        text = page.read_text(encoding="utf-8")
        page.write_text(_LINK.sub(partial(_linked, last, page.parent), text), encoding="utf-8")


def _linked(pages: Mapping[str, Path], folder: Path, link: re.Match[str]) -> str:
    page = pages.get(link["notebook"])
    if page is None:
        return link["text"]
    return f'<a href="{Path(os.path.relpath(page, folder)).as_posix()}">{link["text"]}</a>'
