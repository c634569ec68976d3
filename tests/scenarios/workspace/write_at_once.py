"""A notebook cell for the workspace: it writes batches while other jobs write into the same table, or add columns to it."""

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from helpers import parameters, storage
from helpers.scoring import output_tables
from tests.stand_ins.databricks_workspace import delta_on_parquet

spark = SparkSession.getActiveSession()


def predictions(rows: int) -> DataFrame:
    """Return rows of a model with many outputs."""
    return spark.range(rows).withColumn("prediction", F.struct(*(F.lit(n).alias(f"output_{n}") for n in range(31))))


older = predictions(0).withColumn("batch_id", F.lit("")).writeTo("default.older")
older.partitionedBy(F.col("batch_id")).createOrReplace()


def write(table: str, batch_id: str, rows: int, others: int = 0) -> None:
    """Replace a batch, during whose first attempts so many other jobs replace another one."""
    delta_on_parquet.other_jobs.extend([lambda: write(table, "of another job", 1)] * others)
    output_tables.replace_batch(predictions(rows), table, batch_id)


storage.WRITE_ATTEMPTS = 2
for table in ("default.newer", "default.older"):
    output_tables.prepare(table, predictions(0), "wine")
    write(table, "monday", 3, others=1)
    try:
        write(table, "monday", 4, others=2)
    except parameters.ParameterError as error:
        print(error)
    delta_on_parquet.other_jobs.clear()
    columns = spark.catalog.listColumns(table)
    layout = {c.name: "partitions" if c.isPartition else "clusters" for c in columns if c.isPartition or c.isCluster}
    counts = spark.table(table).groupBy("batch_id").count().orderBy("batch_id").collect()
    print(layout, {row["batch_id"]: row["count"] for row in counts})


def write_with_input() -> None:
    """Replace a batch as a job that keeps an input, which no table had."""
    rows = predictions(1).withColumn("size in cm", F.lit(7))
    output_tables.prepare("default.newer", rows, "wine", ["size in cm"])
    output_tables.replace_batch(rows, "default.newer", "with input")


delta_on_parquet.other_jobs.append(write_with_input)
write("default.newer", "monday", 3)
sizes = spark.table("default.newer").groupBy("batch_id", "size in cm").count().orderBy("batch_id").collect()
print([tuple(row) for row in sizes])
