"""``tracking_mode=dual``: runs are logged to Databricks, and mirrored to Azure Machine Learning."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from helpers.azureml.rest import first_line
from helpers.tracking import mirror

if TYPE_CHECKING:
    from mlflow.entities import Run

    from helpers.tracking.session import Session

COMMAND = "python -m helpers.mirror"
MOST_SECONDS = 600


def mirrored_experiment(session: Session, azureml_name: str = "") -> mirror.MirroredExperiment:
    """Find the session's experiment in Databricks, and the one that mirrors it, which is created if it is missing.

    Parameters
    ----------
    session : helpers.tracking.Session
        With ``tracking_mode=dual``.
    azureml_name : str, default ""
        The experiment in Azure Machine Learning. Empty: the last part of the name in Databricks.

    Raises
    ------
    LookupError
        If there is no such experiment in Databricks, or if the other was deleted.
    helpers.azureml.rest.AzureError
        If the Azure Machine Learning workspace cannot be used.
    mlflow.exceptions.MlflowException, ConnectionError
        If a server cannot be reached.
    """
    # A bar for each of thousands of files is of no use.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with session.tracking.naming_errors():
        return mirror.MirroredExperiment.find_or_create(
            session.tracking.uri,
            session.experiment_name,
            session.tracking.address,
            session.workspace.tracking_uri,
            azureml_name or session.mirror_name,
        )


def mirror_pending(session: Session) -> str:
    """Mirror the runs of the experiment that have ended and are not mirrored yet, the newest first.

    After ten minutes no further run is started, since an experiment may have a long history. The text
    describes any error, and the runs stay pending: a trained model is not lost because a second server
    is unavailable.

    Parameters
    ----------
    session : helpers.tracking.Session

    Returns
    -------
    str
        What was mirrored, what is left out, and what is pending, one line per item.
    """
    if not session.is_mirrored:
        return "Runs are mirrored to Azure ML with tracking_mode=dual only."
    from tqdm import tqdm

    again = f"the next job or `{COMMAND} {session.experiment_name}` goes on"
    try:
        experiment = mirrored_experiment(session)
        chosen = mirror.pending_runs(experiment)[::-1]
        end = time.monotonic() + MOST_SECONDS
        lines = []
        with tqdm(total=len(chosen), desc="mirror", unit=" runs", file=sys.stdout, disable=not chosen) as progress:
            for outcome in mirror.mirror_runs(experiment, chosen):
                lines.append(describe(outcome))
                progress.update()
                if time.monotonic() > end and len(lines) < len(chosen):
                    lines.append(f"{len(chosen) - len(lines)} older runs are pending; {again}")
                    break
    # Any error, since this boundary keeps a finished training from failing, and the plugin raises plain Exceptions.
    except Exception as error:  # noqa: BLE001
        return f"Mirroring to Azure ML is pending; {again}. {first_line(error)}"
    return "\n".join(lines or ["All runs that have ended are mirrored to Azure ML."])


def mirror_for_registry(session: Session, run: Run) -> str:
    """Mirror a run before its model is registered, if the registry is Azure Machine Learning's.

    A version that is registered from the copy keeps its lineage in Azure Machine Learning.

    Parameters
    ----------
    session : helpers.tracking.Session
    run : mlflow.entities.Run
        In Databricks.

    Returns
    -------
    str
        What was done.

    Raises
    ------
    helpers.azureml.rest.AzureError, mlflow.exceptions.MlflowException, azure.core.exceptions.AzureError
        If a server cannot be reached, or refuses.
    """
    if not (session.is_mirrored and session.registry.in_azureml):
        return "Only tracking_mode=dual with model_registry=azureml mirrors the run first."
    return describe(mirror.mirror_run(mirrored_experiment(session), run.info.run_id))


def describe(outcome: mirror.MirroredRun | mirror.Failure) -> str:
    """Describe what was done for a run."""
    if isinstance(outcome, mirror.Failure):
        return f"run {outcome.source_id}: pending, {outcome.reason}"
    text = (
        f"run {outcome.source_id} ({outcome.status}) is run {outcome.copy_id} in Azure ML: "
        f"{outcome.points} metric points and {outcome.files} files sent"
    )
    return "".join([text, *(f"\n  not as in Databricks: {item}" for item in outcome.omissions)])
