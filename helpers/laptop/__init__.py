"""What a laptop needs that a Databricks cluster has: Spark, a catalog, ``dbutils``, progress bars, Java."""
