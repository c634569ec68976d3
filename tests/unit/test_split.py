"""Which rows are held out, and which columns are features."""

import pytest
from pyspark.sql import functions as F

from helpers.data import split
from helpers.parameters import ParameterError

CHOICES = {"label_column": "label", "id_column": "id", "test_fraction": 0.25, "seed": 7}


@pytest.fixture
def table(spark, schema):
    """Write rows to a new table: an id, the given SQL expressions, and a label of two classes."""

    def write(*columns, rows=400, label="IF(id % 2 = 0, 'yes', 'no')"):
        name = f"{schema}.t"
        spark.range(rows).selectExpr("id", *columns, f"{label} AS label").write.mode("overwrite").saveAsTable(name)
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
