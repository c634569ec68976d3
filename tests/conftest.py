"""One Spark session and one MLflow store for the whole pytest process, both in a temporary folder."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

# Less compilation by the JVM: tests run each query once.
QUICK_JVM = "--driver-java-options -XX:TieredStopAtLevel=1 pyspark-shell"
_numbers = itertools.count()


@pytest.fixture(scope="session")
def local_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that `helpers.runtime.local_dir` returns in this process."""
    folder = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BUNDLE_LOCAL_DIR", str(folder))
        environment.setenv("PYSPARK_SUBMIT_ARGS", QUICK_JVM)
        yield folder


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
def tracking_parameters(local_dir: Path):
    """Make what `helpers.tracking.configure` takes: the defaults of a laptop, with changes."""
    from helpers import parameters

    return lambda **changes: parameters.parse({name: parameters.FIELDS[name].default for name in parameters.TRACKING} | changes)


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
