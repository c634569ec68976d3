"""Where runs and models go: tracking server, registry, experiment, runs, models and versions.

Databricks, Azure Machine Learning and MLflow's own server differ as MLflow servers; nothing else in
the bundle knows how.
"""

from helpers.tracking.dual import mirror_for_registry, mirror_pending
from helpers.tracking.models import CLASSES, COLUMNS, download_model, log_model, logged_model_uri
from helpers.tracking.registry_copy import in_azureml
from helpers.tracking.runs import MODEL_NAME_TAG, MONITORING_TAG, autolog, find_run, log_split
from helpers.tracking.session import Session, configure, open_servers
from helpers.tracking.versions import (
    CHAMPION,
    CHECK_TAG,
    PASSED,
    champion,
    create_version,
    model_names,
    promote,
    registered_model,
    resolve_version,
    run_id,
    version_of_model,
    versions,
)

__all__ = [
    "CHAMPION",
    "CHECK_TAG",
    "CLASSES",
    "COLUMNS",
    "MODEL_NAME_TAG",
    "MONITORING_TAG",
    "PASSED",
    "Session",
    "autolog",
    "champion",
    "configure",
    "create_version",
    "download_model",
    "find_run",
    "in_azureml",
    "log_model",
    "log_split",
    "logged_model_uri",
    "mirror_for_registry",
    "mirror_pending",
    "model_names",
    "open_servers",
    "promote",
    "registered_model",
    "resolve_version",
    "run_id",
    "version_of_model",
    "versions",
]
