"""Log the health checks of a rollout to the run that trained the model."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from helpers import tracking
from helpers.serving import plots
from helpers.serving.health import HealthCheck

if TYPE_CHECKING:
    from mlflow.entities import Run


@contextlib.contextmanager
def log_checks(session: tracking.Session, run: Run | None) -> Iterator[list[HealthCheck]]:
    """Provide a list for `roll_out`, and log its health checks to a run when the block ends, with or without an error.

    The metrics are ``endpoint_p50_ms``, ``endpoint_p95_ms`` and ``endpoint_errors`` of what callers get, and the
    same with ``deployment_`` for the new version. Their step is the percentage of the requests that the new version
    got. The folder ``rollouts`` of the run's artifacts gets a plot.

    Parameters
    ----------
    session : helpers.tracking.Session
    run : mlflow.entities.Run
        On the session's tracking server. None: nothing is logged.
    """
    from mlflow.entities import Metric

    checks: list[HealthCheck] = []
    try:
        yield checks
    finally:
        if checks and run is not None:
            now, client = time.time_ns() // 1_000_000, session.client()
            metrics = []
            for check in checks:
                prefix = "endpoint" if check.target == "endpoint" else "deployment"
                for name in ("p50_ms", "p95_ms", "errors"):
                    value = float(getattr(check, name))
                    if not math.isnan(value):
                        metrics.append(Metric(f"{prefix}_{name}", value, now, check.percent))
            client.log_batch(run.info.run_id, metrics=metrics)
            # A new name each time: Azure ML does not overwrite a file.
            when = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%f")
            client.log_figure(run.info.run_id, plots.rollout(checks), f"rollouts/{when}.png")
