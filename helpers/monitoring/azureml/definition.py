"""What Azure ML's own monitor of an endpoint watches, from the parameters of 06_monitor.

The form is that of `Microsoft.MachineLearningServices/workspaces/schedules` with a `CreateMonitorAction`:
https://learn.microsoft.com/azure/templates/microsoft.machinelearningservices/2024-10-01/workspaces/schedules
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from helpers.azureml.collected_data import INPUTS, OUTPUTS
from helpers.data.metrics import REGRESSOR
from helpers.kinds import DRIFT_THRESHOLDS
from helpers.monitoring.azureml.watched import Watched
from helpers.monitoring.bins import NumberBins
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from helpers.monitoring.baseline import Baseline
    from helpers.parameters import Monitor

# The smallest of the five that are supported, and the newest runtime that azure-ai-ml 1.35 accepts:
# https://learn.microsoft.com/azure/machine-learning/how-to-monitor-model-performance#configure-a-serverless-spark-compute-pool
INSTANCE_TYPE, SPARK_VERSION = "standard_e4s_v3", "3.5"
NUMBERS, CATEGORIES = "Numerical", "Categorical"
# The job `monitor` of databricks.yml begins at that hour, too. Weeks begin on Monday.
_HOUR_UTC = 6
_DAILY = {"frequency": "Day", "schedule": {"hours": [_HOUR_UTC], "minutes": [0]}}
_WEEKLY = {"frequency": "Week", "schedule": {"hours": [_HOUR_UTC], "minutes": [0], "weekDays": ["Monday"]}}
# How often, over which window, compared with how much of the time before it. Whole weeks, because days differ.
_BY_WINDOW = {"day": (_DAILY, "P1D", "P7D"), "batch": (_DAILY, "P1D", "P7D"), "week": (_WEEKLY, "P7D", "P28D")}
# The measure whose threshold is used, the metric, and the types of features that it is for.
_SIGNALS: dict[str, tuple[str, list[tuple[str, str, tuple[str, ...]]]]] = {
    "DataDrift": (INPUTS, [("psi", "PopulationStabilityIndex", (NUMBERS, CATEGORIES))]),
    "PredictionDrift": (OUTPUTS, [("prediction_psi", "PopulationStabilityIndex", (NUMBERS, CATEGORIES))]),
    "DataQuality": (
        INPUTS,
        [
            ("null_share", "NullValueRate", (NUMBERS, CATEGORIES)),
            ("outside_range", "OutOfBoundsRate", (NUMBERS,)),
            ("unseen_share", "OutOfBoundsRate", (CATEGORIES,)),
        ],
    ),
}


def definition(p: Monitor, watched: Watched, baseline: Baseline | None, training_rows: str) -> dict[str, Any]:
    """Return the properties of the schedule, without the tags.

    Parameters
    ----------
    p : helpers.parameters.Monitor
    watched : Watched
    baseline : Baseline or None
        Of the version. Its features are watched, as numbers or text. None: all that is collected, as Azure ML takes it.
    training_rows : str
        URI of an MLTable of training rows, with which inputs are compared. Empty: with what was collected before.

    Raises
    ------
    ParameterError
        If ``drift_thresholds`` turns off all that Azure ML's monitor measures.
    """
    trigger, _, _ = _BY_WINDOW[p.window]
    model_type = baseline.model_type if baseline else p.model_type
    monitor = {
        "computeConfiguration": {
            "computeType": "ServerlessSpark",
            "computeIdentity": {"computeIdentityType": "AmlToken"},
            "instanceType": INSTANCE_TYPE,
            "runtimeVersion": SPARK_VERSION,
        },
        "monitoringTarget": {
            "taskType": "Regression" if model_type == REGRESSOR else "Classification",
            "deploymentId": watched.deployment_id,
        },
        "signals": _signals(p, watched, baseline, training_rows),
    }
    if p.azureml_monitor_emails:
        monitor["alertNotificationSettings"] = {"emailNotificationSettings": {"emails": list(p.azureml_monitor_emails)}}
    return {
        "displayName": f"{watched.endpoint} {watched.deployment}",
        "description": "Made by 06_monitor, which sends it anew when its parameters, the champion or the baseline change.",
        "trigger": {"triggerType": "Recurrence", "interval": 1, "timeZone": "UTC"} | trigger,
        "action": {"actionType": "CreateMonitor", "monitorDefinition": monitor},
    }


def _signals(p: Monitor, watched: Watched, baseline: Baseline | None, training_rows: str) -> dict[str, Any]:
    thresholds = DRIFT_THRESHOLDS | dict(p.drift_thresholds)
    _, size, size_before = _BY_WINDOW[p.window]
    signals: dict[str, Any] = {}
    for kind, (collection, metrics) in _SIGNALS.items():
        # `inf` turns a measure off.
        judged = [
            {"dataType": data_type, "metric": metric, "threshold": {"value": thresholds[measure]}}
            for measure, metric, data_types in metrics
            if math.isfinite(thresholds[measure])
            for data_type in data_types
        ]
        if not judged:
            continue
        data = {
            "inputDataType": "Rolling",
            "dataContext": collection,
            "jobInputType": "uri_folder",
            "uri": watched.collected[collection],
        }
        signals[kind] = {
            "signalType": kind,
            "metricThresholds": judged,
            "productionData": data | {"windowSize": size, "windowOffset": "P0D"},
            # Ends where the production data begins.
            "referenceData": data | {"windowSize": size_before, "windowOffset": size},
        }
        if p.azureml_monitor_emails:
            signals[kind]["notificationTypes"] = ["AmlNotification"]
        if collection == INPUTS:
            signals[kind] |= _features(baseline)
            if training_rows:
                fixed = {"inputDataType": "Fixed", "dataContext": "training", "jobInputType": "mltable"}
                signals[kind]["referenceData"] = fixed | {"uri": training_rows}
    if not signals:
        raise ParameterError(
            "drift_thresholds",
            dict(p.drift_thresholds),
            "turns off all that azureml_monitor=true watches. Give one of psi, prediction_psi, null_share, outside_range "
            "and unseen_share a number",
        )
    return signals


def _features(baseline: Baseline | None) -> dict[str, Any]:
    if baseline is None or not baseline.features:
        return {"features": {"filterType": "AllFeatures"}}
    types = {
        name: NUMBERS if isinstance(counted.bins, NumberBins) else CATEGORIES
        for name, counted in baseline.features.items()
    }
    return {"features": {"filterType": "FeatureSubset", "features": list(types)}, "featureDataTypeOverride": types}
