"""The errors of `make check` for an import of a higher layer, and for a circle of imports."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lint(folder):
    command = [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"]
    environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT / "helpers", tmp_path / "helpers", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_helpers_keep_to_their_layers(copy):
    done = lint(copy)
    assert done.returncode == 0 and "2 kept, 0 broken" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("data/names.py", "def f():\n    from helpers import scoring\n", "helpers.data.names -> helpers.scoring"),
        ("laptop/java.py", "from helpers import runtime\n", "helpers.laptop.java -> helpers.runtime"),
        (
            "tracking/servers/local.py",
            "if TYPE_CHECKING:\n    from helpers.tracking.session import Session\n",
            ".servers -> .session",
        ),
    ],
)
def test_an_import_that_goes_up_or_round_fails_with_the_two_modules(copy, file, line, message):
    with (copy / "helpers" / file).open("a") as module:
        module.write(line)
    done = lint(copy)
    assert done.returncode == 1 and message in done.stdout
