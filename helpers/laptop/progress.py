"""A progress bar for Spark's work, which Databricks shows by itself."""

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
def of_spark(spark: SparkSession, label: str) -> Iterator[None]:
    """Show a bar of the tasks that run during the block, with the rows that they have read.

    The bar appears after two seconds. Spark reports the rows of a task when it ends, and every ten seconds before that:
    https://spark.apache.org/docs/latest/configuration.html (``spark.executor.heartbeatInterval``)

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
        A local session. A session of Spark Connect shows no bar.
    label : str
        The label before the bar.
    """
    if type(spark).__module__.startswith("pyspark.sql.connect."):
        yield
        return
    from tqdm import tqdm

    ended = threading.Event()
    # mininterval and miniters are 0 so that tqdm shows every update.
    with tqdm(total=0, desc=label, unit=" tasks", delay=_DELAY, mininterval=0, miniters=0, file=sys.stdout) as bar:
        watcher = threading.Thread(target=_watch, args=(spark.sparkContext, bar, ended), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
        # The last tasks have ended since the last update.
        bar.update(bar.total - bar.n)


def _watch(context: SparkContext, bar: tqdm, ended: threading.Event) -> None:
    tracker = context.statusTracker()
    stages: set[int] = set()
    has_ended = False
    while not has_ended:
        # Once more after the end: the last tasks report their rows when they end.
        has_ended = ended.wait(_INTERVAL)
        stages.update(tracker.getActiveStageIds())
        known = [info for stage in sorted(stages) if (info := tracker.getStageInfo(stage))]
        rows = max((_rows_read(context, info.stageId) for info in known), default=0)
        bar.total = sum(info.numTasks for info in known)
        # Spark counts no rows that come from the driver's memory.
        if rows:
            bar.set_postfix_str(f"{rows:,} rows read", refresh=False)
        bar.update(sum(info.numCompletedTasks for info in known) - bar.n)


def _rows_read(context: SparkContext, stage: int) -> int:
    # PySpark's tracker counts tasks only. The Spark UI reads its rows from this store.
    return context._jsc.sc().statusStore().lastStageAttempt(stage).inputRecords()
