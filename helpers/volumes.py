"""Spark ML models on their way to MLflow and back, which on some compute pass through a Unity Catalog volume.

Spark writes and reads such a model where its server is, and MLflow copies it from and to this process's disk. Both see a
volume. MLflow takes its path from the environment variable ``MLFLOW_DFS_TMP``:
https://github.com/mlflow/mlflow/blob/v3.15.0/mlflow/spark/__init__.py
"""

from __future__ import annotations

import atexit
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import runtime
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

VARIABLE = "MLFLOW_DFS_TMP"
VOLUME = "mlflow_tmp"
ROOT = "/Volumes"
# Spark ML is there since version 4, but not all of what MLflow calls:
# https://learn.microsoft.com/azure/databricks/release-notes/serverless/environment-version/five
FIRST_ENVIRONMENT = 5


def make_model_volume(spark: SparkSession, catalog: str, schema: str) -> str:
    """Create the volume, where Spark ML models need one.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    catalog, schema : str
        An empty catalog is the current one.

    Returns
    -------
    str
        What was done, for the reader.
    """
    from pyspark.errors import PySparkException

    if not _is_needed(spark):
        return "Spark ML models need no volume here"
    name = f"`{catalog or spark.catalog.currentCatalog()}`.`{schema}`.{VOLUME}"
    try:
        spark.sql(f"CREATE VOLUME IF NOT EXISTS {name}")
    except PySparkException as error:
        return f"model_flavor=spark cannot be used here: the volume {name} cannot be created ({str(error).splitlines()[0]})"
    return f"volume {name}: for models of model_flavor=spark on their way to MLflow"


def use_model_volume(catalog: str, schema: str) -> None:
    """Have MLflow use the volume of `make_model_volume`, if Spark ML models need one here and it is there."""
    if not runtime.in_databricks() or not _is_needed(runtime.spark()):
        return
    folder = Path(ROOT, catalog or runtime.spark().catalog.currentCatalog(), schema, VOLUME)
    if folder.is_dir():
        os.environ[VARIABLE] = str(folder)


def check_spark_ml(parameter: str, value: str) -> None:
    """Check that MLflow can save and load Spark ML models here.

    Parameters
    ----------
    parameter, value : str
        What asked for it, for the error.

    Raises
    ------
    helpers.parameters.ParameterError
        If not.
    """
    spark = runtime.spark()
    if not runtime.in_databricks():
        if runtime.uses_spark_connect(spark):
            raise ParameterError(
                parameter,
                value,
                "MLflow's Spark flavor needs Spark's JVM in this process, and SPARK_REMOTE names a server. Unset SPARK_REMOTE",
            )
        return
    version = os.environ.get("DATABRICKS_ENV_VERSION", "").partition(".")[0]
    if runtime.is_serverless() and version.isdecimal() and int(version) < FIRST_ENVIRONMENT:
        raise ParameterError(
            parameter,
            value,
            f"on serverless compute, Spark ML models need environment version {FIRST_ENVIRONMENT}; this is version {version}. "
            "Choose a newer one in the notebook's environment panel, or as environment_version in databricks.yml",
        )
    if _is_needed(spark):
        raise ParameterError(
            parameter,
            value,
            f"on this compute MLflow passes Spark ML models through a Unity Catalog volume. Run 01_setup with the same catalog "
            f"and schema, which creates the volume {VOLUME}; or set the environment variable {VARIABLE} to a folder below "
            "/Volumes",
        )


def model_folder() -> str | None:
    """Return a folder for a model on its way to Spark, as MLflow's argument ``dfs_tmpdir``: None where it needs no volume.

    The folder is deleted when the process ends, because Spark may read from it at any point.
    """
    volume = os.environ.get(VARIABLE, "")
    if not volume.startswith(ROOT):
        return None
    folder = Path(volume, uuid.uuid4().hex)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(folder)


def _is_needed(spark: SparkSession) -> bool:
    """Return whether MLflow has no place for a Spark ML model yet: not even the DBFS root, which a workspace can turn off."""
    if not runtime.in_databricks() or os.environ.get(VARIABLE):
        return False
    return runtime.uses_spark_connect(spark) or not Path("/dbfs").is_mount()
