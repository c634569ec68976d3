"""A cell that fails when it runs for the first time in a folder."""

from pathlib import Path

mark = Path("mark")
if not mark.exists():
    mark.touch()
    raise RuntimeError("the first time")
