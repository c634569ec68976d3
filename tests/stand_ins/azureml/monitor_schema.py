"""The part of Azure's REST specification that says what a schedule of a monitor is, as JSON Schema.

Written by hand from Azure/bicep-types-az, generated/machinelearningservices/microsoft.machinelearningservices/2024-10-01/types.md
(`workspaces/schedules`, `CreateMonitorAction`, `MonitorDefinition` and what they refer to), which is generated from
Azure/azure-rest-api-specs, Microsoft.MachineLearningServices/stable/2024-10-01/mfe.json. Only the three kinds of signals
that this bundle sends are here. Unlike Azure, it refuses keys and values that the specification does not have.
"""

from __future__ import annotations

from typing import Any

NAME = r"^[a-zA-Z0-9][a-zA-Z0-9\-_]{0,254}$"
# minLength 1 and this pattern, in all required texts of the specification.
_TEXT = {"type": "string", "minLength": 1, "pattern": "[a-zA-Z0-9_]"}
_TEXTS_BY_NAME = {"type": "object", "additionalProperties": {"type": "string"}}
# ISO 8601, in days: `format: duration` of the specification also allows others.
_DURATION = {"type": "string", "pattern": r"^P\d+D$"}
_INPUT_TYPES = ["literal", "uri_file", "uri_folder", "mltable", "custom_model", "mlflow_model", "triton_model"]


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "properties": required | optional,
        "additionalProperties": False,
    }


def _one_of(*values: str) -> dict[str, Any]:
    return {"enum": list(values)}


_INPUT = {"jobInputType": _one_of(*_INPUT_TYPES), "uri": _TEXT}
_INPUT_OPTIONS = {"columns": _TEXTS_BY_NAME, "dataContext": {"type": "string"}}
_DATA = {
    "oneOf": [
        _object({"inputDataType": _one_of("Fixed")} | _INPUT, **_INPUT_OPTIONS),
        _object(
            {"inputDataType": _one_of("Rolling"), "windowOffset": _DURATION, "windowSize": _DURATION} | _INPUT,
            preprocessingComponentId={"type": "string"},
            **_INPUT_OPTIONS,
        ),
    ]
}
_DRIFT = ["JensenShannonDistance", "PopulationStabilityIndex"]
_OF_NUMBERS = [*_DRIFT, "NormalizedWassersteinDistance", "TwoSampleKolmogorovSmirnovTest"]
_OF_CATEGORIES = [*_DRIFT, "PearsonsChiSquaredTest"]
_OF_QUALITY = ["NullValueRate", "DataTypeErrorRate", "OutOfBoundsRate"]


def _thresholds(numerical: list[str], categorical: list[str]) -> dict[str, Any]:
    value = _object({}, value={"type": "number"})
    kinds = (("Numerical", numerical), ("Categorical", categorical))
    items = [
        _object({"dataType": _one_of(kind), "metric": _one_of(*metrics)}, threshold=value) for kind, metrics in kinds
    ]
    return {"type": "array", "items": {"oneOf": items}}


def _signal(kind: str, thresholds: dict[str, Any], **more: Any) -> dict[str, Any]:
    return _object(
        {"signalType": _one_of(kind), "metricThresholds": thresholds, "productionData": _DATA, "referenceData": _DATA},
        notificationTypes={"type": "array", "items": _one_of("AmlNotification")},
        properties=_TEXTS_BY_NAME,
        featureDataTypeOverride={"type": "object", "additionalProperties": _one_of("Numerical", "Categorical")},
        **more,
    )


_FEATURES = {
    "oneOf": [
        _object({"filterType": _one_of("AllFeatures")}),
        _object({"filterType": _one_of("FeatureSubset"), "features": {"type": "array", "items": {"type": "string"}}}),
        _object({"filterType": _one_of("TopNByAttribution")}, top={"type": "integer"}),
    ]
}
_SIGNALS = [
    _signal("DataDrift", _thresholds(_OF_NUMBERS, _OF_CATEGORIES), features=_FEATURES),
    _signal("PredictionDrift", _thresholds(_OF_NUMBERS, _OF_CATEGORIES)),
    _signal("DataQuality", _thresholds(_OF_QUALITY, _OF_QUALITY), features=_FEATURES),
]
_DEFINITION = _object(
    {
        "computeConfiguration": _object(
            {
                "computeType": _one_of("ServerlessSpark"),
                "computeIdentity": _object({"computeIdentityType": _one_of("AmlToken", "ManagedIdentity")}),
                "instanceType": _TEXT,
                "runtimeVersion": {"type": "string", "minLength": 1, "pattern": r"^[0-9]+\.[0-9]+$"},
            }
        ),
        "signals": {"type": "object", "additionalProperties": {"oneOf": _SIGNALS}},
    },
    monitoringTarget=_object(
        {"taskType": _one_of("Classification", "Regression")},
        deploymentId={"type": "string"},
        modelId={"type": "string"},
    ),
    alertNotificationSettings=_object(
        {}, emailNotificationSettings=_object({}, emails={"type": "array", "items": {"type": "string"}})
    ),
)
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_NUMBERS = {"type": "array", "items": {"type": "integer"}}
_TRIGGER = _object(
    {
        "triggerType": _one_of("Recurrence"),
        "frequency": _one_of("Minute", "Hour", "Day", "Week", "Month"),
        "interval": {"type": "integer"},
    },
    schedule=_object(
        {"hours": _NUMBERS, "minutes": _NUMBERS},
        weekDays={"type": "array", "items": _one_of(*_DAYS)},
        monthDays=_NUMBERS,
    ),
    startTime={"type": "string"},
    endTime={"type": "string"},
    timeZone={"type": "string"},
)
SCHEDULE = _object(
    {
        "properties": _object(
            {
                "action": _object({"actionType": _one_of("CreateMonitor"), "monitorDefinition": _DEFINITION}),
                "trigger": _TRIGGER,
            },
            description={"type": "string"},
            displayName={"type": "string"},
            isEnabled={"type": "boolean"},
            properties=_TEXTS_BY_NAME,
            tags=_TEXTS_BY_NAME,
        )
    }
)
"""The body of a PUT of a schedule."""
