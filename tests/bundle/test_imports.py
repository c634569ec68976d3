"""On compute that is not an ML runtime, all imports are there after the notebooks' %pip cell.

This looks at names only; ``make test-runtimes`` installs the packages and runs the imports.
"""

import functools
import importlib.metadata
import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.bundle import notebook_code
from tests.runtimes import imports

RUNTIMES = imports.ROOT / "tests" / "runtimes"


def with_what_they_need(packages):
    """The names of packages and of all that these install, as the packages of this environment say."""
    seen, todo = set(), [Requirement(package) for package in packages]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        todo += [Requirement(needed) for needed in importlib.metadata.requires(name) or []]
    return seen


installed_packages = functools.cache(importlib.metadata.packages_distributions)


def packages_of(module):
    """The names of the packages that may contain a module; a namespace such as ``azure`` is of many."""
    of_root = {canonicalize_name(name) for name in installed_packages()[module.partition(".")[0]]}
    dashed = module.replace(".", "-") + "-"
    return {name for name in of_root if dashed.startswith(f"{name}-")} or of_root


@pytest.mark.parametrize("name", ["serverless-5", "17.3-standard"])
def test_whatever_is_imported_is_in_the_environment_or_installed_by_the_notebooks(name):
    listed = set(re.findall(r"^([\w.-]+)==", (RUNTIMES / f"{name}.txt").read_text(), re.M))
    installed = with_what_they_need(notebook_code.installed_packages(imports.NOTEBOOKS[0]))
    imported = {module: packages_of(module) for module in imports.statements()}
    assert {module: packages for module, packages in imported.items() if not packages & (listed | installed)} == {}
