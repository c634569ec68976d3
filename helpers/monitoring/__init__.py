"""Watch a model in production: drift of inputs and predictions, quality with labels that arrive later, alerts."""

from helpers.monitoring.alerts import Alert, DriftFound, find_alerts, judge, notify
from helpers.monitoring.azureml.reference import VersionsOnSpark
from helpers.monitoring.azureml.schedule import AzureMLMonitor, schedule_monitors
from helpers.monitoring.baseline import Baseline, baseline_table, load_baseline, make_baseline, save_baseline
from helpers.monitoring.monitor import Monitored, monitor, versions_without_baseline
from helpers.monitoring.plots import heat_map, histograms, quality_over_time
from helpers.monitoring.retraining import Retraining, decide, make_retraining_table, retraining_table
from helpers.monitoring.table import monitoring_table, read
from helpers.monitoring.window_runs import log_windows
from helpers.monitoring.windows import Window

__all__ = [
    "Alert",
    "AzureMLMonitor",
    "Baseline",
    "DriftFound",
    "Monitored",
    "Retraining",
    "VersionsOnSpark",
    "Window",
    "baseline_table",
    "decide",
    "find_alerts",
    "heat_map",
    "histograms",
    "judge",
    "load_baseline",
    "log_windows",
    "make_baseline",
    "make_retraining_table",
    "monitor",
    "monitoring_table",
    "notify",
    "quality_over_time",
    "read",
    "retraining_table",
    "save_baseline",
    "schedule_monitors",
    "versions_without_baseline",
]
