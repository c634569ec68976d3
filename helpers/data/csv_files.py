"""CSV files as a table whose values are what the files say.

Spark reads a folder of CSV files with the header of the first one, fills short lines with nulls, and turns the text
``007`` into the number 7. Here files may have their columns in any order, and a column becomes a number only if each of
its values reads back the same. Anything else is refused, with the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from helpers.data.names import quoted
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

_MALFORMED, _FILE = "_malformed_record", "_file"
_HEADERS_AT_ONCE = 8
_SHOWN = 80
# A code that would not read back the same as a number: 007, +49.
_CODE = r"^\+|^-?0[0-9]"
_WHOLE = "^-?[0-9]{1,18}$"
# A double keeps 15 digits.
_LONG_WHOLE = "^-?[0-9]{16,}$"
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$|^[+-]?(NaN|Infinity)$"
_DATE = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_TIMESTAMP = "^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}"
_BOOLEAN = "^(?i)(true|false)$"


@dataclass(frozen=True)
class CsvOptions:
    """How CSV files are written.

    Attributes
    ----------
    separator : str, default ","
        One character, or ``tab``.
    encoding : str, default "UTF-8"
        ``ISO-8859-1`` or ``windows-1252``, for instance.
    nulls : sequence of str, default ()
        Texts that stand for a missing value, besides the empty one.
    """

    separator: str = ","
    encoding: str = "UTF-8"
    nulls: Sequence[str] = ()

    def for_spark(self) -> dict[str, str]:
        """Return the options of Spark's reader."""
        return {
            "sep": "\t" if self.separator == "tab" else self.separator,
            "encoding": self.encoding,
            # Quoted fields may span lines, and a quote in them is doubled (RFC 4180).
            "multiLine": "true",
            "quote": '"',
            "escape": '"',
        }


def read(spark: SparkSession, files: list[str], source_path: str, options: CsvOptions) -> DataFrame:
    """Read CSV files that have a header line.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    files : list of str
        Their addresses.
    source_path : str
        The parameter that named them, for errors.
    options : CsvOptions

    Returns
    -------
    pyspark.sql.DataFrame
        Columns in the order of the first file. The type of each is long, double, boolean, date or timestamp if all of its
        values read back the same, and else string.

    Raises
    ------
    helpers.parameters.ParameterError
        If headers differ or have a name twice, a line has more or fewer fields than the header, or bytes do not have the
        encoding.
    """
    with ThreadPoolExecutor(_HEADERS_AT_ONCE) as threads:
        headers = dict(zip(files, threads.map(lambda file: _header(spark, file, options), files), strict=True))
    columns = headers[files[0]]
    for file, header in headers.items():
        _check_header(header, file, columns, files[0], source_path, options)
    by_header: dict[tuple[str, ...], list[str]] = {}
    for file, header in headers.items():
        by_header.setdefault(tuple(header), []).append(file)
    parts = [_texts(spark, same, list(header), options).select(*_all(columns)) for header, same in by_header.items()]
    texts = reduce(lambda left, right: left.unionByName(right), parts)
    _check_lines(texts, columns, source_path, options)
    return _typed(texts, columns)


def escaped(path: str) -> str:
    """Return a path so that Spark takes none of its characters for a pattern."""
    return "".join(f"\\{character}" if character in "[]{}?*\\" else character for character in path)


def _header(spark: SparkSession, file: str, options: CsvOptions) -> list[str]:
    # With multiLine, Spark takes the name of a file for a pattern once more when it looks for the columns.
    row = spark.read.options(**options.for_spark() | {"multiLine": "false"}).csv(escaped(unquote(file))).head()
    return [(name or "").strip() for name in row] if row else []


def _check_header(
    header: list[str], file: str, columns: list[str], first: str, source_path: str, options: CsvOptions
) -> None:
    name = _name(file)
    if not header:
        raise ParameterError("source_path", source_path, f"{name} is empty; remove it, or write its header line")
    lowered = [column.lower() for column in header]
    twice = [column for column in header if lowered.count(column.lower()) > 1]
    if "�" in "".join(header):
        raise _encoding_error(source_path, f"the header of {name}", "".join(header), options)
    if twice:
        raise ParameterError("source_path", source_path, f"{name} has these names more than once: {', '.join(twice)}")
    if "" in header:
        position = header.index("") + 1
        raise ParameterError("source_path", source_path, f"column {position} of {name} has no name in the header line")
    if len(header) == 1:
        other = next((character for character in (";", "\t", "|", ",") if character in header[0]), "")
        if other:
            value = "tab" if other == "\t" else other
            raise ParameterError(
                "source_path", source_path, f"{name} has one column only, {header[0]!r}. Set csv_separator={value}"
            )
    missing, more = [column for column in columns if column not in header], [c for c in header if c not in columns]
    if missing or more:
        differs = f"lacks {', '.join(map(repr, missing))}" if missing else f"has also {', '.join(map(repr, more))}"
        raise ParameterError(
            "source_path",
            source_path,
            f"the files have different columns: {name} {differs}, compared with {_name(first)}. Load files of one kind "
            "only, or add the column",
        )


def _texts(spark: SparkSession, files: list[str], header: list[str], options: CsvOptions) -> DataFrame:
    """Return all values as text, with the record where it does not have one field per column, and the file."""
    from pyspark.sql import functions as F
    from pyspark.sql.types import StringType, StructType

    # Names of columns may be of any kind, and Spark has options and columns of its own; so they come afterwards.
    schema = reduce(lambda known, number: known.add(f"c{number}", StringType()), range(len(header)), StructType())
    reader = spark.read.schema(schema.add(_MALFORMED, StringType())).options(
        header=True, columnNameOfCorruptRecord=_MALFORMED, mode="PERMISSIVE", **options.for_spark()
    )
    # In a file with lines of two kinds, the last field of some has the rest of the line's end.
    values = [F.regexp_replace(f"c{number}", "\r$", "") for number in range(len(header))]
    nulls = ["", *options.nulls]
    return reader.csv([escaped(unquote(file)) for file in files]).select(
        *(F.when(~F.trim(value).isin(nulls), value).alias(name) for name, value in zip(header, values, strict=True)),
        _MALFORMED,
        F.col("_metadata.file_path").alias(_FILE),
    )


def _check_lines(texts: DataFrame, columns: list[str], source_path: str, options: CsvOptions) -> None:
    from pyspark.sql import functions as F

    # Spark reads only the fields that a query needs, and finds such lines only if it reads all of them.
    whole = texts.withColumn("_all", F.array(*map(_column, columns))).where(
        F.col(_MALFORMED).isNotNull() | F.exists("_all", lambda value: value.contains("�"))
    )
    wrong = whole.select(_MALFORMED, _FILE, "_all").head(1)
    if not wrong:
        return
    record, file, values = wrong[0]
    if record is None:
        column, value = next((name, text) for name, text in zip(columns, values, strict=True) if text and "�" in text)
        raise _encoding_error(source_path, f"column {column!r} of {_name(file)}", value, options)
    where = _line(file, record, options)
    raise ParameterError(
        "source_path",
        source_path,
        f"{_name(file)} has a line without one field for each of its {len(columns)} columns{where}: "
        f"{record[:_SHOWN]!r}. Correct the file; a field that has the separator in it must be in quotes",
    )


def _line(file: str, record: str, options: CsvOptions) -> str:
    """Return the line's number as text, if this process can read the file; Spark does not say it."""
    path = Path(unquote(urlparse(file).path))
    try:
        text = path.read_text(options.encoding)
    except (OSError, LookupError, UnicodeError):
        return ""
    position = text.find(record.strip("\r\n"))
    return f", line {text.count(chr(10), 0, position) + 1}" if position >= 0 else ""


def _encoding_error(source_path: str, where: str, value: str, options: CsvOptions) -> ParameterError:
    return ParameterError(
        "source_path",
        source_path,
        f"{where} has bytes that are not {options.encoding}: {value[:_SHOWN]!r}. Set csv_encoding, for instance to "
        "ISO-8859-1 or windows-1252",
    )


def _typed(texts: DataFrame, columns: list[str]) -> DataFrame:
    """Convert each column to the narrowest type that all of its values have."""
    from pyspark.sql import functions as F

    # One row per value, so that the plan does not grow with the number of columns.
    value = F.trim("value")
    kinds = {
        "whole": value.rlike(_WHOLE),
        "long": value.rlike(_LONG_WHOLE),
        "decimal": value.rlike(NUMBER),
        "code": value.rlike(_CODE),
        "boolean": value.rlike(_BOOLEAN),
        "date": value.rlike(_DATE) & F.expr("try_cast(trim(value) AS date)").isNotNull(),
        "timestamp": value.rlike(_TIMESTAMP) & F.expr("try_cast(trim(value) AS timestamp)").isNotNull(),
    }
    values = texts.select(F.posexplode(F.array(*map(_column, columns))).alias("position", "value"))
    counted = values.where("value IS NOT NULL").groupBy("position")
    counts = {
        row["position"]: row
        for row in counted.agg(
            F.count(F.lit(1)).alias("values"), *(F.count_if(is_kind).alias(kind) for kind, is_kind in kinds.items())
        ).collect()
    }
    selected = []
    for position, name in enumerate(columns):
        row = counts.get(position)
        kind = _type(row.asDict()) if row else "string"
        text = _column(name)
        selected.append((text if kind == "string" else F.trim(text).cast(kind)).alias(name))
    return texts.select(*selected)


def _type(count: dict[str, int]) -> str:
    every = count["values"]
    if count["whole"] == every and not count["code"]:
        return "long"
    if count["decimal"] == every and not count["code"] and not count["long"]:
        return "double"
    return next((kind for kind in ("boolean", "date", "timestamp") if count[kind] == every), "string")


def _all(columns: list[str]) -> list[Column | str]:
    return [*map(_column, columns), _MALFORMED, _FILE]


def _column(name: str) -> Column:
    from pyspark.sql import functions as F

    return F.col(quoted(name))


def _name(file: str) -> str:
    return unquote(file.rsplit("/", 1)[-1])
