"""A laptop on which notebooks and jobs run, with its own folder, and what they leave in it."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from helpers.jobs import kernels
from helpers.laptop import catalog
from helpers.serving.local_endpoint import LocalEndpoint
from tests import spark_connect

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ("01_setup", "02_train", "03_register", "04_batch_score")
# No check of a rollout should fail because this machine is slow.
NO_LIMIT_MS = 600_000
# A limit for cells that hang.
SECONDS_PER_CELL = 1800
PLOTS = ["confusion_matrix", "feature_importance", "loss_curve", "precision_recall", "roc_curve"]


class Machine:
    """A laptop.

    Parameters
    ----------
    folder : pathlib.Path
        Its local state.
    java_options : str
        Options of Spark's JVM.
    variables : dict of str to str
        Environment variables in addition to this process's.
    """

    def __init__(self, folder: Path, java_options: str, variables: dict[str, str] | None = None) -> None:
        self.folder = folder
        self._java_options = java_options
        self._variables = {
            "BUNDLE_LOCAL_DIR": str(folder),
            "PYSPARK_SUBMIT_ARGS": f'--driver-java-options "{java_options}" pyspark-shell',
        } | (variables or {})

    @contextmanager
    def on_spark_connect(self, server: spark_connect.SharedServer) -> Iterator[Machine]:
        """Yield the same laptop, whose notebooks and other processes share a Spark Connect server.

        A process that starts its own Spark takes about 8 s longer. The packages of Databricks' runtimes, whose Spark Connect
        is not pip's, have no server: there, each process starts its own Spark.
        """
        if not spark_connect.is_installed():
            yield self
            return
        with server.used_by(self.folder) as address:
            yield Machine(self.folder, self._java_options, self._variables | {"SPARK_REMOTE": address})

    def environment(self, **values: object) -> dict[str, str]:
        """Return the environment of a process on the laptop, with parameters."""
        parameters = {f"BUNDLE_PARAM_{name.upper()}": str(value) for name, value in values.items()}
        return os.environ | self._variables | parameters

    def process(
        self, *arguments: str, pass_fds: tuple[int, ...] = (), **values: object
    ) -> subprocess.CompletedProcess[str]:
        """Run Python on the laptop, with parameters."""
        return subprocess.run(
            [sys.executable, *arguments],
            env=self.environment(**values), cwd=ROOT, capture_output=True, text=True, pass_fds=pass_fds,
        )  # fmt: skip

    def run(self, *arguments: str, pass_fds: tuple[int, ...] = (), **values: object) -> str:
        """Run Python on the laptop, and return what it printed. It must succeed."""
        done = self.process(*arguments, pass_fds=pass_fds, **values)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        return done.stdout + done.stderr

    def nbmake(self, *names: str, **values: object) -> None:
        """Run notebooks with nbmake, as ``pytest --nbmake`` on a command line does."""
        paths = [str(ROOT / "notebooks" / f"{name}.ipynb") for name in names]
        options = ["--nbmake", f"--nbmake-timeout={SECONDS_PER_CELL}", "-p", "no:cacheprovider"]
        options += ["-p", "tests.notebooks.kernels_without_ports"]
        shared = ()
        if sys.platform == "linux":
            # This process keeps what it has for the next notebooks, as the job runner does.
            shared = (kernels.process_for(self.environment()).requests.fileno(),)
            options.append(f"--preloaded-requests={shared[0]}")
        printed = self.run("-m", "pytest", *options, *paths, pass_fds=shared, **values)
        assert f"{len(names)} passed" in printed

    def table(self, name: str) -> pd.DataFrame:
        """Read a table of the warehouse without Spark."""
        folder = catalog.rows_folder(self.folder / "warehouse", f"azureml_mlflow.{name}")
        batches = ds.partitioning(pa.schema([("batch_id", pa.string())]), flavor="hive")
        partitions = batches if any(folder.glob("batch_id=*")) else None
        return ds.dataset(folder, format="parquet", partitioning=partitions).to_table().to_pandas()

    def end_endpoints(self) -> None:
        """Delete the local endpoints, which outlive the notebooks that made them."""
        for endpoint in LocalEndpoint.all(self.folder / "endpoints"):
            endpoint.delete()

    @functools.cached_property
    def client(self) -> mlflow.MlflowClient:
        """A plain client of the local store."""
        store = f"sqlite:///{self.folder / 'mlflow.db'}"
        # Set both, because another test may have set a registry for this process.
        return mlflow.MlflowClient(store, store)

    def newest_run(self, experiment_name: str) -> mlflow.entities.Run:
        """Return the newest run of the local store."""
        experiment = self.client.get_experiment_by_name(experiment_name)
        return self.client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])[0]


def artifacts(run: mlflow.entities.Run, folder: str) -> set[str]:
    """Return the paths below a folder of a run's artifacts.

    They are listed by URI, because MLflow 3.0's client looks for a run's artifacts on the process's tracking server,
    not on the client's.
    """
    return {item.path for item in mlflow.artifacts.list_artifacts(f"{run.info.artifact_uri}/{folder}")}
