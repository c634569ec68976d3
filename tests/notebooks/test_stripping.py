"""What a commit removes from a notebook that was run: `.pre-commit-config.yaml`."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_output

ROOT = Path(__file__).parents[2]
HOOKS = {
    hook["id"]: hook
    for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    for hook in repo["hooks"]
}
LANGUAGE = {"name": "python", "version": "3.12.3", "mimetype": "text/x-python", "file_extension": ".py"}
LANGUAGE |= {"codemirror_mode": {"name": "ipython", "version": 3}, "pygments_lexer": "ipython3"}
# The metadata of notebook and cells that each program leaves in a notebook that was run in it.
PROGRAMS = {
    "Databricks": (
        {"application/vnd.databricks.v1+notebook": {"widgets": {"catalog": {"currentValue": "mine"}}}},
        {"application/vnd.databricks.v1+cell": {"cellMetadata": {"rowLimit": 10000}, "nuid": "1"}},
    ),
    "JupyterLab": (
        {"language_info": LANGUAGE | {"nbconvert_exporter": "python"}},
        {"execution": {"iopub.execute_input": "2026-01-01"}, "collapsed": True, "jupyter": {"outputs_hidden": True}},
    ),
    "VS Code": ({"language_info": LANGUAGE}, {"vscode": {"languageId": "python"}}),
}


def run_hook(name, file):
    program, *options = HOOKS[name]["entry"].split()
    program = Path(sys.executable).parent / Path(program).name
    subprocess.run([program, *options, *HOOKS[name].get("args", []), file], check=True, cwd=ROOT, capture_output=True)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_notebook_that_was_run_is_committed_as_it_was_before(program, tmp_path):
    committed = ROOT / "notebooks" / "02_train.ipynb"
    used = nbformat.read(committed, as_version=4)
    metadata, cell_metadata = PROGRAMS[program]
    used.metadata.update(metadata)
    for number, cell in enumerate(used.cells):
        cell.metadata.update(cell_metadata)
        if cell.cell_type == "code":
            cell.execution_count = number
            cell.outputs = [new_output("stream", text="a token"), new_output("display_data", {"text/plain": "1"})]
    file = tmp_path / "used.ipynb"
    nbformat.write(used, file)
    assert "a token" in file.read_text(encoding="utf-8")
    run_hook("nbstripout", file)
    assert file.read_bytes() == committed.read_bytes()


def test_code_that_is_not_in_the_projects_format_is_mended_in_a_notebook_too(tmp_path):
    file = tmp_path / "untidy.ipynb"
    shutil.copy(ROOT / "notebooks" / "02_train.ipynb", file)
    tidy = file.read_text(encoding="utf-8")
    file.write_text(tidy.replace("sys.path.insert(0, root)", "sys.path.insert( 0,root )"), encoding="utf-8")
    assert file.read_text(encoding="utf-8") != tidy
    run_hook("ruff-format", file)
    assert file.read_text(encoding="utf-8") == tidy
