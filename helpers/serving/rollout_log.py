"""Log what a rollout finds to the run that trained the model."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from helpers import tracking
from helpers.serving import plots
from helpers.serving.rollout import Findings

if TYPE_CHECKING:
    from mlflow.entities import Run


@contextlib.contextmanager
def log_checks(session: tracking.Session, run: Run | None) -> Iterator[Findings]:
    """Provide the findings for `roll_out`, and log them to a run when the block ends, with or without an error.

    The metrics are ``endpoint_p50_ms``, ``endpoint_p95_ms`` and ``endpoint_errors`` of what callers get, and the
    same with ``deployment_`` for the new version. Their step is the percentage of the requests that the new version
    got. Those of the checks while requests were mirrored begin with ``mirror_``, and their step is the mirrored percentage.
    So do ``mirror_difference_share``, and for numbers ``mirror_difference_largest`` and ``mirror_difference_mean``; if the
    model has several outputs, each name ends with that of the output. The folder ``rollouts`` of the run's artifacts gets a plot.

    Parameters
    ----------
    session : helpers.tracking.Session
    run : mlflow.entities.Run
        On the session's tracking server. None: nothing is logged.
    """
    from mlflow.entities import Metric

    findings = Findings()
    try:
        yield findings
    finally:
        checks = findings.checks
        if checks and run is not None:
            now, client = time.time_ns() // 1_000_000, session.client()
            metrics = []
            for check in checks:
                prefix = "endpoint" if check.target == "endpoint" else "deployment"
                prefix = f"mirror_{prefix}" if check.mirrored else prefix
                for name in ("p50_ms", "p95_ms", "errors"):
                    value = float(getattr(check, name))
                    metrics.append(Metric(f"{prefix}_{name}", value, now, check.mirrored or check.percent))
            mirrored = max(check.mirrored for check in checks)
            for each in findings.comparison:
                # MLflow accepts only these characters in a metric's name.
                suffix = re.sub(r"[^\w. /-]", "_", f"_{each.output}") if each.output else ""
                metrics += [
                    Metric(f"mirror_difference_{name}{suffix}", getattr(each, name), now, mirrored)
                    for name in ("share", "largest", "mean")
                ]
            metrics = [metric for metric in metrics if not math.isnan(metric.value)]
            client.log_batch(run.info.run_id, metrics=metrics)
            # A new name each time: Azure ML does not overwrite a file.
            when = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%f")
            client.log_figure(run.info.run_id, plots.rollout(checks), f"rollouts/{when}.png")
