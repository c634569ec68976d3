"""Whether an engine predicts what the estimator predicts, tried on some rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from helpers.data.names import quoted
from helpers.scoring.engines.base import NotSupported

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame
    from pyspark.sql.types import DataType
    from sklearn.base import BaseEstimator

COMPARED_ROWS = 500
# Many columns take long to compare: fewer rows of them are compared, and not each column has an unusual value once.
_COMPARED_VALUES, _LEAST_ROWS = 100_000, 50
_MOST_MISSING, _MOST_INFINITE = 100, 50
TOLERANCE = 1e-9
ROW = "_row"
_MAY_BE_MISSING = ("double", "float")


def greatest_difference(
    estimator: BaseEstimator, inputs: dict[str, DataType], rows: DataFrame, score: Callable[[DataFrame], DataFrame]
) -> float:
    """Compare an engine's predictions with those of the estimator.

    On some of the rows; and on one of these with the value of one column missing, infinite, or a text that no training
    row had: of each column, or of some where there are many.

    Parameters
    ----------
    estimator : sklearn.base.BaseEstimator
    inputs : dict of str to pyspark.sql.types.DataType
        Type by input column.
    rows : pyspark.sql.DataFrame
        With the input columns.
    score : callable
        Gets rows with the input columns and the column `ROW`; returns that column, ``prediction``, ``probability``
        and ``probabilities``, all three null for a row that it refuses.

    Returns
    -------
    float
        The greatest difference between two probabilities (or predictions, of a regression).

    Raises
    ------
    helpers.scoring.engines.base.NotSupported
        If a class differs, or a number by more than `TOLERANCE` of its size, or only one of the two refuses a row.
    """
    import pandas as pd

    blocks = [_sample(rows, inputs)]
    blocks += _variants(blocks[0].head(1), inputs)
    compared = pd.concat(blocks, ignore_index=True).reset_index(names=ROW)
    types = [f"{quoted(name)} {_compared_type(input_type)}" for name, input_type in inputs.items()]
    scored = score(rows.sparkSession.createDataFrame(compared, ", ".join([f"{ROW} long", *types])))
    predictions = scored.toPandas().sort_values(ROW)
    greatest, first = 0.0, 0
    for block in blocks:
        greatest = max(greatest, _difference(estimator, block, predictions[first : first + len(block)]))
        first += len(block)
    return greatest


def _compared_type(input_type: DataType) -> str:
    return "string" if input_type.typeName() == "string" else "double"


def _sample(rows: DataFrame, inputs: dict[str, DataType]) -> pd.DataFrame:
    import pandas as pd
    from pyspark.sql import functions as F

    types = {name: _compared_type(input_type) for name, input_type in inputs.items()}
    sample = rows.select(*(F.col(quoted(name)).cast(type_name).alias(name) for name, type_name in types.items()))
    # Without the rows that are refused before an engine gets them.
    never_null = [
        name for name, input_type in inputs.items() if input_type.typeName() not in (*_MAY_BE_MISSING, "string")
    ]
    if never_null:
        sample = sample.dropna(subset=[quoted(name) for name in never_null])
    # head() and not limit(…).toPandas(), which reads a part of each of the table's files.
    compared = pd.DataFrame(
        sample.head(max(_LEAST_ROWS, min(COMPARED_ROWS, _COMPARED_VALUES // len(inputs)))), columns=list(inputs)
    )
    return compared.astype({name: object if type_name == "string" else float for name, type_name in types.items()})


def _variants(row: pd.DataFrame, inputs: dict[str, DataType]) -> Iterator[pd.DataFrame]:
    """Yield a block of rows for each kind of value: the row with that value in one column after the other."""
    texts = [name for name, input_type in inputs.items() if input_type.typeName() == "string"]
    numbers = [name for name, input_type in inputs.items() if input_type.typeName() in _MAY_BE_MISSING]
    variants = [
        (_some(texts, _MOST_MISSING), None),
        (_some(texts, _MOST_MISSING), "no training row has this"),
        (_some(numbers, _MOST_MISSING), float("nan")),
        # A model that refuses infinite values has to be asked for each of these rows.
        (_some(numbers, _MOST_INFINITE), float("inf")),
    ]
    for names, value in variants:
        if names and len(row):
            block = row.loc[row.index.repeat(len(names))].reset_index(drop=True)
            for number, name in enumerate(names):
                block.iat[number, block.columns.get_loc(name)] = value
            yield block


def _some(names: list[str], most: int) -> list[str]:
    """Return at most so many of the names, evenly spaced."""
    return names[:: -(-len(names) // most)] if names else []


def _difference(estimator: BaseEstimator, rows: pd.DataFrame, scored: pd.DataFrame) -> float:
    """Return the greatest difference between the estimator's predictions for rows and those of the engine."""
    import numpy as np

    classifies = hasattr(estimator, "classes_")
    try:
        prediction = estimator.predict(rows)
        expected = estimator.predict_proba(rows) if classifies else prediction
    except ValueError:
        # It refuses some row with a missing or infinite value, and does not say which.
        if len(rows) > 1:
            return max(_difference(estimator, rows[i : i + 1], scored[i : i + 1]) for i in range(len(rows)))
        if scored["prediction"].notna().any():
            raise NotSupported("it would score a row that the model refuses") from None
        return 0.0
    if scored["prediction"].isna().any():
        raise NotSupported("it would refuse a row that the model scores")
    if classifies and (scored["prediction"].to_numpy() != prediction).any():
        raise NotSupported("it would predict other classes than the model")
    if classifies:
        numbers = np.column_stack([np.stack(scored["probabilities"].to_numpy()), scored["probability"]])
        expected = np.column_stack([expected, expected.max(axis=1)])
    else:
        numbers = scored["prediction"].to_numpy()
    differences = np.abs(numbers - expected)
    if not (differences <= TOLERANCE * np.maximum(1, np.abs(expected))).all():
        raise NotSupported(f"its numbers would differ from the model's by {differences.max():.2g}")
    return float(differences.max())
