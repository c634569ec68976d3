"""Loading data into the bundle's tables, and what is refused before anything is written."""

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from helpers.data import tables
from helpers.parameters import ParameterError

AWKWARD = pd.DataFrame(
    {
        "Row Id": [1, 2, 3, 4],
        "malic.acid": [1.5, None, 2.5, 3.0],
        "HUE": [1, 2, 3, 4],
        "note; (free), text": ['say "hi"', "two\nlines", None, "a,b"],
        "Cultivar Class": ["a", "b", "a", "b"],
    }
)


@pytest.fixture
def make(spark, schema):
    """Make the two tables in an empty schema, with defaults that fit the file `AWKWARD`."""

    def make_tables(**changed):
        names = {"training_table": "training", "scoring_table": "scoring", "catalog": "", "schema": schema}
        columns = {"label_column": "Cultivar Class", "id_column": "Row Id"}
        return tables.make_tables(spark, **(names | columns | {"source_path": ""} | changed))

    return make_tables


def table_names(spark, schema):
    return {table.name for table in spark.catalog.listTables(schema)}


@pytest.mark.parametrize("kind", ["csv", "parquet", "folder of parquet"])
def test_a_file_or_folder_is_loaded_with_its_column_names_as_they_are(spark, schema, make, tmp_path, kind):
    source = tmp_path / f"rows.{kind[:7]}"
    if kind == "csv":
        AWKWARD.to_csv(source, index=False)
    elif kind == "parquet":
        AWKWARD.to_parquet(source, index=False)
    else:
        source.mkdir()
        for i in range(2):
            AWKWARD.iloc[2 * i : 2 * i + 2].to_parquet(source / f"part-{i}.parquet", index=False)
    made = make(source_path=str(source))
    assert [(table["action"], table["rows"], table["columns"]) for table in made] == [
        ("created", 4, 5),
        ("created", 4, 4),
    ]
    training = spark.table(f"{schema}.training").orderBy("Row Id").toPandas()
    assert_frame_equal(training, AWKWARD, check_dtype=False)
    assert spark.table(f"{schema}.scoring").columns == [name for name in AWKWARD if name != "Cultivar Class"]


def test_set_up_run_again_changes_nothing_and_other_data_replaces_its_tables(spark, schema, make, tmp_path):
    AWKWARD.to_csv(tmp_path / "one.csv", index=False)
    AWKWARD.assign(HUE=9).to_csv(tmp_path / "two.csv", index=False)
    actions = [
        [table["action"] for table in make(source_path=str(tmp_path / name))]
        for name in ("one.csv", "one.csv", "two.csv")
    ]
    assert actions == [["created"] * 2, ["unchanged"] * 2, ["replaced"] * 2]
    assert {row["HUE"] for row in spark.table(f"{schema}.training").collect()} == {9}


def test_a_table_that_somebody_made_is_used_as_it_is_and_never_written_to(spark, schema, make, tmp_path):
    spark.createDataFrame(AWKWARD).write.saveAsTable(f"{schema}.training")
    AWKWARD.to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(ParameterError, match="training_table=.*exists and was not made by set-up"):
        make(source_path=str(tmp_path / "rows.csv"))
    assert table_names(spark, schema) == {"training"}
    training, scoring = make()
    assert training["action"] == "left as it is (not made by set-up)"
    assert (scoring["action"], scoring["source"]) == ("created", f"{schema}.training")
    assert "Cultivar Class" not in spark.table(f"{schema}.scoring").columns


def test_the_sample_has_an_id_thirty_features_and_a_label_in_words(spark):
    sample = tables.sample_rows(spark)
    assert (sample.count(), len(sample.columns)) == (569, 32)
    assert tables.check_label(sample, "diagnosis", "id") == {"benign": 357, "malignant": 212}
    assert tables.check_id(sample, "id") == 569


@pytest.mark.parametrize("step", [1, 3, 10**6], ids=["dense", "with gaps", "sparse"])
def test_ids_on_both_sides_of_zero_are_told_from_duplicates_wherever_they_are(spark, step):
    ids = spark.range(-40_000, 40_000).selectExpr(f"id * {step} AS id")
    assert tables.check_id(ids, "id") == 80_000
    for twice in (-1, 32_768):
        with pytest.raises(ParameterError, match=f"80000 values for 80001 rows, e.g. {twice * step};"):
            tables.check_id(ids.unionAll(spark.range(twice, twice + 1).selectExpr(f"id * {step} AS id")), "id")


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (
            {},
            {"label_column": "cultivar class"},
            "label_column='cultivar class': no such column; did you mean 'Cultivar Class'",
        ),
        ({}, {"label_column": "Row Id"}, "label_column='Row Id': is the id_column too"),
        ({"Cultivar Class": None}, {}, "label_column='Cultivar Class': is null in every row"),
        ({"Cultivar Class": "a"}, {}, "label_column='Cultivar Class': has one class only, 'a'"),
        ({}, {"id_column": "Id"}, "id_column='Id': no such column"),
        ({"Row Id": [1, 2, 2, 3]}, {}, "id_column='Row Id': has duplicates: 3 values for 4 rows, e.g. 2"),
        ({"Row Id": [1, None, 2, 3]}, {}, "id_column='Row Id': has 1 nulls among 4 rows"),
        ({"Probability": [1, 2, 3, 4]}, {"id_column": "Probability"}, "id_column='Probability': the predictions have"),
        (
            {"prediction": [1, 2, 1, 2]},
            {"label_column": "prediction"},
            "label_column='prediction': the predictions have",
        ),
        ({}, {"catalog": "nowhere"}, "catalog='nowhere': no such catalog; there are: spark_catalog"),
    ],
)
def test_data_that_cannot_be_used_is_refused_before_anything_is_written(
    spark, schema, make, tmp_path, change, arguments, message
):
    AWKWARD.assign(**change).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(ParameterError) as caught:
        make(source_path=str(tmp_path / "rows.csv"), **arguments)
    assert message in str(caught.value)
    assert table_names(spark, schema) == set()


def test_a_label_with_a_value_of_its_own_in_each_row_is_no_class(spark):
    rows = spark.range(101).selectExpr("id", "id + 0.5 AS amount")
    with pytest.raises(ParameterError, match="amount.*more than 100 different values"):
        tables.check_label(rows, "amount", "id")


def test_a_number_that_is_not_one_counts_as_a_missing_label(spark):
    rows = spark.sql("SELECT * FROM VALUES (1, 0D), (2, 1D), (3, double('NaN')), (4, NULL) AS rows (id, label)")
    assert tables.check_label(rows, "label", "id") == {0.0: 1, 1.0: 1}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "cannot be read"),
        ({"rows.csv": "a,b\n", "more.csv": "a,b\n"}, "has no rows"),
        ({"rows.json": "{}"}, "found no .csv or .parquet file"),
        ({"rows.csv": "a,b\n1,2\n", "rows.parquet": ""}, "found csv and parquet"),
    ],
)
def test_a_source_that_cannot_be_read_says_why(spark, tmp_path, files, message):
    source = tmp_path / "source"
    for name, content in files.items():
        source.mkdir(exist_ok=True)
        (source / name).write_text(content)
    with pytest.raises(ParameterError, match=message) as caught:
        tables.read_source(spark, str(source))
    assert str(caught.value).startswith(f"source_path='{source}': ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "catalog", "expected"),
    [
        ("t", "", "s.t"),
        ("t", "c", "c.s.t"),
        ("other.t", "c", "c.other.t"),
        ("x.other.t", "c", "x.other.t"),
        ("my-table", "", "s.`my-table`"),
    ],
)
def test_a_table_name_is_completed_and_quoted(table, catalog, expected):
    assert tables.qualified_name(table, catalog, "s") == expected


def test_a_table_that_is_missing_names_its_parameter(spark):
    for name in ("nowhere.t", "nowhere.at.t"):
        with pytest.raises(ParameterError, match=f"scoring_table='{name}': no such table. Run 01_setup first"):
            tables.read_table(spark, name, "scoring_table")
