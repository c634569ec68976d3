"""What every committed notebook has to be: clean, readable, and in step with the declarations."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from helpers import parameters

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MOST_LINES = 15

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code(path):
    """The source of the cells that run, as one program."""
    cells = [cell for cell in read(path).cells if cell.cell_type == "code" and not skipped(cell)]
    return ast.parse("\n".join(cell.source for cell in cells))


def skipped(cell):
    return "skip-execution" in cell.metadata.get("tags", [])


def asked_parameters(path):
    calls = [node for node in ast.walk(code(path)) if isinstance(node, ast.Call)]
    (call,) = [call for call in calls if ast.unparse(call.func) == "runtime.parameters"]
    return parameter_names(call)


def parameter_names(call):
    """The names in a call of `runtime.parameters`; ``*parameters.TRACKING`` and the like stand for several."""
    names = []
    for argument in call.args:
        names += getattr(parameters, argument.value.attr) if isinstance(argument, ast.Starred) else [argument.value]
    return names


def test_a_notebook_is_valid(path):
    nbformat.validate(read(path))


def test_a_notebook_is_committed_without_outputs_and_machine_specific_metadata(path):
    notebook = read(path)
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3" and notebook.metadata.language_info == {"name": "python"}
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert cell.metadata.keys() <= {"tags"}


def test_a_notebook_opens_with_a_title_and_tells_before_each_step_why(path):
    cells = read(path).cells
    assert cells[0].source.startswith("# ")
    steps = [i for i, cell in enumerate(cells) if cell.cell_type == "code" and not skipped(cell)]
    for i in steps:
        if all(line.startswith(("import ", "from ")) for line in cells[i].source.splitlines()):
            continue  # The imports are explained above the first of their cells.
        assert cells[i - 1].cell_type == "markdown", f"no text before: {cells[i].source}"
        assert len(cells[i - 1].source.split()) >= 2


def test_no_cell_is_longer_than_can_be_read_at_a_glance(path):
    for cell in read(path).cells:
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= MOST_LINES, cell.source


def test_a_notebook_finds_the_helpers_from_its_own_folder(path):
    first = next(cell for cell in read(path).cells if cell.cell_type == "code" and not skipped(cell))
    assert 'sys.path.append("..")' in first.source


def test_a_notebook_asks_for_declared_parameters_and_uses_each_of_them(path):
    asked = asked_parameters(path)
    assert len(asked) == len(set(asked))
    assert set(asked) <= parameters.FIELDS.keys()
    attributes = {
        node.attr
        for node in ast.walk(code(path))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "p"
    }
    program = ast.unparse(code(path))
    assert attributes <= set(asked)
    if "tracking.configure(p" in program:
        attributes |= set(parameters.TRACKING)
    if "serving.open_endpoint(p" in program:
        attributes |= set(parameters.ENDPOINT)
    assert "vars(p)" in program or attributes == set(asked)


def test_packages_are_installed_in_a_skipped_cell_with_the_pins_of_the_requirements(path):
    pins = set(re.findall(r"^([\w.-]+==[\w.]+)", (ROOT / "requirements.txt").read_text(), re.M))
    installs = [cell for cell in read(path).cells if cell.cell_type == "code" and "%pip" in cell.source]
    assert installs
    for cell in installs:
        assert skipped(cell)
        named = set(re.findall(r"[\w.-]+==[\w.]+", cell.source))
        assert named and named <= pins


def test_links_between_notebooks_lead_somewhere(path):
    targets = re.findall(r"\]\(([^):]+\.ipynb)\)", "\n".join(cell.source for cell in read(path).cells))
    assert targets
    assert all((path.parent / target).is_file() for target in targets)
