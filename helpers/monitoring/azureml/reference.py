"""Training rows of a version as files of its run in Azure ML, which Azure ML's own monitor compares with.

The baseline has counts by bin, and Azure ML wants rows, which it counts in bins of its own. Rows made up from our counts
would be spread evenly where the real ones are not, and look like drift.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from helpers import tracking
from helpers.azureml.run_files import RunFiles
from helpers.data.names import quoted
from helpers.data.split import load_for_run
from helpers.monitoring.baseline import Baseline, load_baseline
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

    from helpers.parameters import Monitor

MOST_ROWS = 10_000
FOLDER = "monitor_reference"
# `RunFiles.upload` writes in the order of the names, so whoever finds `MLTable` finds the rows, too.
_ROWS, _MLTABLE = f"{FOLDER}/DATA.parquet", f"{FOLDER}/MLTable"
# https://learn.microsoft.com/azure/machine-learning/reference-yaml-mltable
_CONTENT = "type: mltable\npaths:\n  - file: ./DATA.parquet\ntransformations:\n  - read_parquet\n"


class Versions(Protocol):
    """What is known of the versions of a model, by their numbers in the session's registry."""

    def baseline(self, number: str) -> Baseline | None:
        """Return the baseline of a version."""

    def training_rows(self, number: str, columns: list[str]) -> pd.DataFrame | None:
        """Return up to `MOST_ROWS` of the rows that a version was trained on, the same ones each time."""


class VersionsOnSpark:
    """The versions of a model whose baselines and training rows are in tables.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    session : helpers.tracking.Session
    p : helpers.parameters.Monitor
    model_name : str
        Name in the registry.
    """

    def __init__(self, spark: SparkSession, session: tracking.Session, p: Monitor, model_name: str) -> None:
        self._spark, self._session, self._p, self._model_name = spark, session, p, model_name

    def baseline(self, number: str) -> Baseline | None:
        """Return the baseline of a version, or None if it has none."""
        return load_baseline(self._spark, self._p, number)

    def training_rows(self, number: str, columns: list[str]) -> pd.DataFrame | None:
        """Return training rows, or None if the run does not say which they were, or if the table has gone or changed."""
        from pyspark.sql import functions as F

        version = tracking.resolve_version(self._session, self._model_name, number)
        try:
            run = tracking.find_run(self._session, tracking.run_id(version), self._p.model_name)
            split = load_for_run(self._spark, run)
        except ParameterError:
            return None
        rows = split.hold_out.parts(split.rows)["training"].select(*map(quoted, columns))
        sample = rows.orderBy(F.xxhash64(*map(quoted, columns))).limit(MOST_ROWS).toPandas()
        # Spark Connect leaves objects there that a Parquet file cannot have.
        sample.attrs.clear()
        return sample


@dataclass(frozen=True)
class Reference:
    """A folder of a version's run in Azure ML.

    Attributes
    ----------
    uri : str
        Of the folder, as a datastore has it.
    files : helpers.azureml.run_files.RunFiles
        Of the run.
    """

    uri: str
    files: RunFiles

    @classmethod
    def of(cls, session: tracking.Session, run_id: str) -> Reference | None:
        """Return the folder in a run, whether or not the folder exists; None if the run does not."""
        from mlflow.exceptions import MlflowException

        workspace = session.workspace
        try:
            run = session.azureml_server.client().get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        if run.info.lifecycle_stage != "active":
            return None
        # https://learn.microsoft.com/azure/machine-learning/how-to-manage-models (the path of a job's output)
        uri = workspace.datastore_uri(f"workspaceartifactstore/paths/ExperimentRun/dcid.{run_id}/{FOLDER}")
        return cls(uri, RunFiles(workspace.tracking_uri, run.info.artifact_uri))

    def exists(self) -> bool:
        """Return whether the rows are there, completely."""
        return _MLTABLE in self.files.paths() and self.files.content(_MLTABLE) is not None

    def upload(self, rows: pd.DataFrame) -> None:
        """Write the rows; files of a run are written once, so a process that was killed here is finished by the next."""
        with tempfile.TemporaryDirectory() as scratch:
            rows.to_parquet(Path(scratch, Path(_ROWS).name), index=False)
            Path(scratch, Path(_MLTABLE).name).write_text(_CONTENT)
            self.files.upload(Path(scratch), FOLDER)
