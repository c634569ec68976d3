"""What `make test` runs."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
# Needs libraries of its own: `make test-flavors`.
ELSEWHERE = {"tests/flavors"}


def test_each_folder_of_tests_is_among_those_that_are_run(pytestconfig):
    folders = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders - ELSEWHERE == set(pytestconfig.getini("testpaths"))
