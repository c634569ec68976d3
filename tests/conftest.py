"""One Spark session and one MLflow store for the whole pytest process, both in a temporary folder."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azureml.databricks_stand_in import DatabricksStandIn
from tests.azureml.stand_in import AzureMLStandIn

# Less compilation by the JVM: tests run each query once.
LITTLE_COMPILATION = "-XX:TieredStopAtLevel=1"
# Loads what most notebooks do, then waits for the JVM to write its archive of classes.
USE_SPARK = """
import sys
from helpers import local_spark
from pathlib import Path
spark = local_spark.start(Path(sys.argv[1]))
spark.range(100).selectExpr("id % 7 AS k", "id").groupBy("k").count().write.parquet(sys.argv[1] + "/rows")
spark.read.parquet(sys.argv[1] + "/rows").toPandas()
jvm = spark.sparkContext._gateway.proc
spark.stop()
jvm.stdin.close()
jvm.wait()
"""
_numbers = itertools.count()


@pytest.fixture(scope="session")
def local_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that `helpers.runtime.local_dir` returns in this process."""
    folder = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BUNDLE_LOCAL_DIR", str(folder))
        environment.setenv("PYSPARK_SUBMIT_ARGS", _submit_arguments(LITTLE_COMPILATION))
        yield folder


def _submit_arguments(java_options: str) -> str:
    return f'--driver-java-options "{java_options}" pyspark-shell'


@pytest.fixture(scope="session")
def quick_jvm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Options with which the JVM of each notebook starts in about half the time.

    It maps Spark's classes from an archive instead of loading them from jars one by one:
    https://docs.oracle.com/en/java/javase/17/vm/class-data-sharing.html
    """
    folder = tmp_path_factory.mktemp("jvm")
    archive = folder / "spark.jsa"
    options = f"{LITTLE_COMPILATION} -XX:ArchiveClassesAtExit={archive}"
    subprocess.run(
        [sys.executable, "-c", USE_SPARK, str(folder / "local")],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"PYSPARK_SUBMIT_ARGS": _submit_arguments(options)},
        check=True,
        capture_output=True,
    )
    return f"{LITTLE_COMPILATION} -XX:SharedArchiveFile={archive}"


@pytest.fixture(scope="session")
def spark(local_dir: Path):
    """The Spark session of this process, started as a notebook on a laptop starts it."""
    from helpers import runtime

    session = runtime.spark()
    yield session
    session.stop()


@pytest.fixture
def schema(spark) -> str:
    """The name of a new, empty schema."""
    name = f"schema_{next(_numbers)}"
    spark.sql(f"CREATE SCHEMA {name}")
    return name


@pytest.fixture(scope="session")
def aml(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureMLStandIn]:
    """An Azure with one AML workspace. Tests that change more than runs and models of their own start another."""
    with AzureMLStandIn.start(tmp_path_factory.mktemp("aml")) as stand_in:
        yield stand_in


@pytest.fixture(scope="session")
def databricks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabricksStandIn]:
    """A Databricks tracking server."""
    with DatabricksStandIn.start(tmp_path_factory.mktemp("databricks")) as stand_in:
        yield stand_in


@pytest.fixture(scope="session")
def tracking_parameters(local_dir: Path):
    """Make what `helpers.tracking.configure` takes: the defaults of a laptop, with changes."""
    from helpers import parameters

    defaults = {name: parameters.FIELDS[name].default for name in parameters.TRACKING}
    return lambda **changes: parameters.parse(defaults | changes)


@pytest.fixture
def tracking_servers(tracking_parameters):
    """MLflow on the local store, with an experiment that nobody else uses."""
    from helpers import tracking

    return tracking.configure(tracking_parameters(experiment_name=f"experiment_{next(_numbers)}"))


@pytest.fixture
def model_name() -> str:
    """A model name that nobody else uses."""
    return f"model_{next(_numbers)}"


@pytest.fixture
def register_estimator(tracking_servers, model_name):
    """Log a scikit-learn estimator of somebody's own and register it; returns its version."""
    import mlflow

    from helpers import tracking, training

    def register(estimator, signature):
        trained = training.TrainedModel(estimator, "sklearn", [], signature, None, {}, {})
        with mlflow.start_run():
            return mlflow.register_model(tracking.log_model(trained), model_name)

    return register
