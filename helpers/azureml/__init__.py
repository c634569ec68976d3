"""The Azure Machine Learning (AML) workspace: its address, signing in, its link, its artifacts; and registries."""

from helpers.azureml.connection import Connection
from helpers.azureml.link import workspace_link
from helpers.azureml.registry import Registry
from helpers.azureml.workspace import Workspace, connect

__all__ = ["Connection", "Registry", "Workspace", "connect", "workspace_link"]
