"""Retrain on the newest labelled rows, and not again and again where that does not help."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers import scoring, storage, tracking
from helpers.data import checks, names, tables
from helpers.data.names import quoted
from helpers.monitoring import quality
from helpers.ownership import MARK
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import SparkSession

    from helpers.monitoring.alerts import Alert
    from helpers.monitoring.baseline import OfModel
    from helpers.parameters import Monitor
    from helpers.tracking import Session


@dataclass(frozen=True)
class Retraining:
    """Whether to retrain now.

    Attributes
    ----------
    wanted : bool
    reason : str
        Why, or why not.
    """

    wanted: bool
    reason: str


def retraining_table(p: OfModel) -> str:
    """Return the qualified name of the table that a model is retrained on."""
    return names.qualified_name(names.model_table(p.model_name, "retraining"), p.catalog, p.schema)


def decide(session: Session, p: Monitor, model_name: str, alerts: Sequence[Alert]) -> Retraining:
    """Decide whether alerts lead to a retraining.

    They do not before half of them have ``fewest_rows`` labelled rows since they began: without these, a new model would
    learn from the rows before, and the gate would judge it by them. They do not for ``cool_down_days`` after a version was
    retrained either: a model that was retrained on the same rows and was not better will not be better today. The table
    that judged a version says whether it was retrained.

    Parameters
    ----------
    session : helpers.tracking.Session
    p : helpers.parameters.Monitor
    model_name : str
        Name in the registry.
    alerts : sequence of Alert
    """
    if not alerts:
        return Retraining(False, "nothing is off")
    if p.on_drift != "retrain":
        return Retraining(False, f"on_drift={p.on_drift}")
    # The middle one: what has been off for long by chance must not count, and what comes and goes must not delay it.
    middle = sorted(alerts, key=lambda alert: alert.labelled)[(len(alerts) - 1) // 2]
    if middle.labelled < p.fewest_rows:
        return Retraining(
            False,
            f"{len(alerts)} alerts, but only {middle.labelled} rows that were scored since {middle.since} have a label; "
            f"a retraining waits for {p.fewest_rows} (fewest_rows)",
        )
    table = retraining_table(p)
    retrained = [
        version for version in tracking.versions(session, model_name) if version.tags.get("training_table") == table
    ]
    if retrained:
        last = retrained[-1]
        made = datetime.datetime.fromtimestamp(last.creation_timestamp / 1000, datetime.timezone.utc)
        until = made + datetime.timedelta(days=p.cool_down_days)
        if datetime.datetime.now(datetime.timezone.utc) < until:
            best = tracking.champion(session, model_name)
            is_champion = best is not None and str(best.version) == str(last.version)
            failed = [
                f"{name.removeprefix(tracking.CHECK_TAG)} {value}"
                for name, value in sorted(last.tags.items())
                if name.startswith(tracking.CHECK_TAG) and not value.startswith(tracking.PASSED)
            ]
            outcome = "is the champion" if is_champion else f"is not the champion ({'; '.join(failed) or 'it waits'})"
            return Retraining(
                False,
                f"version {last.version} was retrained on {made:%Y-%m-%d} and {outcome}; the next retraining may start on "
                f"{until:%Y-%m-%d} (cool_down_days={p.cool_down_days})",
            )
    return Retraining(True, f"{len(alerts)} alerts")


def make_retraining_table(spark: SparkSession, p: Monitor, model_name: str) -> tuple[str, int]:
    """Write the rows to retrain on: those that were scored and have a label by now, and those of the training table.

    A scored row is as the model has seen it, with its newest prediction's inputs. It replaces a training row with its id.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    p : helpers.parameters.Monitor
    model_name : str
        Name in the registry.

    Returns
    -------
    table : str
        Qualified name. It is replaced at once.
    new_rows : int
        How many of its rows were scored.

    Raises
    ------
    helpers.parameters.ParameterError
        If no scored row has a label, or the predictions were made without their inputs.
    """
    from pyspark.sql import functions as F

    predictions = names.qualified_name(
        p.prediction_table or scoring.default_prediction_table(p.model_name), p.catalog, p.schema
    )
    training = names.qualified_name(p.training_table, p.catalog, p.schema)
    labels_table = names.qualified_name(p.labels_table, p.catalog, p.schema)
    scored = tables.read_table(spark, predictions, "prediction_table").where(F.col("model_name") == model_name)
    inputs = [name for name in scored.columns if name.lower() not in names.RESERVED_COLUMNS and name != p.id_column]
    if not inputs:
        raise ParameterError(
            "prediction_table",
            predictions,
            "has no inputs to retrain on; score with keep_inputs=true (the default of the jobs)",
        )
    labels, _ = quality.read_labels(spark, labels_table, p.id_column, p.label_column)
    newest = F.max_by(F.struct(*map(quoted, inputs)), "scored_at").alias("inputs")
    # Rows that were scored with keep_inputs=false have null in each of these columns.
    scored = scored.where(F.coalesce(*(F.col(quoted(name)).cast("string") for name in inputs)).isNotNull())
    rows = scored.groupBy(quoted(p.id_column)).agg(newest).select(quoted(p.id_column), "inputs.*")
    rows = rows.join(labels.withColumnRenamed(quality.LABEL, p.label_column), p.id_column)
    new_rows = rows.count()
    if not new_rows:
        raise ParameterError("labels_table", labels_table, f"has no label of a row in {predictions}")
    if tables.exists(spark, training):
        known = spark.table(training)
        checks.find_column(known, p.label_column, "label_column")
        old = known.select(*(quoted(name) for name in known.columns if name in rows.columns))
        rows = rows.unionByName(old.join(rows.select(quoted(p.id_column)), p.id_column, "left_anti"), True)
    table = retraining_table(p)
    with storage.one_writer(spark, table):
        storage.replace_table(rows, table, {MARK: model_name, tables.RETRAINING_PROPERTY: p.training_table})
    return table, new_rows
