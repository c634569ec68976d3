"""A process that is signed in to both services, and the environment of Azure ML's own inference server."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.process import ScenarioProcess
from tests.stand_ins import both_servers
from tests.stand_ins.azureml import inference_server
from tests.stand_ins.azureml_workspace import AzureMLStandIn
from tests.stand_ins.databricks_tracking import DatabricksStandIn


@pytest.fixture(scope="session")
def inference_environment() -> Path:
    """An environment of the requirements that the bundle's models have; it stays beside this process's packages.

    tests/azureml/test_inference_server.py compares them with the models' own.
    """
    from helpers.tracking.models import FOR_ENDPOINTS

    packages = ["mlflow", "scikit-learn", "skops", "numpy", "pandas", "xgboost-cpu"]
    requirements = [f"{package}=={importlib.metadata.version(package)}" for package in packages]
    started = time.perf_counter()
    folder = inference_server.environment(Path(sys.prefix, "inference-server"), [*requirements, *FOR_ENDPOINTS])
    print(f"environment after {time.perf_counter() - started:.1f} s")
    return folder


@pytest.fixture(scope="module")
def signed_in(
    aml: AzureMLStandIn, databricks: DatabricksStandIn, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ScenarioProcess]:
    """A process that is signed in to both Azure ML and Databricks."""
    folder = tmp_path_factory.mktemp("signed_in")
    environment = os.environ | both_servers.environment(aml, databricks) | {"BUNDLE_LOCAL_DIR": str(folder / "local")}
    with ScenarioProcess.start(folder, environment) as process:
        yield process


@pytest.fixture
def process(signed_in: ScenarioProcess, aml: AzureMLStandIn) -> Iterator[ScenarioProcess]:
    """The same, for a test that may have requests fail."""
    yield signed_in
    aml.faults.clear()
