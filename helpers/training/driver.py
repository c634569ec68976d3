"""Rows in the driver's memory, for the flavors that train there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from helpers.data.metrics import CLASSIFIER
from helpers.data.names import quoted
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from pyspark.sql import DataFrame
    from sklearn.base import BaseEstimator

    from helpers.data.split import Split

# Arrow's copy, pandas' copy, and the matrix that the model is trained on.
_COPIES = 3
# Of a text in pandas: the object, and a pointer to it.
_BYTES_OF_TEXT = 60
# Rows of which the length of texts is measured.
_SAMPLE_ROWS = 10_000


@dataclass(frozen=True)
class Rows:
    """Rows in the driver's memory, in place of a Spark DataFrame.

    Attributes
    ----------
    frame : pandas.DataFrame
    """

    frame: pd.DataFrame

    def toPandas(self) -> pd.DataFrame:  # noqa: N802 - as Spark's
        """Return the rows."""
        return self.frame


def in_memory(split: Split) -> Split:
    """Read the rows of a split that train and measure a model, so that it can be trained many times, and elsewhere.

    The held-out rows are not read; `Flavor.predict` applies a model to ``split.validation``.
    """
    train, validation = Rows(split.train.toPandas()), Rows(split.validation.toPandas())
    changes: dict[str, Any] = {"rows": None, "train": train, "validation": validation, "held_out": validation}
    return replace(split, **changes)


def memory_needed(split: Split) -> int:
    """Estimate the memory that the rows of a split take on the driver while a model is trained, in bytes."""
    from pyspark.sql import functions as F

    row_count = int(split.counts().to_numpy().sum())
    row_bytes = 8.0 * (len(split.numeric) + 2)
    if split.categorical:
        lengths = sum((F.coalesce(F.length(quoted(name)), F.lit(0)) for name in split.categorical), F.lit(0))
        mean = split.train.limit(_SAMPLE_ROWS).select(F.mean(lengths)).collect()[0][0] or 0.0
        row_bytes += mean + _BYTES_OF_TEXT * len(split.categorical)
    return int(_COPIES * row_count * row_bytes)


def memory_available() -> int:
    """Return the memory that the driver has left, in bytes."""
    import psutil

    return int(psutil.virtual_memory().available)


def fits(split: Split) -> bool:
    """Return whether the rows of a split fit into the driver's memory."""
    return isinstance(split.train, Rows) or memory_needed(split) <= memory_available()


def require_memory(split: Split, flavor: str) -> None:
    """Check that the rows of a split fit into the driver's memory.

    Raises
    ------
    helpers.parameters.ParameterError
        If they do not, with the ways out.
    """
    if isinstance(split.train, Rows):
        return
    needed, available = memory_needed(split), memory_available()
    if needed > available:
        raise ParameterError(
            "training_table",
            split.table,
            f"needs about {needed / 1e9:.3g} GB in the driver's memory to train model_flavor={flavor} there, and "
            f"{available / 1e9:.3g} GB are available. Set model_flavor=spark, or model_flavor=xgboost with "
            "training_on=cluster, which train on the cluster; or train on a table with a sample of the rows "
            "(https://spark.apache.org/docs/latest/sql-ref-syntax-qry-select-sampling.html)",
        )


def to_pandas(rows: DataFrame, split: Split) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the features and the labels of some rows of a split."""
    frame = rows.toPandas()
    return frame[split.features], frame[split.label_column].to_numpy()


def predict(model: BaseEstimator, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Apply a scikit-learn model to the rows that measure it, see `helpers.training.flavors.base.Flavor.predict`."""
    rows, labels = to_pandas(split.validation, split)
    return labels, model.predict(rows), model.predict_proba(rows) if split.model_type == CLASSIFIER else None
