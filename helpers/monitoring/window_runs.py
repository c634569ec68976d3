"""A run for each window and version, with the measures as metrics, in the experiment of the model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from helpers.data.names import plain_name
from helpers.tracking import MONITORING_TAG

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from helpers.tracking import Session

WINDOW_TAG = "window"
# Azure ML takes 50 metrics at once, and a page with a thousand metrics helps nobody.
# https://learn.microsoft.com/azure/machine-learning/resource-limits-capacity
_MOST_FEATURES = 100
_METRICS_AT_ONCE = 50
# Azure ML's limit of a tag's value.
_MOST_CHARACTERS = 1_000
_PAGE = 1_000


def log_windows(session: Session, model_name: str, judged: pd.DataFrame) -> int:
    """Log the measures of each window to a run of its own; return the number of runs that were written to.

    A run that has the same metrics already is left as it is. The run of a window that has changed gets the new values,
    and MLflow keeps the old ones in the metric's history.

    Parameters
    ----------
    session : helpers.tracking.Session
    model_name : str
    judged : pandas.DataFrame
        From `helpers.monitoring.alerts.judge`.
    """
    from mlflow.entities import Metric, RunTag

    client = session.tracking.client()
    existing = {run.data.tags[WINDOW_TAG]: run for run in _runs(client, session.experiment_id, model_name)}
    written = 0
    for (_, version, name), of_window in judged.groupby(["window_start", "model_version", "window"]):
        metrics = dict(_metrics(of_window))
        key = f"version {version}, {name}"
        run = existing.get(key)
        if run is not None and run.info.status == "FINISHED" and metrics.items() <= run.data.metrics.items():
            continue
        if run is None:
            tags = {MONITORING_TAG: model_name, WINDOW_TAG: key, "model_version": str(version)}
            run = client.create_run(session.experiment_id, run_name=f"monitor {key}", tags=tags)
        # The number of rows and labels tells an older value from a newer one.
        step = int(metrics["rows"] + metrics["labelled_rows"])
        time = int(metrics["last_scored_at"] * 1000)
        changed = {name: value for name, value in metrics.items() if run.data.metrics.get(name) != value}
        items = [Metric(name, value, time, step) for name, value in changed.items()]
        for first in range(0, len(items), _METRICS_AT_ONCE):
            client.log_batch(run.info.run_id, metrics=items[first : first + _METRICS_AT_ONCE])
        breaches = of_window[of_window["breached"].eq(True)]
        off = ", ".join(sorted({row.feature or row.measure for row in breaches.itertuples()}))
        client.log_batch(run.info.run_id, tags=[RunTag("off", off[:_MOST_CHARACTERS] or "nothing")])
        client.set_terminated(run.info.run_id, "FINISHED")
        written += 1
    return written


def _runs(client: MlflowClient, experiment_id: str, model_name: str) -> Iterator[Run]:
    token = None
    while True:
        page = client.search_runs(
            [experiment_id], f"tags.{MONITORING_TAG} = '{model_name}'", max_results=_PAGE, page_token=token
        )
        yield from (run for run in page if WINDOW_TAG in run.data.tags)
        token = page.token
        if not token:
            return


def _metrics(of_window: pd.DataFrame) -> Iterator[tuple[str, float]]:
    overall = of_window[of_window["feature"] == ""]
    yield from ((row.measure, float(row.value)) for row in overall.itertuples() if row.measure != "labels_hash")
    off = of_window[of_window["breached"].eq(True) & (of_window["feature"] != "")]
    yield "features_off", float(off["feature"].nunique())
    distances = of_window[of_window["measure"] == "psi"].sort_values("value", ascending=False)
    for row in distances.head(_MOST_FEATURES).itertuples():
        yield f"psi.{plain_name(re.sub('[. -]', '_', row.feature), 200)}", float(row.value)
