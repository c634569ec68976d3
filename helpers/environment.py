"""Is everything here that the notebooks need, in a version that works?"""

from __future__ import annotations

import importlib.metadata
import platform
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

# What Databricks Runtime 16.4 LTS ML brings, the oldest that the bundle supports:
# https://learn.microsoft.com/azure/databricks/release-notes/runtime/16.4lts-ml
MINIMUM_VERSIONS = {
    "python": "3.10",
    "pyspark": "3.5.2",
    "mlflow-skinny": "2.21.3",
    "scikit-learn": "1.4.2",
    "pandas": "1.5.3",
    "pyarrow": "15.0.2",
    "pydantic": "2.8",
}


class UnsupportedEnvironment(RuntimeError):
    """Something that the notebooks need is missing or too old."""


def check(spark: SparkSession) -> pd.DataFrame:
    """Compare what is installed with what the bundle needs, and try Spark.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession

    Returns
    -------
    pandas.DataFrame
        Columns ``component``, ``found`` and ``needed``.

    Raises
    ------
    UnsupportedEnvironment
        If something is missing or too old; the message lists all of it.
    """
    import pandas as pd

    found = {"python": platform.python_version()}
    for package in list(MINIMUM_VERSIONS)[1:]:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            # Databricks brings pyspark without a distribution.
            found[package] = spark.version if package == "pyspark" else "missing"
    problems = [
        f"{name} is {found[name]}, {minimum} or newer is needed"
        for name, minimum in MINIMUM_VERSIONS.items()
        if _release(found[name]) < _release(minimum)
    ]
    if problems:
        raise UnsupportedEnvironment("; ".join(problems) + ". Install what requirements.txt names.")
    rows = [
        {"component": name, "found": found[name], "needed": f"{minimum} or newer"}
        for name, minimum in MINIMUM_VERSIONS.items()
    ]
    answer = spark.range(1_000).selectExpr("sum(id)").collect()[0][0]
    rows.append({"component": "Spark answers", "found": f"sum of 0…999 = {answer}", "needed": "499500"})
    return pd.DataFrame(rows)


def _release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version; of ``missing``, none."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(number) for number in numbers[0].split(".")) if numbers else ()
