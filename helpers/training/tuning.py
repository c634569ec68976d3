"""Search for good hyperparameters with Optuna: a study in the active run, with a nested run for each trial.

MLflow has a study of its own, ``mlflow.pyspark.optuna.study.MlflowSparkStudy``. It is not used here, because

- its study and its trials are runs of its own, with Optuna's state and not below the run that trains the model;
- each worker gets a copy of the sampler, so that with a seed all of them draw the same hyperparameters;
- it pickles the objective by reference, and executors do not have this bundle;
- a study that goes on runs as many trials as it is told, whatever it has, and leaves out those that were killed.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from helpers import output
from helpers.data import holdout
from helpers.data.metrics import CLASSIFIER, LOSS
from helpers.ownership import MARK
from helpers.parameters import ParameterError
from helpers.tracking.runs import TRIAL_TAG
from helpers.training import driver, plots, trials
from helpers.training.fit import with_flavor_defaults
from helpers.training.flavors import load_flavor
from helpers.training.trials import LOSS_METRIC, Outcome, Setting

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from pyspark.sql import SparkSession

    from helpers import parameters
    from helpers.data.split import Split
    from helpers.tracking import Session
    from helpers.training.flavors.base import Flavor

STUDY_TAG, NUMBER_TAG, OUTCOME_TAG = f"{MARK}_study", f"{MARK}_trial_number", f"{MARK}_trial_outcome"
"""Tags of a trial's run: which study it belongs to, its number, and what it came to: complete, pruned, failed."""
PARENT_TAG = "mlflow.parentRunId"
# Of the training rows: put aside to compare the trials, if the table has no rows of its own for that.
_PUT_ASIDE = 0.2
# With more at the same time, too few trials learn from the results of others.
_MOST_AT_ONCE = 8
_OUTCOMES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


@dataclass(frozen=True)
class Tuning:
    """What a study found.

    Attributes
    ----------
    hyperparameters : dict of str to object
        Of the best trial. Empty without a study: the flavor's own values.
    trials : pandas.DataFrame or None
        Each trial with its outcome, its loss on the rows put aside, its hyperparameters and its run.
    figures : dict of str to matplotlib.figure.Figure
        Figures by name.
    description : str
        How the trials ran, in words.
    """

    hyperparameters: dict[str, Any] = field(default_factory=dict)
    trials: pd.DataFrame | None = None
    figures: dict[str, Figure] = field(default_factory=dict)
    description: str = "No tuning (tuning_trials=0)."


def tune(session: Session, split: Split, p: parameters.Train) -> Tuning:
    """Train models with different hyperparameters, and return those of the best one.

    The active MLflow run is the study's. The held-out rows are not looked at, because they judge the model afterwards:
    see `tuning_split`. Trials of a study that did not end are taken over, and not run again.

    Trials run side by side on Spark if its workers can reach the tracking server and train the flavor; otherwise, and
    with ``tuning_parallel=1``, one after the other. One after the other, they give the same result for the same seed.

    Parameters
    ----------
    session : helpers.tracking.Session
    split : helpers.data.split.Split
    p : helpers.parameters.Train

    Returns
    -------
    Tuning

    Raises
    ------
    helpers.parameters.ParameterError
        If the flavor has no search space, Optuna is not installed, or there are too few rows to put some aside.
    RuntimeError
        If no trial came to a loss.
    """
    if not p.tuning_trials:
        return Tuning()
    import mlflow

    p = with_flavor_defaults(p)
    parent = mlflow.active_run() or mlflow.start_run()
    flavor, spark, rows = load_flavor(p.model_flavor), split.train.sparkSession, tuning_split(split)
    key = _key(split, p, flavor)
    on_driver = flavor.trains_on_driver(rows, p)
    if on_driver:
        driver.require_memory(rows, p.model_flavor)
        rows = driver.in_memory(rows)
    setting = Setting(rows, p, session.tracking.uri)
    at_once, description, train = 1, "", trials.train
    if p.tuning_parallel != 1:
        at_once, description, train = _side_by_side(session, spark, setting, parent.info.run_id, on_driver)
    study = _Study(session, parent, key, setting, train)
    mlflow.set_tag(STUDY_TAG, key)
    taken_over = len(study.trials)
    study.run(at_once)
    best = study.best
    mlflow.log_params({f"tuned_{name}": value for name, value in best.params.items()})
    mlflow.log_metric(LOSS_METRIC, best.values[0])
    how = f"{at_once} side by side on Spark" if at_once > 1 else f"one after the other{description}"
    count = f"{len(study.trials)} trials, {how}"
    return Tuning(
        hyperparameters=best.params,
        trials=study.table(),
        figures=study.figures(),
        description=f"{count}; {taken_over} of them from a study that had not ended" if taken_over else count,
    )


def tuning_split(split: Split) -> Split:
    """Return a split that has no held-out rows: `validation` and `held_out` are rows to compare trials by.

    They are the table's own rows for validation if there are any. Otherwise they are a fifth of the training rows, which
    the trials do not learn from: the newest ones with ``split_by=time``, and otherwise chosen by a hash of the id with
    another seed.

    Raises
    ------
    helpers.parameters.ParameterError
        If a class is missing from one of the parts.
    """
    if split.validation is not split.held_out:
        tuning = replace(split, held_out=split.validation)
    else:
        # The hash with the split's own seed is the one that chose the training rows.
        seed = random.Random(f"rows put aside {split.seed}").getrandbits(32)  # noqa: S311
        rows = split.hold_out.parts(split.rows)[holdout.TRAINING]
        parts = split.hold_out.put_aside(rows, _PUT_ASIDE, seed).parts(rows)
        train, aside = (split.columns_of(parts[name]) for name in (holdout.TRAINING, holdout.HELD_OUT))
        tuning = replace(split, train=train, held_out=aside, validation=aside)
    counts = tuning.counts()
    missing = [name for name in (split.classes or ["rows"]) if name not in counts.index or not counts.loc[name].all()]
    if missing:
        named = f"row of class {missing[0]!r}" if split.model_type == CLASSIFIER else "row"
        raise ParameterError(
            "tuning_trials",
            "",
            f"the training rows of {split.table} are too few: a fifth of them is put aside to compare trials, and no "
            f"{named} is in one of the parts. Add rows, or set tuning_trials=0",
        )
    return tuning


def _key(split: Split, p: parameters.Train, flavor: Flavor) -> str:
    """Return what studies have in common whose trials are the same: rows, parameters, search space."""
    import optuna

    # In memory, and thrown away.
    trial = _new_study().ask()
    flavor.search_space(trial)
    space = {name: optuna.distributions.distribution_to_json(kind) for name, kind in trial.distributions.items()}
    values = [p.model_flavor, p.epochs, p.learning_rate, p.class_weight, p.training_on, p.seed]
    text = json.dumps([split.record().as_text(), split.features, values, space])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _new_study() -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="minimize")


def _side_by_side(
    session: Session, spark: SparkSession, setting: Setting, run_id: str, on_driver: bool
) -> tuple[int, str, Callable[..., Outcome]]:
    """Return how many trials can run at once on Spark, if it is one the reason, and the function that trains one."""
    alone = trials.train
    if not on_driver:
        return 1, ": each of them uses the whole cluster", alone
    if not session.tracking.reached_from_workers:
        return 1, ": Spark's workers cannot reach the tracking server", alone
    from pyspark.sql import functions as F

    # Spark Connect has no other way to ask for the number of processors.
    slots = spark.range(1 << 16).select(F.spark_partition_id()).distinct().count()
    at_once = setting.p.tuning_parallel or min(slots, _MOST_AT_ONCE)
    if at_once == 1:
        return 1, "", alone
    workers = trials.Workers(spark, replace(setting, environment=session.tracking.worker_environment()))
    # Whatever keeps a worker from the server - network, credentials, packages - the trials can run here.
    try:
        workers.call(trials.reach, run_id)
    except Exception as error:  # noqa: BLE001
        last = str(error).strip().splitlines()[-1]
        return 1, f": Spark's workers cannot reach the tracking server ({last})", alone
    return at_once, "", lambda _, *arguments: workers.call(trials.train, *arguments)


class _Study:
    """A study of Optuna in this process, whose trials are runs of the tracking server.

    Parameters
    ----------
    session : helpers.tracking.Session
    parent : mlflow.entities.Run
        The study's run.
    key : str
        From `_key`.
    setting : helpers.training.trials.Setting
    train : callable
        `helpers.training.trials.train`, here or on a worker.
    """

    def __init__(
        self, session: Session, parent: Run, key: str, setting: Setting, train: Callable[..., Outcome]
    ) -> None:
        self.client, self.parent, self.key, self.setting, self.train = session.client(), parent, key, setting, train
        self.flavor = load_flavor(setting.p.model_flavor)
        self.optuna = _new_study()
        # What is in the study, by the number that decides about a trial's hyperparameters.
        self.trials: dict[int, tuple[str, optuna.trial.FrozenTrial]] = {}
        self._lock = threading.Lock()
        for run in _unfinished(self.client, parent, key):
            number = int(run.data.tags[NUMBER_TAG])
            if number not in self.trials:
                self.optuna.add_trial(self._trial_of(run))
                self.trials[number] = (run.info.run_id, self.optuna.trials[-1])

    def run(self, at_once: int) -> None:
        """Run the trials that are missing."""
        from tqdm import tqdm

        count = self.setting.p.tuning_trials
        missing = [number for number in range(count) if number not in self.trials][: max(0, count - len(self.trials))]
        bar = tqdm(total=count, initial=count - len(missing), desc="trials", file=sys.stdout)
        with output.quiet_run_addresses(), bar as progress:
            for _ in _each(self._run_trial, missing, at_once):
                progress.update()

    def _run_trial(self, number: int) -> None:
        import optuna
        from mlflow.entities import Param

        p = self.setting.p
        with self._lock:
            # A seed for each trial, so that a study that goes on continues as it would have.
            seed = random.Random(f"{p.seed} {number}").getrandbits(32)  # noqa: S311
            # Optuna 5 has another default.
            self.optuna.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=False)
            trial = self.optuna.ask()
            hyperparameters = self.flavor.search_space(trial)
            states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
            earlier = self.optuna.get_trials(states=states)
        tags = {
            PARENT_TAG: self.parent.info.run_id,
            TRIAL_TAG: getattr(p, "model_name", ""),
            STUDY_TAG: self.key,
            NUMBER_TAG: str(number),
        }
        run = self.client.create_run(self.parent.info.experiment_id, tags=tags, run_name=f"trial {number}")
        run_id = run.info.run_id
        try:
            about = {"model_flavor": p.model_flavor, "epochs": p.epochs, "seed": p.seed}
            values = (about | hyperparameters).items()
            self.client.log_batch(run_id, params=[Param(name, str(value)) for name, value in values])
            outcome = self.train(self.setting, run_id, hyperparameters, earlier)
        except BaseException as error:
            self._end(run_id, "failed", "FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        with self._lock:
            for epoch, loss in outcome.losses.items():
                trial.report(loss, epoch)
            state = optuna.trial.TrialState.PRUNED if outcome.pruned else None
            # Without a state, a loss that is not a number makes it a failed trial.
            frozen = self.optuna.tell(trial, None if outcome.pruned else outcome.loss, state=state)
            self.trials[number] = (run_id, frozen)
        self._end(run_id, _OUTCOMES[frozen.state.name])

    def _end(self, run_id: str, outcome: str, status: str = "FINISHED") -> None:
        self.client.set_tag(run_id, OUTCOME_TAG, outcome)
        self.client.set_terminated(run_id, status)

    def _trial_of(self, run: Run) -> optuna.trial.FrozenTrial:
        """Return the trial of a run, as Optuna knows trials."""
        import optuna

        # It chooses the values that it was made with.
        fixed: Any = optuna.trial.FixedTrial({name: _value(text) for name, text in run.data.params.items()})
        self.flavor.search_space(fixed)
        name = f"val_{LOSS[self.setting.split.model_type]}"
        history = self.client.get_metric_history(run.info.run_id, name)
        pruned = run.data.tags[OUTCOME_TAG] == "pruned"
        return optuna.trial.create_trial(
            state=optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE,
            params=fixed.params,
            distributions=fixed.distributions,
            value=run.data.metrics[LOSS_METRIC],
            intermediate_values={point.step: point.value for point in history},
        )

    @property
    def best(self) -> optuna.trial.FrozenTrial:
        """The trial with the smallest loss.

        Raises
        ------
        RuntimeError
            If no trial came to a loss.
        """
        try:
            return self.optuna.best_trial
        except ValueError:
            raise RuntimeError("no trial came to a loss that is a number; see the runs of the trials") from None

    def table(self) -> pd.DataFrame:
        """Return a row for each trial, the best one first."""
        import pandas as pd

        rows = [
            {
                "trial": number,
                "outcome": _OUTCOMES[trial.state.name],
                LOSS_METRIC: trial.value,
                **trial.params,
                "run_id": run_id,
            }
            for number, (run_id, trial) in self.trials.items()
        ]
        return pd.DataFrame(rows).set_index("trial").sort_values(["outcome", LOSS_METRIC])

    def figures(self) -> dict[str, Figure]:
        """Return the pictures of the study by name; that of the importance only if the losses of trials differ."""
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        table = self.table()
        figures = {"optimization_history": plots.optimization_history(table, LOSS[self.setting.split.model_type])}
        if table.loc[table["outcome"] == "complete", LOSS_METRIC].nunique() > 1:
            # Named, because Optuna 5 has another default.
            evaluator = FanovaImportanceEvaluator(seed=self.setting.p.seed)
            importance = get_param_importances(self.optuna, evaluator=evaluator)
            figures["hyperparameter_importance"] = plots.hyperparameter_importance(importance)
        return figures


def _each(function: Callable[[int], None], items: Iterable[int], at_once: int) -> Iterator[None]:
    """Call a function with each item, and yield after each call; after an error no further call is begun."""
    if at_once == 1:
        for item in items:
            function(item)
            yield
        return
    with ThreadPoolExecutor(at_once) as threads:
        calls = [threads.submit(function, item) for item in items]
        try:
            for call in as_completed(calls):
                call.result()
                yield
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _unfinished(client: MlflowClient, parent: Run, key: str) -> list[Run]:
    """Return the trials that have ended of studies that have not, by their start.

    A study that has ended took over those of earlier studies. The next one is a new one.
    """
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            [parent.info.experiment_id], f"tags.{STUDY_TAG} = '{key}'", max_results=500, page_token=token
        )
        runs += page
        token = page.token
        if not token:
            break
    studies = {run.info.run_id: run for run in runs if NUMBER_TAG not in run.data.tags}
    newest = max((run.info.start_time for run in studies.values() if run.info.status == "FINISHED"), default=0)
    found = [
        run
        for run in runs
        if run.data.tags.get(OUTCOME_TAG) in ("complete", "pruned")
        and run.info.start_time > newest
        and run.data.tags[PARENT_TAG] in studies
        and studies[run.data.tags[PARENT_TAG]].info.status != "FINISHED"
    ]
    return sorted(found, key=lambda run: run.info.start_time)


def _value(text: str) -> Any:
    """Return a hyperparameter as it was before it became the text of an MLflow parameter."""
    try:
        return json.loads(text)
    except ValueError:
        return text
