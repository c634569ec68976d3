"""The engines that apply a model to rows, and which one a model gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers import kinds
from helpers.parameters import ParameterError
from helpers.scoring.engines.base import Engine, NotSupported
from helpers.scoring.engines.spark_ml import SparkMLEngine

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from helpers.scoring.model import LoadedModel

# Models of these MLflow flavors have an engine of their own, whatever `scoring_engine` says.
FLAVOR_ENGINES: dict[str, type[Engine]] = {"spark": SparkMLEngine}


@dataclass(frozen=True)
class EngineChoice:
    """The engine that applies a model, and why.

    Attributes
    ----------
    engine : helpers.scoring.engines.base.Engine
    reason : str
    """

    engine: Engine
    reason: str

    def __str__(self) -> str:
        return f"{self.engine.name} ({self.reason})"


def choose(model: LoadedModel, rows: DataFrame, requested: str = "auto", env_manager: str = "local") -> EngineChoice:
    """Choose the engine that applies a model.

    Parameters
    ----------
    model : helpers.scoring.model.LoadedModel
    rows : pyspark.sql.DataFrame
        The model's input columns, with their types; engines may be tried on some of the rows.
    requested : str, default "auto"
        A key of `helpers.kinds.ENGINES`, or ``auto``: the first of them that supports the model.
    env_manager : str, default "local"
        See `helpers.scoring.engines.base.Engine`.

    Raises
    ------
    helpers.parameters.ParameterError
        If no engine that is asked for supports the model.
    """
    for flavor, engine_class in FLAVOR_ENGINES.items():
        if flavor in model.flavors:
            engine = engine_class(model, env_manager)
            return EngineChoice(engine, engine.check(rows))
    refusals = {}
    for name in kinds.ENGINES if requested == "auto" else [requested]:
        engine = kinds.load(kinds.ENGINES, name)(model, env_manager)
        try:
            recommendation = engine.check(rows)
        except NotSupported as refusal:
            refusals[name] = str(refusal)
            continue
        reasons = [f"not {refused}: {reason}" for refused, reason in refusals.items()]
        if recommendation:
            reasons.append(recommendation)
        elif requested != "auto":
            reasons.append("as scoring_engine says")
        return EngineChoice(engine, "; ".join(reasons) or "the preferred engine")
    others = [name for name in ("auto", *kinds.ENGINES) if name != requested]
    raise ParameterError(
        "scoring_engine",
        requested,
        f"cannot score {model.model_uri}: {'; '.join(refusals.values())}. Use {' or '.join(others)}.",
    )
