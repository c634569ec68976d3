"""The guide "Monitoring": its numbers are those of the code, and its queries and calls work."""

import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from helpers import kinds, parameters
from helpers.azureml.workspace import API_VERSION
from helpers.data import tables
from helpers.monitoring import baseline, statistics, table
from helpers.monitoring.azureml import definition, reference
from helpers.scoring.output_tables import RESULT_COLUMNS
from helpers.tracking import MONITORING_TAG

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "monitoring.md").read_text(encoding="utf-8")
TABLE = "azureml_mlflow.diabetes_monitoring"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.M | re.S)


def test_the_guide_has_the_thresholds_and_the_defaults_of_the_code():
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in GUIDE.splitlines() if line[:3] == "| `"]
    listed = {cells[0].strip("`"): float(cells[3]) for cells in rows if len(cells) == 4}
    assert listed == kinds.DRIFT_THRESHOLDS
    defaults = dict(re.findall(r"`(\w+)`(?: rows)? \(([\d.]+)\)", GUIDE))
    assert defaults == {name: parameters.default_text(name) for name in defaults}
    assert len(defaults) == 5
    assert f"an empty bin has the share {statistics.SMALLEST_SHARE:.4f}" in GUIDE
    assert f"its {baseline._MOST_CATEGORIES} most frequent categories" in GUIDE
    assert f"`tags.{MONITORING_TAG} = " in GUIDE


def test_the_guide_says_which_thresholds_azure_mls_monitor_gets_and_on_what_it_runs():
    table = GUIDE.partition("| signal | metric |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    listed = {
        (cells[0].title().replace(" ", ""), measure) for cells in rows for measure in re.findall(r"`(\w+)`", cells[2])
    }
    sent = {(signal, metric[0]) for signal, (_, metrics) in definition._SIGNALS.items() for metric in metrics}
    assert listed == sent
    assert f"(`{definition.INSTANCE_TYPE}`, the smallest of five sizes, with Spark {definition.SPARK_VERSION})" in GUIDE
    assert f"{reference.MOST_ROWS:,} training rows" in GUIDE and f"folder `{reference.FOLDER}`" in GUIDE
    assert f"Azure Resource Manager in version {API_VERSION}" in GUIDE


def test_the_queries_of_the_guide_answer(spark):
    rows = []
    for version, quality in ((1, 0.9), (2, 0.95)):
        start = ("diabetes", version, "day", "2026-11-01", "2026-11-01 05:00:00")
        rows += [
            (*start, "psi", name, value, 0.0, value, 0.5, 100, "") for name, value in (("age", 0.1), ("size", 0.2))
        ]
        rows.append((*start, "quality", "", quality, 0.97, 0.97 - quality, 0.5, 90, "accuracy_score"))
    # `createDataFrame` would start a Python worker.
    values = ", ".join(f"({', '.join(f'{it}D' if isinstance(it, float) else repr(it) for it in row)})" for row in rows)
    columns = ", ".join(column.split()[0] for column in table._COLUMNS.split(", "))
    spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW measures AS SELECT * FROM VALUES {values} AS t({columns})")
    moved, of_all, compared = (spark.sql(query.replace(TABLE, "measures")).collect() for query in blocks("sql"))
    assert [(row.feature, row.psi) for row in moved] == [("size", 0.2), ("age", 0.1)]
    assert [(row.model_version, row.value, row.at_the_gate, row.labels) for row in of_all] == [
        (1, 0.9, 0.97, 90),
        (2, 0.95, 0.97, 90),
    ]
    assert [(row.metric, row.champion, row.challenger) for row in compared] == [("accuracy_score", 0.9, 0.95)]


def test_the_call_of_the_guide_drops_the_table(spark, schema):
    name = f"{schema}.diabetes_monitoring"
    table.prepare(spark, name, "diabetes")
    exec(blocks("python")[0].replace(TABLE, name), {})
    assert not tables.exists(spark, name)


@contextmanager
def workspace() -> Iterator[tuple[str, list]]:
    """Answer what the guide's call asks for, and keep the monitors that it creates."""
    created = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            kind, _, name = self.path.partition("/unity-catalog/")[2].partition("/")
            names = {"tables": "main.azureml_mlflow.diabetes_predictions", "schemas": "main.azureml_mlflow"}
            # The client also asks where to sign in, and does without an answer.
            found = kind in names and names[kind] == name
            self.answer({f"{kind.removesuffix('s')}_id": f"id of {kind}"} if found else {}, 200 if found else 404)

        def do_POST(self):
            created.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.answer(created[-1][1])

        def answer(self, body, status=200):
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", created
        server.shutdown()


def test_the_guides_call_creates_databricks_own_monitor_with_the_columns_of_the_predictions(monkeypatch):
    with workspace() as (address, created):
        monkeypatch.setenv("DATABRICKS_HOST", address)
        monkeypatch.setenv("DATABRICKS_TOKEN", "a-token")
        exec(blocks("python")[1], {})
    ((path, monitor),) = created
    assert path.endswith("/data-quality/v1/monitors") and monitor["object_type"] == "table"
    log = monitor["data_profiling_config"]["inference_log"]
    assert {value for key, value in log.items() if key.endswith("_column")} <= {*RESULT_COLUMNS}
    assert log["granularities"] == ["AGGREGATION_GRANULARITY_1_DAY"]
    ids = monitor["object_id"], monitor["data_profiling_config"]["output_schema_id"]
    assert ids == ("id of tables", "id of schemas")


def test_the_bundles_package_has_no_such_resource_yet():
    version = importlib.metadata.version("databricks-bundles")
    assert f"`databricks-bundles` {version}" in GUIDE
    for name, exists in (("data_quality_monitors", False), ("quality_monitors", True)):
        assert (importlib.util.find_spec(f"databricks.bundles.{name}") is not None) == exists
