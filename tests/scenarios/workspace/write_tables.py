"""A notebook cell for the workspace: it writes and reads tables, and queries the platform."""

from pyspark.sql import SparkSession

from helpers import output, runtime, storage
from helpers.data import tables

spark = SparkSession.getActiveSession()
print(runtime.BUNDLE_ROOT, runtime.default_tracking_mode(), runtime.in_job(), runtime.workspace_user())
schema = spark.sql("SELECT 1L AS `Bottle No.`, '' AS batch").schema
for mark in ("x", "a job that comes too late"):
    storage.create_table(spark, "default.scored", schema, "batch", {"mark": mark})
for batch, first, end in (("a", 1, 3), ("b", 3, 4), ("a", 4, 5)):
    storage.replace_rows(spark.range(first, end).toDF("Bottle No."), "default.scored", "batch", batch)
print(sorted(map(tuple, spark.table("default.scored").collect())), tables.properties(spark, "default.scored")["mark"])
storage.replace_table(spark.table("default.scored").where("`Bottle No.` > 3"), "default.scored")
output.display(spark.table("default.scored"))
storage.drop_table(spark, "default.scored")
print(tables.exists(spark, "default.scored"))
