"""One trial of a study: a model trained with hyperparameters to try, here or in one of Spark's Python workers."""

from __future__ import annotations

import hashlib
import os
import pickle
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from helpers import runtime
from helpers.data.metrics import LOSS, loss, measure
from helpers.training.flavors import load_flavor

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from pyspark.sql import SparkSession

    from helpers.data.split import Split
    from helpers.parameters import Fit

LOSS_METRIC = "tuning_loss"
"""The metric of a trial's run by which it is compared with other trials: the loss of the rows put aside."""
# Trials with which another one is compared at least, because the median of fewer says little.
_FIRST_TRIALS = 5
# The share of the epochs in which no trial is pruned: small steps are behind at first.
_FIRST_EPOCHS = 0.2
# Seconds, and number of metrics, after which metrics are sent. Azure ML accepts 250 rows of a metric at once.
_SECONDS, _METRICS = 1.0, 200
_SECONDS_TO_REACH = 30
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Setting:
    """What all trials of a study have in common.

    Attributes
    ----------
    split : helpers.data.split.Split
        ``split.validation`` has the rows that were put aside to compare the trials.
    p : helpers.parameters.Fit
    tracking_uri : str
    environment : dict of str to str
        Variables with which a worker signs in to the tracking server.
    """

    split: Split
    p: Fit
    tracking_uri: str
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a trial came to.

    Attributes
    ----------
    loss : float
        Of the rows put aside; of a pruned trial, after its last epoch.
    losses : dict of int to float
        By epoch, if the flavor measures each.
    pruned : bool
        Whether training was stopped, because the trial was behind the others.
    """

    loss: float
    losses: dict[int, float]
    pruned: bool


def sign_in(setting: Setting) -> MlflowClient:
    """Return a client of the tracking server, in a worker, too."""
    from mlflow import MlflowClient

    from helpers.tracking.session import bound_retries

    bound_retries()
    os.environ.update(setting.environment)
    return MlflowClient(setting.tracking_uri)


def reach(setting: Setting, run_id: str) -> str:
    """Return the status of a run: what a worker calls to show that it can reach the tracking server.

    Raises
    ------
    TimeoutError
        If the server does not answer in time. Databricks' SDK looks for a host that is not there for five minutes.
    """
    answers: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(sign_in(setting).get_run(run_id).info.status)
        except Exception as error:  # noqa: BLE001 - raised below
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=_SECONDS_TO_REACH)
    except queue.Empty:
        raise TimeoutError(f"no answer in {_SECONDS_TO_REACH} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def train(
    setting: Setting, run_id: str, hyperparameters: Mapping[str, Any], earlier: list[optuna.trial.FrozenTrial]
) -> Outcome:
    """Train a model and log its metrics to its run; stop where it is worse than the median of the earlier trials.

    It takes one processor, so that a trial comes to the same wherever it is trained.

    Parameters
    ----------
    setting : Setting
    run_id : str
        The run of this trial.
    hyperparameters : mapping of str to object
    earlier : list of optuna.trial.FrozenTrial
        Trials that have ended, with their losses by epoch.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    split, p = setting.split, setting.p
    flavor, loss_name = load_flavor(p.model_flavor), f"val_{LOSS[split.model_type]}"
    pruner = optuna.pruners.MedianPruner(
        _FIRST_TRIALS, n_warmup_steps=int(p.epochs * _FIRST_EPOCHS), n_min_trials=_FIRST_TRIALS
    )
    study = optuna.create_study(pruner=pruner)
    study.add_trials(earlier)
    trial = study.ask()
    losses: dict[int, float] = {}
    with _Metrics(sign_in(setting), run_id) as metrics:

        def on_epoch(epoch: int, values: dict[str, float]) -> None:
            metrics.add(values, epoch)
            if loss_name in values:
                losses[epoch] = values[loss_name]
                trial.report(losses[epoch], epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned

        try:
            model = flavor.fit(split, p, on_epoch, {**hyperparameters, **flavor.one_processor})
        except optuna.TrialPruned:
            outcome = Outcome(list(losses.values())[-1], losses, pruned=True)
        else:
            answers = flavor.predict(model, split)
            outcome = Outcome(loss(split.model_type, *answers, split.classes), losses, pruned=False)
            measured = measure(split.model_type, *answers, split.classes)
            values = {f"val_{name}": value for name, value in measured.items()}
            metrics.add({name: value for name, value in values.items() if name not in metrics.last}, metrics.step)
        metrics.add({LOSS_METRIC: outcome.loss}, metrics.step)
    return outcome


class _Metrics:
    """The metrics of a run, sent together once a second, because a request for each epoch would take longer than it."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client, self.run_id = client, run_id
        self.step, self.last = 0, dict[str, float]()
        self._waiting: list[Metric] = []
        self._sent = time.monotonic()

    def add(self, values: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        self.step, self.last = step, values
        now = int(time.time() * 1000)
        self._waiting += [Metric(name, value, now, step) for name, value in values.items()]
        if len(self._waiting) >= _METRICS or time.monotonic() - self._sent > _SECONDS:
            self._send()

    def _send(self) -> None:
        waiting, self._waiting, self._sent = self._waiting, [], time.monotonic()
        if waiting:
            self.client.log_batch(self.run_id, metrics=waiting)

    def __enter__(self) -> _Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        self._send()


class Workers:
    """Spark's Python workers, which call functions of `helpers`.

    Executors do not have the bundle: its code travels with the tasks. Spark's own ways for that, ``addPyFile`` and
    ``addArtifact``, are for the rest of a session, even if the code changes, and may not reach the workers of serverless
    compute.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    setting : Setting
        The first argument of each function. It is sent to each worker once, or on Spark Connect with each task.
    """

    def __init__(self, spark: SparkSession, setting: Setting) -> None:
        archive = _code()
        shared = (f"bundle-{hashlib.sha256(archive).hexdigest()[:32]}.zip", archive, pickle.dumps(setting))
        self._spark = spark
        self._shared: Any = SimpleNamespace(value=shared)
        if not runtime.uses_spark_connect(spark.range(0)):
            self._shared = spark.sparkContext.broadcast(shared)

    def call(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        """Call a function in a worker with the setting and other arguments, and return what it returns."""
        task, shared = pickle.dumps((function, arguments)), self._shared

        # Pickled by value with all that it needs, since it is local and imports nothing of the bundle by itself.
        def call(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
            import importlib
            import pathlib
            import pickle
            import sys
            import tempfile

            import pandas as pd

            name, archive, setting = shared.value
            for _ in batches:
                loaded = sys.modules.get("helpers")
                path = pathlib.Path(loaded.__file__ or "").parents[1] if loaded else pathlib.Path()
                # The worker may have had earlier tasks. Their modules serve again, if they are of the same code.
                if path.name != name:
                    for module in [module for module in sys.modules if module.split(".")[0] == "helpers"]:
                        del sys.modules[module]
                    path = pathlib.Path(tempfile.mkdtemp(), name)
                path.parent.mkdir(mode=0o700, exist_ok=True)
                path.write_bytes(archive)
                sys.path.insert(0, str(path))
                # Python may have noticed that the file was gone.
                importlib.invalidate_caches()
                try:
                    function, arguments = pickle.loads(task)  # noqa: S301 - made above
                    answer = function(pickle.loads(setting), *arguments)  # noqa: S301 - made above
                    yield pd.DataFrame({"answer": [pickle.dumps(answer)]})
                finally:
                    sys.path.remove(str(path))
                    path.unlink()
                    path.parent.rmdir()

        answer = self._spark.range(0, 1, 1, 1).mapInPandas(call, "answer binary").collect()[0][0]
        return pickle.loads(answer)  # noqa: S301 - our own task's


def _code() -> bytes:
    """Return the modules of `helpers` in a ZIP archive, from which Python imports them."""
    import io
    import zipfile

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(runtime.BUNDLE_ROOT.glob("helpers/**/*.py")):
            file.write(path, str(path.relative_to(runtime.BUNDLE_ROOT)))
    return archive.getvalue()
