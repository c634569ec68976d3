"""Laptops of these tests that share a Spark Connect server."""

import pytest

from tests import spark_connect
from tests.notebooks.machine import Machine

TABLES = """
from helpers import runtime, storage

spark = runtime.spark()
spark.sql("CREATE SCHEMA azureml_mlflow")
storage.replace_table(spark.range(3), "azureml_mlflow.training")
spark.range(3).write.saveAsTable("azureml_mlflow.by_hand")
spark.range(3).write.saveAsTable("by_hand")
"""
SEEN = """
from helpers import runtime

spark = runtime.spark()
for schema in spark.catalog.listDatabases():
    print(schema.name, [table.name for table in spark.catalog.listTables(schema.name)])
"""


@pytest.mark.skipif(not spark_connect.is_installed(), reason="the packages of a client are not installed")
def test_one_laptop_at_a_time_uses_the_server_and_the_next_one_sees_none_of_its_tables(
    tmp_path, quick_jvm, connect_server
):
    one, two = (Machine(tmp_path / name, quick_jvm) for name in ("one", "two"))
    with one.on_spark_connect(connect_server) as connected:
        with connected.on_spark_connect(connect_server) as again:
            again.run("-c", TABLES)
        refused = f"used by the laptop in {one.folder}, so the one in {two.folder}"
        with pytest.raises(RuntimeError, match=refused), two.on_spark_connect(connect_server):
            pass
    with two.on_spark_connect(connect_server) as connected:
        assert connected.run("-c", SEEN).splitlines() == ["default []"]
    assert one.table("training")["id"].tolist() == [0, 1, 2]
    for saved in ("azureml_mlflow.db/by_hand", "by_hand"):
        assert list((one.folder / "warehouse" / saved).glob("*.parquet"))
