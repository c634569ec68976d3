"""A Spark ML pipeline that says why it refuses a row.

A stage that meets an invalid value fails the job (``handleInvalid="error"``) or filters the row out (``"skip"``), and
does not say which row it was. A filter has another cost: Spark's optimizer derives constraints from it. A filter on N
columns has up to 2^N of them once each column has a second name, as an Imputer gives it, and planning does not end.

Here, the reason goes to the column `PROBLEM`, and the stage gets a valid value in place of the invalid one. No row is
filtered, and a row that no stage refuses has the results of the stages themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers.data.names import quoted

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import StructField

PROBLEM, _NUMBERS = "_problem", "_numbers"
# Invalid values of these are not checked here. Both can leave out the row.
_SKIPPING = ("VectorIndexerModel", "VectorSizeHint")


@dataclass(frozen=True)
class GuardedPipeline:
    """The stages of a fitted pipeline.

    Attributes
    ----------
    stages : list of pyspark.ml.Transformer
    """

    stages: list[Any]

    @classmethod
    def of(cls, pipeline: Any, *, connect: bool) -> GuardedPipeline:
        """Take a pipeline apart.

        Parameters
        ----------
        pipeline : pyspark.ml.Transformer
        connect : bool
            Whether it runs on Spark Connect, where the stages of a fitted formula cannot be reached.
        """
        return cls(list(_flat(pipeline, connect)))

    @property
    def may_leave_out(self) -> bool:
        """Whether rows may be missing in the result without a reason: SQL may have a WHERE, for instance."""
        return any(_may_leave_out(stage) for stage in self.stages)

    def transform(self, rows: DataFrame, *, skip: bool = False) -> DataFrame:
        """Apply the stages.

        Parameters
        ----------
        rows : pyspark.sql.DataFrame
        skip : bool, default False
            Whether a stage whose values are not checked here leaves out the row where it would fail.

        Returns
        -------
        pyspark.sql.DataFrame
            If a stage may refuse rows, with the column `PROBLEM`: why the first of them refuses the row, or null.
        """
        for stage in self.stages:
            name = type(stage).__name__
            if name in _GUARDS:
                rows = _GUARDS[name](stage, rows)
            elif skip and name in _SKIPPING and stage.getHandleInvalid() == "error":
                rows = stage.transform(rows, {stage.handleInvalid: "skip"})
            else:
                rows = stage.transform(rows)
        return rows


def _flat(stage: Any, connect: bool) -> Iterable[Any]:
    """Return the stages that a stage consists of."""
    name = type(stage).__name__
    inner = [stage.bestModel] if name in ("CrossValidatorModel", "TrainValidationSplitModel") else []
    if name == "PipelineModel":
        inner = stage.stages
    elif name == "RFormulaModel" and not connect:
        inner = _formula_stages(stage)
    return (leaf for part in inner for leaf in _flat(part, connect)) if inner else [stage]


def _formula_stages(model: Any) -> list[Any]:
    """Return the stages of a fitted formula.

    Python has no method for them, and no class for two of them, which only rename the features and drop columns.
    """
    from pyspark.ml.wrapper import JavaParams

    stages = model._java_obj.pipelineModel().stages()
    without_class = ("VectorAttributeRewriter", "ColumnPruner")
    return [JavaParams._from_java(stage) for stage in stages if stage.getClass().getSimpleName() not in without_class]


def _may_leave_out(stage: Any) -> bool:
    name = type(stage).__name__
    if name == "VectorAssembler":
        return stage.getHandleInvalid() == "skip"
    return name in (*_SKIPPING, "SQLTransformer", "RFormulaModel") or not type(stage).__module__.startswith(
        "pyspark.ml."
    )


def _assemble(stage: Any, rows: DataFrame) -> DataFrame:
    """Apply a VectorAssembler, which refuses null, and NaN outside a vector."""
    from pyspark.ml.feature import VectorAssembler
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as F

    if stage.getHandleInvalid() == "keep":
        return stage.transform(rows)
    schema = rows.schema
    inputs = [schema[name] for name in stage.getInputCols()]
    if any(_is_vector(field) and _zero(field) is None for field in inputs):
        # Such a vector stays as it is, and the stage checks it.
        return stage.transform(_filled(rows, inputs, "VectorAssembler", or_nan=True))
    vectors = [field.name for field in inputs if _is_vector(field)]
    numbers = [field.name for field in inputs if not _is_vector(field)]
    problems = [F.when(F.col(quoted(name)).isNull(), _missing(name, "VectorAssembler")) for name in vectors]
    kept, searched = stage.transform(rows, {stage.handleInvalid: "keep"}), stage.getOutputCol()
    field = kept.schema[searched]
    if numbers:
        if vectors:
            # They may be long, and have a NaN that the stage accepts.
            searched = _NUMBERS
            kept = VectorAssembler(inputCols=numbers, outputCol=searched, handleInvalid="keep").transform(kept)
        # Each missing number is NaN now. A search takes a fifth of the time of a condition for each column, because
        # Java does not compile code as long as that of many conditions.
        position = F.array_position(vector_to_array(F.col(quoted(searched))), float("nan")).cast("int")
        reasons = F.array(F.lit(None).cast("string"), *(_missing(name, "VectorAssembler") for name in numbers))
        problems.append(F.get(reasons, position))
    valid = F.when(F.col(PROBLEM).isNull(), F.col(quoted(field.name))).otherwise(_zero(field))
    noted = _refuse(kept, problems, {}).drop(_NUMBERS)
    return noted.withColumn(field.name, valid.alias(field.name, metadata=field.metadata))


def _interact(stage: Any, rows: DataFrame) -> DataFrame:
    """Apply an Interaction, which refuses null."""
    inputs = [rows.schema[name] for name in stage.getInputCols()]
    return stage.transform(_filled(rows, inputs, "Interaction", or_nan=False))


def _filled(rows: DataFrame, inputs: list[StructField], stage_name: str, *, or_nan: bool) -> DataFrame:
    """Refuse rows with missing inputs, and put zeros there."""
    from pyspark.sql import functions as F

    problems, valid = [], {}
    for field in inputs:
        zero, is_missing = _zero(field), f"{quoted(field.name)} IS NULL"
        if or_nan and field.dataType.typeName() in ("double", "float"):
            is_missing += f" OR isnan({quoted(field.name)})"
        elif not field.nullable:
            continue
        if zero is not None:
            missing = F.expr(is_missing)
            problems.append(F.when(missing, _missing(field.name, stage_name)))
            value = F.when(missing, zero).otherwise(F.col(quoted(field.name)))
            valid[field.name] = value.alias(field.name, metadata=field.metadata)
    return _refuse(rows, problems, valid)


def _zero(field: StructField) -> Column | None:
    """Return a valid value for a column; None if the size of its vectors is not known."""
    from pyspark.ml.functions import array_to_vector
    from pyspark.sql import functions as F

    if not _is_vector(field):
        return F.lit(0).cast(field.dataType)
    size = field.metadata.get("ml_attr", {}).get("num_attrs")
    return None if size is None else array_to_vector(F.array_repeat(F.lit(0.0), size))


def _is_vector(field: StructField) -> bool:
    from pyspark.ml.linalg import VectorUDT

    return isinstance(field.dataType, VectorUDT)


def _index(stage: Any, rows: DataFrame) -> DataFrame:
    """Apply a StringIndexerModel, which refuses null and text that it was not trained on."""
    from pyspark.sql import functions as F

    if stage.getHandleInvalid() == "keep":
        return stage.transform(rows)
    # Such text has the index after those of all labels. The metadata, on which a OneHotEncoderModel insists, stay those
    # of the stage itself.
    kept, own_schema = stage.transform(rows, {stage.handleInvalid: "keep"}), stage.transform(rows).schema
    problems, valid, outputs = [], {}, set(kept.columns)
    for name, output, labels in zip(*_columns(stage), stage.labelsArray, strict=True):
        # A stage that also encodes the label does nothing about it where it is missing.
        if output not in outputs:
            continue
        index, value = F.col(quoted(output)), F.col(quoted(name)).cast("string")
        is_unknown = index == len(labels)
        problems.append(F.when(is_unknown, _reason(name, value, "is not known to the pipeline")))
        metadata = own_schema[output].metadata
        valid[output] = F.when(is_unknown, 0.0).otherwise(index).alias(output, metadata=metadata)
    return _refuse(kept, problems, valid)


def _encode(stage: Any, rows: DataFrame) -> DataFrame:
    """Apply a OneHotEncoderModel, which refuses categories that it was not trained on; null becomes a null vector."""
    from pyspark.sql import functions as F

    if stage.getHandleInvalid() == "keep":
        return stage.transform(rows)
    problems, valid, schema = [], {}, rows.schema
    for name, size in zip(_columns(stage)[0], stage.categorySizes, strict=True):
        value, field = F.col(quoted(name)), schema[name]
        is_unknown = F.expr(f"NOT ({quoted(name)} >= 0 AND {quoted(name)} < {size})")
        problems.append(F.when(is_unknown, _reason(name, value, "is not known to the pipeline")))
        known = F.when(is_unknown, F.lit(0).cast(field.dataType)).otherwise(value)
        valid[name] = known.alias(name, metadata=field.metadata)
    return stage.transform(_refuse(rows, problems, valid))


def _bucketize(stage: Any, rows: DataFrame) -> DataFrame:
    """Apply a Bucketizer, which refuses NaN, numbers outside its buckets and, if it skips rows, null."""
    from pyspark.sql import functions as F

    mode, problems, valid, schema = stage.getHandleInvalid(), [], {}, rows.schema
    splits = stage.getSplitsArray() if stage.isSet("splitsArray") else [stage.getSplits()]
    for name, limits in zip(_columns(stage)[0], splits, strict=True):
        value, field = F.col(quoted(name)), schema[name]
        number = value.cast("double")
        is_invalid = ~F.isnan(number) & ~number.between(limits[0], limits[-1])
        if mode != "keep":
            is_invalid |= F.isnan(number)
        if mode == "skip":
            is_invalid |= number.isNull()
        problems.append(F.when(is_invalid, _reason(name, value, "is outside the buckets of the pipeline")))
        # A null has a null for its bucket.
        known = F.when(~F.coalesce(is_invalid, F.lit(False)), value)
        valid[name] = known.alias(name, metadata=field.metadata)
    return stage.transform(_refuse(rows, problems, valid), {stage.handleInvalid: "error" if mode == "skip" else mode})


_GUARDS: dict[str, Callable[[Any, DataFrame], DataFrame]] = {
    "Bucketizer": _bucketize,
    "Interaction": _interact,
    "OneHotEncoderModel": _encode,
    "StringIndexerModel": _index,
    "VectorAssembler": _assemble,
}


def _columns(stage: Any) -> tuple[list[str], list[str]]:
    """Return the inputs and the outputs of a stage that has one or several of them."""
    if stage.isSet("inputCols"):
        return stage.getInputCols(), stage.getOutputCols()
    return [stage.getInputCol()], [stage.getOutputCol()]


def _missing(name: str, stage_name: str) -> Column:
    from pyspark.sql import functions as F

    return F.lit(f"{name!r} is missing; the pipeline's {stage_name} needs it")


def _reason(name: str, value: Column, problem: str) -> Column:
    from pyspark.sql import functions as F

    return F.coalesce(F.concat(F.lit(f"{name!r} {problem}: "), value.cast("string")), F.lit(f"{name!r} is missing"))


def _refuse(rows: DataFrame, problems: list[Column], valid: dict[str, Column]) -> DataFrame:
    """Replace columns by valid ones, and note the first problem of each row."""
    from pyspark.sql import functions as F

    if not problems:
        return rows
    noted = [F.col(PROBLEM)] if PROBLEM in rows.columns else []
    return rows.withColumns({**valid, PROBLEM: F.coalesce(*noted, *problems)})
