"""How far Spark is, below the cell, where Databricks shows it by itself."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession
    from tqdm import tqdm

_DELAY, _INTERVAL = 2.0, 0.5


@contextlib.contextmanager
def of_spark(spark: SparkSession, what: str) -> Iterator[None]:
    """Show the tasks of the stages that run during the block, and the rows they have read, after two seconds.

    Spark tells the rows of a task when it ends, and every ten seconds before that:
    https://spark.apache.org/docs/latest/configuration.html (``spark.executor.heartbeatInterval``)

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
        A local one.
    what : str
        Before the bar.
    """
    from tqdm import tqdm

    ended = threading.Event()
    # mininterval and miniters: every look is shown.
    with tqdm(total=0, desc=what, unit=" tasks", delay=_DELAY, mininterval=0, miniters=0, file=sys.stdout) as bar:
        watcher = threading.Thread(target=_watch, args=(spark.sparkContext, bar, ended), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
        # The last tasks have ended since the last look.
        bar.update(bar.total - bar.n)


def _watch(context: SparkContext, bar: tqdm, ended: threading.Event) -> None:
    tracker = context.statusTracker()
    stages: set[int] = set()
    while not ended.wait(_INTERVAL):
        stages.update(tracker.getActiveStageIds())
        known = [info for stage in sorted(stages) if (info := tracker.getStageInfo(stage))]
        rows = max((_rows_read(context, info.stageId) for info in known), default=0)
        bar.total = sum(info.numTasks for info in known)
        bar.set_postfix_str(f"{rows:,} rows read", refresh=False)
        bar.update(sum(info.numCompletedTasks for info in known) - bar.n)


def _rows_read(context: SparkContext, stage: int) -> int:
    # PySpark's tracker knows tasks only; the Spark UI gets its rows from this store.
    return context._jsc.sc().statusStore().lastStageAttempt(stage).inputRecords()
