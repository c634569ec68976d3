"""Make the archive of `helpers.laptop.class_data`.

``make`` runs ``python -m helpers.laptop.make_class_data`` after it has installed the packages.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.laptop import catalog, spark
from helpers.laptop.class_data import ARCHIVE

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def main() -> None:
    """Run a session that does what the notebooks do, and archive the classes that it loads."""
    ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
    draft = ARCHIVE.with_suffix(f".{os.getpid()}")
    with tempfile.TemporaryDirectory() as folder:
        session = spark.start(Path(folder), java_options=f"-XX:ArchiveClassesAtExit='{draft}'")
        _load_classes(session)
        gateway: Any = session.sparkContext._gateway
        session.stop()
        # The JVM writes the archive when it exits, and it exits when its standard input is closed.
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait()
    # A JVM that has no archive of Java's own classes cannot make this one; spark.log says so.
    if draft.exists():
        draft.replace(ARCHIVE)
        print(f"Spark's classes: {ARCHIVE}")


def _load_classes(session: SparkSession) -> None:
    import pandas as pd
    from pyspark.sql import functions as F

    rows = session.createDataFrame(pd.DataFrame({"id": [1, 2], "x": [0.5, None], "name": ["a", None]}))
    session.sql("CREATE SCHEMA classes")
    empty = rows.where("false").withColumn("batch_id", F.lit(""))
    catalog.replace_table(empty, "classes.batches", {"key": "value"}, partitioned_by="batch_id")
    copied = rows.where("id < 3").mapInArrow(lambda batches: batches, rows.schema)
    catalog.replace_partition(copied, "classes.batches", "batch_id", "1")
    table = session.table("classes.batches").where(F.col("batch_id") == "1")
    table.groupBy("name").agg(F.count_distinct("id"), F.sum(F.hash("x"))).orderBy("name").toPandas()


if __name__ == "__main__":
    main()
