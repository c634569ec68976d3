"""Delete what this bundle made, and nothing else: list it first, then delete it in a safe order."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import kinds, parameters, storage
from helpers.azureml.rest import first_line
from helpers.data import names, tables
from helpers.ownership import NOT_OURS, OTHER_MODEL, Item, is_marked

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

    from helpers.tracking import Session

# Clients try again for half a minute before they give up on a server. After that nothing else of the kind is tried
# there, since an experiment may have hundreds of runs.
PATIENCE = 20


class CleanUpError(RuntimeError):
    """Something that should have been deleted still exists."""


@dataclass(frozen=True)
class Outcome:
    """What happened to an item.

    Attributes
    ----------
    item : helpers.ownership.Item
    result : str
        ``deleted``, ``already gone``, ``kept: …`` or ``failed: …``.
    """

    item: Item
    result: str

    @property
    def failed(self) -> bool:
        """Whether it should have been deleted and still exists."""
        return self.result.startswith("failed")


def find(spark: SparkSession, session: Session, p: parameters.CleanUp) -> list[Item]:
    """Return the existing resources that the parameters name; nothing is written.

    Each function in the table `helpers.kinds.CLEAN_UP` is called once.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    session : helpers.tracking.Session
        From ``tracking.configure(p, create=False)``.
    p : helpers.parameters.CleanUp
        The same names and tables as for the notebooks that made the resources.

    Returns
    -------
    list of helpers.ownership.Item
        Endpoints and deployments; model versions, runs and experiments of each server; all tables of the schema; the
        checkpoint. Items that must be kept have the reason.

    Raises
    ------
    helpers.parameters.ParameterError, helpers.azureml.rest.AzureError, mlflow.exceptions.MlflowException
        If a server cannot be reached.
    """
    listings = dict.fromkeys(kinds.load(kinds.CLEAN_UP, kind) for kind in kinds.CLEAN_UP)
    return [item for listing in listings for item in listing(spark, session, p)]


def tables_of_schema(spark: SparkSession, session: Session, p: parameters.CleanUp) -> Iterator[Item]:
    """Return the tables of the schema; only those that the bundle made and the parameters name may be deleted."""
    del session
    from pyspark.errors import PySparkException

    # It imports pandas.
    from helpers import monitoring, scoring

    predictions = _prediction_table(p)
    named = [names.qualified_name(table, p.catalog, p.schema) for table in (p.training_table, p.scoring_table)]
    written = [predictions, scoring.shadow_table(predictions)]
    named += written + [scoring.quarantine_table(table) for table in written]
    named += [monitoring.baseline_table(p), monitoring.monitoring_table(p), monitoring.retraining_table(p)]
    ours = {_key(table): table for table in named if tables.exists(spark, table)}
    others = {_key(table): table for table in tables.in_schema(spark, p.catalog, p.schema)}
    for key, table in (others | ours).items():
        try:
            marked = is_marked(tables.properties(spark, table))
        except PySparkException as error:
            # A view of a table that no longer exists, or one that only somebody else may read.
            reason = f"its properties cannot be read: {_in_one_line(error)}"
        else:
            reason = "" if key in ours else OTHER_MODEL
            reason = reason if marked else NOT_OURS
        yield Item("tables", table, "Spark", partial(_drop, spark, table), reason)


def _prediction_table(p: parameters.CleanUp) -> str:
    from helpers import scoring

    table = p.prediction_table or scoring.default_prediction_table(p.model_name)
    return names.qualified_name(table, p.catalog, p.schema)


def _key(table: str) -> str:
    """Return a table's name in a form that is the same for all its spellings."""
    return table.replace("`", "").lower()


def _drop(spark: SparkSession, table: str) -> bool:
    if not tables.exists(spark, table):
        return False
    storage.drop_table(spark, table)
    return True


def checkpoints(spark: SparkSession, session: Session, p: parameters.CleanUp) -> Iterator[Item]:
    """Return the checkpoints in the folders that the bundle chose, and the one that ``checkpoint`` names.

    The last one is kept: it is not known what else is in a folder that the user chose.
    """
    del session
    # It imports pandas.
    from helpers import scoring

    predictions = _prediction_table(p)
    tables_of_streams = (predictions, scoring.shadow_table(predictions))
    chosen = [storage.checkpoint_folder(spark, table, create=False) for table in tables_of_streams]
    for folder in chosen:
        if Path(folder).is_dir():
            yield Item("checkpoints", folder, "files", partial(_delete_folder, folder))
    if p.checkpoint and p.checkpoint not in chosen:
        reason = "named by checkpoint, so it may contain more than this bundle's files; delete the folder by hand"
        yield Item("checkpoints", p.checkpoint, "files", partial(_delete_folder, p.checkpoint), reason)


def _delete_folder(folder: str) -> bool:
    if not Path(folder).is_dir():
        return False
    storage.delete_folder(folder)
    return True


def plan(items: Sequence[Item], requested: Sequence[str]) -> list[Item]:
    """Return the items in a safe order, each with the reason to keep it, if there is one.

    Items that refer to others are deleted before them, so that the next job finds whatever a killed job has left:
    endpoints before the model that they serve, versions before their runs, runs before their experiment.

    Parameters
    ----------
    items : sequence of helpers.ownership.Item
        From `find`. They include the items in another one's ``delete_first``.
    requested : sequence of str
        The kinds to delete, from `helpers.kinds.CLEAN_UP`.
    """
    decided: dict[int, Item] = {}

    def decide(item: Item) -> Item:
        if id(item) not in decided:
            staying = [inner for inner in map(decide, item.delete_first) if inner.keep_reason]
            reason = item.keep_reason
            if not reason and item.kind not in requested:
                reason = f"clean_up does not name {item.kind}"
            if not reason and staying:
                reason = f"holds what is kept, {staying[0].name}" + (" and others" if len(staying) > 1 else "")
            decided[id(item)] = replace(item, keep_reason=reason)
        return decided[id(item)]

    order = list(kinds.CLEAN_UP)
    return sorted(map(decide, items), key=lambda item: order.index(item.kind))


def delete(planned: Iterable[Item]) -> Iterator[Outcome]:
    """Delete the items that are not kept, one after the other; an error with one does not stop the others.

    Parameters
    ----------
    planned : iterable of helpers.ownership.Item
        From `plan`, in its order.

    Yields
    ------
    Outcome
        One per item, including those that are kept.
    """
    away: dict[tuple[str, str], str] = {}
    for item in planned:
        if item.keep_reason:
            result = f"kept: {item.keep_reason}"
        elif (item.kind, item.where) in away:
            result = f"failed: not tried, since {away[item.kind, item.where]} failed there after {PATIENCE} s"
        else:
            begin = time.monotonic()
            try:
                result = "deleted" if item.delete() else "already gone"
            # Any error: Spark, three clients of MLflow and the file system each have their own, and each is reported.
            except Exception as error:  # noqa: BLE001
                result = f"failed: {_in_one_line(error)}"
                if time.monotonic() - begin > PATIENCE:
                    away[item.kind, item.where] = item.name
        yield Outcome(item, result)


def _in_one_line(error: Exception) -> str:
    """Return the request and the reason of a failure, which are the two ends of a long MLflow message."""
    line = first_line(error)
    return line if len(line) <= 300 else f"{line[:140]} … {line[-140:]}"


def overview(planned: Iterable[Item]) -> pd.DataFrame:
    """Return a table of the items: name, place, and what will happen to each."""
    return _frame((item, f"keep: {item.keep_reason}" if item.keep_reason else "delete") for item in planned)


def report(outcomes: Iterable[Outcome]) -> pd.DataFrame:
    """Return what was deleted, and what was not and why."""
    return _frame((outcome.item, outcome.result) for outcome in outcomes)


def _frame(lines: Iterable[tuple[Item, str]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        [(item.kind, item.name, item.where, text) for item, text in lines], columns=["kind", "name", "where", "what"]
    )


def check(outcomes: Iterable[Outcome]) -> None:
    """Check that everything that should be deleted is deleted.

    Raises
    ------
    CleanUpError
        If not. The next run continues with what is left.
    """
    failures = [outcome for outcome in outcomes if outcome.failed]
    if failures:
        first = failures[0]
        raise CleanUpError(
            f"{len(failures)} not deleted, {first.item.kind} {first.item.name} among them: {first.result}. "
            "Run this again when that is fixed; it continues with what is left"
        )
