"""The parameters, task values, packages and pictures of a notebook, read from the source of its cells without running it."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import nbformat

from helpers import parameters


def asked_parameters(notebook: Path) -> set[str]:
    """Return the parameters of the group that the notebook passes to ``runtime.read_parameters``."""
    return {
        name
        for call in _calls(notebook, "runtime.read_parameters")
        for name in parameters.fields_of(getattr(parameters, call.args[0].attr))
    }


def task_values(notebook: Path) -> set[str]:
    """Return the keys of the task values that the notebook sets."""
    return {call.args[0].value for call in _calls(notebook, "runtime.set_task_value")}


def installed_packages(notebook: Path) -> list[str]:
    """Return the requirements that the notebook's ``%pip install`` cells assign to ``packages``, as written."""
    cells = [cell.source for cell in _code_cells(notebook) if "%pip install" in cell.source]
    return [word for cell in cells for text in re.findall(r'^packages = "(.*)"$', cell, re.M) for word in text.split()]


def source(notebook: Path) -> str:
    """Return the cells that a job runs, as one program."""
    cells = [cell.source for cell in _code_cells(notebook) if "skip-execution" not in cell.metadata.get("tags", [])]
    return re.sub(r"^[%!].*$", "", "\n".join(cells), flags=re.M)


def pictures(notebook: Path) -> list[str]:
    """Return the pictures that the notebook's text shows from files, relative to its folder."""
    texts = [cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "markdown"]
    return [target for text in texts for target in re.findall(r"!\[[^\]]*\]\((?!\w+:|/)([^)\s]+)\)", text)]


def is_notebook(path: Path) -> bool:
    """Return whether a file is a notebook in Jupyter's format."""
    return _valid(path.read_text(encoding="utf-8"))


@functools.cache
def _valid(text: str) -> bool:
    try:
        nbformat.validate(nbformat.reads(text, as_version=4))
    except (ValueError, nbformat.ValidationError):
        return False
    return True


def _code_cells(notebook: Path) -> list[nbformat.NotebookNode]:
    return _cells_of(notebook.read_text(encoding="utf-8"))


@functools.cache
def _cells_of(text: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.reads(text, as_version=4).cells if cell.cell_type == "code"]


def _calls(notebook: Path, function: str) -> list[ast.Call]:
    return [call for name, call in _all_calls(source(notebook)) if name == function]


@functools.cache
def _all_calls(program: str) -> list[tuple[str, ast.Call]]:
    calls = [node for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Call)]
    return [(ast.unparse(call.func), call) for call in calls]
