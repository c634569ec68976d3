"""Scoring on separate executors, which have neither the bundle nor the driver's folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyspark
import pytest
from mlflow.models import infer_signature
from pyspark.ml import Pipeline
from pyspark.ml.classification import LogisticRegression as SparkLogisticRegression
from pyspark.ml.feature import VectorAssembler
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from helpers import storage, tracking
from helpers.laptop import catalog
from tests.conftest import LITTLE_COMPILATION

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ROWS = 3000
SCORE = ROOT / "tests" / "scenarios" / "spark" / "score_on_executors.py"


def python_models(died: str):
    """Two user-defined models. Classes defined inside a function are pickled by value."""

    class DiesOnce(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            import os
            import signal

            if model_input["c0"].max() > 2:
                try:
                    os.close(os.open(died, os.O_CREAT | os.O_EXCL))
                    os.kill(os.getpid(), signal.SIGKILL)
                except FileExistsError:
                    pass
            return model_input["c0"] * 2

    class NeedsPackage(mlflow.pyfunc.PythonModel):
        def load_context(self, context):
            import only_on_the_driver  # noqa: F401

        def predict(self, context, model_input, params=None):
            return model_input["c0"]

    return DiesOnce(), NeedsPackage()


@pytest.fixture(scope="module")
def data():
    numbers = np.random.default_rng(0).normal(size=(ROWS, 4))
    return pd.DataFrame(numbers, columns=[f"c{i}" for i in range(4)])


@pytest.fixture(scope="module")
def scored(spark, local_dir, tracking_parameters, tmp_path_factory, data):
    """Everything scored by one session with two executors: the reports, the tables' schema, the models."""
    folder = tmp_path_factory.mktemp("executors")
    tracking.configure(tracking_parameters(experiment_name="executors"))
    spark.sql("CREATE SCHEMA on_executors")
    rows = data.assign(id=range(ROWS))
    storage.replace_table(spark.createDataFrame(rows).repartition(4), "on_executors.scoring")
    labels = (data["c0"] + data["c1"] > 0).astype(int)
    answers = pd.Series([0], name="prediction")
    estimators = {
        "forest": RandomForestClassifier(10).fit(data, labels),
        "linear": LogisticRegression().fit(data, labels),
    }
    stages = [VectorAssembler(inputCols=list(data), outputCol="features"), SparkLogisticRegression(maxIter=5)]
    spark_ml = Pipeline(stages=stages).fit(spark.createDataFrame(data.assign(label=labels.astype(float))))
    logged = {kind: (estimator, "sklearn", answers) for kind, estimator in estimators.items()}
    logged["spark_ml"] = (spark_ml, "spark", pd.Series([0.0], name="prediction"))
    for kind, (model, flavor, output) in logged.items():
        with mlflow.start_run():
            uri = tracking.log_model(model, flavor=flavor, signature=infer_signature(data, output))
            mlflow.register_model(uri, f"on_executors_{kind}")
    dies, needs = python_models(str(folder / "died"))
    for kind, model, requirements in (("dies", dies, []), ("needs", needs, ["only-on-the-driver==1.2.3"])):
        with mlflow.start_run():
            signature = infer_signature(data, pd.Series([0.0], name="prediction"))
            options = {"signature": signature, "pip_requirements": ["mlflow", *requirements]}
            logged_model = mlflow.pyfunc.log_model("model", python_model=model, **options)
            mlflow.register_model(logged_model.model_uri, f"on_executors_{kind}")
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "only_on_the_driver.py").touch()
    # Executors keep their folders in Spark's own.
    (folder / "spark").mkdir()
    for part in Path(pyspark.__file__).parent.iterdir():
        (folder / "spark" / part.name).symlink_to(part)
    models = {kind: f"on_executors_{kind}" for kind in (*logged, "dies", "needs")}
    models["stream"] = models["forest"]
    results = folder / "results.json"
    tables = ["on_executors.scoring", "on_executors"]
    arguments = [ROOT, folder / "elsewhere", *tables, json.dumps(models), folder / "checkpoint", results]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"SPARK_HOME": str(folder / "spark"), "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}
    # For speed: JVM options as on the driver of these tests, and two attempts per task instead of four.
    quick = f'--conf "spark.executor.extraJavaOptions={LITTLE_COMPILATION}" --conf spark.task.maxFailures=2'
    environment["PYSPARK_SUBMIT_ARGS"] = f"{quick} {environment['PYSPARK_SUBMIT_ARGS']}"
    done = subprocess.run(
        [sys.executable, SCORE, *map(str, arguments)],
        cwd=folder / "elsewhere", env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    catalog.register_tables(spark)
    return json.loads(results.read_text()) | {"estimators": estimators, "spark_ml_model": spark_ml}


def predictions(spark, table, data):
    found = spark.table(f"on_executors.{table}").toPandas().set_index("id").sort_index()
    assert found.index.tolist() == list(range(len(data)))
    return found


def test_executors_have_neither_the_bundle_nor_the_drivers_folder(scored):
    folders, _, importable = zip(*scored["workers"], strict=True)
    assert len(set(folders)) == 2 and not any(importable)
    assert not any("elsewhere" in folder or folder == str(ROOT) for folder in folders)


@pytest.mark.parametrize(
    ("kind", "model", "engine"),
    [("forest", "forest", "udf"), ("linear", "linear", "sql"), ("stream", "forest", "udf")],
)
def test_each_engine_and_a_stream_give_the_models_answers_on_executors(spark, scored, data, kind, model, engine):
    assert scored[kind] == [engine, ROWS, 0]
    found, estimator = predictions(spark, kind, data), scored["estimators"][model]
    assert found["prediction"].tolist() == estimator.predict(data).tolist()
    np.testing.assert_allclose(found["probability"], estimator.predict_proba(data).max(axis=1), rtol=1e-12)


def test_a_spark_ml_pipeline_gives_its_answers_on_executors(spark, scored, data):
    assert scored["spark_ml"] == ["spark ml", ROWS, 0]
    expected = scored["spark_ml_model"].transform(spark.createDataFrame(data.assign(id=range(ROWS)))).toPandas()
    assert (
        predictions(spark, "spark_ml", data)["prediction"].tolist() == expected.sort_values("id")["prediction"].tolist()
    )


def test_a_job_whose_python_worker_is_killed_gives_each_row_its_answer_once(spark, scored, data):
    assert scored["dies"] == ["udf", ROWS, 0]
    np.testing.assert_allclose(predictions(spark, "dies", data)["prediction"], data["c0"] * 2)


def test_a_package_that_only_the_driver_has_is_named_with_what_to_do(scored):
    assert scored["needs"].startswith(
        "model_name='models:/on_executors_needs/1': needs the package 'only_on_the_driver'"
    )
    assert "not installed on the executors. Add only-on-the-driver==1.2.3 to the task's libraries" in scored["needs"]
