"""Check that the installed packages are new enough for the notebooks, and that Spark works."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import TYPE_CHECKING

from packaging.version import Version

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

# The versions in Databricks Runtime 16.4 LTS ML, the oldest runtime that the bundle supports:
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
# What ML runtimes have and other compute does not: the package to install for a module. Only some parameters need it, so
# the notebooks' %pip cells do not install it.
OPTIONAL_PACKAGES = {"optuna": "optuna==3.6.1", "xgboost": "xgboost-cpu==3.2.0"}


class UnsupportedEnvironment(RuntimeError):
    """A package that the notebooks need is missing or too old."""


def check(spark: SparkSession) -> pd.DataFrame:
    """Compare the installed versions with those that the bundle needs, and run a query.

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
        If a package is missing or too old; the message lists all such packages.
    """
    import pandas as pd

    installed = {name: _installed_version(name, spark) for name in MINIMUM_VERSIONS}
    problems = [
        f"{name} is {installed[name] or 'missing'}, {minimum} or newer is needed"
        for name, minimum in MINIMUM_VERSIONS.items()
        if not is_new_enough(installed[name], minimum)
    ]
    if problems:
        raise UnsupportedEnvironment("; ".join(problems) + ". Install the packages of requirements.txt.")
    rows = [
        {"component": name, "found": installed[name], "needed": f"{minimum} or newer"}
        for name, minimum in MINIMUM_VERSIONS.items()
    ]
    answer = spark.range(1_000).selectExpr("sum(id)").collect()[0][0]
    rows.append({"component": "Spark answers", "found": f"sum of 0…999 = {answer}", "needed": "499500"})
    return pd.DataFrame(rows)


def is_new_enough(installed: str | None, minimum: str) -> bool:
    """Return whether a version is at least another one; None, a package that is missing, is not."""
    return installed is not None and Version(installed) >= Version(minimum)


def how_to_install(module: str) -> str:
    """Say that a module is missing and what to do, for the error of the parameter that needs it."""
    package = OPTIONAL_PACKAGES.get(module, module)
    return f"needs {module}, which is not installed here. Install it with `%pip install {package}`"


def _installed_version(name: str, spark: SparkSession) -> str | None:
    if name == "python":
        return ".".join(str(part) for part in sys.version_info[:3])
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        # Databricks installs pyspark without the metadata of a package.
        return spark.version if name == "pyspark" else None
