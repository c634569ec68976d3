"""The interface of an endpoint: what a rollout and clean-up need from each kind, and one scoring request."""

from __future__ import annotations

import abc
import base64
import datetime
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from helpers.scoring.worker import is_missing
from helpers.scoring.worker import plain as scoring_plain

if TYPE_CHECKING:
    import pandas as pd
    import requests
    from mlflow.entities.model_registry import ModelVersion

    from helpers import parameters
    from helpers.tracking import Session


# Azure ML's own header. In a request it names the deployment to use, in a response the one that answered.
DEPLOYMENT_HEADER = "azureml-model-deployment"
# Azure ML ends a request after 180 s at the latest:
# https://learn.microsoft.com/azure/machine-learning/reference-yaml-deployment-managed-online
REQUEST_SECONDS = 180
# Azure's limit, in percent of the requests:
# https://learn.microsoft.com/azure/machine-learning/how-to-safely-rollout-online-endpoints
MOST_MIRRORED = 50


class ServingError(RuntimeError):
    """An endpoint, a deployment or a request failed.

    Parameters
    ----------
    message : str
        What was tried, what the answer was, and what to do.
    log : str, default ""
        The last lines of the model server's log.
    """

    def __init__(self, message: str, log: str = "") -> None:
        self.message, self.log = message, log
        super().__init__(f"{message}\n\nThe model server's log ends with:\n{log}" if log else message)


@dataclass(frozen=True)
class Deployment:
    """A model version that an endpoint serves.

    Attributes
    ----------
    name : str
    model : str
        ``<name>/<version>``.
    state : str
        ``Succeeded`` when it serves; ``Creating``, ``Updating``, ``Deleting`` or ``Failed`` otherwise.
    is_ours : bool
        Whether this bundle made it.
    """

    name: str
    model: str
    state: str
    is_ours: bool


@dataclass(frozen=True)
class EndpointState:
    """What an endpoint serves.

    Attributes
    ----------
    url : str
        The address for scoring requests.
    is_ours : bool
        Whether this bundle made the endpoint.
    traffic : dict of str to int
        Percentage of the requests by deployment. Deployments without traffic are left out.
    deployments : dict of str to Deployment
    mirror : dict of str to int
        Percentage of the requests that is copied to a deployment, whose answers nobody gets. Empty: none.
    """

    url: str
    is_ours: bool
    traffic: dict[str, int] = field(default_factory=dict)
    deployments: dict[str, Deployment] = field(default_factory=dict)
    mirror: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class MirrorCounts:
    """What became of the copies of requests that were mirrored to a deployment.

    Attributes
    ----------
    answered : int
        Copies that the deployment answered. On Azure ML, whose log of the deployment is counted, with the requests that name it.
    failed : int
        Copies that it did not answer, although the deployment that serves the callers answers such requests.
    dropped : int
        Copies that were not sent, because too many others were waiting.
    error : str
        The newest failure.
    """

    answered: int
    failed: int
    dropped: int = 0
    error: str = ""

    def __str__(self) -> str:
        return f"{self.answered} answered, {self.failed} failed, {self.dropped} dropped"


@dataclass(frozen=True)
class Answer:
    """The answer to one request.

    Attributes
    ----------
    predictions : list
        One value per row, or one dict per row if the model has several outputs.
    deployment : str
        The deployment that answered.
    seconds : float
        Time from sending the request to receiving the answer.
    """

    predictions: list[Any]
    deployment: str
    seconds: float


@dataclass(frozen=True)
class ExistingEndpoint:
    """An endpoint that clean-up has found.

    Attributes
    ----------
    endpoint : Endpoint
    where : str
        The place that it is in, in words.
    model_name : str or None
        The model for which this bundle made it; None if somebody else made it.
    """

    endpoint: Endpoint
    where: str
    model_name: str | None


class Endpoint(abc.ABC):
    """An address for scoring requests, with deployments of model versions behind it.

    A new kind of endpoint is a subclass, and one line in `helpers.kinds.ENDPOINTS`.

    Parameters
    ----------
    name : str

    Attributes
    ----------
    single_version : bool, default False
        Whether the endpoint holds one model version at a time. A new version then replaces the old one at once,
        and there is no traffic to shift.
    in_azureml : bool, default False
        Whether the endpoint deploys models of the Azure ML workspace's registry only.
    collects_data : bool, default False
        Whether deployments of this kind can collect their requests.
    takes_own_environment : bool, default False
        Whether ``endpoint_environment=own`` is possible.
    makes_environment : bool, default False
        Whether deployments then run in an environment that is made for them, of ``endpoint_image`` and ``endpoint_conda_file``.
    mirrors : bool, default False
        Whether copies of requests can be sent to a deployment that gets none: `set_mirror`.
    """

    single_version: ClassVar[bool] = False
    in_azureml: ClassVar[bool] = False
    collects_data: ClassVar[bool] = False
    takes_own_environment: ClassVar[bool] = False
    makes_environment: ClassVar[bool] = False
    mirrors: ClassVar[bool] = False

    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    @abc.abstractmethod
    def open(cls, session: Session, p: parameters.Endpoint, model_name: str) -> Endpoint:
        """Return the endpoint that the parameters describe. It need not exist yet.

        Parameters
        ----------
        session : helpers.tracking.Session
            Its Azure ML workspace is signed in to only by the kinds that are in Azure.
        p : helpers.parameters.Endpoint
        model_name : str
            The name of the endpoint is made from it, unless `p` has one.

        Raises
        ------
        helpers.parameters.ParameterError
            If a parameter is missing or does not fit this kind.
        """

    @classmethod
    @abc.abstractmethod
    def existing(cls, session: Session) -> Iterator[ExistingEndpoint]:
        """Return all endpoints of this kind, including those that somebody else made.

        Parameters
        ----------
        session : helpers.tracking.Session
            Kinds that are in Azure look only where the parameters name a workspace.

        Raises
        ------
        ServingError
            If the endpoints cannot be listed.
        """

    def check(self, session: Session, version: ModelVersion) -> None:
        """Check that the endpoint can serve a version, as far as that is known before anything is made.

        Parameters
        ----------
        session : helpers.tracking.Session
        version : mlflow.entities.model_registry.ModelVersion
            From the session's registry.

        Raises
        ------
        helpers.parameters.ParameterError
            If it cannot.
        """
        del session, version

    @abc.abstractmethod
    def state(self) -> EndpointState | None:
        """Return what the endpoint serves, or None if it does not exist."""

    @abc.abstractmethod
    def create(self, model_name: str) -> None:
        """Create the endpoint without deployments, and mark it as made by this bundle for a model."""

    @abc.abstractmethod
    def deploy(self, deployment: str, version: ModelVersion, show: Callable[[str], Any] = print) -> None:
        """Deploy a model version without traffic, and wait until it serves.

        Parameters
        ----------
        deployment : str
        version : mlflow.entities.model_registry.ModelVersion
        show : callable
            Called with each line about the progress.

        Raises
        ------
        ServingError
            If the deployment fails.
        """

    @abc.abstractmethod
    def wait(self, deployment: str, show: Callable[[str], Any] = print) -> None:
        """Wait until a deployment that an earlier attempt started serves.

        Parameters
        ----------
        deployment : str
        show : callable
            Called with each line about the progress.

        Raises
        ------
        ServingError
            If the deployment fails.
        """

    @abc.abstractmethod
    def set_traffic(self, traffic: dict[str, int]) -> None:
        """Set the percentage of the requests by deployment: 100 in total, or 0 to serve no requests."""

    def set_mirror(self, deployment: str, percent: int) -> None:
        """Copy a percentage of the requests to a deployment that gets none. Callers do not get its answers.

        Parameters
        ----------
        deployment : str
        percent : int
            From 1 to 50; or 0, to stop.

        Raises
        ------
        ServingError
            If this kind of endpoint cannot, or if the endpoint refuses it.
        """
        raise ServingError(f"Endpoint {self.name} cannot mirror {percent} % of its requests to {deployment}.")

    def mirror_counts(self, deployment: str) -> MirrorCounts | None:
        """Return what became of the copies that `set_mirror` has had sent to a deployment; None if that is not known."""
        del deployment
        return None

    @abc.abstractmethod
    def delete_deployment(self, deployment: str) -> None:
        """Delete a deployment that gets no traffic."""

    @abc.abstractmethod
    def delete(self) -> bool:
        """Delete the endpoint with its deployments; return False if it did not exist."""

    @abc.abstractmethod
    def log(self, deployment: str) -> str:
        """Return the last lines of a deployment's log."""

    def collected_data(self) -> str:
        """Return the folder with the requests that deployments have collected, as Spark reads it; empty if there is none.

        It is the parameter ``collected_data`` of 06_monitor.
        """
        return ""

    @abc.abstractmethod
    def _post(self, body: str, headers: dict[str, str]) -> requests.Response:
        """Send a scoring request, with the caller's key or token."""

    def invoke(self, rows: pd.DataFrame, deployment: str = "") -> Answer:
        """Score rows.

        Parameters
        ----------
        rows : pandas.DataFrame
            With the columns of the model's signature.
        deployment : str, default ""
            The deployment that answers, whatever the traffic is. Empty: the traffic decides.

        Raises
        ------
        ServingError
            If there is no answer, or one without predictions.
        """
        import requests

        headers = {"Content-Type": "application/json"} | ({DEPLOYMENT_HEADER: deployment} if deployment else {})
        started = time.perf_counter()
        try:
            response = self._post(payload(rows), headers)
        except requests.RequestException as error:
            raise ServingError(f"Endpoint {self.name} does not answer ({error}).") from None
        seconds = time.perf_counter() - started
        if response.status_code != 200:
            raise ServingError(_refusal(self.name, deployment, response))
        return Answer(by_row(response.json()), response.headers.get(DEPLOYMENT_HEADER, deployment), seconds)


def payload(rows: pd.DataFrame) -> str:
    """Return rows as the JSON body of a request, with all digits and with null for missing values.

    https://learn.microsoft.com/azure/machine-learning/how-to-deploy-mlflow-models#payload-example-for-an-azure-machine-learning-inference-server
    """
    values = [[None if is_missing(value) else value for value in row] for row in rows.astype(object).to_numpy()]
    data = {"columns": list(rows.columns), "index": list(range(len(rows))), "data": values}
    return json.dumps({"input_data": data}, default=plain)


def plain(value: Any) -> Any:
    """Return a value of NumPy, pandas or Spark as MLflow's server writes and reads it; ``default`` of `json.dumps`."""
    if isinstance(value, (bytes, bytearray)):
        # With line breaks, unlike `helpers.scoring.worker.plain`.
        return base64.encodebytes(value).decode("ascii")
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    return scoring_plain(value)


def by_row(predictions: Any) -> list[Any]:
    """Return predictions as one value per row: a model of several tensors answers with a dict of their values."""
    if not isinstance(predictions, dict):
        return predictions
    return [dict(zip(predictions, values, strict=True)) for values in zip(*predictions.values(), strict=True)]


def _refusal(endpoint: str, deployment: str, response: requests.Response) -> str:
    """Return the meaning of a response without predictions, in words."""
    sender = f"Endpoint {endpoint}" + (f", deployment {deployment}," if deployment else "")
    # Azure ML answers 424 for every error of the model server:
    # https://learn.microsoft.com/azure/machine-learning/how-to-troubleshoot-online-endpoints#http-status-codes
    status = int(response.headers.get("ms-azureml-model-error-statuscode") or response.status_code)
    hint = {
        401: "the key or token does not belong to this endpoint, or is no longer valid",
        400: "the rows do not fit the model's signature",
        424: "the model server failed; its log says why",
        # Azure ML's own server answers this for whatever its scoring script raises.
        500: "the model server failed, perhaps because the rows do not fit the model's signature; its log says why",
        429: "too many requests at once for the instances of the deployment; raise instance_count",
    }.get(status, "")
    text = " ".join(response.text.split())
    # MLflow repeats the rows and the signature before it says what is wrong.
    reason = text.partition("with schema ")[2].partition("Error: ")[2] or text
    return f"{sender} answered {response.status_code}" + (f" ({hint})" if hint else "") + f": {reason[:500]}"
