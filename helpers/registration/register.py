"""Register the model of a run as a version, with tags that say how it was validated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from helpers import tracking
from helpers.data.evaluation import EVALUATION_TABLE_TAG

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

    from helpers.data.evaluation import EvaluationRows
    from helpers.registration.validation import ValidationCheck


# Tags that say on which rows a version was judged; the others that are written here start with `METRIC_TAG` or with
# `tracking.CHECK_TAG`.
_TAGS_OF_ROWS = ("judged_on", "held_out_rows", "training_table", EVALUATION_TABLE_TAG)
METRIC_TAG = "metric_"


def register(
    session: tracking.Session, run: Run, model_uri: str, model_name: str, tags: dict[str, str]
) -> tuple[ModelVersion, bool]:
    """Register the model of a run. The first one under a name is version 1, the next one version 2, and so on.

    A model is registered only once. A second call replaces the tags of its version that `version_tags` makes, and
    returns that version.

    Parameters
    ----------
    session : helpers.tracking.Session
    run : mlflow.entities.Run
        The run that logged the model.
    model_uri : str
        The model.
    model_name : str
    tags : dict of str to str
        Version tags, from `version_tags`.

    Returns
    -------
    version : mlflow.entities.model_registry.ModelVersion
    is_new : bool
        Whether this call created the version.
    """
    version = tracking.version_of_model(session, model_name, run, model_uri)
    if version is None:
        return tracking.create_version(session, run, model_uri, model_name, tags), True
    client = session.registry.client()
    for key, value in tags.items():
        client.set_model_version_tag(model_name, version.version, key, value)
    for key in version.tags:
        if key not in tags and (key in _TAGS_OF_ROWS or key.startswith((METRIC_TAG, tracking.CHECK_TAG))):
            client.delete_model_version_tag(model_name, version.version, key)
    return version, False


def version_tags(rows: EvaluationRows, metrics: dict[str, float], checks: Sequence[ValidationCheck]) -> dict[str, str]:
    """Return the tags of a version: the rows on which it was judged, its metrics and the outcome of each check.

    Parameters
    ----------
    rows : helpers.data.evaluation.EvaluationRows
        The rows on which the model was evaluated.
    metrics : dict of str to float
    checks : sequence of helpers.registration.validation.ValidationCheck
    """
    # Unity Catalog does not accept dots in the name of a tag: https://learn.microsoft.com/azure/databricks/database-objects/tags#constraints
    return (
        {"judged_on": rows.description, "held_out_rows": str(rows.count), rows.parameter: rows.table}
        | {f"{METRIC_TAG}{name}": f"{value:.6g}" for name, value in metrics.items()}
        | {
            f"{tracking.CHECK_TAG}{check.name}": f"{tracking.PASSED if check.passed else 'failed'}: {check.detail}"
            for check in checks
        }
    )
