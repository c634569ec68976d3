"""An experiment in Databricks, and the experiment in Azure Machine Learning that mirrors it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class MirroredExperiment:
    """An experiment in Databricks, and the one in Azure Machine Learning that mirrors it.

    Each server has its own client. MLflow's settings for the process are neither used nor changed.

    Attributes
    ----------
    source_client, target_client : mlflow.MlflowClient
    source_id, target_id : str
        The ids of the experiments.
    source_server : str
        Address of the Databricks workspace.
    target_uri : str
        Tracking URI of the Azure Machine Learning workspace.
    """

    source_client: MlflowClient
    target_client: MlflowClient
    source_id: str
    target_id: str
    source_server: str
    target_uri: str

    @classmethod
    def find_or_create(
        cls, source_uri: str, source_name: str, source_server: str, target_uri: str, target_name: str
    ) -> MirroredExperiment:
        """Find both experiments; create the one in Azure Machine Learning if it is missing.

        Parameters
        ----------
        source_uri, source_name : str
            Tracking URI of Databricks, and the name of the experiment there.
        source_server : str
            Address of the Databricks workspace.
        target_uri, target_name : str
            Tracking URI of the Azure Machine Learning workspace, and the name of the experiment there.

        Raises
        ------
        LookupError
            If the experiment does not exist in Databricks, or was deleted in Azure Machine Learning.
        """
        from mlflow import MlflowClient

        source_client, target_client = MlflowClient(tracking_uri=source_uri), MlflowClient(tracking_uri=target_uri)
        experiment = source_client.get_experiment_by_name(source_name)
        if experiment is None:
            raise LookupError(f"no experiment {source_name!r} on {source_server}")
        target_id = _find_or_create(target_client, target_name)
        return cls(source_client, target_client, experiment.experiment_id, target_id, source_server, target_uri)


def _find_or_create(client: MlflowClient, name: str) -> str:
    """Return the id of the experiment of a name."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        if experiment.lifecycle_stage != "active":
            raise LookupError(
                f"experiment {name!r} was deleted in Azure Machine Learning; restore it, or use another name"
            )
        return experiment.experiment_id
    try:
        return client.create_experiment(name)
    except MlflowException as error:
        # Another process has created it, or this one has, and the answer was lost.
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            raise
        return experiment.experiment_id
