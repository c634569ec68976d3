"""Where runs and models go: tracking server, registry, experiment, runs, models and versions.

Databricks, Azure Machine Learning and MLflow's own server differ as MLflow servers; nothing else in
the bundle knows how.
"""

from helpers.tracking.dual import mirror_for_registry, mirror_pending
from helpers.tracking.models import CLASSES, COLUMNS, download_model, log_model, logged_model_uri
from helpers.tracking.registry_copy import (
    FIRST_SOURCE_TAG,
    SOURCE_TAG,
    copy_version,
    in_azureml,
    run_of_version,
    share_champion,
)
from helpers.tracking.runs import MODEL_NAME_TAG, MONITORING_TAG, autolog, find_run, log_split
from helpers.tracking.servers import server_at
from helpers.tracking.session import Session, configure, open_servers
from helpers.tracking.versions import (
    APPROVAL_REASON_TAG,
    APPROVAL_TAG,
    APPROVAL_TIME_TAG,
    APPROVED,
    APPROVED_BY_TAG,
    CHALLENGER,
    CHAMPION,
    CHECK_TAG,
    PASSED,
    REFUSED,
    challenger,
    champion,
    create_version,
    end_challenge,
    failed_checks,
    make_challenger,
    model_names,
    promote,
    refusal,
    registered_model,
    resolve_version,
    run_id,
    version_of_model,
    versions,
)

__all__ = [
    "APPROVAL_REASON_TAG",
    "APPROVAL_TAG",
    "APPROVAL_TIME_TAG",
    "APPROVED",
    "APPROVED_BY_TAG",
    "CHALLENGER",
    "CHAMPION",
    "CHECK_TAG",
    "CLASSES",
    "COLUMNS",
    "FIRST_SOURCE_TAG",
    "MODEL_NAME_TAG",
    "MONITORING_TAG",
    "PASSED",
    "REFUSED",
    "SOURCE_TAG",
    "Session",
    "autolog",
    "challenger",
    "champion",
    "configure",
    "copy_version",
    "create_version",
    "download_model",
    "end_challenge",
    "failed_checks",
    "find_run",
    "in_azureml",
    "log_model",
    "log_split",
    "logged_model_uri",
    "make_challenger",
    "mirror_for_registry",
    "mirror_pending",
    "model_names",
    "open_servers",
    "promote",
    "refusal",
    "registered_model",
    "resolve_version",
    "run_id",
    "run_of_version",
    "server_at",
    "share_champion",
    "version_of_model",
    "versions",
]
