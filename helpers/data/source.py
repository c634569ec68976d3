"""The data that set-up loads: the user's files, or a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SAMPLE = "scikit-learn's breast-cancer data"


def read_source(spark: SparkSession, source_path: str) -> DataFrame:
    """Read a CSV (with a header line) or Parquet file or folder.

    Column names stay as they are. The types of CSV columns are inferred.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    source_path : str

    Raises
    ------
    helpers.parameters.ParameterError
        If the path cannot be read, has neither CSV nor Parquet files or both, or has no rows.
    """
    from pyspark.errors import AnalysisException

    try:
        files = spark.read.format("binaryFile").option("recursiveFileLookup", True).load(source_path).inputFiles()
    except AnalysisException as error:
        reason = str(error).splitlines()[0]
        raise ParameterError("source_path", source_path, f"cannot be read: {reason}") from None
    formats = {kind for file in files for kind in ("csv", "parquet") if f".{kind}" in file.rsplit("/", 1)[-1].lower()}
    if len(formats) != 1:
        contents = " and ".join(sorted(formats)) or "no .csv or .parquet file"
        raise ParameterError("source_path", source_path, f"must have either CSV or Parquet files; it has {contents}")
    reader = spark.read
    if formats == {"csv"}:
        # Quoted fields may span lines, and a quote in them is doubled (RFC 4180).
        reader = reader.options(header=True, inferSchema=True, multiLine=True, quote='"', escape='"')
    rows = reader.format(formats.pop()).load(source_path)
    if rows.isEmpty():
        raise ParameterError("source_path", source_path, "has no rows")
    return rows


def sample_rows(spark: SparkSession) -> DataFrame:
    """Return the breast-cancer data set that ships with scikit-learn: 569 rows, 30 features."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer(as_frame=True)
    rows = data.data.rename(columns=lambda name: name.replace(" ", "_"))
    rows.insert(0, "id", range(len(rows)))
    rows["diagnosis"] = data.target.map(dict(enumerate(data.target_names.tolist())))
    return spark.createDataFrame(rows)
