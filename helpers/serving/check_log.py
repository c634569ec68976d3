"""Keep the checks of a rollout with the run that made the model."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from helpers.serving.health import Check
from helpers.training import plots

if TYPE_CHECKING:
    from mlflow.entities import Run


@contextlib.contextmanager
def log_checks(run: Run) -> Iterator[list[Check]]:
    """Give a list for `roll_out`, and log what is in it to a run when the block ends, also with an error.

    The metrics are ``endpoint_p50_ms``, ``endpoint_p95_ms`` and ``endpoint_errors`` of what callers get, and the
    same with ``deployment_`` of the new version; their step is the percentage of the requests that it got. A
    picture is in the folder ``rollouts``.

    Parameters
    ----------
    run : mlflow.entities.Run
        Of the tracking server that MLflow points at.
    """
    import mlflow
    from mlflow.entities import Metric

    checks: list[Check] = []
    try:
        yield checks
    finally:
        if checks:
            now, client = time.time_ns() // 1_000_000, mlflow.MlflowClient()
            metrics = []
            for check in checks:
                who = "endpoint" if check.asked == "endpoint" else "deployment"
                for name in ("p50_ms", "p95_ms", "errors"):
                    value = float(getattr(check, name))
                    if not math.isnan(value):
                        metrics.append(Metric(f"{who}_{name}", value, now, check.percent))
            client.log_batch(run.info.run_id, metrics=metrics)
            # Of its own name each time: Azure ML takes a file once.
            when = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%f")
            client.log_figure(run.info.run_id, plots.rollout(checks), f"rollouts/{when}.png")
