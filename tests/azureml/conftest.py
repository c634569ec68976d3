"""The environment of Azure ML's own inference server."""

from __future__ import annotations

import importlib.metadata
import sys
import time
from pathlib import Path

import pytest

from tests.stand_ins.azureml import inference_server


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
