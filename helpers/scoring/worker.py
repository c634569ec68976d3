"""A model applied to batches of rows in Spark's Python workers.

`helpers.scoring.engines.python` puts this file beside the model: workers do not have the bundle, so it imports nothing
of it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import pyarrow as pa

PROBLEM = "_problem"
# Rows tried one by one before all of a kind are taken for refused.
TRIED_ROWS = 100
_NAMES_MISSING = re.compile(r"\b(nan|inf|infinity|missing)\b", re.IGNORECASE)
# The class with the greatest probability is what these predict, but for how they break ties.
_PREDICT_THE_GREATEST = frozenset({
    "DecisionTreeClassifier", "ExtraTreesClassifier", "GradientBoostingClassifier", "HistGradientBoostingClassifier",
    "LogisticRegression", "RandomForestClassifier",
})  # fmt: skip
_TIE = 1e-9
_FILLERS: dict[str, Any] = {"bigint": 0, "int": 0, "double": np.nan, "float": np.nan, "string": "", "boolean": False}


class OtherOutput(TypeError):
    """A model gives something else than its signature says."""


class Model:
    """What MLflow calls in place of the model that was logged.

    Parameters
    ----------
    model : object
        A classifier with probabilities of scikit-learn's, or what MLflow loads as ``python_function``.
    config : dict
        ``answers``, pairs of a column's name and Spark type; ``classifies``, whether the model gives a class
        and probabilities; ``each_class``, whether the answers are the probabilities of all classes, or that
        of the predicted one only.
    """

    def __init__(self, model: Any, config: dict[str, Any]) -> None:
        self.model, self.config = model, config

    def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the answers to each row, and in the column `PROBLEM` why there is none (empty if there is)."""
        answers, problems = self.answers_and_problems(data)
        return pd.DataFrame(answers | {PROBLEM: "" if problems is None else problems})

    def answers_and_problems(self, data: pd.DataFrame) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """Return the answers by column, and why rows have none: None if all have, else text, empty where there is one.

        A model refuses a whole batch for one row; the rows that it takes are found, and have their answers.
        """
        try:
            return self._answers(data), None
        except Exception as error:  # noqa: BLE001 - whatever a model raises for a value
            _raise_if_not_for_values(error)
        found = pd.concat(self._answers_by_kind(data.reset_index(drop=True))).sort_index()
        return {name: found[name].to_numpy() for name, _ in self.config["answers"]}, found[PROBLEM].to_numpy()

    def _answers(self, data: pd.DataFrame) -> dict[str, np.ndarray]:
        names = [name for name, _ in self.config["answers"]]
        if self.config["classifies"]:
            probabilities = self.model.predict_proba(data)
            greatest = probabilities.max(axis=1)
            answers = [self._classes(data, probabilities, greatest)]
            answers += list(probabilities.T) if self.config["each_class"] else [greatest]
        else:
            given = self.model.predict(data)
            if len(names) == 1 and np.ndim(given) > 1 and not isinstance(given, pd.DataFrame):
                # One array a row.
                given = pd.Series(list(given), dtype=object)
            frame = given if isinstance(given, pd.DataFrame) else pd.DataFrame(given)
            if len(frame.columns) != len(names) or len(frame) != len(data):
                raise OtherOutput(
                    f"for {len(data)} rows the model gives {len(frame)} rows of {len(frame.columns)} columns, where its "
                    f"signature says {len(names)}"
                )
            by_name = set(names) == set(frame.columns)
            answers = [(frame[name] if by_name else frame.iloc[:, i]).to_numpy() for i, name in enumerate(names)]
        return dict(zip(names, answers, strict=True))

    def _classes(self, data: pd.DataFrame, probabilities: np.ndarray, greatest: np.ndarray) -> np.ndarray:
        last = self.model.steps[-1][1] if hasattr(self.model, "steps") else self.model
        if type(last).__name__ not in _PREDICT_THE_GREATEST:
            return self.model.predict(data)
        classes = self.model.classes_[probabilities.argmax(axis=1)]
        (near,) = np.nonzero(greatest < 0.5 + _TIE)
        if len(near):
            second = np.partition(probabilities[near], -2, axis=1)[:, -2]
            ties = near[greatest[near] - second < _TIE]
            if len(ties):
                classes[ties] = self.model.predict(data.iloc[ties])
        return classes

    def _answers_by_kind(self, data: pd.DataFrame) -> Iterator[pd.DataFrame]:
        """Rows that lack the same values are mostly refused together: they are tried together."""
        lacks = data.isna().to_numpy()
        for number, name in enumerate(data):
            if pd.api.types.is_float_dtype(data[name]):
                # Trees take numbers of 32 bits.
                lacks[:, number] |= data[name].abs().to_numpy() > np.finfo(np.float32).max
        kinds, kind_of_row = np.unique(lacks, axis=0, return_inverse=True)
        for number, kind in enumerate(kinds):
            yield from self._answers_or_problems(data[kind_of_row.ravel() == number], list(data.columns[kind]))

    def _answers_or_problems(self, data: pd.DataFrame, lacks: list[str]) -> Iterator[pd.DataFrame]:
        """Halve what is refused until one row is left, or all the rows must be refused, too."""
        try:
            yield pd.DataFrame(self._answers(data) | {PROBLEM: ""}, index=data.index)
            return
        except Exception as caught:  # noqa: BLE001 - whatever a model raises for a value
            _raise_if_not_for_values(caught)
            error = _text(caught)
        if len(data) == 1 or (lacks and _NAMES_MISSING.search(error)):
            yield self._refused(data, error, lacks)
            return
        if len(data) > 2 * TRIED_ROWS and self._refuses_each(data.iloc[:: len(data) // TRIED_ROWS], error):
            yield self._refused(data, f"{error} (as for each of {TRIED_ROWS} like it that were tried alone)", lacks)
            return
        middle = len(data) // 2
        yield from self._answers_or_problems(data[:middle], lacks)
        yield from self._answers_or_problems(data[middle:], lacks)

    def _refuses_each(self, data: pd.DataFrame, error: str) -> bool:
        for number in range(len(data)):
            try:
                self._answers(data[number : number + 1])
                return False
            except Exception as caught:  # noqa: BLE001 - whatever a model raises for a value
                if _text(caught) != error:
                    return False
        return True

    def _refused(self, data: pd.DataFrame, error: str, lacks: list[str]) -> pd.DataFrame:
        problem = f"{', '.join(map(repr, lacks))} missing or infinite: {error}" if lacks else error
        fillers = {name: _FILLERS.get(kind) for name, kind in self.config["answers"]}
        return pd.DataFrame(fillers | {PROBLEM: problem}, index=data.index)


def _raise_if_not_for_values(error: Exception) -> None:
    if isinstance(error, (ImportError, MemoryError, OtherOutput)):
        raise error


def _text(error: Exception) -> str:
    """Return the first sentence of an error: what follows are hints that would be repeated in each row."""
    first = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {re.split(r'[.] ', first)[0].rstrip('.')}"


# One load a worker, whatever number of tasks it runs.
@functools.lru_cache(maxsize=2)
def _loaded(path: str, classifies: bool) -> Any:
    if classifies:
        import mlflow.sklearn

        return mlflow.sklearn.load_model(path)
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(path)


def _load_pyfunc(path: str, model_config: dict[str, Any]) -> Model:
    """Load the model; the name and the arguments are MLflow's (``loader_module``)."""
    return Model(_loaded(path, model_config["classifies"]), model_config)


def answer(
    batches: Iterator[pa.RecordBatch], path: str, config: dict[str, Any], inputs: dict[str, str]
) -> Iterator[pa.RecordBatch]:
    """Apply a model to Arrow batches, as ``DataFrame.mapInArrow`` gives them.

    Parameters
    ----------
    batches : iterator of pyarrow.RecordBatch
    path : str
        Folder of the logged model.
    config : dict
        See `Model`.
    inputs : dict of str to str
        Names of the signature's columns by the batches' own names. The other columns are kept.

    Yields
    ------
    pyarrow.RecordBatch
        The columns that are kept, the answers and `PROBLEM`.
    """
    import pyarrow as pa

    model = _load_pyfunc(path, config)
    for batch in batches:
        if not batch.num_rows:
            continue
        table = pa.Table.from_batches([batch])
        data = table.select(list(inputs)).rename_columns(list(inputs.values()))
        answers, problems = model.answers_and_problems(data.to_pandas(split_blocks=True, self_destruct=True))
        refused = None if problems is None else problems != ""
        columns = {name: table[name].combine_chunks() for name in table.column_names if name not in inputs}
        for name, kind in config["answers"]:
            columns[name] = _arrow_array(name, answers[name], kind, refused)
        nothing = pa.nulls(len(table), pa.string())
        columns[PROBLEM] = nothing if problems is None else pa.array(problems, pa.string(), mask=problems == "")
        yield pa.RecordBatch.from_pydict(columns)


def _arrow_array(name: str, values: np.ndarray, kind: str, refused: np.ndarray | None) -> pa.Array:
    import pyarrow as pa

    try:
        return pa.array(values, _arrow_type(kind), mask=refused, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        if kind == "string":
            # As MLflow does.
            return pa.array([str(value) for value in values], pa.string(), mask=refused)
        raise OtherOutput(f"the model's {name!r} is no {kind}, as its signature says: {error}") from None


def _arrow_type(kind: str) -> pa.DataType:
    import pyarrow as pa

    if kind.startswith("array<"):
        return pa.list_(_arrow_type(kind.removeprefix("array<").removesuffix(">")))
    types = {"bigint": "int64", "int": "int32", "double": "float64", "float": "float32", "boolean": "bool_"}
    return getattr(pa, types.get(kind, kind))()
