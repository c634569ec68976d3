"""The files that a deployment copies to the workspace, and what notebooks import and show of them."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import tempfile
from pathlib import Path

from tests.bundle import notebook_code


def synced(root: Path, sync: dict) -> set[Path]:
    """Return the files that `sync` selects, relative to the root of the bundle.

    Like the CLI, leave out the files that ``.gitignore`` names, in a repository and in a copy of one.

    Parameters
    ----------
    root : pathlib.Path
    sync : dict
        ``paths``, ``exclude`` and ``include`` of the bundle.
    """
    excluded = [f"--exclude={pattern}" for pattern in sync.get("exclude") or []]
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["git", "init", "--quiet", "--bare", scratch], check=True)
        command = ["git", f"--git-dir={scratch}", f"--work-tree={root}", "ls-files", "-z", "--others"]
        command += ["--exclude-standard", *excluded, "--", *(sync.get("paths") or ["."])]
        listed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root).stdout
    included = [file for pattern in sync.get("include") or [] for file in root.glob(pattern) if file.is_file()]
    return {Path(name) for name in listed.split("\0") if name} | {file.relative_to(root) for file in included}


def missing_imports(root: Path, notebooks: list[Path], files: set[Path]) -> list[str]:
    """Return the files that are missing for the imports of notebooks, and of the modules that these import.

    Parameters
    ----------
    root : pathlib.Path
    notebooks : list of pathlib.Path
        Relative to the root, as are `files`.
    files : set of pathlib.Path

    Returns
    -------
    list of str
        One sentence per missing file or name, with the first file that imports it.
    """
    findings: list[str] = []
    seen: set[Path | str] = set()
    todo = [(notebook, notebook_code.source(root / notebook)) for notebook in notebooks]
    while todo:
        importer, source = todo.pop(0)
        for module, name in _imported_modules(source):
            if not (root / module.split(".")[0]).is_dir():
                continue  # An installed package.
            for file in _files_of(root, module, name):
                if file in seen:
                    continue
                seen.add(file)
                if not isinstance(file, Path):
                    findings.append(f"{importer} imports {file}, which does not exist")
                elif file not in files:
                    findings.append(f"{importer} imports {file}, which is not synced")
                else:
                    todo.append((file, (root / file).read_text(encoding="utf-8")))
    return findings


def missing_pictures(root: Path, notebooks: list[Path], files: set[Path]) -> list[str]:
    """Return one sentence for each picture that a notebook shows from a file that is missing or not synced.

    Parameters
    ----------
    root : pathlib.Path
    notebooks : list of pathlib.Path
        Relative to the root, as are `files`.
    files : set of pathlib.Path
    """
    findings = []
    for notebook in notebooks:
        for target in notebook_code.pictures(root / notebook):
            file = Path(os.path.normpath(notebook.parent / target))
            if not (root / file).is_file():
                findings.append(f"{notebook} shows {file}, which does not exist")
            elif file not in files:
                findings.append(f"{notebook} shows {file}, which is not synced")
    return findings


def _files_of(root: Path, module: str, name: str | None) -> list[Path | str]:
    """Return the files that an import executes and, as text, the imported name if none of them defines it."""
    parts = module.split(".")
    packages = [_module_file(root, *parts[: end + 1]) for end in range(len(parts))]
    if None in packages:
        return [module]
    files: list[Path | str] = [file for file in packages if file]
    submodule = _module_file(root, *parts, name) if name else None
    if submodule:
        files.append(submodule)
    elif name and name not in _defined((root / files[-1]).read_text(encoding="utf-8")):
        files.append(f"{module}.{name}")
    return files


@functools.cache
def _module_file(root: Path, *parts: str) -> Path | None:
    path = Path(*parts)
    candidates = [path / "__init__.py", path.with_name(path.name + ".py")]
    return next((candidate for candidate in candidates if (root / candidate).is_file()), None)


@functools.cache
def _imported_modules(source: str) -> list[tuple[str, str | None]]:
    """Return each import, at any depth: the module, and the name imported from it, if any."""
    imports: set[tuple[str, str | None]] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imports |= {(alias.name, None) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports |= {(node.module, alias.name) for alias in node.names}
    return sorted(imports, key=str)


@functools.cache
def _defined(source: str) -> set[str]:
    """Return the names that a module defines. They include local names of its functions, which is harmless."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names
