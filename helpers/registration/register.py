"""Register the model of a run as a version, with tags that say how it was validated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from helpers import tracking

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

    from helpers.data.split import Split
    from helpers.registration.validation import ValidationCheck


def register(
    session: tracking.Session, run: Run, model_uri: str, model_name: str, tags: dict[str, str]
) -> tuple[ModelVersion, bool]:
    """Register the model of a run. The first one under a name is version 1, the next one version 2, and so on.

    A run is registered only once. A second call updates the tags of its version and returns that version.

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
    version = tracking.version_of_run(session, model_name, run)
    if version is None:
        return tracking.create_version(session, run, model_uri, model_name, tags), True
    client = session.client()
    for key, value in tags.items():
        client.set_model_version_tag(model_name, version.version, key, value)
    return version, False


def version_tags(split: Split, metrics: dict[str, float], checks: Sequence[ValidationCheck]) -> dict[str, str]:
    """Return the tags of a version: its data, its metrics and the outcome of each check.

    Parameters
    ----------
    split : helpers.data.split.Split
        The rows on which the model was evaluated.
    metrics : dict of str to float
    checks : sequence of helpers.registration.validation.ValidationCheck
    """
    # Unity Catalog does not accept dots in the name of a tag: https://learn.microsoft.com/azure/databricks/database-objects/tags#constraints
    return (
        {"training_table": split.table, "held_out_rows": str(split.held_out.count())}
        | {f"metric_{name}": f"{value:.6g}" for name, value in metrics.items()}
        | {f"check_{check.name}": f"{'passed' if check.passed else 'failed'}: {check.detail}" for check in checks}
    )
