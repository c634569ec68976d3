"""Which rows judge a model: rows that it has not learned from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from helpers.data.checks import check_table
from helpers.data.columns import has_value
from helpers.data.holdout import HELD_OUT, TRAINING
from helpers.data.names import quoted
from helpers.data.split import SPLIT_TAG, Split, SplitRecord, label_type, load_for_run
from helpers.data.tables import read_table
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow.entities import Run
    from pyspark.sql import DataFrame, SparkSession

EVALUATION_TABLE_TAG = "evaluation_table"
# Contexts of a run's dataset inputs that name data which a model does not learn from.
_CONTEXTS_OF_EVALUATION = ("eval", "evaluation", "validation", "test", "testing")


@dataclass(frozen=True)
class EvaluationRows:
    """Labelled rows that judge models.

    Attributes
    ----------
    table : str
        Qualified name of the table that has the rows.
    parameter : str
        The parameter that names the table: ``training_table`` or ``evaluation_table``.
    description : str
        Which rows of the table these are, and how that is known.
    rows : pyspark.sql.DataFrame
        The rows, with all columns of the table. The label has the type that models predict.
    id_column, label_column : str
    model_type : str
        ``classifier`` or ``regressor``.
    """

    table: str
    parameter: str
    description: str
    rows: DataFrame
    id_column: str
    label_column: str
    model_type: str

    @cached_property
    def count(self) -> int:
        """Number of rows."""
        return self.rows.count()

    @cached_property
    def classes(self) -> list[Any]:
        """The distinct labels, sorted."""
        return sorted(row[0] for row in self.rows.select(quoted(self.label_column)).distinct().collect())

    def learned_from(self, run: Run) -> int:
        """Count the rows that the model of another run may have learned from.

        These are the rows in the training part of that run's split of the same table. 0 if it has recorded no such
        split.
        """
        record = SplitRecord.of(run)
        if record is None or not _may_be_same_table(record.table, self.table):
            return 0
        if not {record.id_column, record.split_column} - {""} <= set(self.rows.columns):
            return 0
        return record.hold_out.parts(self.rows)[TRAINING].count()

    @classmethod
    def held_out_of(cls, split: Split, recorded_by: str = "log_split") -> EvaluationRows:
        """Return the held-out rows of a split.

        Parameters
        ----------
        split : helpers.data.split.Split
        recorded_by : str, default "log_split"
            What recorded the split in the run.
        """
        held_out = split.hold_out.parts(split.rows)[HELD_OUT]
        how = f"{recorded_by}: {split.hold_out.description}" if split.hold_out.description else recorded_by
        description = f"held-out rows of {split.table} ({how})"
        return cls(
            split.table,
            "training_table",
            description,
            _with_typed_label(held_out, split.label_column, split.model_type),
            split.id_column,
            split.label_column,
            split.model_type,
        )

    @classmethod
    def all_of(
        cls, spark: SparkSession, table: str, label_column: str, id_column: str, model_type: str = "auto"
    ) -> EvaluationRows:
        """Return all rows of an evaluation table that have a label.

        Raises
        ------
        helpers.parameters.ParameterError
            If there is no such table, or if its label or its id cannot be used.
        """
        rows = read_table(spark, table, "evaluation_table")
        model_type = check_table(rows, label_column, id_column, model_type).model_type
        rows = _with_typed_label(rows.where(has_value(rows, label_column)), label_column, model_type)
        description = f"all rows of {table} (evaluation_table)"
        return cls(table, "evaluation_table", description, rows, id_column, label_column, model_type)


def evaluation_rows(
    spark: SparkSession,
    run: Run,
    *,
    evaluation_table: str,
    label_column: str,
    id_column: str,
    model_type: str = "auto",
) -> EvaluationRows:
    """Return the rows that judge the model of a run.

    These are the rows of the evaluation table if there is one, and otherwise the rows that the run held out, as it has
    recorded them. The table of the run is never split anew.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    run : mlflow.entities.Run
    evaluation_table : str
        Qualified name of a table whose rows the model has not seen. Empty: the rows that the run held out.
    label_column, id_column : str
        Columns of the evaluation table.
    model_type : str, default "auto"
        Of the evaluation table's label: ``classifier`` or ``regressor``. ``auto``: as the run's split, else by the
        label, see `helpers.data.checks.check_label`.

    Raises
    ------
    helpers.parameters.ParameterError
        If the evaluation table is the one that the run trained on, or cannot be used. If there is none: if the run
        does not record which rows it held out, or if these are not the same rows any more.
    """
    if not evaluation_table:
        split = load_for_run(spark, run)
        _require_same_rows(run, split)
        return EvaluationRows.held_out_of(
            split, "log_split" if SPLIT_TAG in run.data.tags else "parameters of 02_train"
        )
    if any(_may_be_same_table(evaluation_table, table) for table in _training_tables(run)):
        raise ParameterError(
            "evaluation_table",
            evaluation_table,
            f"run {run.info.run_id} trained on this table, so its model may have learned from these rows. Name a table "
            "of labelled rows that it has not seen; or leave the parameter empty if the run recorded which rows it held "
            "out (tracking.log_split)",
        )
    record = SplitRecord.of(run)
    if model_type == "auto" and record:
        model_type = record.model_type
    return EvaluationRows.all_of(spark, evaluation_table, label_column, id_column, model_type)


def example_rows(spark: SparkSession, run: Run, tags: Mapping[str, str]) -> DataFrame:
    """Return rows to try a registered model on, with all columns of their table: rows of the table that judged it.

    For a version that nothing judged, these are the rows that its run held out.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    run : mlflow.entities.Run
        The run of the version.
    tags : mapping of str to str
        The tags of the version.
    """
    if EVALUATION_TABLE_TAG in tags:
        return read_table(spark, tags[EVALUATION_TABLE_TAG], "evaluation_table")
    return EvaluationRows.held_out_of(load_for_run(spark, run)).rows


def _with_typed_label(rows: DataFrame, label_column: str, model_type: str) -> DataFrame:
    from pyspark.sql import functions as F

    label = F.col(quoted(label_column)).cast(label_type(rows.schema[label_column].dataType, model_type))
    return rows.withColumn(label_column, label)


def _require_same_rows(run: Run, split: Split) -> None:
    recorded, now = SplitRecord.of(run), split.record()
    if recorded is None or recorded.held_out_ids is None or recorded == now:
        return
    raise ParameterError(
        "run_id",
        run.info.run_id,
        f"the table {split.table} has changed since this run split it: the run held out {recorded.held_out_rows} rows, "
        f"and the same split now holds out {now.held_out_rows}, or rows with other ids. Only the rows that were held out "
        "can judge the model. Train again, or set evaluation_table to labelled rows that the model has not seen",
    )


def _training_tables(run: Run) -> set[str]:
    """Return the names of the tables that a run is known to have trained on."""
    tables = {run.data.params.get("training_table", "")}
    record = SplitRecord.of(run)
    if record:
        tables.add(record.table)
    for dataset_input in run.inputs.dataset_inputs if run.inputs else []:
        contexts = [tag.value.lower() for tag in dataset_input.tags if tag.key == "mlflow.data.context"]
        if any(context in _CONTEXTS_OF_EVALUATION for context in contexts):
            continue
        dataset = dataset_input.dataset
        if "." in dataset.name:
            # Other names need not be those of tables: MLflow's default is `dataset`.
            tables.add(dataset.name)
        try:
            source = json.loads(dataset.source)
        except ValueError:
            # The source of a dataset is text of any kind.
            continue
        if isinstance(source, dict):
            tables |= {str(source.get(key) or "") for key in ("table_name", "delta_table_name")}
    return tables - {""}


def _may_be_same_table(one: str, other: str) -> bool:
    """Return whether two names agree as far as both are qualified."""
    parts = [name.replace("`", "").lower().split(".")[::-1] for name in (one, other)]
    return all(left == right for left, right in zip(*parts, strict=False))
