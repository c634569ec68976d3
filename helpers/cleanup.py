"""Delete what this bundle made: listed first, in a safe order, and nothing that somebody else made."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import runtime
from helpers.azureml.rest import first_line
from helpers.data import names, tables
from helpers.ownership import NOT_OURS, Item, is_marked
from helpers.parameters import CLEAN_UP_KINDS
from helpers.tracking import Tracking
from helpers.tracking import inventory as made

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

# Clients try again for half a minute before they give up on a server. After that nothing else of the kind is tried
# there, since an experiment may have hundreds of runs.
PATIENCE = 20


class CleanUpError(RuntimeError):
    """Something that was to be deleted was not."""


@dataclass(frozen=True)
class Outcome:
    """What came of an item.

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
        """Whether it was to be deleted, and is there still."""
        return self.result.startswith("failed")


def find(
    spark: SparkSession,
    servers: Tracking,
    *,
    model_name: str,
    catalog: str,
    schema: str,
    training_table: str,
    scoring_table: str,
    prediction_table: str,
    checkpoint: str,
    force: bool,
) -> list[Item]:
    """Return what is there of that which the parameters name; nothing is written.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    servers : helpers.tracking.Tracking
        Of ``tracking.configure(p, create=False)``.
    model_name, catalog, schema, training_table, scoring_table, prediction_table, checkpoint : str
        As the notebooks had them that made what is to be deleted.
    force : bool
        Whether the champion, its run and their experiment may be deleted.

    Returns
    -------
    list of helpers.ownership.Item
        Model versions, runs and experiments of each server; all tables of the schema; the checkpoint. Those that
        have to stay say why.

    Raises
    ------
    helpers.parameters.ParameterError, helpers.azureml.rest.AzureError, mlflow.exceptions.MlflowException
        If a server cannot be asked.
    """
    # It imports pandas.
    from helpers import scoring

    registered_name = servers.registered_model_name(model_name, catalog, schema)
    prediction_table = prediction_table or scoring.default_prediction_table(model_name)
    training, to_score, predictions = (
        names.qualified_name(table, catalog, schema) for table in (training_table, scoring_table, prediction_table)
    )
    named = [training, to_score, predictions, scoring.quarantine_table(predictions)]
    return [
        *made.items(servers, model_name, registered_name, force),
        *_tables(spark, named, catalog, schema),
        *_checkpoints(spark, checkpoint, predictions),
    ]


def _tables(spark: SparkSession, named: list[str], catalog: str, schema: str) -> Iterator[Item]:
    from pyspark.errors import PySparkException

    ours = {_key(table): table for table in named if tables.exists(spark, table)}
    others = {_key(table): table for table in tables.in_schema(spark, catalog, schema)}
    for key, table in (others | ours).items():
        try:
            marked = is_marked(tables.properties(spark, table))
        except PySparkException as error:
            # A view of a table that is gone, or one that somebody else may read only.
            kept = f"its properties cannot be read: {_in_one_line(error)}"
        else:
            kept = "" if key in ours else "made by this bundle, and not named by these parameters"
            kept = kept if marked else NOT_OURS
        yield Item("tables", table, "Spark", partial(_drop, spark, table), kept)


def _key(table: str) -> str:
    """Return what is the same for two ways to write a table's name."""
    return table.replace("`", "").lower()


def _drop(spark: SparkSession, table: str) -> bool:
    if not tables.exists(spark, table):
        return False
    runtime.drop_table(spark, table)
    return True


def _checkpoints(spark: SparkSession, checkpoint: str, predictions: str) -> Iterator[Item]:
    """Return the folder that the bundle chose; that of a user's choice has nothing to tell what else is in it."""
    folder = runtime.checkpoint_folder(spark, predictions, create=False)
    if Path(folder).is_dir():
        yield Item("checkpoints", folder, "files", partial(_delete_folder, folder))
    if checkpoint and checkpoint != folder:
        kept = "named by checkpoint, hence not known to be this bundle's only; delete the folder by hand"
        yield Item("checkpoints", checkpoint, "files", partial(_delete_folder, checkpoint), kept)


def _delete_folder(folder: str) -> bool:
    if not Path(folder).is_dir():
        return False
    runtime.delete_folder(folder)
    return True


def plan(items: Sequence[Item], kinds: str) -> list[Item]:
    """Return the items in a safe order, each with why it is kept, if it is.

    What points to something else goes before it, so that whatever is left by a job that is killed is found by the next
    one: endpoints before the model that they serve, versions before their runs, runs before their experiment.

    Parameters
    ----------
    items : sequence of helpers.ownership.Item
        Of `find`, and of other modules. Items in another one's ``delete_first`` are among them.
    kinds : str
        What to delete, separated by commas; `helpers.parameters.CLEAN_UP_KINDS` are accepted.
    """
    asked = kinds.replace(" ", "").split(",")
    decided: dict[int, Item] = {}

    def decide(item: Item) -> Item:
        if id(item) not in decided:
            staying = [inner for inner in map(decide, item.delete_first) if inner.keep_reason]
            kept = item.keep_reason
            if not kept and item.kind not in asked:
                kept = f"clean_up does not name {item.kind}"
            if not kept and staying:
                kept = f"holds what is kept, {staying[0].name}" + (" and others" if len(staying) > 1 else "")
            decided[id(item)] = replace(item, keep_reason=kept)
        return decided[id(item)]

    return sorted(map(decide, items), key=lambda item: CLEAN_UP_KINDS.index(item.kind))


def delete(planned: Iterable[Item]) -> Iterator[Outcome]:
    """Delete, one after the other, what is not kept; whatever goes wrong with one does not stop the others.

    Parameters
    ----------
    planned : iterable of helpers.ownership.Item
        Of `plan`, in its order.

    Yields
    ------
    Outcome
        One an item, those that are kept among them.
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
    """Return what was asked and why it failed, which are the two ends of a long message of MLflow's."""
    line = first_line(error)
    return line if len(line) <= 300 else f"{line[:140]} … {line[-140:]}"


def overview(planned: Iterable[Item]) -> pd.DataFrame:
    """Return what is there, where, and what will happen to it."""
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
    """Check that all is gone that was to be deleted.

    Raises
    ------
    CleanUpError
        If not; run again, it goes on with what is left.
    """
    failures = [outcome for outcome in outcomes if outcome.failed]
    if failures:
        first = failures[0]
        raise CleanUpError(
            f"{len(failures)} not deleted, {first.item.kind} {first.item.name} among them: {first.result}. "
            "Run this again when that is mended; it goes on with what is left"
        )
