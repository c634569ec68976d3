"""Runs: autologging them, and finding one again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helpers.ownership import MARK
from helpers.parameters import ParameterError
from helpers.tracking.servers import server_of_mlflow

if TYPE_CHECKING:
    from mlflow.entities import Run

    from helpers.tracking.session import Session

# The mark of a run says which model it trains.
MODEL_NAME_TAG = MARK


def autolog(**options: Any) -> None:
    """Call ``mlflow.autolog``; without the models where the server could not take them.

    On Azure Machine Learning autologging a model ends in a 404 (it has no API for MLflow 3's logged
    models, https://github.com/Azure/azure-sdk-for-python/issues/44896), and the run has no metrics.
    Log the model with `helpers.tracking.log_model` there.

    Parameters
    ----------
    **options
        Of ``mlflow.autolog``.
    """
    import mlflow

    if not server_of_mlflow(mlflow.get_tracking_uri()).has_logged_models:
        options["log_models"] = False
    mlflow.autolog(**options)


def find_run(session: Session, run_id: str, model_name: str) -> Run:
    """Return a run by its id, or the newest one of the experiment that trained a model.

    Parameters
    ----------
    session : helpers.tracking.Session
    run_id : str
        Empty for the newest finished run that trained `model_name`. A run that is given must be
        finished, too: one that was killed or lost its server stays RUNNING, with half of its data.
    model_name : str

    Raises
    ------
    ParameterError
        If there is no such run.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

    client = session.client()
    if run_id:
        try:
            run = client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            raise ParameterError("run_id", run_id, f"no such run on {session.tracking.uri}") from None
        if run.info.status != "FINISHED":
            raise ParameterError(
                "run_id", run_id, f"this run is {run.info.status}, not FINISHED; train again with 02_train"
            )
        return run
    runs = client.search_runs(
        [session.experiment_id],
        filter_string=f"attributes.status = 'FINISHED' AND tags.{MODEL_NAME_TAG} = '{model_name}'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    if not runs:
        raise ParameterError(
            "model_name",
            model_name,
            f"no finished run of it in experiment {session.experiment_name!r}; train one with 02_train, or give run_id",
        )
    # Searching does not say which models a run logged on every MLflow: 3.0.1 leaves its outputs empty.
    return client.get_run(runs[0].info.run_id)
