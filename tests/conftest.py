"""One Spark session and one MLflow store for the whole pytest process, both in a temporary folder."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.laptop import class_data as local_class_data
from helpers.ownership import MARK
from tests.scenarios.process import ScenarioProcess
from tests.stand_ins.azureml_workspace import AzureMLStandIn
from tests.stand_ins.databricks_tracking import DatabricksStandIn

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background commands with SIGINT ignored, and kernels inherit that: nobody could interrupt them.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The suite runs in more processes than there are cores. OpenMP's threads wait actively for threads that have no core, so that
# fitting boosted trees took six times as much of the processors' time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Less compilation by the JVM: tests run each query once.
LITTLE_COMPILATION = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m"
# … and the archive of Spark's classes that `make` created. PySpark uses these unless the session sets others.
QUICK_JVM = f"{LITTLE_COMPILATION} {local_class_data.java_options()}"
_numbers = itertools.count()


@pytest.fixture(scope="session")
def local_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that `helpers.runtime.local_dir` returns in this process."""
    folder = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BUNDLE_LOCAL_DIR", str(folder))
        environment.setenv("PYSPARK_SUBMIT_ARGS", f'--driver-java-options "{QUICK_JVM}" pyspark-shell')
        yield folder


@pytest.fixture(scope="session")
def quick_jvm() -> str:
    """Options with which the JVM of each notebook starts in less than half the time."""
    return QUICK_JVM


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
    """An Azure with one AML workspace. Tests that change more than their own runs and models start another."""
    with AzureMLStandIn.start(tmp_path_factory.mktemp("aml")) as stand_in:
        yield stand_in


@pytest.fixture(scope="module")
def azureml_process(aml: AzureMLStandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScenarioProcess]:
    """A process of a user who is signed in to the AML workspace, without this bundle."""
    with ScenarioProcess.start(tmp_path_factory.mktemp("azureml_process"), os.environ | aml.environment()) as process:
        yield process


@pytest.fixture(scope="session")
def databricks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabricksStandIn]:
    """A Databricks tracking server."""
    with DatabricksStandIn.start(tmp_path_factory.mktemp("databricks")) as stand_in:
        yield stand_in


@pytest.fixture(scope="session")
def tracking_parameters(local_dir: Path):
    """Return the parameters for `helpers.tracking.configure`: a laptop's defaults, with changes."""
    from helpers import parameters

    return lambda **changes: parameters.parse(parameters.Tracking, changes)


@pytest.fixture
def session(tracking_parameters):
    """MLflow on the local store, with an experiment that no other test uses."""
    from helpers import tracking

    return tracking.configure(tracking_parameters(experiment_name=f"experiment_{next(_numbers)}"))


@pytest.fixture
def model_name() -> str:
    """A model name that no other test uses."""
    return f"model_{next(_numbers)}"


@pytest.fixture
def register_estimator(session, model_name):
    """Log a scikit-learn estimator without this bundle and register it; return its version."""
    import mlflow

    from helpers import tracking

    def register(estimator, signature):
        with mlflow.start_run():
            uri = tracking.log_model(estimator, flavor="sklearn", signature=signature)
            return mlflow.register_model(uri, model_name, tags={MARK: model_name})

    return register
