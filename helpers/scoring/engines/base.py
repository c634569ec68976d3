"""What an engine is: one way to apply a model to the rows of a Spark DataFrame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from helpers.scoring.model import LoadedModel


LEFT_OUT = "the Spark ML pipeline leaves out the row: a value is missing, or is not known to the pipeline"


class NotSupported(Exception):
    """An engine cannot apply a model; the message says why."""


@dataclass(frozen=True, eq=False)
class Engine(ABC):
    """One way to apply a model.

    To add another one, write a subclass with a `name` and an `apply`, and list it in
    `helpers.kinds.ENGINES`.

    Parameters
    ----------
    model : helpers.scoring.model.LoadedModel
    env_manager : str, default "local"
        The packages that the model runs with. ``local``: those that are installed. ``virtualenv`` or ``uv``: those
        that the model was logged with, in an environment that each executor makes once.
    """

    name: ClassVar[str]
    # Otherwise rows with a null in an integer or boolean input are refused before an engine gets them.
    accepts_null_integers: ClassVar[bool] = False
    # Whether `outcomes` may have rows with the problem LEFT_OUT.
    may_leave_out: ClassVar[bool] = False

    model: LoadedModel
    env_manager: str = "local"

    def check(self, rows: DataFrame) -> str:
        """Check that the engine can apply the model, if need be by a trial on some rows.

        Parameters
        ----------
        rows : pyspark.sql.DataFrame
            The model's input columns, with their types.

        Returns
        -------
        str
            What speaks for the engine, for the reader; may be empty.

        Raises
        ------
        NotSupported
            If it cannot.
        """
        return ""

    @abstractmethod
    def apply(self, rows: DataFrame, keep: Sequence[str], *, each_class: bool = False) -> DataFrame:
        """Apply the model.

        Parameters
        ----------
        rows : pyspark.sql.DataFrame
            The columns `keep`, and the model's input columns with their types.
        keep : sequence of str
            The columns of `rows` that the result has, too; plain identifiers, which need no quotes.
        each_class : bool, default False
            Whether the result has the column ``probabilities``.

        Returns
        -------
        pyspark.sql.DataFrame
            The columns `keep`, then ``prediction`` (of ``model.prediction_type``), ``probability`` (of the
            predicted class), ``probabilities`` (array of double, in the order of ``model.classes``) and ``problem``:
            the reason why the model refuses the row, null if it does not. The probabilities are null if the model
            gives none.
        """

    def accepted(self, rows: DataFrame, keep: Sequence[str]) -> DataFrame:
        """Apply the model and leave out the rows that it refuses: as `apply`, without the column ``problem``."""
        from pyspark.sql import functions as F

        return self.apply(rows, keep).where(F.col("problem").isNull()).drop("problem")

    def refused(self, rows: DataFrame, keep: Sequence[str]) -> DataFrame:
        """Return the rows that the model refuses: the columns `keep`, whose first identifies a row, and ``problem``."""
        from pyspark.sql import functions as F

        return self.outcomes(rows, keep).where(F.col("problem").isNotNull()).select(*keep, "problem")

    def outcomes(self, rows: DataFrame, keep: Sequence[str]) -> DataFrame:
        """Apply the model to rows some of which it may refuse: as `apply`, also for a stream of rows.

        With the problem `LEFT_OUT`, a row counts as refused only if it is not there once more without that problem.
        """
        return self.apply(rows, keep)
