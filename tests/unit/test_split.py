"""Which rows are held out, and which columns are features."""

import pytest
from pyspark.sql import functions as F

from helpers.data import split
from helpers.parameters import ParameterError

CHOICES = {"label_column": "label", "id_column": "id", "test_fraction": 0.25, "seed": 7}


@pytest.fixture
def table(spark, schema):
    """Create a view of new rows, which is quicker than a table: an id, SQL expressions, and a label of two classes."""

    def write(*columns, rows=400, label="IF(id % 2 = 0, 'yes', 'no')"):
        name = f"{schema}.t"
        selected = ", ".join(["id", *columns, f"{label} AS label"])
        spark.sql(f"CREATE OR REPLACE VIEW {name} AS SELECT {selected} FROM range({rows})")
        return name

    return write


def ids(rows):
    return {row["id"] for row in rows.select("id").collect()}


def test_a_row_stays_on_its_side_when_the_table_is_reordered_and_grows(spark, table):
    first = ids(split.load_split(spark, table("id * 2 AS x"), **CHOICES).held_out)
    name = table("id * 2 AS x", rows=1000)
    spark.table(name).orderBy(F.desc("id")).write.saveAsTable(f"{name}_reordered")
    later = split.load_split(spark, f"{name}_reordered", **CHOICES)
    assert {i for i in ids(later.held_out) if i < 400} == first
    assert ids(later.train) | ids(later.held_out) == set(range(1000))
    assert not ids(later.train) & ids(later.held_out)
    assert 180 < len(ids(later.held_out)) < 320


def test_another_seed_holds_out_other_rows(spark, table):
    name = table("id * 2 AS x")
    one, other = (ids(split.load_split(spark, name, **CHOICES | {"seed": seed}).held_out) for seed in (7, 8))
    assert one != other


def test_features_are_chosen_by_type_and_each_other_column_has_a_reason(spark, table):
    columns = {
        "id + 1": "whole", "id / 3": "Fraction.al", "id > 9": "flag", "'a'": "some text", "CAST(NULL AS INT)": "empty",
        "current_date()": "day", "1": "Prediction", "0.5": "probability", "2": "Row", "CAST(id AS DECIMAL(9, 2))": "price",
    }  # fmt: skip
    loaded = split.load_split(spark, table(*(f"{value} AS `{name}`" for value, name in columns.items())), **CHOICES)
    assert loaded.numeric == ["whole", "Fraction.al", "flag", "Row", "price"]
    assert loaded.categorical == ["some text"]
    assert loaded.left_out == {
        "empty": "no values",
        "day": "type date",
        "Prediction": "reserved name",
        "probability": "reserved name",
    }
    assert {kind for name, kind in loaded.train.dtypes if name in loaded.numeric} == {"double"}


@pytest.mark.parametrize(
    ("label", "classes"),
    [
        ("id % 3", [0, 1, 2]),
        ("id % 2 = 0", [False, True]),
        ("CAST(id % 2 AS DOUBLE)", [0.0, 1.0]),
        ("IF(id % 5 = 0, NULL, IF(id % 2 = 0, 'b', 'a'))", ["a", "b"]),
    ],
)
def test_labels_may_be_numbers_booleans_or_text_and_rows_without_one_are_not_used(spark, table, label, classes):
    loaded = split.load_split(spark, table("id * 2 AS x", label=label), **CHOICES)
    assert loaded.classes == classes
    assert int(loaded.counts().to_numpy().sum()) == (320 if "NULL" in label else 400)


def test_a_class_without_held_out_rows_is_refused(spark, table):
    with pytest.raises(ParameterError, match="test_fraction=0.25.*no row of class 'rare'"):
        split.load_split(spark, table("id AS x", label="IF(id = 3, 'rare', IF(id % 2 = 0, 'b', 'a'))"), **CHOICES)


def test_a_table_without_a_feature_is_refused(spark, table):
    with pytest.raises(ParameterError, match=r"training_table=.*no column can be a feature: day \(type date\)"):
        split.load_split(spark, table("current_date() AS day"), **CHOICES)


# 150 rows of two older days, 10 of the day before the newest, 240 of the newest: 250 rows are at or after January 3rd.
DAYS = "CASE WHEN id < 50 THEN DATE'2026-01-01' WHEN id < 150 THEN DATE'2026-01-02' WHEN id < 160 THEN DATE'2026-01-03' ELSE DATE'2026-01-04' END"
BY_DAY = {"split_by": "time", "split_column": "day"}


@pytest.mark.parametrize(
    ("fraction", "oldest"), [(0.01, 4), (0.6, 4), (0.61, 4), (0.62, 3), (0.7, 3), (0.8, 2), (0.99, 2)]
)
def test_the_newest_rows_are_held_out_from_the_value_nearest_to_the_fraction_on(spark, table, fraction, oldest):
    loaded = split.load_split(
        spark, table(f"{DAYS} AS day", "id AS x"), **CHOICES | {"test_fraction": fraction} | BY_DAY
    )
    assert loaded.hold_out.values == (f"2026-01-0{oldest}", "2026-01-04")
    assert ids(loaded.held_out) == set(range({2: 50, 3: 150, 4: 160}[oldest], 400))
    assert ids(loaded.train) == set(range(400)) - ids(loaded.held_out)
    assert loaded.validation is loaded.held_out
    assert (loaded.features, loaded.left_out) == (["x"], {"day": "split_column: later rows have other values"})


@pytest.mark.slow
def test_no_training_row_is_as_new_as_a_held_out_one_whatever_type_the_column_has(spark, table):
    part = "(id * 7919) % 97 / 7"
    columns = {
        "time": f"timestamp_seconds(1760000000 + {part})", "local": f"CAST(timestamp_seconds({part}) AS TIMESTAMP_NTZ)",
        "fraction": part, "price": f"CAST({part} AS DECIMAL(9, 3))", "id": "id",
    }  # fmt: skip
    name = table(*(f"{value} AS {column}" for column, value in columns.items() if column != "id"), "id AS x")
    for column in columns:
        loaded = split.load_split(spark, name, **CHOICES, split_by="time", split_column=column)
        values = {row["id"]: row[column] for row in spark.table(name).select("id", F.col(column)).collect()}
        train, held_out = ({values[i] for i in ids(rows)} for rows in (loaded.train, loaded.held_out))
        assert max(train) < min(held_out)
        assert abs(loaded.held_out.count() - 100) <= 3


def test_the_recorded_time_means_the_same_moment_in_another_time_zone(spark, table):
    # In Berlin it is half past two twice on this day: half an hour before and half an hour after 01:00 UTC.
    name = table("timestamp_seconds(1761438600 + id DIV 100 * 3600) AS time", "id AS x")
    by_time = CHOICES | {"test_fraction": 0.7, "split_by": "time", "split_column": "time"}
    try:
        spark.conf.set("spark.sql.session.timeZone", "Europe/Berlin")
        first = split.load_split(spark, name, **by_time)
        assert first.hold_out.values[0] == "2025-10-26T02:30:00.000000+01:00"
        assert ids(first.held_out) == set(range(100, 400))
        spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
        again = split.load_split(spark, name, **by_time, split_values=first.record().split_values)
    finally:
        spark.conf.unset("spark.sql.session.timeZone")
    assert again.record() == first.record()


THREE_PARTS = "element_at(array('Train', ' train', 'TEST', 'validation'), CAST(id % 4 + 1 AS INT))"
BY_PART = {"split_by": "column", "split_column": "part"}


def test_a_column_names_the_part_of_each_row(spark, table):
    loaded = split.load_split(
        spark, table(f"{THREE_PARTS} AS part", "id AS x", label="id % 8 < 4"), **CHOICES, **BY_PART
    )
    remainders = {i: set(range(i, 400, 4)) for i in range(4)}
    assert ids(loaded.train) == remainders[0] | remainders[1]
    assert (ids(loaded.held_out), ids(loaded.validation)) == (remainders[2], remainders[3])
    assert list(loaded.counts()) == ["training", "held out", "validation"]
    assert loaded.features == ["x"] and loaded.record().held_out_rows == 100
    assert loaded.hold_out.description == "`part` is test"


@pytest.mark.parametrize("only", ["test", "validation"])
def test_rows_of_one_kind_measure_each_epoch_and_judge(spark, table, only):
    loaded = split.load_split(spark, table(f"IF(id < 300, 'train', '{only}') AS part", "id AS x"), **CHOICES, **BY_PART)
    assert ids(loaded.held_out) == set(range(300, 400)) and loaded.validation is loaded.held_out
    assert list(loaded.counts()) == ["training", "held out"]


@pytest.mark.parametrize(
    ("split_by", "column", "problem"),
    [
        ("time", None, "split_column='': split_by=time needs a column of the table; its columns are: id, c, x, label"),
        ("column", None, "split_column='': split_by=column needs a column"),
        ("id", "id", "split_column='c': split_by=id uses no split column; leave it empty"),
        ("week", "id", "split_by='week': not accepted: one of id, time, column"),
        ("time", "'monday'", "split_column='c': has type string; split_by=time needs a column of dates, timestamps or num"),
        ("time", "IF(id < 5, NULL, id)", "split_column='c': has 5 nulls or NaNs among 400 labelled rows"),
        ("time", "IF(id < 5, DOUBLE('NaN'), id)", "split_column='c': has 5 nulls or NaNs among 400 labelled rows"),
        ("time", "DATE'2026-01-01'", "split_column='c': has one value only, 2026-01-01, in all 400 labelled rows"),
        ("time", "IF(id % 2 = 0, 2, 1)", "test_fraction=0.25: no row of class 'yes' .* training part of .*, newest by `c` from 2 to"),
        ("column", "id", "split_column='c': has type bigint; split_by=column needs a column of text"),
        ("column", "IF(id < 5, 'holdout', 'train')", "another value in 5 of 400 labelled rows, e.g. 'holdout'; accepted "),
        ("column", "IF(id < 5, NULL, 'test')", "in 5 of 400 .*, e.g. null; accepted are train, validation and test, in"),
        ("column", "'Train'", "split_column='c': no labelled row has validation or test; it has only: train"),
        ("column", "IF(id < 9, 'test', 'validation')", "no labelled row has train; it has only: test, validation"),
        ("column", "IF(id = 0, 'test', 'train')", "split_column='c': no row of class 'no' .* in the held out part"),
        ("column", THREE_PARTS, "split_column='c': no row of class 'no' .* in the held out part"),
    ],
)  # fmt: skip
def test_a_split_that_is_not_possible_is_refused_with_what_is(spark, table, split_by, column, problem):
    name = table(f"{column or 0} AS c", "id AS x")
    with pytest.raises(ParameterError, match=problem):
        split.load_split(spark, name, **CHOICES, split_by=split_by, split_column="c" if column else "")


def test_a_split_column_has_to_exist_and_is_not_the_label(spark, table):
    name = table("id AS x")
    with pytest.raises(ParameterError, match="split_column='Label': no such column; did you mean 'label'"):
        split.load_split(spark, name, **CHOICES, split_by="column", split_column="Label")
    with pytest.raises(ParameterError, match="split_column='label': is also the label_column"):
        split.load_split(spark, name, **CHOICES, split_by="column", split_column="label")
