"""A Spark session on a laptop that behaves as a Databricks one does."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.laptop import catalog as local_catalog
from helpers.laptop import class_data as local_class_data
from helpers.laptop import java

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def start(local_dir: Path, master: str = "local[*]", java_options: str | None = None) -> SparkSession:
    """Start Spark, with its tables under ``local_dir``/warehouse.

    Parameters
    ----------
    local_dir : pathlib.Path
        Folder of the local state. The JVM's own output goes to ``spark.log`` in it.
    master : str, default "local[*]"
        All cores in one process; ``local-cluster[2,1,1024]`` is two executors, as on a cluster.
        https://spark.apache.org/docs/latest/submitting-applications.html#master-urls
    java_options : str, optional
        More options for the JVM. Those of `helpers.laptop.class_data` if there are none.

    Raises
    ------
    helpers.laptop.java.JavaNotFound
        If there is no Java 17 or newer.
    RuntimeError
        If the JVM ends at once; the message quotes its last words.
    """
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    os.environ["JAVA_HOME"] = str(java.java_home())
    # The workers must run this interpreter, not whatever `python3` is on PATH.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    local_dir.mkdir(parents=True, exist_ok=True)
    log = local_dir / "spark.log"
    if java_options is None:
        java_options = local_class_data.java_options()
    builder = (
        SparkSession.builder.appName("azureml_mlflow")
        .master(master)
        .config("spark.sql.warehouse.dir", str(local_dir / "warehouse"))
        # As on Databricks.
        .config("spark.sql.session.timeZone", "UTC")
        # `CREATE TABLE` makes no Hive table; Spark 3 would.
        .config("spark.sql.legacy.createHiveTableByDefault", "false")
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
        # Folders are the truth about partitions, so that tables written by another session are
        # seen whole; and a batch called 2026-01-31 is a name, not a date.
        .config("spark.sql.hive.manageFilesourcePartitions", "false")
        .config("spark.sql.sources.partitionColumnTypeInference.enabled", "false")
        # A laptop's host name may resolve to nothing, or to a VPN that is gone.
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.memory", "2g")
        # Arrow needs both on Java 24 and later; Spark has older ones ignore what they do not know.
        .config(
            "spark.driver.extraJavaOptions",
            f"--sun-misc-unsafe-memory-access=allow -Dio.netty.noUnsafe=false {java_options}",
        )
        .config("spark.sql.shuffle.partitions", "4")
        .config("spark.ui.enabled", "false")
    )
    try:
        with _output_to(log):
            spark = builder.getOrCreate()
    except PySparkRuntimeError as error:
        if error.getErrorClass() != "JAVA_GATEWAY_EXITED":
            raise
        last_words = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-1:]
        raise RuntimeError(
            f"Spark did not start with the Java in {os.environ['JAVA_HOME']}: {' '.join(last_words)} (all of it: {log})"
        ) from None
    # A kernel that ends ends its children first, and goes on waiting for one whose end nobody has asked for.
    gateway: Any = spark.sparkContext._gateway
    threading.Thread(target=gateway.proc.wait, daemon=True).start()
    local_catalog.register_tables(spark)
    return spark


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Give child processes started in the block ``log`` as their standard output and error.

    The JVM inherits both for its whole life; its start-up warnings are not the reader's.
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
