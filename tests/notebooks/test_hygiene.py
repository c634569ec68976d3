"""Every committed notebook is clean, readable, and consistent with the declared parameters."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from helpers import parameters
from tests.bundle import notebook_code

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MOST_LINES = 15

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code(path):
    """The source of the notebook's cells that run, as one program."""
    cells = [cell for cell in read(path).cells if cell.cell_type == "code" and not skipped(cell)]
    return ast.parse("\n".join(cell.source for cell in cells))


def skipped(cell):
    return "skip-execution" in cell.metadata.get("tags", [])


# The parameters that a helper reads if it is passed the whole group.
READ_BY_HELPERS = {
    "tracking.configure(p": parameters.Tracking,
    "tracking.share_champion(session": parameters.Share,
    "serving.open_endpoint(session, p": parameters.Endpoint,
    "scoring.Scorer.of(session, version, p": parameters.Score,
    "cleanup.find(spark, session, p": parameters.CleanUp,
    "parameters.as_dict(p": parameters.Train,
    "monitoring.monitor(spark, p": parameters.Monitor,
}


def group(path):
    """The group of parameters that the notebook reads."""
    calls = [node for node in ast.walk(code(path)) if isinstance(node, ast.Call)]
    (call,) = [call for call in calls if ast.unparse(call.func) == "runtime.read_parameters"]
    return getattr(parameters, call.args[0].attr)


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
            continue  # The imports are explained above their first cell.
        assert cells[i - 1].cell_type == "markdown", f"no text before: {cells[i].source}"
        assert len(cells[i - 1].source.split()) >= 2


def test_no_cell_is_longer_than_can_be_read_at_a_glance(path):
    for cell in read(path).cells:
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= MOST_LINES, cell.source


def opening(path):
    """How a notebook gets its packages and its helpers: the text, the cell that installs, and the cell after it."""
    cells = read(path).cells
    at = next(i for i, cell in enumerate(cells) if skipped(cell))
    text, install, first = cells[at - 1].source, cells[at].source, cells[at + 2].source
    return text.split("\n\n")[-1], install, first.partition("\n\nfrom ")[0].partition("\n\nimport pandas")[0]


def test_all_notebooks_get_their_packages_and_their_helpers_in_the_same_way(path):
    assert opening(path) == opening(NOTEBOOKS[0])


def test_a_notebook_finds_these_helpers_although_another_package_has_their_name(path, tmp_path):
    (tmp_path / "helpers.py").write_text("raise ImportError('the other one')")
    first = next(cell for cell in read(path).cells if cell.cell_type == "code" and not skipped(cell))
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", first.source], cwd=path.parent, env=environment, check=False)
    assert done.returncode == 0


def test_a_notebook_uses_each_parameter_of_its_group_and_no_other(path):
    asked = parameters.fields_of(group(path)).keys()
    used = {
        node.attr
        for node in ast.walk(code(path))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "p"
    }
    assert used <= asked
    program = ast.unparse(code(path))
    for call, read in READ_BY_HELPERS.items():
        used |= parameters.fields_of(read).keys() & asked if call in program else set()
    assert used == asked


def test_packages_are_installed_in_a_skipped_cell_with_the_pins_of_the_requirements(path):
    pins = set((ROOT / "requirements.txt").read_text().splitlines())
    (install,) = [cell for cell in read(path).cells if cell.cell_type == "code" and "%pip" in cell.source]
    assert skipped(install)
    packages = notebook_code.installed_packages(path)
    assert packages and set(packages) <= pins
    assert re.findall(r'"([\w-]+)"', install.source) == [package.partition("==")[0] for package in packages]


def test_where_the_requirements_are_installed_the_cell_that_installs_does_nothing(path):
    _, install, _ = opening(path)
    # With something to do, it would look for get_ipython and dbutils, which are not there.
    exec(TransformerManager().transform_cell(install), {})


def test_the_first_cell_leads_to_each_other_notebook(path):
    chain = read(path).cells[0].source.splitlines()[-1]
    others = [other.name for other in NOTEBOOKS if other != path]
    assert sorted(re.findall(r"\]\((.+?)\)", chain)) == others and chain.count("**") == 2


def test_links_between_notebooks_lead_somewhere(path):
    targets = re.findall(r"\]\(([^):]+\.ipynb)\)", "\n".join(cell.source for cell in read(path).cells))
    assert targets
    assert all((path.parent / target).is_file() for target in targets)
