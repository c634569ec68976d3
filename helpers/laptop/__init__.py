"""What Databricks provides and a laptop lacks: Spark, a catalog, ``dbutils``, progress bars, Java."""
