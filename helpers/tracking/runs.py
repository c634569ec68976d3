"""Runs: autologging, recording the held-out rows, and finding a run again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helpers.data.split import SPLIT_TAG
from helpers.ownership import MARK
from helpers.parameters import ParameterError
from helpers.tracking.servers import server_of_mlflow

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.exceptions import MlflowException

    from helpers.data.split import Split
    from helpers.tracking.session import Session

# The mark of a run says which model it trains.
MODEL_NAME_TAG = MARK
# Of a trial's run: for which model it was tried. It has no mark, or it could be taken for the newest run of the model.
TRIAL_TAG = f"{MARK}_trial_of"
# Of a run with the measures of a window: whose predictions they are about.
MONITORING_TAG = f"{MARK}_monitoring_of"


def autolog(**options: Any) -> None:
    """Call ``mlflow.autolog``, without logging models if the server does not support that.

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


def log_split(split: Split) -> None:
    """Record in the active run which rows it holds out, so that they can judge its model when it is registered.

    The run gets the table as a dataset input, and a tag with the table, its label and id column, how it was split, and
    the number and a hash of the held-out ids. `helpers.data.evaluation_rows` finds the rows again by them.

    Ends the run's twin, too, if it has one: when the answer to ``mlflow.start_run`` is lost, MLflow's client asks again, and
    the first run would be shown as running for ever.

    Parameters
    ----------
    split : helpers.data.split.Split
        From `helpers.data.load_split`. The model must learn from ``split.train`` only.
    """
    import mlflow

    _end_twin()
    split.log_input()
    mlflow.set_tag(SPLIT_TAG, split.record().as_text())


def _end_twin() -> None:
    """End the runs that the request for the active run has made before an answer arrived."""
    import mlflow

    run = mlflow.active_run()
    if run is None:
        return
    client = mlflow.MlflowClient()
    # The request is repeated as it was, with the time to the millisecond and the tags.
    for other in client.search_runs([run.info.experiment_id], order_by=["attributes.start_time DESC"], max_results=100):
        same = all(
            getattr(other.info, name) == getattr(run.info, name) for name in ("start_time", "run_name", "user_id")
        )
        is_empty = not (other.data.metrics or other.data.params)
        if same and is_empty and other.info.status == "RUNNING" and other.info.run_id != run.info.run_id:
            client.set_terminated(other.info.run_id, "KILLED")


def find_run(session: Session, run_id: str, model_name: str, model_uri: str = "") -> Run:
    """Return a run by its id or by the model that it logged, or the newest one that trained a registered model.

    Parameters
    ----------
    session : helpers.tracking.Session
    run_id : str
        Empty for the run that logged `model_uri`. A run that is given must be finished: one that was killed or lost
        its server stays RUNNING, with half of its data.
    model_name : str
        Without `run_id` and `model_uri`: the newest finished run of the experiment that trained this model, as its tag
        `MODEL_NAME_TAG` says.
    model_uri : str, default ""
        A model as `helpers.tracking.log_model` or MLflow's own ``log_model`` returned it.

    Raises
    ------
    ParameterError
        If there is no such run or model, or if the run was deleted or is not finished.
    """
    client = session.client()
    run_id = run_id or (_run_id_of_model(session, model_uri) if model_uri else "")
    if run_id:
        return _finished_run(session, run_id)
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


def _finished_run(session: Session, run_id: str) -> Run:
    from mlflow.exceptions import MlflowException

    try:
        run = session.client().get_run(run_id)
    except MlflowException as error:
        if not _is_missing(error):
            raise
        raise ParameterError("run_id", run_id, f"no such run on {session.tracking.uri}") from None
    if run.info.lifecycle_stage != "active":
        raise ParameterError(
            "run_id",
            run_id,
            f"this run was deleted on {session.tracking.uri}. Restore it, if its files are still there: "
            f"mlflow.MlflowClient().restore_run({run_id!r})",
        )
    if run.info.status in ("RUNNING", "SCHEDULED"):
        advice = "Wait until it has ended. If its process was killed, train again"
    else:
        advice = "It ended with an error or was stopped, so its model may be missing or half trained: train again"
    if run.info.status != "FINISHED":
        raise ParameterError("run_id", run_id, f"this run is {run.info.status}, not FINISHED. {advice}")
    return run


def _run_id_of_model(session: Session, model_uri: str) -> str:
    """Return the id of the run that logged the model of a URI."""
    from mlflow.exceptions import MlflowException

    kind, *parts = model_uri.split("/")
    if kind == "runs:" and len(parts) > 1:
        return parts[0]
    client = session.client()
    if kind == "models:" and len(parts) == 1 and hasattr(client, "get_logged_model"):
        try:
            run_id = client.get_logged_model(parts[0]).source_run_id
        except MlflowException as error:
            if not _is_missing(error):
                raise
            raise ParameterError("model_uri", model_uri, f"no such model on {session.tracking.uri}") from None
        if run_id:
            return run_id
        raise ParameterError("model_uri", model_uri, "this model was logged outside of a run; log it in one")
    raise ParameterError(
        "model_uri",
        model_uri,
        "does not name a model of a run; accepted is what log_model returned: models:/<model id>, or "
        "runs:/<run id>/<folder>",
    )


def _is_missing(error: MlflowException) -> bool:
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

    return error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST)
