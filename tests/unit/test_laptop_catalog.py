"""Tables that the next Spark session finds in the warehouse folder."""

import shutil
from pathlib import Path

import pytest

from helpers import storage
from helpers.laptop import catalog


@pytest.fixture
def next_session(spark, schema):
    """Drop the schema from this session's catalog but keep its files, and register the tables again, as a new session."""

    def forget_and_register():
        folder = Path(spark.conf.get("spark.sql.warehouse.dir").removeprefix("file:"), f"{schema}.db")
        aside = folder.rename(folder.with_suffix(".aside"))
        spark.sql(f"DROP SCHEMA {schema} CASCADE")
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
        catalog.register_tables(spark)

    return forget_and_register


def test_a_table_is_found_again_with_its_properties_partitions_and_names(spark, schema, next_session):
    rows = spark.sql("SELECT 1 AS `a b.c`, CAST(NULL AS DATE) AS day, '2026-01-31' AS batch_id")
    storage.replace_table(rows, f"{schema}.t", {"made.by": "set-up"}, partitioned_by="batch_id")
    spark.range(3).write.saveAsTable(f"{schema}.saved_by_hand")
    next_session()
    assert spark.table(f"{schema}.t").collect() == rows.collect()
    assert spark.table(f"{schema}.t").dtypes == rows.dtypes
    properties = {row["key"]: row["value"] for row in spark.sql(f"SHOW TBLPROPERTIES {schema}.t").collect()}
    assert properties["made.by"] == "set-up"
    spark.sql(f"INSERT OVERWRITE {schema}.t PARTITION (batch_id = 'b') VALUES (2, NULL)")
    assert spark.table(f"{schema}.t").count() == 2
    assert spark.table(f"{schema}.saved_by_hand").count() == 3


def test_an_unfinished_table_is_not_registered_and_can_be_made_again(spark, schema, next_session):
    with pytest.raises(KeyboardInterrupt), catalog.new_table(spark, f"{schema}.t"):
        spark.range(5).writeTo(f"{schema}.t").create()
        raise KeyboardInterrupt
    next_session()
    assert not spark.catalog.tableExists(f"{schema}.t")
    storage.replace_table(spark.range(7), f"{schema}.t")
    assert spark.table(f"{schema}.t").count() == 7
