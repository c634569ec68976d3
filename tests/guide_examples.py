"""The examples of docs/guide/your-own-model.md, as somebody would paste them, and what comes of their models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from helpers import tracking
from helpers.data import tables
from tests.model_checks import Outcome, register_and_score

GUIDE = Path(__file__).parents[1] / "docs" / "guide" / "your-own-model.md"


def example(heading: str = "A complete example") -> str:
    """Return the code below a heading. That of another library gets the lines of the first example before it."""
    sections = dict(re.findall(r"^##+ ([^\n]+)\n(.*?)(?=^##+ |\Z)", GUIDE.read_text(encoding="utf-8"), re.M | re.S))
    code, first = (_block(sections[name]) for name in (heading, "A complete example"))
    return code if code == first else first.partition("with mlflow.start_run")[0] + code


def names() -> list[str]:
    """Return the headings of the other libraries' examples."""
    section = GUIDE.read_text(encoding="utf-8").partition("## The same in other libraries\n")[2].partition("\n## ")[0]
    return re.findall(r"^### (.+)$", section, re.M)


def run_and_register(heading: str, spark: Any, tracking_parameters: Any, table: str) -> Outcome:
    """Run an example on the table of 01_setup, register its model, and score all rows into a table."""
    tables.make_tables(
        spark, training_table="training", scoring_table="scoring", catalog="", schema="azureml_mlflow", source_path="",
        label_column="outcome", id_column="id",
    )  # fmt: skip
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(example(heading), heading, "exec"), namespace)
    session = tracking.configure(tracking_parameters())
    model_name = re.sub(r"\W+", "_", heading)
    return register_and_score(
        session, spark, namespace["split"], namespace["run"], namespace["model_uri"], model_name, table
    )


def _block(section: str) -> str:
    (code,) = re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)
    return code
