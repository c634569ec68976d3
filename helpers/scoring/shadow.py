"""Score the rows of a batch with the challenger, too, into a table of its own, to compare the two before somebody decides."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers import tracking
from helpers.parameters import ParameterError
from helpers.scoring import output_tables
from helpers.scoring.rows import new_rows, rows_to_score
from helpers.scoring.stream import AVAILABLE_NOW, score_new_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import SparkSession

    from helpers import parameters
    from helpers.scoring.batch import ScoredBatch, Scorer


@dataclass(frozen=True)
class Shadow:
    """What the challenger did with the rows that another version has scored.

    Attributes
    ----------
    table : str
        Table of its predictions; empty if it scored nothing.
    model_version : str
        The challenger; empty if none scores.
    batches : list of helpers.scoring.batch.ScoredBatch
    note : str
        What happened, in one line.
    problem : str
        Why the challenger could not score; empty if it could, or if there was nothing to do.
    """

    table: str = ""
    model_version: str = ""
    batches: Sequence[ScoredBatch] = ()
    note: str = "shadow=none: only one version scores"
    problem: str = ""


def check_shadow(p: parameters.Score) -> None:
    """Check that the challenger will have its turn.

    Raises
    ------
    helpers.parameters.ParameterError
        If the stream does not end: the challenger scores after it.
    """
    if p.shadow != "none" and p.mode == "stream" and p.trigger != AVAILABLE_NOW:
        raise ParameterError(
            "shadow",
            p.shadow,
            f"trigger={p.trigger} never ends, and the challenger scores after the champion; set trigger={AVAILABLE_NOW} "
            "and schedule the job, or shadow=none",
        )


def score_shadow(spark: SparkSession, scorer: Scorer, batches: Sequence[ScoredBatch], p: parameters.Score) -> Shadow:
    """Score with the challenger the rows that a scorer has scored.

    The predictions have the same columns and go to ``<prediction_table>_shadow``, so readers of the predictions never
    get a row twice. A batch has the same id there. A stream has its own checkpoint and hence its own ids of batches:
    rows are compared by their id.

    An error of the challenger is returned, not raised: the predictions are written, and whatever waits for them must not
    stop because of a model that nobody has approved.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    scorer : helpers.scoring.batch.Scorer
        What has scored.
    batches : sequence of helpers.scoring.batch.ScoredBatch
        What it has written.
    p : helpers.parameters.Score
    """
    if p.shadow == "none":
        return Shadow()
    model_name = scorer.version.name
    challenger = tracking.challenger(scorer.session, model_name)
    if challenger is None:
        return Shadow(note=f"shadow: no challenger of {model_name} waits")
    number = str(challenger.version)
    if number == str(scorer.version.version):
        return Shadow(note=f"shadow: the challenger is version {number}, which has scored already")
    table = output_tables.shadow_table(scorer.prediction_table)
    shadow = dataclasses.replace(scorer, version=challenger, prediction_table=table)
    which_rows = (spark, scorer.scoring_table, p.scoring_filter, p.id_column)
    try:
        if p.mode == "stream":
            checkpoint = f"{p.checkpoint}_shadow" if p.checkpoint else ""
            done = score_new_rows(shadow, new_rows(*which_rows), checkpoint, p.trigger)
        else:
            done = [shadow.score_batch(rows_to_score(*which_rows), batch.batch_id) for batch in batches]
    # Whatever it is, of Spark, of a library of the model or of the registry.
    except Exception as error:  # noqa: BLE001
        problem = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        return Shadow(
            model_version=number, note=f"shadow: version {number} could not score: {problem}", problem=problem
        )
    rows = sum(batch.rows_scored for batch in done)
    refused = sum(batch.rows_quarantined for batch in done)
    note = f"shadow: version {number} scored {rows} rows into {table}, {refused} in quarantine"
    return Shadow(table, number, done, note)
