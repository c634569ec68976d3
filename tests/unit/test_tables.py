"""Loading data into the bundle's tables, and the checks that run before anything is written."""

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from sklearn.datasets import load_diabetes

from helpers import parameters, storage
from helpers.data import checks, names, samples, source, tables
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
    """Make the two tables in an empty schema, with arguments that fit the columns of `AWKWARD`."""

    def make_tables(**changes):
        places = {"training_table": "training", "scoring_table": "scoring", "catalog": "", "schema": schema}
        columns = {"label_column": "Cultivar Class", "id_column": "Row Id"}
        return tables.make_tables(spark, **(places | columns | {"source_path": ""} | changes))

    return make_tables


def table_names(spark, schema):
    # Temporary views of other tests are listed in every schema.
    return {table.name for table in spark.catalog.listTables(schema) if not table.isTemporary}


@pytest.mark.parametrize("kind", ["csv", "parquet", "folder of parquet"])
def test_a_file_or_folder_is_loaded_with_its_column_names_as_they_are(spark, schema, make, tmp_path, kind):
    path = tmp_path / f"rows.{kind[:7]}"
    if kind == "csv":
        AWKWARD.to_csv(path, index=False)
    elif kind == "parquet":
        AWKWARD.to_parquet(path, index=False)
    else:
        path.mkdir()
        for i in range(2):
            AWKWARD.iloc[2 * i : 2 * i + 2].to_parquet(path / f"part-{i}.parquet", index=False)
    summaries = make(source_path=str(path))
    assert [(table["action"], table["rows"], table["columns"]) for table in summaries] == [
        ("created", 4, 5),
        ("created", 4, 4),
    ]
    training = spark.table(f"{schema}.training").orderBy("Row Id").toPandas()
    assert_frame_equal(training, AWKWARD, check_dtype=False)
    assert spark.table(f"{schema}.scoring").columns == [name for name in AWKWARD if name != "Cultivar Class"]


@pytest.mark.slow
def test_set_up_run_again_changes_nothing_and_other_data_replaces_its_tables(spark, schema, make, tmp_path):
    AWKWARD.to_csv(tmp_path / "one.csv", index=False)
    AWKWARD.assign(HUE=9).to_csv(tmp_path / "two.csv", index=False)
    actions = [
        [table["action"] for table in make(source_path=str(tmp_path / name))]
        for name in ("one.csv", "one.csv", "two.csv")
    ]
    assert actions == [["created"] * 2, ["unchanged"] * 2, [f"replaced (it held {tmp_path / 'one.csv'})"] * 2]
    assert {row["HUE"] for row in spark.table(f"{schema}.training").collect()} == {9}


def test_a_table_that_set_up_did_not_make_is_used_as_it_is_and_never_written_to(spark, schema, make, tmp_path):
    spark.createDataFrame(AWKWARD).write.saveAsTable(f"{schema}.training")
    AWKWARD.to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(ParameterError, match="training_table=.*exists and was not made by set-up"):
        make(source_path=str(tmp_path / "rows.csv"))
    assert table_names(spark, schema) == {"training"}
    training, scoring = make()
    assert training["action"] == "left as it is (not made by set-up)"
    assert (scoring["action"], scoring["source"]) == ("created", f"{schema}.training")
    assert "Cultivar Class" not in spark.table(f"{schema}.scoring").columns


@pytest.mark.parametrize(
    ("name", "features", "classes"),
    [("diabetes", 10, {"better": 221, "worse": 221}), ("breast_cancer", 30, {"benign": 357, "malignant": 212})],
)
def test_a_sample_has_an_id_features_and_the_default_label_in_words(spark, name, features, classes):
    sample = source.sample_rows(spark, name)
    id_column, label_column = map(parameters.default_text, ("id_column", "label_column"))
    assert checks.check_label(sample, label_column, id_column).summary == classes
    assert checks.check_id(sample, id_column) == sum(classes.values())
    assert len(sample.columns) == features + 2


def test_a_patient_is_worse_off_if_the_disease_progressed_more_than_in_half_of_the_patients():
    progress, rows = load_diabetes().target, samples.diabetes()
    assert np.median(progress) == 140.5
    assert rows["outcome"].tolist() == ["worse" if number > 140.5 else "better" for number in progress]
    # In their units, and not scaled as scikit-learn has them by default.
    assert rows["age"].between(19, 79).all() and rows["blood_pressure"].between(62, 133).all()


@pytest.mark.slow
def test_another_sample_replaces_the_tables_and_says_what_they_held(spark, schema, make):
    columns = {"label_column": "outcome", "id_column": "id"}
    actions = [
        [table["action"] for table in make(**columns, sample_data=name)] for name in ("breast_cancer", "diabetes")
    ]
    assert actions == [["created"] * 2, ["replaced (it held scikit-learn's breast-cancer data)"] * 2]
    assert "bmi" in spark.table(f"{schema}.training").columns
    assert "mean_radius" not in spark.table(f"{schema}.scoring").columns


@pytest.mark.parametrize("step", [1, 3, 10**6], ids=["dense", "with gaps", "sparse"])
def test_duplicate_ids_are_found_among_positive_and_negative_ones_at_any_spacing(spark, step):
    ids = spark.range(-40_000, 40_000).selectExpr(f"id * {step} AS id")
    assert checks.check_id(ids, "id") == 80_000
    for duplicate in (-1, 32_768):
        once_more = spark.range(duplicate, duplicate + 1).selectExpr(f"id * {step} AS id")
        with pytest.raises(ParameterError, match=f"80000 values for 80001 rows, e.g. {duplicate * step};"):
            checks.check_id(ids.unionAll(once_more), "id")


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (
            {},
            {"label_column": "cultivar class"},
            "label_column='cultivar class': no such column; did you mean 'Cultivar Class'",
        ),
        ({}, {"label_column": "Row Id"}, "label_column='Row Id': is also the id_column"),
        ({"Cultivar Class": None}, {}, "label_column='Cultivar Class': is null in every row"),
        ({"Cultivar Class": "a"}, {}, "label_column='Cultivar Class': has only one value, 'a'"),
        ({}, {"id_column": "Id"}, "id_column='Id': no such column"),
        ({"Row Id": [1, 2, 2, 3]}, {}, "id_column='Row Id': has duplicates: 3 values for 4 rows, e.g. 2"),
        ({"Row Id": [1, None, 2, 3]}, {}, "id_column='Row Id': has 1 nulls among 4 rows"),
        (
            {"Probability": [1, 2, 3, 4]},
            {"id_column": "Probability"},
            "id_column='Probability': scoring writes a column",
        ),
        ({}, {"catalog": "nowhere"}, "catalog='nowhere': no such catalog; the catalogs are: spark_catalog"),
        ({}, {"schema": "global_temp"}, "schema='global_temp': cannot be created"),
        ({}, {"training_table": "übung"}, "on a laptop, Spark accepts only a-z, A-Z, 0-9 and _ in the names"),
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


def test_features_with_infinite_values_are_refused_with_their_names_and_a_row(spark):
    infinite, rows = "CAST('-Infinity' AS DOUBLE)", spark.range(40).selectExpr("id", "id % 2 AS label")
    with_infinity = rows.selectExpr(
        "*", f"IF(id > 37, {infinite}, NULL) AS `a.b`", f"IF(id = 38, float({infinite}), 1) AS c"
    )
    with pytest.raises(ParameterError, match="features='a.b, c': infinite in the row id=38; 2 rows have such values"):
        checks.check_table(with_infinity, "label", "id")
    checks.check_table(with_infinity.where("id < 38"), "label", "id")


@pytest.mark.parametrize("name", names.RESERVED_COLUMNS)
def test_neither_the_id_nor_the_label_can_have_the_name_of_a_column_that_scoring_writes(spark, name):
    rows = spark.range(4).selectExpr(f"id AS `{name.title()}`", "id % 2 AS other")
    message = f"scoring writes a column of this name; rename yours. Reserved names: .*{name}"
    with pytest.raises(ParameterError, match=f"id_column='{name.title()}': {message}"):
        checks.check_table(rows, "other", name.title())
    with pytest.raises(ParameterError, match=f"label_column='{name.title()}': {message}"):
        checks.check_table(rows, name.title(), "other")


def test_a_check_that_is_added_to_the_table_runs_before_anything_is_written(spark, schema, make, tmp_path, monkeypatch):
    def check_size(rows, label_column, id_column):
        if rows.count() < 10:
            raise ParameterError("source_path", str(tmp_path), "fewer than 10 rows")

    monkeypatch.setattr(checks, "TABLE_CHECKS", [*checks.TABLE_CHECKS, check_size])
    AWKWARD.to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(ParameterError, match="fewer than 10 rows"):
        make(source_path=str(tmp_path / "rows.csv"))
    assert table_names(spark, schema) == set()


def test_a_label_of_a_complex_type_is_refused(spark):
    rows = spark.range(4).selectExpr("id", "array(id) AS label")
    with pytest.raises(ParameterError, match="label_column='label': has type array<bigint>; it must have numbers"):
        checks.check_label(rows, "label", "id")


def test_a_label_with_more_than_a_hundred_values_is_refused(spark):
    rows = spark.range(101).selectExpr("id", "id + 0.5 AS amount")
    assert checks.check_label(rows, "amount", "id").model_type == "regressor"
    with pytest.raises(ParameterError, match="amount.*more than 100 different values.*model_type=regressor"):
        checks.check_label(rows, "amount", "id", "classifier")


@pytest.mark.parametrize(
    ("label", "model_type", "reason"),
    [
        ("string(id)", "classifier", "the label has type string"),
        ("id % 2 = 0", "classifier", "the label has type boolean"),
        ("id % 20", "classifier", "the label has 20 different whole numbers"),
        ("id % 21", "regressor", "the label is a number with more than 20 different values"),
        ("double(id % 3)", "classifier", "the label has 3 different whole numbers"),
        ("id % 2 / 4", "regressor", "the label has numbers with a fraction"),
        ("CAST(id % 2 / 4 AS DECIMAL(4, 2))", "regressor", "the label has numbers with a fraction"),
    ],
)
def test_the_type_and_the_values_of_a_label_decide_what_is_trained(spark, label, model_type, reason):
    found = checks.check_label(spark.range(60).selectExpr("id", f"{label} AS label"), "label", "id")
    assert (found.model_type, found.reason) == (model_type, reason)


def test_a_label_is_what_model_type_says_or_refused_with_the_reason(spark):
    rows = spark.range(40).selectExpr(
        "id", "id AS age", "IF(id = 3, double('inf'), id / 2) AS endless", "string(id) AS t"
    )
    assert checks.check_label(rows, "age", "id", "classifier").summary == dict.fromkeys(range(40), 1)
    age = checks.check_label(rows, "age", "id", "regressor")
    assert age.reason == "as model_type says" and (age.summary["rows"], age.summary["mean"]) == (40, 19.5)
    with pytest.raises(ParameterError, match="endless': has infinite values, which no regression can learn"):
        checks.check_label(rows, "endless", "id")
    with pytest.raises(ParameterError, match="model_type='regressor': regression needs a number .* t has type string"):
        checks.check_label(rows, "t", "id", "regressor")


def test_nan_counts_as_a_missing_label(spark):
    rows = spark.sql("SELECT * FROM VALUES (1, 0D), (2, 1D), (3, double('NaN')), (4, NULL) AS rows (id, label)")
    assert checks.check_label(rows, "label", "id").summary == {0.0: 1, 1.0: 1}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "cannot be read"),
        ({"rows.csv": "a,b\n", "more.csv": "a,b\n"}, "has no rows"),
        ({"rows.json": "{}"}, "it has no .csv or .parquet file"),
        ({"rows.csv": "a,b\n1,2\n", "rows.parquet": ""}, "it has csv and parquet"),
    ],
)
def test_a_source_that_cannot_be_read_says_why(spark, tmp_path, files, message):
    folder = tmp_path / "source"
    for name, content in files.items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    with pytest.raises(ParameterError, match=message) as caught:
        source.read_source(spark, str(folder))
    assert str(caught.value).startswith(f"source_path='{folder}': ") and "\n" not in str(caught.value)


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
    assert names.qualified_name(table, catalog, "s") == expected


@pytest.mark.parametrize("name", ["nowhere.t", "nowhere.at.t"])
def test_the_error_for_a_missing_table_names_its_parameter(spark, name):
    with pytest.raises(ParameterError, match=f"scoring_table='{name}': no such table. Run 01_setup first"):
        tables.read_table(spark, name, "scoring_table")


def test_the_type_of_a_struct_with_many_fields_is_told_in_full(spark, schema):
    fields = ", ".join(f"'output_{number}', {number}D" for number in range(31))
    rows = spark.sql(f"SELECT named_struct({fields}) AS prediction, 1L AS id")
    storage.replace_table(rows, f"{schema}.t")
    assert tables.column_types(spark, f"{schema}.t") == rows.dtypes
