"""The site's API reference."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_reference_lists_each_module_of_helpers():
    listed = re.findall(r"^   helpers\.(\w+)$", (ROOT / "docs" / "api" / "index.rst").read_text(), re.M)
    modules = {
        path.stem for path in (ROOT / "helpers").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert sorted(listed) == sorted(modules - {"__init__"})
