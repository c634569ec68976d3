"""What a rollout needs of a place that serves models, and one request to it."""

from __future__ import annotations

import abc
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import requests
    from mlflow.entities.model_registry import ModelVersion

# Azure ML's own header: in a request the deployment that is to answer, in an answer the one that did.
DEPLOYMENT_HEADER = "azureml-model-deployment"
# Azure ML ends a request after 180 s at most:
# https://learn.microsoft.com/azure/machine-learning/reference-yaml-deployment-managed-online
REQUEST_SECONDS = 180


class ServingError(RuntimeError):
    """An endpoint, a deployment or a request failed.

    Parameters
    ----------
    message : str
        What was tried, what was answered, what to do.
    log : str, default ""
        The last lines of the model server's log.
    """

    def __init__(self, message: str, log: str = "") -> None:
        self.message, self.log = message, log
        super().__init__(f"{message}\n\nThe model server's log ends with:\n{log}" if log else message)


@dataclass(frozen=True)
class Deployment:
    """One model version, served.

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
        Where requests go.
    is_ours : bool
        Whether this bundle made the endpoint.
    traffic : dict of str to int
        Percentage of the requests by deployment, without those that get none.
    deployments : dict of str to Deployment
    """

    url: str
    is_ours: bool
    traffic: dict[str, int] = field(default_factory=dict)
    deployments: dict[str, Deployment] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """The answer to one request.

    Attributes
    ----------
    predictions : list
        One a row; a dict a row from a model of several outputs.
    deployment : str
        Who answered.
    seconds : float
    """

    predictions: list[Any]
    deployment: str
    seconds: float


class Endpoint(abc.ABC):
    """An address for requests, with deployments of model versions behind it.

    Parameters
    ----------
    name : str
    """

    # Whether a new version takes the place of the old one at once: nothing to be shared out.
    replaces = False

    def __init__(self, name: str) -> None:
        self.name = name

    @abc.abstractmethod
    def state(self) -> EndpointState | None:
        """Return what it serves; None if there is no such endpoint."""

    @abc.abstractmethod
    def create(self, model_name: str) -> None:
        """Create the endpoint, with no deployment yet, marked as this bundle's for the model."""

    @abc.abstractmethod
    def deploy(self, deployment: str, version: ModelVersion, show: Callable[[str], Any] = print) -> None:
        """Deploy a model version, with no traffic, and wait until it serves.

        Parameters
        ----------
        deployment : str
        version : mlflow.entities.model_registry.ModelVersion
        show : callable
            Called with each line about the progress.

        Raises
        ------
        ServingError
            If it does not come to serve.
        """

    @abc.abstractmethod
    def wait(self, deployment: str, show: Callable[[str], Any] = print) -> None:
        """Wait until a deployment serves that somebody else has begun; otherwise as `deploy`."""

    @abc.abstractmethod
    def set_traffic(self, traffic: dict[str, int]) -> None:
        """Share out requests: percentage by deployment, 100 together or, to serve nothing, 0."""

    @abc.abstractmethod
    def delete_deployment(self, deployment: str) -> None:
        """Delete a deployment that gets no traffic."""

    @abc.abstractmethod
    def delete(self) -> None:
        """Delete the endpoint, with its deployments."""

    @abc.abstractmethod
    def log(self, deployment: str) -> str:
        """Return the last lines of a deployment's log."""

    @abc.abstractmethod
    def _post(self, body: str, headers: dict[str, str]) -> requests.Response:
        """Send a request to the model."""

    def invoke(self, rows: pd.DataFrame, deployment: str = "") -> Answer:
        """Have rows scored.

        Parameters
        ----------
        rows : pandas.DataFrame
            With the columns of the model's signature.
        deployment : str, default ""
            Who is to answer, whatever the traffic. Empty: as the traffic says.

        Raises
        ------
        ServingError
            If there is no answer, or none with predictions.
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
        return Answer(response.json(), response.headers.get(DEPLOYMENT_HEADER, deployment), seconds)


def payload(rows: pd.DataFrame) -> str:
    """Return rows as the body of a request, with all digits; what is missing is null.

    https://learn.microsoft.com/azure/machine-learning/how-to-deploy-mlflow-models#payload-example-for-an-azure-machine-learning-inference-server
    """
    values = rows.astype(object).where(rows.notna(), None).to_numpy().tolist()
    data = {"columns": list(rows.columns), "index": list(range(len(rows))), "data": values}
    return json.dumps({"input_data": data}, default=str)


def _refusal(endpoint: str, deployment: str, response: requests.Response) -> str:
    who = f"Endpoint {endpoint}" + (f", deployment {deployment}," if deployment else "")
    # Azure ML answers 424 whatever the model server did:
    # https://learn.microsoft.com/azure/machine-learning/how-to-troubleshoot-online-endpoints#http-status-codes
    status = int(response.headers.get("ms-azureml-model-error-statuscode") or response.status_code)
    hint = {
        401: "the key or token is not, or no longer, one of this endpoint's",
        400: "the rows do not fit the model's signature",
        424: "the model server failed; its log says why",
        429: "too many requests at once for its instances; raise instance_count",
    }.get(status, "")
    text = " ".join(response.text.split())
    # MLflow repeats the rows and the signature before it says what is wrong.
    reason = text.partition("with schema ")[2].partition("Error: ")[2] or text
    return f"{who} answered {response.status_code}" + (f" ({hint})" if hint else "") + f": {reason[:500]}"
