"""The Azure Machine Learning (AML) workspace: its address, signing in, its link, its artifacts."""

from helpers.azureml.connection import Connection
from helpers.azureml.link import workspace_link
from helpers.azureml.workspace import Workspace, connect

__all__ = ["Connection", "Workspace", "connect", "workspace_link"]
