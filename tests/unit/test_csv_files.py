"""Files that set-up loads: a value is what the file says, or the load is refused with the file and what to do."""

import datetime
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers import data
from helpers.data import source
from helpers.data.csv_files import CsvOptions
from helpers.parameters import ParameterError


@pytest.fixture
def read(spark, tmp_path):
    """Write files into a folder, and read it."""

    def read_files(files, csv=None, folder="source"):
        for name, content in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return source.read_source(spark, str(tmp_path / folder), csv)

    return read_files


def rows_of(frame):
    return sorted(tuple(row) for row in frame.collect())


def test_files_with_their_columns_in_another_order_are_read_by_the_names(read):
    rows = read({"a.csv": "id,x,y\n1,10,yes\n", "b.csv": "y,id,x\nno,2,20\n", "deep/er/c.csv": "id, x ,y\n3,30,no\n"})
    assert rows.columns == ["id", "x", "y"]
    assert rows_of(rows) == [(1, 10, "yes"), (2, 20, "no"), (3, 30, "no")]


COLUMNS_OF_TEXT = [
    ("00001\n00002", ["00001", "00002"], "string"),
    ("7\n007", ["007", "7"], "string"),
    ("+49\n+43", ["+43", "+49"], "string"),
    ("1" * 42 + "\n" + "2" * 42, ["1" * 42, "2" * 42], "string"),
    ("12345678901234567890\n1", ["1", "12345678901234567890"], "string"),
    ("1234567890123456\n0.5", ["0.5", "1234567890123456"], "string"),
    ("1\n-2", [-2, 1], "bigint"),
    ("0\n10", [0, 10], "bigint"),
    ("1.5\n2", [1.5, 2.0], "double"),
    ("1e3\n0.5", [0.5, 1000.0], "double"),
    ("true\nFalse", [False, True], "boolean"),
    ("2026-01-31\n2026-02-28", [datetime.date(2026, 1, 31), datetime.date(2026, 2, 28)], "date"),
    ("2026-01-31\n2026-02-30", ["2026-01-31", "2026-02-30"], "string"),
    ("2026-01-31 08:00:00\n2026-01-31T09:00", [datetime.datetime(2026, 1, 31, h) for h in (8, 9)], "timestamp"),
    ('"1,234"\n5', ["1,234", "5"], "string"),
    ("NA\n5", ["5", "NA"], "string"),
]


def test_a_column_is_a_number_only_if_each_value_reads_back_the_same(read):
    # The last line has no value in any column.
    lines = [["id", *(f"v{i}" for i in range(len(COLUMNS_OF_TEXT)))]]
    lines += [
        [str(i), *values]
        for i, values in enumerate(zip(*(text.split("\n") for text, _, _ in COLUMNS_OF_TEXT), strict=True))
    ]
    lines += [["9", *("" for _ in COLUMNS_OF_TEXT)]]
    rows = read({"a.csv": "\n".join(map(",".join, lines))})
    kinds, found = dict(rows.dtypes), rows.collect()
    for i, (_, values, kind) in enumerate(COLUMNS_OF_TEXT):
        column = f"v{i}"
        assert kinds[column] == kind, values
        assert sorted(row[column] for row in found if row[column] is not None) == values


def test_separator_encoding_and_nulls_are_those_that_are_given(read):
    text = "id;Größe;x\n1;groß;NA\n2;klein;?\n3;klein;1,5\n4; ;2,5\n"
    rows = read({"a.csv": text.encode("latin-1")}, CsvOptions(";", "ISO-8859-1", ["NA", "?"]))
    found = rows.orderBy("id").collect()
    assert [row["Größe"] for row in found] == ["groß", "klein", "klein", None]
    assert [row["x"] for row in found] == [None, None, "1,5", "2,5"]
    rows = read({"a.csv": "id\tx\n1\t5\n2\tNA\n"}, CsvOptions("tab", nulls=["NA"]), "tabs")
    assert rows_of(rows.where("x IS NOT NULL")) == [(1, 5)] and dict(rows.dtypes)["x"] == "bigint"


def test_lines_that_end_in_two_ways_and_fields_with_lines_of_their_own_are_read_as_they_are(read):
    rows = read({"a.csv": 'id,kind\n1,small\r\n2,large\r\n3,"two\nlines"\r\n4,"a ""b"", c"\n'})
    assert rows_of(rows) == [(1, "small"), (2, "large"), (3, "two\nlines"), (4, 'a "b", c')]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.csv": "id,x,y\n1,2,3\n", "b.csv": "id,x\n1,2\n"}, "b.csv lacks 'y', compared with a.csv"),
        ({"a.csv": "id,x\n1,2\n", "b.csv": "id,x,y\n1,2,3\n"}, "b.csv has also 'y', compared with a.csv"),
        ({"a.csv": "id,x\n1,2\n3,4,5\n"}, r"a.csv has a line without one field for each of its 2 columns, line 3: '3,4,5'"),
        ({"a.csv": "id,x,y\n1,2,3\n\n4,5\n"}, "without one field for each of its 3 columns, line 4: '4,5'"),
        ({"a.csv": "id,y\n1,Köln\n".encode("latin-1")}, "column 'y' of a.csv has bytes that are not UTF-8: 'K�ln'. Set csv_enc"),
        ({"a.csv": "id,Größe\n1,2\n".encode("latin-1")}, "the header of a.csv has bytes that are not UTF-8.*csv_encoding"),
        ({"a.csv": "id;x\n1;2\n"}, "a.csv has one column only, 'id;x'. Set csv_separator=;"),
        ({"a.csv": "id\tx\n1\t2\n"}, r"one column only, 'id\\tx'. Set csv_separator=tab"),
        ({"a.csv": "id,Y,y\n1,2,3\n"}, "a.csv has these names more than once: Y, y"),
        ({"a.csv": "id,,y\n1,2,3\n"}, "column 2 of a.csv has no name in the header line"),
        ({"a.csv": ""}, "a.csv is empty"),
        ({"README.md": "# about"}, "it has no .csv or .parquet file"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_as_it_is_meant_is_refused_with_the_file(read, files, message):
    with pytest.raises(ParameterError, match=message) as caught:
        read(files)
    assert str(caught.value).startswith("source_path=") and "\n" not in str(caught.value)


@pytest.mark.parametrize("folder", ["a[b]", "a{b,c}", "what?", "with space", "100%", "50%20off", "ü"])
def test_a_path_may_have_any_characters(read, folder):
    rows = read({"a [1].csv": "id,x\n1,2\n", "README.md": "# about", "sub/b?.csv": "id,x\n3,4\n"}, folder=folder)
    assert rows_of(rows) == [(1, 2), (3, 4)]


def test_parquet_files_have_the_columns_of_all_and_folders_may_be_a_column(spark, tmp_path):
    for name, columns in (("a", {"id": [1], "x": [0.5]}), ("b", {"id": [2], "x": [1.5], "y": ["late"]})):
        pd.DataFrame(columns).to_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "notes.txt").write_text("about")
    rows = source.read_source(spark, str(tmp_path))
    assert rows_of(rows.orderBy("id").select("id", "x").where("y IS NULL")) == [(1, 0.5)] and rows.count() == 2
    for day in ("2026-01-01", "2026-01-02"):
        (tmp_path / "by_day" / f"day={day}").mkdir(parents=True)
        pd.DataFrame({"id": [int(day[-1])]}).to_parquet(tmp_path / "by_day" / f"day={day}" / "rows.parquet")
    rows = source.read_source(spark, str(tmp_path / "by_day"))
    assert sorted((row.id, str(row.day)) for row in rows.collect()) == [(1, "2026-01-01"), (2, "2026-01-02")]


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            [{"id": pa.array([1]), "x": pa.array([1])}, {"id": pa.array([2]), "x": pa.array([0.5])}],
            "different types in different files: id: BIGINT, x: BIGINT and id: BIGINT, x: DOUBLE",
        ),
        ([{"id": pa.array([1]), "a": pa.array([1]), "A": pa.array([2])}], "already exists|`a`"),
        ([{"at": pa.array([np.datetime64("2026-01-31", "ns")], pa.timestamp("ns"))}], "nanoseconds.*coerce_timestamps"),
    ],
)
def test_parquet_that_spark_cannot_read_is_refused_in_one_line(spark, tmp_path, tables, message):
    for number, table in enumerate(tables):
        pq.write_table(pa.table(table), tmp_path / f"{number}.parquet")
    with pytest.raises(ParameterError, match=message) as caught:
        source.read_source(spark, str(tmp_path)).collect()
    assert str(caught.value).startswith("source_path=") and "\n" not in str(caught.value)


def test_set_up_shows_each_column_and_what_is_probably_not_meant(spark):
    count = 60
    frame = pd.DataFrame(
        {
            "id": [number + 0.5 for number in range(count)],
            "size": ["NA", *map(str, range(1, count))],
            "name": [f"somebody {number}" for number in range(count)],
            "shop": ["north", "south"] * (count // 2),
            "x": [None, *range(1, count)],
            "kind": ["a", "b"] * (count // 2),
            "day": [datetime.date(2026, 1, 1)] * count,
        }
    )
    summary = data.column_summary(spark.createDataFrame(frame), "kind", "id").set_index("column")
    assert summary["type"].to_dict() == {
        "id": "double", "size": "string", "name": "string", "shop": "string", "x": "double", "kind": "string", "day": "date"
    }  # fmt: skip
    assert summary["used as"].to_dict() == {
        "id": "id", "size": "feature, a category", "name": "feature, a category", "shop": "feature, a category",
        "x": "feature, a number", "kind": "label", "day": "not used: type date",
    }  # fmt: skip
    assert summary.loc["shop", "distinct"] == 2
    assert summary.loc["size", "note"].startswith("1 of 60 values are not numbers, e.g. 'NA'")
    assert "fractions" in summary.loc["id", "note"] and "another text" in summary.loc["name", "note"]
    assert not summary.loc[["shop", "x", "kind", "day"], "note"].any()
    assert re.fullmatch("[0-9]+", str(summary.loc["x", "nulls"]))
