"""The guide's table of flavors: `make test-flavors` tests what it lists, and it lists what is tested."""

import re
from pathlib import Path

from tests.flavors.test_flavors import FLAVORS

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "your-own-model.md"


def test_the_guides_table_has_the_flavors_that_are_tested():
    table = re.search(r"^\| flavor \|.*\n\|[-| ]+\n((?:\|.*\n)+)", GUIDE.read_text(encoding="utf-8"), re.M)
    listed = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.group(1).splitlines()]
    assert [name for name, *_ in listed] == list(FLAVORS)
    for name, registered, scored, probabilities, endpoint, _ in listed:
        assert (registered, scored, endpoint) == ("yes", "yes", "yes"), name
        assert probabilities == ("no" if name == "ONNX" else "yes"), name
