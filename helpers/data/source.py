"""The data that set-up loads: the user's files, or a sample."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from helpers import kinds
from helpers.data import csv_files
from helpers.data.csv_files import CsvOptions
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def read_source(spark: SparkSession, source_path: str, csv: CsvOptions | None = None) -> DataFrame:
    """Read a CSV file (with a header line), a Parquet file, or all files of one of these kinds in a folder.

    Files in subfolders are read, too. Column names stay as they are, without spaces around them.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    source_path : str
    csv : helpers.data.csv_files.CsvOptions, optional
        How CSV files are written. Default: with commas, in UTF-8.

    Raises
    ------
    helpers.parameters.ParameterError
        If the path cannot be read, has neither CSV nor Parquet files or both, or has no rows; and for everything that
        `helpers.data.csv_files.read` refuses.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import AnalysisException, PySparkException

    # A folder's name may have the characters of a pattern.
    path = csv_files.escaped(source_path) if Path(source_path).exists() else source_path
    try:
        listed = spark.read.format("binaryFile").option("recursiveFileLookup", True).load(path).inputFiles()
    except AnalysisException as error:
        raise ParameterError("source_path", source_path, f"cannot be read: {str(error).splitlines()[0]}") from None
    files = {
        kind: sorted(file for file in listed if re.search(rf"\.{kind}(\.\w+)?$", file.rsplit("/", 1)[-1].lower()))
        for kind in ("csv", "parquet")
    }
    formats = [kind for kind, found in files.items() if found]
    if len(formats) != 1:
        contents = " and ".join(formats) or "no .csv or .parquet file"
        raise ParameterError("source_path", source_path, f"must have either CSV or Parquet files; it has {contents}")
    try:
        if formats == ["csv"]:
            rows = csv_files.read(spark, files["csv"], source_path, csv or CsvOptions())
        else:
            rows = _read_parquet(spark, path, files["parquet"])
        is_empty = rows.isEmpty()
    except (PySparkException, Py4JError) as error:
        raise ParameterError("source_path", source_path, f"cannot be read: {_reason(error)}") from None
    if is_empty:
        raise ParameterError("source_path", source_path, "has no rows")
    return rows


def _read_parquet(spark: SparkSession, path: str, files: list[str]) -> DataFrame:
    """Read Parquet files; the columns are those of all files, with nulls where a file lacks one."""
    reader = spark.read.option("mergeSchema", True)
    # Folders such as `day=2026-01-31` are a column. Spark reads others only if it does not look for such columns.
    if any("=" in folder for file in files for folder in file.split("/")[:-1]):
        return reader.option("pathGlobFilter", "*.[pP][aA][rR][qQ][uU][eE][tT]*").parquet(path)
    return reader.parquet(*(csv_files.escaped(unquote(file)) for file in files))


def _reason(error: Exception) -> str:
    """Return what Spark says, in one line, and what to do about it where that is known."""
    text = str(getattr(error, "java_exception", error))
    if "TIMESTAMP(NANOS" in text:
        return "a timestamp has nanoseconds, which Spark does not have. Write it with pandas' coerce_timestamps='us'"
    if "CANNOT_MERGE_SCHEMAS" in text:
        types = re.findall('"STRUCT<(.*)>"', text)
        return f"a column has different types in different files: {' and '.join(types)}. Write the files anew with one type"
    return next((line for line in text.splitlines() if line.strip()), type(error).__name__)[:300]


def sample_rows(spark: SparkSession, sample_data: str = "diabetes") -> DataFrame:
    """Return a data set that ships with scikit-learn, with an ``id`` and the label ``outcome``.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    sample_data : str, default "diabetes"
        One of `helpers.kinds.SAMPLES`; see `helpers.data.samples`.
    """
    return spark.createDataFrame(kinds.load(kinds.SAMPLES, sample_data)())


def sample_name(sample_data: str = "diabetes") -> str:
    """Return how people call a data set of scikit-learn."""
    return f"scikit-learn's {sample_data.replace('_', '-')} data"
