"""A model applied to batches of rows in Spark's Python workers.

`helpers.scoring.engines.python` sends this file to the executors together with the model. It imports nothing of the
bundle, which executors do not have.
"""

from __future__ import annotations

import base64
import datetime
import functools
import gc
import importlib
import json
import re
import sys
import zipimport
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import pyarrow as pa

PROBLEM = "_problem"
NOT_FINITE = "the model's output is NaN or infinite"
MISSING = "the model's output is missing"
# How the error begins of a worker that does not have the model's files.
NOT_THERE = "ModelNotOnWorker"
# The type of an output that passes to Spark as JSON text: {"value": …}.
JSON = "json"
# How many rows of a kind are tried alone before all rows of the kind count as refused.
TRIED_ROWS = 100
_NAMES_MISSING = re.compile(r"\b(nan|inf|infinity|missing)\b", re.IGNORECASE)
# These predict the class with the greatest probability, but each breaks ties in its own way.
_PREDICT_THE_GREATEST = frozenset({
    "DecisionTreeClassifier", "ExtraTreesClassifier", "GradientBoostingClassifier", "HistGradientBoostingClassifier",
    "LGBMClassifier", "LogisticRegression", "RandomForestClassifier", "XGBClassifier",
})  # fmt: skip
_TIE = 1e-9
# How far the sum of a row's probabilities, of 32 bits, may be from 1.
_NEAR_ONE = 1e-3
_NOTHING = '{"value": null}'
_FILLERS: dict[str, Any] = {"bigint": 0, "int": 0, "double": np.nan, "float": np.nan, "string": "", "boolean": False}


class SignatureMismatch(TypeError):
    """The outputs of a model are not what its signature says."""


class Model:
    """A model that says of each row which it refuses why it does.

    Parameters
    ----------
    model : object
        A classifier with scikit-learn's interface, or what MLflow loads as ``python_function``.
    config : dict
        ``outputs``, pairs of a column's name and Spark type, or `JSON`; ``optional``, the outputs that may be
        missing; ``estimator``, the flavor of an estimator that gives classes and probabilities, or empty;
        ``classes``, the classes whose probabilities the model's own outputs are, or empty; ``each_class``, whether
        the outputs have the probabilities of all classes, or only that of the predicted one.
    """

    def __init__(self, model: Any, config: dict[str, Any]) -> None:
        self.model, self.config = model, config

    def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the outputs for each row, and the column `PROBLEM`: why the row is refused, empty if it is not.

        MLflow calls this (``python_function``).
        """
        nested = {
            name: pd.Series([_as_mlflow_takes(value) for value in data[name]], index=data.index, dtype=object)
            for name in data.select_dtypes("object")
        }
        outputs, problems = self.outputs_and_problems(data.assign(**nested))
        return pd.DataFrame(outputs | {PROBLEM: "" if problems is None else problems})

    def outputs_and_problems(self, data: pd.DataFrame) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """Return the outputs by column, and why rows are refused: None if none is, else text, empty where one is not.

        A model refuses a whole batch because of one row. The rows that it accepts are found, and get their outputs.
        A row for which the model returns nothing, NaN or infinity counts as refused, too.
        """
        outputs, problems = self._outputs_and_refusals(data)
        for name, type_name in self.config["outputs"]:
            outputs[name], problem = _checked(outputs[name], type_name, name in self.config["optional"])
            if problem is not None:
                problems = problem if problems is None else np.where(problems == "", problem, problems)
        return outputs, problems

    def _outputs_and_refusals(self, data: pd.DataFrame) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        try:
            return self._outputs(data), None
        except Exception as error:  # noqa: BLE001 - whatever a model raises for a value
            _raise_if_not_for_values(error)
        parts = self._outputs_by_kind(data.reset_index(drop=True))
        frame = pd.concat(parts).sort_index()
        return {name: frame[name].to_numpy() for name, _ in self.config["outputs"]}, frame[PROBLEM].to_numpy()

    def _outputs(self, data: pd.DataFrame) -> dict[str, np.ndarray]:
        names = [name for name, _ in self.config["outputs"]]
        if self.config["estimator"] or self.config["classes"]:
            probabilities = self._probabilities(data)
            greatest = probabilities.max(axis=1)
            outputs = [self._classes(data, probabilities, greatest)]
            outputs += list(probabilities.T) if self.config["each_class"] else [greatest]
            return dict(zip(names, outputs, strict=True))
        type_name = self.config["outputs"][0][1]
        is_one_value = len(names) == 1 and (type_name == JSON or type_name.startswith("array<"))
        frame = _as_frame(self.model.predict(data), is_one_value)
        if len(frame.columns) != len(names) or len(frame) != len(data):
            raise SignatureMismatch(
                f"for {len(data)} rows the model gives {len(frame)} rows of {len(frame.columns)} columns, where its "
                f"signature says {len(names)}"
            )
        if set(names) == set(frame.columns):
            return {name: frame[name].to_numpy() for name in names}
        return {name: frame.iloc[:, number].to_numpy() for number, name in enumerate(names)}

    def _probabilities(self, data: pd.DataFrame) -> np.ndarray:
        """Return one column of probabilities per class."""
        if self.config["estimator"]:
            return self.model.predict_proba(data)
        predicted = self.model.predict(data)
        frame = _as_frame(predicted, is_one_value=False)
        if len(frame.columns) == 1 and not pd.api.types.is_scalar(frame.iloc[0, 0]):
            frame = pd.DataFrame(np.stack(frame.iloc[:, 0].to_numpy()))
        probabilities, number = frame.to_numpy(dtype=float), len(self.config["classes"])
        if number == 2 and probabilities.shape[1] == 1:
            probabilities = np.column_stack([1 - probabilities, probabilities])
        if probabilities.shape != (len(data), number):
            raise SignatureMismatch(f"the model gives {probabilities.shape[1]} numbers per row for {number} classes")
        # NaN is neither, and refuses only its row.
        outside = (probabilities < -_NEAR_ONE) | (probabilities > 1 + _NEAR_ONE)
        if outside.any() or (np.abs(probabilities.sum(axis=1) - 1) > _NEAR_ONE).any():
            raise SignatureMismatch(
                "the model was logged with classes, and its outputs are not probabilities, which add up to 1. Have it "
                "end in a softmax or a sigmoid, or log it without classes"
            )
        return probabilities

    def _classes(self, data: pd.DataFrame, probabilities: np.ndarray, greatest: np.ndarray) -> np.ndarray:
        """Return the predicted classes, without a second pass over the data where the probabilities decide."""
        if self.config["classes"]:
            return np.asarray(self.config["classes"])[probabilities.argmax(axis=1)]
        last_step = self.model.steps[-1][1] if hasattr(self.model, "steps") else self.model
        if type(last_step).__name__ not in _PREDICT_THE_GREATEST:
            # CatBoost's has a column of its own for each class that it predicts.
            return np.asarray(self.model.predict(data)).reshape(len(data))
        classes = self.model.classes_[probabilities.argmax(axis=1)]
        (near,) = np.nonzero(greatest < 0.5 + _TIE)
        if len(near):
            second = np.partition(probabilities[near], -2, axis=1)[:, -2]
            ties = near[greatest[near] - second < _TIE]
            if len(ties):
                classes[ties] = self.model.predict(data.iloc[ties])
        return classes

    def _outputs_by_kind(self, data: pd.DataFrame) -> Iterator[pd.DataFrame]:
        """Try rows that lack the same values together, because a model mostly refuses all of them or none."""
        lacks = data.isna().to_numpy()
        for number, name in enumerate(data):
            if pd.api.types.is_float_dtype(data[name]):
                # Trees use numbers of 32 bits.
                lacks[:, number] |= data[name].abs().to_numpy() > np.finfo(np.float32).max
        kinds, kind_of_row = np.unique(lacks, axis=0, return_inverse=True)
        for number, kind in enumerate(kinds):
            yield from self._outputs_or_problems(data[kind_of_row.ravel() == number], list(data.columns[kind]))

    def _outputs_or_problems(self, data: pd.DataFrame, lacks: list[str]) -> Iterator[pd.DataFrame]:
        """Halve the rows that are refused, until one is left or a sample shows that all are refused."""
        try:
            # MLflow takes the row with index 0 for the first one.
            yield _by_row(self._outputs(data.reset_index(drop=True)) | {PROBLEM: ""}, data.index)
            return
        except Exception as caught:  # noqa: BLE001 - whatever a model raises for a value
            _raise_if_not_for_values(caught)
            error = _text(caught)
        if len(data) == 1 or (lacks and _NAMES_MISSING.search(error)):
            yield self._refused(data, error, lacks)
            return
        if len(data) > 2 * TRIED_ROWS and self._refuses_each(data.iloc[:: len(data) // TRIED_ROWS], error):
            yield self._refused(
                data, f"{error} (as for each of {TRIED_ROWS} similar rows that were tried alone)", lacks
            )
            return
        middle = len(data) // 2
        yield from self._outputs_or_problems(data[:middle], lacks)
        yield from self._outputs_or_problems(data[middle:], lacks)

    def _refuses_each(self, data: pd.DataFrame, error: str) -> bool:
        for number in range(len(data)):
            try:
                self._outputs(data[number : number + 1])
                return False
            except Exception as caught:  # noqa: BLE001 - whatever a model raises for a value
                if _text(caught) != error:
                    return False
        return True

    def _refused(self, data: pd.DataFrame, error: str, lacks: list[str]) -> pd.DataFrame:
        problem = f"{', '.join(map(repr, lacks))} missing or infinite: {error}" if lacks else error
        fillers = {name: _FILLERS.get(type_name) for name, type_name in self.config["outputs"]}
        return pd.DataFrame(fillers | {PROBLEM: problem}, index=data.index)


def _by_row(outputs: dict[str, Any], index: pd.Index) -> pd.DataFrame:
    """Return outputs as a DataFrame, arrays as values of a column."""
    columns = {
        name: list(values) if isinstance(values, np.ndarray) and values.ndim > 1 else values
        for name, values in outputs.items()
    }
    return pd.DataFrame(columns, index=index)


def _as_frame(predicted: Any, is_one_value: bool) -> pd.DataFrame:
    """Return what a model has predicted as a DataFrame with a row for each row of its input.

    Parameters
    ----------
    predicted : object
        A DataFrame, a Series, an array, a list, or a dict of arrays.
    is_one_value : bool
        Whether the signature has one output, which is an array or an object.
    """
    if isinstance(predicted, dict):
        columns = {name: np.asarray(values) for name, values in predicted.items()}
        return pd.DataFrame(
            {
                name: list(values) if values.ndim > 1 and values.shape[1:] != (1,) else values.ravel()
                for name, values in columns.items()
            }
        )
    if not is_one_value:
        return predicted if isinstance(predicted, pd.DataFrame) else pd.DataFrame(predicted)
    if isinstance(predicted, pd.DataFrame) and len(predicted.columns) == 1:
        return predicted
    rows = predicted.to_numpy() if isinstance(predicted, pd.DataFrame) else predicted
    return pd.DataFrame({0: pd.Series(list(rows), dtype=object)})


def _checked(values: np.ndarray, type_name: str, is_optional: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Return an output as it passes to Spark, and why rows have none: None if each has, else text, empty where one has.

    Numbers with a fraction, and arrays and objects of them, can be NaN or infinite. Any other value can be missing.
    """
    if type_name in ("double", "float"):
        accepted, problem = np.isfinite(np.asarray(values, dtype=float)), NOT_FINITE
    elif type_name in ("array<double>", "array<float>"):
        # A row that was refused has None.
        accepted = np.array([np.isfinite(np.asarray(value, dtype=float)).all() for value in values], dtype=bool)
        problem = NOT_FINITE
    elif type_name == JSON:
        texts = [_as_json(value) for value in values]
        values = np.array([text or "null" for text in texts], dtype=object)
        if None not in texts:
            accepted, problem = values != _NOTHING, MISSING
        else:
            accepted, problem = np.array([text is not None for text in texts], dtype=bool), NOT_FINITE
    else:
        accepted, problem = np.array([not is_missing(value) for value in values], dtype=bool), MISSING
    if (is_optional and problem == MISSING) or accepted.all():
        return values, None
    return values, np.where(accepted, "", problem).astype(object)


def is_missing(value: Any) -> bool:
    """Return whether a value is null, NaN or no time; an array or an object is not, whatever it has."""
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _as_json(value: Any) -> str | None:
    """Return an output as JSON; None if a number in it is NaN or infinite."""
    try:
        # An optional output may be null; NaN is not null, but a number that could not be computed.
        is_null = is_missing(value) and not isinstance(value, (float, np.floating))
        return json.dumps({"value": None if is_null else value}, default=plain, allow_nan=False)
    except ValueError:
        return None


def plain(value: Any) -> Any:
    """Return a value of NumPy, pandas or Spark as one that JSON has; the argument ``default`` of `json.dumps`."""
    if isinstance(value, np.ndarray):
        # As a list, times of nanoseconds would be integers.
        return list(value) if value.dtype.kind == "M" else value.tolist()
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, (np.datetime64, datetime.datetime)):
        time = pd.Timestamp(value)
        return None if pd.isna(time) else time.isoformat(timespec="microseconds")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, np.generic):
        return value.item()
    if value is pd.NA or value is pd.NaT:
        return None
    raise SignatureMismatch(f"the model's output has a {type(value).__name__}, which no column of a table can have")


def _raise_if_not_for_values(error: Exception) -> None:
    if isinstance(error, (ImportError, MemoryError, SignatureMismatch)):
        raise error


def _text(error: Exception) -> str:
    """Return the first sentence of an error; the hints that follow would be repeated in each row."""
    first = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {re.split(r'[.] ', first)[0].rstrip('.')}"


# A worker loads a model once, however many tasks it runs.
@functools.lru_cache(maxsize=2)
def _loaded(path: str, flavor: str) -> Any:
    model = importlib.import_module(f"mlflow.{flavor}").load_model(path)
    _exempt_modules_from_collection()
    _forget_zip_files()
    return model


# Once, so that the garbage of later models is still collected.
@functools.cache
def _exempt_modules_from_collection() -> None:
    """Exempt what exists now from garbage collection.

    Spark's worker collects garbage after each task (``pyspark/daemon.py``). With the modules of MLflow and
    scikit-learn, that takes 0.2 s, which is longer than a small task.
    """
    gc.freeze()


def _forget_zip_files() -> None:
    """Empty the cache of what finds modules in zip files; the next import fills it again.

    Spark's worker calls ``importlib.invalidate_caches`` before each task, and Python then reads the list of files in
    ``pyspark.zip`` once per package that was imported from it, which takes 0.1 s.
    """
    finders = sys.path_importer_cache
    for path in [path for path, finder in finders.items() if isinstance(finder, zipimport.zipimporter)]:
        del finders[path]


def _load_pyfunc(path: str, model_config: dict[str, Any]) -> Model:
    """Load the model; MLflow gives the name and the arguments (``loader_module``)."""
    return Model(_loaded(path, model_config["estimator"] or "pyfunc"), model_config)


def predict_batches(
    batches: Iterator[pa.RecordBatch], path: str, config: dict[str, Any], input_names: dict[str, str]
) -> Iterator[pa.RecordBatch]:
    """Apply a model to Arrow batches, as ``DataFrame.mapInArrow`` gives them.

    Parameters
    ----------
    batches : iterator of pyarrow.RecordBatch
    path : str
        Folder of the logged model.
    config : dict
        See `Model`.
    input_names : dict of str to str
        The names of the signature's columns, by the batches' own names. The other columns are kept.

    Yields
    ------
    pyarrow.RecordBatch
        The columns that are kept, the outputs and `PROBLEM`.
    """
    import pyarrow as pa

    model = _load_pyfunc(path, config)
    for batch in batches:
        if not batch.num_rows:
            continue
        table = pa.Table.from_batches([batch])
        data = table.select(list(input_names)).rename_columns(list(input_names.values()))
        nested = [field.name for field in data.schema if _is_nested(field.type)]
        frame = data.to_pandas(split_blocks=True, self_destruct=True, maps_as_pydicts="strict")
        for name in nested:
            frame[name] = pd.Series([_as_mlflow_takes(value) for value in frame[name]], dtype=object)
        outputs, problems = model.outputs_and_problems(frame)
        refused = None if problems is None else problems != ""
        columns = {name: table[name].combine_chunks() for name in table.column_names if name not in input_names}
        for name, type_name in config["outputs"]:
            columns[name] = _arrow_array(name, outputs[name], type_name, refused)
        no_problem = pa.nulls(len(table), pa.string())
        columns[PROBLEM] = no_problem if problems is None else pa.array(problems, pa.string(), mask=problems == "")
        yield pa.RecordBatch.from_pydict(columns)


def _is_nested(kind: pa.DataType) -> bool:
    """Return whether a type is a struct, a map, or an array of anything but plain values."""
    import pyarrow.types as types

    return types.is_nested(kind) and not (types.is_list(kind) and not types.is_nested(kind.value_type))


def _as_mlflow_takes(value: Any) -> Any:
    """Return a nested value as MLflow takes it: it makes arrays of arrays only if they have one length."""
    if isinstance(value, list) or (isinstance(value, np.ndarray) and value.dtype == object):
        items = [_as_mlflow_takes(item) for item in value]
        # As a list, MLflow would make integers of them.
        return np.array(items) if items and isinstance(items[0], np.datetime64) else items
    if isinstance(value, dict):
        return {key: _as_mlflow_takes(item) for key, item in value.items()}
    if hasattr(value, "asDict"):
        return _as_mlflow_takes(value.asDict())
    # Inside an object, MLflow only accepts NumPy's times.
    return np.datetime64(value) if isinstance(value, datetime.datetime) else value


def _arrow_array(name: str, values: np.ndarray, type_name: str, refused: np.ndarray | None) -> pa.Array:
    import pyarrow as pa

    try:
        return pa.array(values, _arrow_type(type_name), mask=refused, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        if type_name == "string":
            # As MLflow does.
            return pa.array([str(value) for value in values], pa.string(), mask=refused)
        raise SignatureMismatch(
            f"the model's output {name!r} is not of type {type_name}, as its signature says: {error}"
        ) from None


def _arrow_type(type_name: str) -> pa.DataType:
    import pyarrow as pa

    if type_name == JSON:
        return pa.string()
    if type_name.startswith("array<"):
        return pa.list_(_arrow_type(type_name.removeprefix("array<").removesuffix(">")))
    types = {"bigint": "int64", "int": "int32", "double": "float64", "float": "float32", "boolean": "bool_"}
    return getattr(pa, types.get(type_name, type_name))()
