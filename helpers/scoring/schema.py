"""A model's signature in Spark's types, and which columns of a table its inputs take.

Everything that a signature can have is in `spark_type`, and everything that a column is converted to in `fits`,
`converted` and `loss`. What is not there is refused by the name of the column before anything is written.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from helpers.data.names import quoted
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.types import Schema
    from mlflow.types.schema import ColSpec, TensorSpec
    from pyspark.sql.types import DataType

# MLflow accepts no null in an input of these types.
NEVER_NULL = ("boolean", "integer", "long")
# Values of these types are either exactly the column's, or the row is refused. Fractions are rounded.
_EXACT = ("boolean", "byte", "short", "integer", "long", "decimal")
_NUMBERS = (*_EXACT, "float", "double")
# From the narrowest to the widest.
_INTEGERS = ("byte", "short", "integer", "long")
_TIMES = ("date", "timestamp_ntz", "timestamp")
_MOST_COLUMNS = 100
_SUPPORTED = "boolean, integer, long, float, double, string, binary, datetime, and arrays, objects and maps of these"


def spark_type(spec: Any) -> DataType:
    """Return the Spark type of a type of a signature.

    Parameters
    ----------
    spec : mlflow.types.DataType, mlflow.types.schema.Array, Object or Map
        From a ``ColSpec``.

    Raises
    ------
    ValueError
        If it has none.
    """
    from mlflow.types import DataType
    from pyspark.sql.types import ArrayType, MapType, StringType, StructField, StructType

    if isinstance(spec, DataType):
        return spec.to_spark()
    # By their names, because MLflow 2.21 has fewer of these classes.
    kind = type(spec).__name__
    if kind == "Array":
        return ArrayType(spark_type(spec.dtype))
    if kind == "Map":
        return MapType(StringType(), spark_type(spec.value_type))
    if kind == "Object":
        return StructType([StructField(field.name, spark_type(field.dtype)) for field in spec.properties])
    raise ValueError(f"type {spec}; supported are {_SUPPORTED}")


def input_types(model_uri: str, inputs: Schema | None, columns: list[str]) -> dict[str, DataType]:
    """Return the types of a model's inputs by name, in the order of the signature.

    A named tensor of one number a row is a column of numbers, and one of several is a column of arrays.

    Parameters
    ----------
    model_uri : str
        For the error.
    inputs : mlflow.types.Schema or None
        Of the signature.
    columns : list of str
        The columns that the values of one tensor without a name are; empty if that is not known.

    Raises
    ------
    helpers.parameters.ParameterError
        If inputs have no names, or a type that no column of a table has.
    """
    if inputs is not None and inputs.is_tensor_spec() and not inputs.has_input_names():
        return _columns_of_tensor(model_uri, inputs.inputs[0], columns)
    if inputs is None or not inputs.has_input_names():
        raise ParameterError(
            "model_name",
            model_uri,
            "has no signature with named columns, so its inputs cannot be found in a table; log it with "
            "signature=infer_signature(<a pandas DataFrame>, …)",
        )
    to_type = _tensor_input if inputs.is_tensor_spec() else _column
    return _types(model_uri, {str(spec.name): spec for spec in inputs.inputs}, to_type, "input")


def _columns_of_tensor(model_uri: str, spec: Any, columns: list[str]) -> dict[str, DataType]:
    if not columns:
        raise ParameterError(
            "model_name",
            model_uri,
            f"takes one tensor without column names, {spec}, so its inputs cannot be found in a table; log it with "
            "tracking.log_model(columns=…), or with signature=infer_signature(<a pandas DataFrame>, …)",
        )
    if tuple(spec.shape[1:]) != (len(columns),):
        raise ParameterError(
            "model_name", model_uri, f"takes the tensor {spec}, whose values are not {len(columns)} columns per row"
        )
    from mlflow.types.schema import TensorSpec

    value = TensorSpec(spec.type, (-1,), "value")
    return _types(model_uri, dict.fromkeys(columns, value), _tensor_input, "input")


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
        If the signature has no outputs, or some of a type that no column can have.
    """
    from pyspark.sql.types import ArrayType, StructField, StructType

    if outputs is None:
        raise ParameterError(
            "model_name",
            model_uri,
            "has a signature without outputs; log it with signature=infer_signature(…, <predictions>)",
        )
    specs = {spec.name or str(number): spec for number, spec in enumerate(outputs.inputs)}
    types = _types(model_uri, specs, _tensor_output if outputs.is_tensor_spec() else _column, "output")
    if len(types) > 1:
        return types, StructType([StructField(name, output_type) for name, output_type in types.items()])
    (output_type,) = types.values()
    length = getattr(outputs.inputs[0], "shape", ())[1:]
    if isinstance(output_type, ArrayType) and length and 1 < length[0] <= _MOST_COLUMNS:
        # Separate columns pass from Python to Spark several times faster than one list per row.
        return {str(number): output_type.elementType for number in range(length[0])}, output_type
    return {"prediction": output_type}, output_type


def are_probabilities(outputs: dict[str, DataType], classes: list[Any]) -> bool:
    """Return whether a model's outputs can only be the probabilities of its classes.

    They are numbers with a fraction: one per class, or that of the second of two classes. An output that is called
    ``prediction`` beside others is the prediction itself.
    """
    from pyspark.sql.types import ArrayType

    types = [kind.elementType if isinstance(kind, ArrayType) else kind for kind in outputs.values()]
    if not classes or any(kind.typeName() not in ("double", "float") for kind in types):
        return False
    if len(outputs) == 1:
        (output_type,) = outputs.values()
        return isinstance(output_type, ArrayType) or len(classes) == 2
    return len(outputs) == len(classes) and "prediction" not in outputs


def type_of_classes(classes: list[Any]) -> DataType:
    """Return the Spark type of a column of classes, which are Python's own values."""
    from pyspark.sql.types import BooleanType, DoubleType, LongType, StringType

    for python_type, spark_type in ((bool, BooleanType()), (int, LongType()), ((int, float), DoubleType())):
        if all(isinstance(value, python_type) for value in classes):
            return spark_type
    return StringType()


def _types(model_uri: str, specs: dict[str, Any], to_type: Callable[[Any], DataType], what: str) -> dict[str, DataType]:
    types, problems = {}, []
    for name, spec in specs.items():
        try:
            types[name] = to_type(spec)
        except ValueError as error:
            problems.append(f"{what} {name!r} has {error}")
    if problems:
        raise ParameterError("model_name", model_uri, f"cannot be applied to a table: {'; '.join(problems)}")
    return types


def _column(spec: ColSpec) -> DataType:
    return spark_type(spec.type)


def _tensor_input(spec: TensorSpec) -> DataType:
    """Return the type of the column that is a named tensor; MLflow converts a value to no other type than its own."""
    from pyspark.sql import types as T
    from pyspark.sql.types import ArrayType

    types = {
        "float32": T.FloatType(), "float64": T.DoubleType(), "int32": T.IntegerType(), "int64": T.LongType(),
        "bool": T.BooleanType(), "str": T.StringType(),
    }  # fmt: skip
    element, length = types.get(spec.type.name), tuple(spec.shape[1:])
    if element is None or -1 in length:
        raise ValueError(f"type {spec}; of tensors, {', '.join(types)} of a fixed size per row are supported")
    return element if not length or length == (1,) else ArrayType(element)


def _tensor_output(spec: TensorSpec) -> DataType:
    """Return the type of the column that a tensor becomes; infer_signature records a NumPy array as a tensor."""
    from pyspark.sql.types import ArrayType, BooleanType, DoubleType, LongType, StringType

    if len(spec.shape) > 2:
        raise ValueError(f"more than two dimensions, {spec.shape}; log the model with named columns as outputs")
    types = {"f": DoubleType(), "i": LongType(), "u": LongType(), "b": BooleanType()}
    element, length = types.get(spec.type.kind, StringType()), tuple(spec.shape[1:])
    return element if length in ((), (1,)) else ArrayType(element)


def fits(column_type: DataType, input_type: DataType) -> bool:
    """Return whether a column of one type can be an input of another, for values that convert (see `loss`).

    Numbers and booleans fit each other, dates fit times, and arrays, structs and maps fit if their parts do. A struct
    may have more fields than the input, in any order.

    Parameters
    ----------
    column_type : pyspark.sql.types.DataType
        Of the rows.
    input_type : pyspark.sql.types.DataType
        Of the signature.
    """
    from pyspark.sql.types import ArrayType, MapType, StructType

    if column_type == input_type:
        return True
    if isinstance(column_type, ArrayType) and isinstance(input_type, ArrayType):
        return fits(column_type.elementType, input_type.elementType)
    if isinstance(column_type, MapType) and isinstance(input_type, MapType):
        return fits(column_type.keyType, input_type.keyType) and fits(column_type.valueType, input_type.valueType)
    if isinstance(column_type, StructType) and isinstance(input_type, StructType):
        return all(
            field.name in column_type.fieldNames() and fits(column_type[field.name].dataType, field.dataType)
            for field in input_type
        )
    column, expected = column_type.typeName(), input_type.typeName()
    return (column in _NUMBERS and expected in _NUMBERS) or (column in _TIMES and expected in _TIMES)


def converted(value: str, column_type: DataType, input_type: DataType, depth: int = 0) -> str:
    """Return a column as another type that it fits, as a SQL expression.

    A number that is too large for its type, and what is not a number, becomes null; `loss` finds what else would
    change. The result is the same for both values of ``spark.sql.ansi.enabled``.

    Parameters
    ----------
    value : str
        SQL expression of the value.
    column_type, input_type : pyspark.sql.types.DataType
        Types that `fits` accepts.
    depth : int, default 0
        How many arrays and maps the value is in.
    """
    from pyspark.sql.types import ArrayType, MapType, StructType

    if column_type == input_type:
        return value
    item = f"_item{depth}"
    if isinstance(column_type, ArrayType) and isinstance(input_type, ArrayType):
        inner = converted(item, column_type.elementType, input_type.elementType, depth + 1)
        return f"transform({value}, {item} -> {inner})"
    if isinstance(column_type, MapType) and isinstance(input_type, MapType):
        inner = converted(item, column_type.valueType, input_type.valueType, depth + 1)
        return f"transform_values({value}, (_key{depth}, {item}) -> {inner})"
    if isinstance(column_type, StructType) and isinstance(input_type, StructType):
        fields = [
            f"{converted(f'{value}.{quoted(field.name)}', column_type[field.name].dataType, field.dataType, depth)} "
            f"AS {quoted(field.name)}"
            for field in input_type
        ]
        return f"CASE WHEN {value} IS NOT NULL THEN struct({', '.join(fields)}) END"
    return f"try_cast({value} AS {input_type.simpleString()})"


def loss(value: str, column_type: DataType, input_type: DataType, depth: int = 0) -> str:
    """Return the condition that a value changes when it is `converted`, as a SQL expression; empty if none does.

    A fraction is rounded to the digits of its input, as ``astype`` does: that is not a loss. An integer, a boolean and
    a part of an array, a struct or a map that does not convert exactly is one.
    """
    from pyspark.sql.types import ArrayType, MapType, StructType

    if column_type == input_type:
        return ""
    item = f"_item{depth}"
    if isinstance(column_type, ArrayType) and isinstance(input_type, ArrayType):
        inner = loss(item, column_type.elementType, input_type.elementType, depth + 1)
        return inner and f"exists({value}, {item} -> {inner})"
    if isinstance(column_type, MapType) and isinstance(input_type, MapType):
        inner = loss(item, column_type.valueType, input_type.valueType, depth + 1)
        return inner and f"exists(map_values({value}), {item} -> {inner})"
    if isinstance(column_type, StructType) and isinstance(input_type, StructType):
        parts = [
            loss(f"{value}.{quoted(field.name)}", column_type[field.name].dataType, field.dataType, depth)
            for field in input_type
        ]
        return " OR ".join(f"({part})" for part in parts if part)
    if input_type.typeName() not in _EXACT or _is_wider(column_type, input_type):
        return ""
    # Null-safe, because a value that does not convert is null.
    back = f"try_cast(try_cast({value} AS {input_type.simpleString()}) AS {column_type.simpleString()})"
    return f"NOT ({back} <=> {value})"


def _is_wider(column_type: DataType, input_type: DataType) -> bool:
    """Return whether an integer type has every value of another one."""
    column, expected = column_type.typeName(), input_type.typeName()
    if column == "boolean":
        return expected in _INTEGERS
    return column in _INTEGERS and expected in _INTEGERS and _INTEGERS.index(column) <= _INTEGERS.index(expected)


def as_inputs(rows: pd.DataFrame, inputs: Schema, columns: list[str]) -> pd.DataFrame:
    """Return the columns of a signature as MLflow takes them in plain Python, without the others.

    The same conversions as in `converted`. A column with a value that does not convert is left as it is, and MLflow
    says so.

    Parameters
    ----------
    rows : pandas.DataFrame
        As Spark's ``toPandas`` returns it.
    inputs : mlflow.types.Schema
        Of the signature.
    columns : list of str
        As in `input_types`.
    """
    import numpy as np
    import pandas as pd
    from mlflow.types import DataType

    if not inputs.has_input_names():
        return rows[columns].astype(inputs.inputs[0].type)
    typed_columns = {}
    for spec in inputs.inputs:
        name, kind = spec.name, spec.type.to_pandas() if isinstance(spec.type, DataType) else None
        if name not in rows:
            continue
        column = rows[name]
        if isinstance(kind, np.dtype) and kind.kind in "iufbM":
            try:
                typed = column.astype(kind)
            except (TypeError, ValueError):
                typed = column
            # A fraction is rounded.
            column = typed if kind.kind in "fM" or (typed == column).all() else column
        else:
            column = pd.Series([_as_python(value) for value in column], index=column.index, name=name, dtype=object)
        typed_columns[name] = column
    return pd.DataFrame(typed_columns)


def _as_python(value: Any) -> Any:
    """Return a value of a table as MLflow takes it: rows are dicts, and times in them are NumPy's."""
    import numpy as np

    if hasattr(value, "asDict"):
        return {name: _as_python(item) for name, item in value.asDict().items()}
    if isinstance(value, dict):
        return {key: _as_python(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_as_python(item) for item in value]
        return np.array(items) if items and isinstance(items[0], np.datetime64) else items
    return np.datetime64(value, "ns") if isinstance(value, datetime.datetime) else value
