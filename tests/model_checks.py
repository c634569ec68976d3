"""What a model goes through after training: the gate, the registry, batch scoring, and an endpoint on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

from helpers import data, registration, scoring, serving, tracking
from helpers.scoring.schema import as_inputs
from helpers.serving.local_endpoint import LocalEndpoint


@dataclass(frozen=True)
class Outcome:
    """What came of a model.

    Attributes
    ----------
    version : mlflow.entities.model_registry.ModelVersion
    metrics : dict of str to float
        The gate's.
    scored : pandas.DataFrame
        The table of predictions, in the order of the ids.
    differing : int
        How many of them are not those of the model that plain Python loads.
    """

    version: object
    metrics: dict[str, float]
    scored: pd.DataFrame
    differing: int


def register_and_score(session, spark, split, run, model_uri, model_name, table) -> Outcome:
    """Register the model of a run, judged on the held-out rows, and score all rows of its table.

    Parameters
    ----------
    split : helpers.data.split.Split
        That the run has recorded.
    table : str
        Where the predictions go.
    """
    run = mlflow.get_run(run.info.run_id)
    model_uri = tracking.logged_model_uri(session, run, model_uri)
    rows = data.evaluation_rows(spark, run, evaluation_table="", label_column="", id_column="")
    metrics = registration.evaluate(session, model_uri, rows)
    tags = registration.version_tags(rows, metrics, [])
    version, _ = registration.register(session, run, model_uri, model_name, tags)
    scorer = scoring.Scorer(session, version, split.table, table, split.id_column)
    source = spark.table(split.table)
    batch = scorer.score_batch(source, "b1")
    assert (batch.rows_scored, batch.rows_quarantined) == (source.count(), 0)
    scored = spark.table(table).orderBy(split.id_column).toPandas()
    loaded = mlflow.pyfunc.load_model(f"models:/{version.name}/{version.version}")
    metadata = loaded.metadata
    # As one converts them in plain Python.
    inputs = as_inputs(source.orderBy(split.id_column).toPandas(), metadata.get_input_schema(), columns_of(metadata))
    expected = as_classes(loaded.predict(inputs), scorer.predictor.model)
    differing = sum(not same(value, other) for value, other in zip(scored["prediction"], expected, strict=True))
    return Outcome(version, metrics, scored, differing)


def columns_of(metadata) -> list[str]:
    return (metadata.metadata or {}).get("columns", [])


def as_classes(predicted, model) -> list:
    """Return what a model predicts; the most probable class where that is probabilities."""
    predicted = next(iter(predicted.values())) if isinstance(predicted, dict) else predicted
    values = np.asarray(predicted)
    if model.outputs_are_probabilities:
        values = values.reshape(len(values), -1)
        chosen = values.argmax(axis=1) if values.shape[1] > 1 else (values[:, 0] > 0.5).astype(int)
        return [model.classes[number] for number in chosen]
    if isinstance(predicted, pd.DataFrame) and len(predicted.columns) > 1:
        return predicted.to_dict("records")
    return (
        values.reshape(len(values), -1)[:, 0].tolist()
        if values.ndim < 3 and np.size(values[0]) == 1
        else values.tolist()
    )


def same(value, expected) -> bool:
    """Return whether a value of a table is what Python has."""
    value = value.asDict() if hasattr(value, "asDict") else value
    if isinstance(expected, dict):
        return value.keys() == expected.keys() and all(same(value[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(value) == len(expected) and all(map(same, value, expected))
    return value == expected


def serve(session, version, rows: pd.DataFrame, folder: Path) -> list:
    """Serve a version on this machine; return its answers for rows, which the rollout's check finds right."""
    known = serving.examples(session, version, rows)
    endpoint = LocalEndpoint("kind", folder, session)
    endpoint.create(version.name)
    try:
        endpoint.deploy("blue", version, show=lambda line: None)
        endpoint.set_traffic({"blue": 100})
        serving.health.check_predictions(endpoint, "blue", known)
        single = serving.health.check_requests(endpoint, "blue", 100, known, 3, 60_000)
        assert not single.problem
        return endpoint.invoke(known.rows).predictions
    finally:
        endpoint.delete()
