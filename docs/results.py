"""Write notebooks with their outputs as Markdown, which can be read in the repository itself.

``python -m docs.results`` takes them from the site's executed notebooks, so `make docs` calls it.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXECUTED = ROOT / "docs" / "notebooks"
NAMES = ("02_train", "04_batch_score")
_LINK = re.compile(r"\]\((?!\w+:|#|/)(?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def main() -> None:
    """Write the pages and their pictures."""
    for name in NAMES:
        write(EXECUTED / f"{name}.ipynb", ROOT / "docs" / "results")


def write(executed: Path, folder: Path) -> None:
    """Write a page, and its pictures beside it.

    Parameters
    ----------
    executed : pathlib.Path
        A notebook of this bundle with outputs. Its links start in the folder ``notebooks``.
    folder : pathlib.Path
    """
    import nbformat
    from nbconvert import MarkdownExporter

    notebook = nbformat.read(executed, as_version=4)
    # It prints nothing where nothing has to be installed.
    notebook.cells = [cell for cell in notebook.cells if "skip-execution" not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = linked(cell.source, folder)
    name = executed.stem
    text, resources = MarkdownExporter().from_notebook_node(notebook, resources={"output_files_dir": name})
    # GitHub shows the style of pandas' tables as text.
    text = re.sub(r"<style scoped>.*?</style>\n?", "", text, flags=re.DOTALL)
    shutil.rmtree(folder / name, ignore_errors=True)
    for file, content in resources["outputs"].items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    note = f"[{name}](../../notebooks/{name}.ipynb) with its outputs, from `make docs` on a laptop.\n\n"
    (folder / f"{name}.md").write_text(note + text, encoding="utf-8")


def linked(text: str, folder: Path) -> str:
    """Return the Markdown of a notebook with links that start in another folder."""

    def moved(match: re.Match[str]) -> str:
        target = os.path.relpath(ROOT / "notebooks" / match["target"], folder)
        return f"]({Path(target).as_posix()}{match['anchor'] or ''})"

    return _LINK.sub(moved, text)


if __name__ == "__main__":
    main()
