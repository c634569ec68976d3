"""What applies a model to rows: Spark's expressions, Python workers, or Spark ML."""
