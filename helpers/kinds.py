"""The tables of sample data, flavors, splits, engines, endpoints, servers, tracking modes, kinds of clean-up and measures of drift.

To add one, write a class or function in its own file, and add a line here. The values that the parameters accept come
from these tables, and so do the classes that the other modules use. The tables name the classes as text, so that
importing this file does not import them.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from typing import Any

SAMPLES = {
    "diabetes": "helpers.data.samples:diabetes",
    "breast_cancer": "helpers.data.samples:breast_cancer",
}
"""``sample_data``: what 01_setup loads if no data is named."""

FLAVORS = {
    "sklearn": "helpers.training.flavors.sklearn:SklearnFlavor",
    "xgboost": "helpers.training.flavors.xgboost:XGBoostFlavor",
    "spark": "helpers.training.flavors.spark:SparkFlavor",
}
"""``model_flavor``: what 02_train trains."""

SPLITS = {
    "id": "helpers.data.holdout:ById",
    "time": "helpers.data.holdout:ByTime",
    "column": "helpers.data.holdout:ByColumn",
}
"""``split_by``: how 02_train holds out rows."""

ENGINES = {
    "sql": "helpers.scoring.engines.sql:SqlEngine",
    "udf": "helpers.scoring.engines.python:PythonEngine",
}
"""``scoring_engine``: what applies a model to rows, in the order in which ``auto`` tries them."""

ENDPOINTS = {
    "managed": "helpers.serving.managed_endpoint:ManagedEndpoint",
    "kubernetes": "helpers.serving.kubernetes_endpoint:KubernetesEndpoint",
    "aci": "helpers.serving.web_service:ContainerInstanceService",
    "aks": "helpers.serving.web_service:KubernetesService",
    "local": "helpers.serving.local_endpoint:LocalEndpoint",
}
"""``endpoint_target``: where a model is served."""

SERVERS = {
    "local": "helpers.tracking.servers.local:LocalServer",
    "databricks": "helpers.tracking.servers.databricks:DatabricksServer",
    "databricks-uc": "helpers.tracking.servers.databricks:UnityCatalog",
    "azureml": "helpers.tracking.servers.azureml:AzureMLServer",
}
"""``model_registry``, and the servers that a tracking mode names."""

TRACKING_MODES = {
    "local": ("local", "local"),
    "databricks": ("databricks", "databricks-uc"),
    "azureml": ("azureml", "azureml"),
    "dual": ("databricks", "databricks-uc"),
}
"""``tracking_mode``: the tracking server and the registry that goes with it. ``dual`` is mirrored, too."""

CLEAN_UP = {
    "monitors": "helpers.monitoring.azureml.schedule:items",
    "deployments": "helpers.serving.inventory:items",
    "endpoints": "helpers.serving.inventory:items",
    "environments": "helpers.serving.inventory:items",
    "model_versions": "helpers.tracking.inventory:items",
    "runs": "helpers.tracking.inventory:items",
    "experiments": "helpers.tracking.inventory:items",
    "tables": "helpers.cleanup:tables_of_schema",
    "checkpoints": "helpers.cleanup:checkpoints",
}
"""``clean_up``: what can be deleted, in the order in which that is safe, and the function that lists it."""

DRIFT_THRESHOLDS = {
    "psi": 0.2,
    "js_distance": 0.1,
    "null_share": 0.05,
    "outside_range": 0.05,
    "unseen_share": 0.05,
    "prediction_psi": 0.2,
    "prediction_js_distance": 0.1,
    "mean_probability": 0.1,
    "quarantine_share": 0.05,
    "quality": 0.05,
}
"""``drift_thresholds``: the smallest difference that matters, by measure.

PSI: 0.2 is the usual limit of a significant shift. Jensen-Shannon distance: 0.1, as in Evidently. Shares and the mean
probability: by how much they rise or differ. quality: by which share of its value at the gate the metric gets worse.
"""


def load(table: Mapping[str, str], name: str) -> Any:
    """Import and return what a table names.

    Raises
    ------
    LookupError
        If the table has no such name.
    """
    if name not in table:
        raise LookupError(f"there is no {name!r}; there are: {', '.join(table)}")
    return pkgutil.resolve_name(table[name])
