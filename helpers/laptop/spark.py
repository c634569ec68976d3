"""A Spark session on a laptop that behaves like a Databricks session."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.laptop import catalog, class_data, java, jvm

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def start(local_dir: Path, master: str = "local[*]", java_options: str | None = None) -> SparkSession:
    """Start Spark with its tables in the folder ``warehouse`` of ``local_dir``.

    In a notebook of a job it runs in the job's JVM, see `helpers.laptop.jvm`. Elsewhere it starts a JVM.

    Parameters
    ----------
    local_dir : pathlib.Path
        Folder of the local state. The JVM writes its output to ``spark.log`` in it.
    master : str, default "local[*]"
        The default uses all cores in one process; ``local-cluster[2,1,1024]`` starts two executors, as on a cluster.
        https://spark.apache.org/docs/latest/submitting-applications.html#master-urls
    java_options : str, optional
        More options for the JVM. The default is those of `helpers.laptop.class_data`.

    Raises
    ------
    helpers.laptop.java.JavaNotFound
        If there is no Java that Spark can use.
    RuntimeError
        If the JVM exits at once. The message quotes the last line of its output.
    """
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    os.environ["JAVA_HOME"] = str(java.java_home())
    # The workers must run this interpreter, and not the `python3` on PATH.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    local_dir.mkdir(parents=True, exist_ok=True)
    log = local_dir / "spark.log"
    if java_options is None:
        java_options = class_data.java_options()
        jvm.connect()
    builder = SparkSession.builder.appName("azureml_mlflow").master(master)
    for name, value in settings(local_dir, java_options).items():
        builder = builder.config(name, value)
    try:
        with _output_to(log):
            spark = builder.getOrCreate()
    except PySparkRuntimeError as error:
        if error.getErrorClass() != "JAVA_GATEWAY_EXITED":
            raise
        last_line = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-1:]
        raise RuntimeError(
            f"Spark did not start with the Java in {os.environ['JAVA_HOME']}: {' '.join(last_line)} (full output: {log})"
        ) from None
    # A kernel that shuts down ends its child processes first, and keeps waiting for the JVM unless something reaps it.
    gateway: Any = spark.sparkContext._gateway
    if gateway.proc is not None:
        threading.Thread(target=gateway.proc.wait, daemon=True).start()
    catalog.register_tables(spark)
    return spark


def shared_jvm(local_dir: Path, folder: Path) -> jvm.SharedJvm | None:
    """Return the JVM in which the notebook that is executed next can `start` Spark.

    Parameters
    ----------
    local_dir : pathlib.Path
        See `start`.
    folder : pathlib.Path
        The notebook's folder.

    Returns
    -------
    helpers.laptop.jvm.SharedJvm or None
        See `helpers.laptop.jvm.shared`.
    """
    return jvm.shared(folder, settings(local_dir, class_data.java_options()), local_dir / "spark.log")


def connect() -> SparkSession:
    """Return a session of the Spark Connect server that the environment variable ``SPARK_REMOTE`` names."""
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.getOrCreate()
    catalog.register_tables(spark)
    return spark


def settings(local_dir: Path, java_options: str) -> dict[str, str]:
    """Return the settings with which Spark behaves on a laptop as on Databricks; see `start` for the parameters."""
    return {
        "spark.sql.warehouse.dir": str(local_dir / "warehouse"),
        # The same as on Databricks.
        "spark.sql.session.timeZone": "UTC",
        # Without this, `CREATE TABLE` makes a Hive table on Spark 3.
        "spark.sql.legacy.createHiveTableByDefault": "false",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        # Partitions are read from the folders, so that this session sees all rows that another session wrote.
        # Their values stay strings: the batch 2026-01-31 is a name, not a date.
        "spark.sql.hive.manageFilesourcePartitions": "false",
        "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
        # Without this, Spark lists the folders of 1,000 batches with 1,000 tasks.
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "8",
        # Without this, a session that has read a table lists the same files again after another session replaced them.
        "spark.sql.filesourceTableRelationCacheSize": "0",
        # A laptop's host name may not resolve, or may resolve to a VPN that is disconnected.
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": "2g",
        # Arrow needs both on Java 24 and later; Spark makes older versions ignore unknown options.
        "spark.driver.extraJavaOptions": (
            f"--sun-misc-unsafe-memory-access=allow -Dio.netty.noUnsafe=false {java_options}"
        ),
        "spark.sql.shuffle.partitions": "4",
        "spark.ui.enabled": "false",
    }


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Redirect the standard output and error of child processes that are started in the block to ``log``.

    The JVM inherits both for its whole life. Its warnings at the start do not concern the reader of a notebook.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = {fd: os.dup(fd) for fd in (1, 2)}
    with log.open("ab") as file:
        try:
            for fd in saved:
                os.dup2(file.fileno(), fd)
            yield
        finally:
            for fd, copy in saved.items():
                os.dup2(copy, fd)
                os.close(copy)
