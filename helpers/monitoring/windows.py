"""The windows of predictions: days, weeks, or batches. Days and weeks are those of UTC."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import Column

DAY, WEEK, BATCH = "day", "week", "batch"
_MICROSECONDS_A_DAY = 86_400_000_000
_EPOCH = datetime.date(1970, 1, 1)


@dataclass(frozen=True)
class Window:
    """A window of the predictions of one version.

    Attributes
    ----------
    version : int
    key : object
        What `column` gives for its rows.
    name : str
    start : datetime.datetime
        When its first row was scored, in UTC.
    rows, refused, labelled : int
        How many rows were scored, went to the quarantine, and have a label by now.
    newest : float
        When its last row was scored, in seconds since 1970.
    probability : tuple of float, float, int, or None
        Mean, standard deviation and number of the probabilities.
    labels_hash : float
        A hash of the ids and labels, a whole number below 2^52: it changes if a label is corrected.
    answered : int
        At an endpoint that collects its requests: how many rows it answered. Of `rows`, it collected the inputs, too.
    """

    version: int
    key: Any
    name: str
    start: datetime.datetime
    rows: int
    refused: int
    newest: float
    probability: tuple[float, float, int] | None
    labelled: int = 0
    labels_hash: float = 0.0
    answered: int = 0

    @property
    def state(self) -> dict[str, float]:
        """What changes when rows or labels are added, or a batch is scored again, by the name of the measure."""
        of_endpoint = {"answered_rows": self.answered} if self.answered else {}
        return of_endpoint | {
            "rows": self.rows,
            "quarantined_rows": self.refused,
            "last_scored_at": self.newest,
            "labelled_rows": self.labelled,
            "labels_hash": self.labels_hash,
        }


def column(kind: str) -> Column:
    """Return the expression for the window of a row of predictions.

    Days and weeks are numbers, because Spark groups by them faster than by dates; `name` names them.
    """
    from pyspark.sql import functions as F

    if kind == BATCH:
        return F.col("batch_id")
    day = f"unix_micros(scored_at) div {_MICROSECONDS_A_DAY}"
    # 1970-01-01 was a Thursday.
    return F.expr(day if kind == DAY else f"({day} + 3) div 7")


def name(kind: str, window: Any) -> str:
    """Return the name of a window: ``2026-11-28``, ``2026-W48``, or the id of the batch."""
    if kind == BATCH:
        return str(window)
    if kind == DAY:
        return (_EPOCH + datetime.timedelta(days=window)).isoformat()
    year, week, _ = (_EPOCH + datetime.timedelta(days=7 * window - 3)).isocalendar()
    return f"{year}-W{week:02}"
