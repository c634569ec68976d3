"""Kill this process and its JVM after a micro-batch is written and before it is committed.

python -m tests.scenarios.spark.die_while_streaming MODEL VERSION SOURCE TABLE CHECKPOINT
"""

from __future__ import annotations

import os
import signal
import sys

from mlflow.entities.model_registry import ModelVersion

from helpers import parameters, runtime, scoring, tracking


def main() -> None:
    """Score the new rows of a table."""
    name, version, source, table, checkpoint = sys.argv[1:]
    session = tracking.configure(parameters.Tracking(experiment_name="killed"))
    spark = runtime.spark()
    jvm = spark.sparkContext._gateway.proc.pid

    def kill(_: scoring.ScoredBatch) -> None:
        os.kill(jvm, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    # MLflow before 3.15 pickles the model, and this version has no tag that says who registered it.
    scorer = scoring.Scorer(session, ModelVersion(name, version, 0), source, table, "id", allow_pickle=True)
    rows = scoring.new_rows(spark, source, "", "id")
    scoring.score_new_rows(scorer, rows, checkpoint, on_batch=kill)


if __name__ == "__main__":
    main()
