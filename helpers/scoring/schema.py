"""A model's signature in Spark's types: which column types fit an input, and which types the outputs have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from mlflow.types import Schema
    from pyspark.sql.types import DataType

# MLflow accepts no null in an input of these types.
NEVER_NULL = ("boolean", "integer", "long")
# From the narrowest to the widest.
_NUMBERS = ("boolean", "byte", "short", "integer", "long", "decimal", "float", "double")
_INTEGERS = ("byte", "short", "integer", "long")
_MOST_COLUMNS = 100


def fits(column_type: DataType, input_type: DataType) -> bool:
    """Return whether a column of one type can be an input of another.

    A number fits an input that is at least as wide. An integer also fits a narrower integer input, because whether
    a value fits is checked row by row.

    Parameters
    ----------
    column_type : pyspark.sql.types.DataType
        Of the rows.
    input_type : pyspark.sql.types.DataType
        Of the signature.
    """
    from pyspark.sql.types import DecimalType

    if column_type == input_type:
        return True
    column, expected = column_type.typeName(), input_type.typeName()
    if column in ("date", "timestamp_ntz"):
        return expected == "timestamp"
    if column not in _NUMBERS or expected not in ("integer", "long", "decimal", "float", "double"):
        return False
    is_integer = column in _INTEGERS or (isinstance(column_type, DecimalType) and column_type.scale == 0)
    return _NUMBERS.index(column) < _NUMBERS.index(expected) or (is_integer and expected in ("integer", "long"))


def output_types(model_uri: str, outputs: Schema | None) -> tuple[dict[str, DataType], DataType]:
    """Return the types of a model's outputs.

    Parameters
    ----------
    model_uri : str
        For the error.
    outputs : mlflow.types.Schema or None
        Of the signature.

    Returns
    -------
    tuple of (dict of str to pyspark.sql.types.DataType, pyspark.sql.types.DataType)
        Type by output column; and the type of the column ``prediction`` that they become: the only output, a
        struct of named outputs, or an array of a vector's numbers.

    Raises
    ------
    helpers.parameters.ParameterError
        If the signature has no outputs, several tensors, or a tensor of more than two dimensions.
    """
    from mlflow.types import TensorSpec
    from pyspark.sql.types import ArrayType, BooleanType, DoubleType, LongType, StringType, StructField, StructType

    if outputs is None:
        raise ParameterError(
            "model_name",
            model_uri,
            "has a signature without outputs; log it with signature=infer_signature(…, <predictions>)",
        )
    if not outputs.is_tensor_spec():
        schema = outputs.as_spark_schema()
        fields = schema.fields if isinstance(schema, StructType) else [StructField("prediction", schema)]
        if len(fields) == 1:
            return {"prediction": fields[0].dataType}, fields[0].dataType
        nullable = StructType([StructField(field.name, field.dataType) for field in fields])
        return {field.name: field.dataType for field in fields}, nullable
    # infer_signature records a NumPy array of outputs as a tensor.
    tensor, *others = [spec for spec in outputs.inputs if isinstance(spec, TensorSpec)]
    if others or len(tensor.shape) > 2:
        raise ParameterError(
            "model_name", model_uri, "has a signature of several tensors, or of one with more than two dimensions; "
            "log it with named columns as outputs"
        )  # fmt: skip
    types = {"f": DoubleType(), "i": LongType(), "u": LongType(), "b": BooleanType()}
    element, (_, *length) = types.get(tensor.type.kind, StringType()), tensor.shape
    if not length or length == [1]:
        return {"prediction": element}, element
    if 1 < length[0] <= _MOST_COLUMNS:
        # Separate columns pass from Python to Spark several times faster than one list per row.
        return {str(number): element for number in range(length[0])}, ArrayType(element)
    return {"prediction": ArrayType(element)}, ArrayType(element)
