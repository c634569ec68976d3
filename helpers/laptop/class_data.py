"""Spark's classes, parsed once: an archive that the JVM of each later session maps into its memory.

``python -m helpers.laptop.class_data`` makes it, which ``make`` does after it installed the packages:
https://docs.oracle.com/en/java/javase/17/vm/class-data-sharing.html
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ARCHIVE = Path(sys.prefix, "share", "spark-classes.jsa")


def java_options() -> str:
    """Return what a JVM needs to be told to use the archive: nothing if there is none.

    A JVM looks whether the archive was made by its like from the same jars, and does without it otherwise.
    """
    # Spark splits the options at spaces, which the path may have, too.
    return f"-XX:SharedArchiveFile='{ARCHIVE}' -Xlog:cds=off -Xlog:cds+dynamic=off" if ARCHIVE.exists() else ""


def main() -> None:
    """Make the archive of the classes that a session loads which does what the notebooks do."""
    from helpers.laptop import spark as local_spark

    ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
    draft = ARCHIVE.with_suffix(f".{os.getpid()}")
    with tempfile.TemporaryDirectory() as folder:
        spark = local_spark.start(Path(folder), java_options=f"-XX:ArchiveClassesAtExit='{draft}'")
        _load_classes(spark)
        gateway: Any = spark.sparkContext._gateway
        spark.stop()
        # The JVM ends with its standard input, and writes the archive then.
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait()
    # A Java without an archive of its own classes makes none, and says so in the log.
    if draft.exists():
        draft.replace(ARCHIVE)
        print(f"Spark's classes: {ARCHIVE}")


def _load_classes(spark: SparkSession) -> None:
    import pandas as pd
    from pyspark.sql import functions as F

    from helpers.laptop import catalog as local_catalog

    rows = spark.createDataFrame(pd.DataFrame({"id": [1, 2], "x": [0.5, None], "name": ["a", None]}))
    spark.sql("CREATE SCHEMA classes")
    with local_catalog.new_table(spark, "classes.batches"):
        empty = rows.where("false").withColumn("batch_id", F.lit(""))
        empty.writeTo("classes.batches").tableProperty("key", "value").partitionedBy(F.col("batch_id")).create()
    copied = rows.where("id < 3").mapInArrow(lambda batches: batches, rows.schema)
    local_catalog.replace_partition(copied, "classes.batches", "batch_id", "1")
    table = spark.table("classes.batches").where(F.col("batch_id") == "1")
    table.groupBy("name").agg(F.count_distinct("id"), F.sum(F.hash("x"))).orderBy("name").toPandas()


if __name__ == "__main__":
    main()
