"""Azure ML's own model monitor of an endpoint: a schedule in the workspace, beside what 06_monitor measures itself."""

from helpers.monitoring.azureml.reference import VersionsOnSpark
from helpers.monitoring.azureml.schedule import AzureMLMonitor, schedule_monitors

__all__ = ["AzureMLMonitor", "VersionsOnSpark", "schedule_monitors"]
