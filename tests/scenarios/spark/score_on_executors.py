"""Score one table with several models, on executors that have neither this bundle nor the driver's folder.

    python score_on_executors.py BUNDLE ELSEWHERE SOURCE SCHEMA MODELS CHECKPOINT RESULTS

Run this file by its path, and without PYTHONPATH, which executors would inherit.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path


def main() -> None:
    """Write to the file RESULTS where the workers ran, and the result of each model."""
    bundle, elsewhere, source, schema, models, checkpoint, results = sys.argv[1:]
    # Only on the driver's path.
    sys.path += [bundle, elsewhere]
    from mlflow.entities.model_registry import ModelVersion

    from helpers import parameters, runtime, scoring, tracking
    from helpers.laptop import spark as local_spark
    from helpers.parameters import ParameterError

    session = tracking.configure(parameters.Tracking(experiment_name="executors"))
    spark = local_spark.start(runtime.local_dir(), "local-cluster[2,1,1024]")
    outcomes = {"workers": spark.sparkContext.parallelize(range(4), 4).mapPartitions(_look_around).collect()}
    for kind, name in json.loads(models).items():
        version = ModelVersion(name, "1", 0)
        options = {"max_records_per_batch": 500, "allow_pickle": True}
        scorer = scoring.Scorer(session, version, source, f"{schema}.{kind}", "id", **options)
        try:
            if kind == "stream":
                (batch,) = scoring.score_new_rows(scorer, scoring.new_rows(spark, source, "", "id"), checkpoint)
            else:
                batch = scorer.score_batch(scoring.rows_to_score(spark, source, "", "id"), "b1")
            outcomes[kind] = [batch.engine.engine.name, batch.rows_scored, batch.rows_quarantined]
        except ParameterError as error:
            outcomes[kind] = str(error)
    Path(results).write_text(json.dumps(outcomes))


def _look_around(_: Iterable[int]) -> Iterator[tuple[str, int, bool]]:
    """Return a worker's folder and process, and whether it can import this bundle."""
    yield os.getcwd(), os.getpid(), importlib.util.find_spec("helpers") is not None  # noqa: PTH109


if __name__ == "__main__":
    main()
