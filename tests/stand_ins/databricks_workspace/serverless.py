"""Serverless compute: a session of a Spark Connect server that refuses what Databricks refuses there.

https://learn.microsoft.com/azure/databricks/compute/serverless/limitations
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

# MLflow knows serverless compute by the first.
VARIABLES = {"DATABRICKS_ENV_VERSION": "5", "DATABRICKS_RUNTIME_VERSION": "client.5.0", "IS_SERVERLESS": "TRUE"}
# https://learn.microsoft.com/azure/databricks/spark/conf
SETTINGS = {
    "spark.databricks.execution.timeout", "spark.sql.ansi.enabled", "spark.sql.files.maxPartitionBytes",
    "spark.sql.legacy.timeParserPolicy", "spark.sql.session.timeZone", "spark.sql.shuffle.partitions",
}  # fmt: skip
READABLE = SETTINGS | {"spark.databricks.workspaceUrl"}
# What runs foreachBatch writes Delta tables as well.
_EACH_PYTHON = """
if any("foreach_batch_worker" in argument for argument in sys.orig_argv):
    sys.path.insert(0, {platform!r})
    from pathlib import Path

    from pyspark.sql.connect.dataframe import DataFrame

    from tests.stand_ins.databricks_workspace import delta_on_parquet

    delta_on_parquet.install(DataFrame, Path({copies!r}))
"""


def each_python(platform: Path, folder: Path) -> str:
    """Return the code that each Python process of the server runs first."""
    return _EACH_PYTHON.format(platform=str(platform), copies=str(folder / "copies"))


def session(server: str, folder: Path) -> Any:
    """Return the session of a notebook.

    Parameters
    ----------
    server : str
        Address of a Spark Connect server.
    folder : pathlib.Path
        Its subfolder ``Volumes`` has the volumes.
    """
    # While it is imported on Databricks, MLflow asks for the platform's tokens, which are not imitated.
    import mlflow.spark
    from pyspark.errors import AnalysisException
    from pyspark.errors.exceptions.connect import SparkConnectGrpcException
    from pyspark.sql import SparkSession
    from pyspark.sql.connect.conf import RuntimeConf
    from pyspark.sql.connect.dataframe import DataFrame

    # Only root can make a folder /Volumes.
    mlflow.spark._is_uc_volume_uri = lambda uri: uri.startswith(f"{folder}/Volumes/")
    os.environ.update(VARIABLES, SPARK_REMOTE=server)
    spark = SparkSession.builder.remote(server).getOrCreate()
    for name, known in (("get", READABLE), ("set", SETTINGS), ("unset", SETTINGS)):
        _restrict(RuntimeConf, name, known, AnalysisException)

    def not_supported(self: DataFrame, *arguments: object) -> None:
        raise SparkConnectGrpcException(
            "[NOT_SUPPORTED_WITH_SERVERLESS] PERSIST TABLE is not supported on serverless compute."
        )

    DataFrame.cache = DataFrame.persist = not_supported
    plain_sql = type(spark).sql

    def sql(self: SparkSession, text: str, *arguments: Any, **named: Any) -> DataFrame:
        volume = re.fullmatch(r"CREATE VOLUME IF NOT EXISTS `(\w+)`\.`(\w+)`\.(\w+)", text)
        if not volume:
            return plain_sql(self, text, *arguments, **named)
        if volume[1] == "spark_catalog":
            raise AnalysisException(
                f"[UC_NOT_ENABLED] Unity Catalog is not enabled on this cluster, so not for {volume[1]}."
            )
        Path(folder, "Volumes", *volume.groups()).mkdir(parents=True, exist_ok=True)
        return plain_sql(self, "SELECT 1")

    type(spark).sql = sql
    return spark


def _restrict(kind: type, name: str, known: set[str], error: type[Exception]) -> None:
    plain = getattr(kind, name)

    def restricted(self: object, key: str, *arguments: object) -> object:
        # PySpark asks for settings of its own.
        if key not in known and not sys._getframe(1).f_globals["__name__"].startswith("pyspark."):
            # With a default, too: https://github.com/databricks/databricks-sdk-py/issues/1112
            raise error(f"[CONFIG_NOT_AVAILABLE] Configuration {key} is not available. SQLSTATE: 42K0I")
        return plain(self, key, *arguments)

    setattr(kind, name, restricted)
