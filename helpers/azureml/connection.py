"""The Azure Machine Learning workspace of a session, signed in to once."""

from __future__ import annotations

from functools import cached_property

from helpers import parameters
from helpers.azureml.workspace import Workspace, connect


class Connection:
    """The workspace that the parameters name; the sign-in happens at the first use.

    Parameters
    ----------
    p : helpers.parameters.AzureML
    """

    def __init__(self, p: parameters.AzureML) -> None:
        self.parameters = p

    @property
    def is_named(self) -> bool:
        """Whether the parameters name a workspace."""
        return bool(self.parameters.azureml_workspace or self.parameters.azureml_tracking_uri)

    @property
    def description(self) -> str:
        """The workspace as a sentence names it, whether or not it can be reached."""
        name = self.parameters.azureml_workspace or self.parameters.azureml_tracking_uri.rpartition("/")[2]
        return f"Azure ML workspace {name}"

    @cached_property
    def workspace(self) -> Workspace:
        """The workspace; a failed sign-in is tried again when it is next needed.

        Raises
        ------
        helpers.parameters.ParameterError
            If a parameter is missing, or if Azure does not know what it names.
        helpers.azureml.rest.AzureError
            If signing in fails, or if the workspace cannot be used.
        """
        return connect(self.parameters)
