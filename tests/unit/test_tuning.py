"""Studies: a run for each trial, pruned trials, studies that go on, trials side by side, and rows that nobody may use."""

import dataclasses
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import mlflow
import pandas as pd
import pytest

from helpers import cleanup, kinds, parameters, tracking, training
from helpers.data import split as splits
from helpers.parameters import ParameterError
from helpers.training import tuning
from helpers.training.flavors import load_flavor
from helpers.training.flavors.base import Flavor
from tests.stand_ins.databricks_tracking import DatabricksStandIn

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
_numbers = itertools.count()


@pytest.fixture(scope="module")
def table(spark):
    """A table of two classes that overlap."""
    spark.sql("CREATE SCHEMA IF NOT EXISTS tuning_tests")
    spark.range(400).selectExpr(
        "id", "(id * 7919) % 101 / 50.0 AS a", "(id * 104729) % 103 / 50.0 AS b",
        "IF((id * 7919) % 101 + (id * 31) % 40 > 70, 'yes', 'no') AS y",
        "element_at(array('train', 'train', 'validation', 'test'), CAST(id % 4 + 1 AS INT)) AS part",
    ).write.mode("overwrite").saveAsTable("tuning_tests.rows")  # fmt: skip
    return "tuning_tests.rows"


@pytest.fixture
def split(spark, table):
    return splits.load_split(spark, table, label_column="y", id_column="id", test_fraction=0.3, seed=1)


def settings(flavor="sklearn", **changes):
    values = {"model_flavor": flavor, "epochs": 4, "tuning_trials": 3, "model_name": "tuned", "label_column": "y"}
    return parameters.parse(parameters.Train, values | changes)


def study(session, split, p):
    """Tune in a run of its own; return it and what was found."""
    with mlflow.start_run(experiment_id=session.experiment_id, tags={tracking.MODEL_NAME_TAG: p.model_name}) as run:
        return run.info.run_id, training.tune(session, split, p)


def children(session, parent_id):
    runs = session.client().search_runs([session.experiment_id], f"tags.{tuning.PARENT_TAG} = '{parent_id}'")
    return sorted(runs, key=lambda run: int(run.data.tags[tuning.NUMBER_TAG]))


def hyperparameters(tuned):
    return tuned.trials.drop(columns=["run_id", "outcome", "tuning_loss"]).sort_index()


class ScriptedFlavor(Flavor):
    """A model that is trained in no time. Its loss after each epoch is what the hyperparameter says, plus a bit."""

    mlflow_flavor = "sklearn"
    fits: ClassVar[list[float]] = []
    interrupt_at = None

    def search_space(self, trial):
        return {"x": trial.suggest_float("x", 0.0, 1.0)}

    def fit(self, split, p, on_epoch, hyperparameters):
        if len(self.fits) == self.interrupt_at:
            raise KeyboardInterrupt
        self.fits.append(hyperparameters["x"])
        for epoch in range(1, p.epochs + 1):
            on_epoch(epoch, {"epoch_loss": 1.0, "val_log_loss": hyperparameters["x"] + 1 / epoch})
        return hyperparameters["x"]

    def predict(self, model, split):
        # The log loss is exactly the greater, the greater x is.
        import numpy as np

        rows = split.validation.toPandas()
        is_yes = (rows["y"] == "yes").to_numpy()
        right = 0.9 - 0.8 * model
        probability = np.where(is_yes, right, 1 - right)
        return (
            rows["y"].to_numpy(),
            np.where(probability > 0.5, "yes", "no"),
            np.column_stack([1 - probability, probability]),
        )

    def importance(self, model, split, seed):
        return pd.Series(1.0, split.features, name="none")


@pytest.fixture
def scripted(monkeypatch):
    monkeypatch.setitem(kinds.FLAVORS, "scripted", f"{__name__}:ScriptedFlavor")
    monkeypatch.setattr(ScriptedFlavor, "fits", [])
    monkeypatch.setattr(ScriptedFlavor, "interrupt_at", None)
    return ScriptedFlavor


def test_without_trials_nothing_is_tuned(session, split):
    tuned = training.tune(session, split, settings(tuning_trials=0))
    assert (tuned.hyperparameters, tuned.trials, tuned.figures) == ({}, None, {})


@pytest.mark.parametrize("flavor", ["sklearn", "xgboost", "spark"])
def test_each_trial_is_a_nested_run_and_the_best_one_is_fitted_again(session, split, flavor):
    p = settings(flavor, tuning_trials=2)
    with mlflow.start_run(tags={tracking.MODEL_NAME_TAG: p.model_name}) as run:
        tuned = training.tune(session, split, p)
        trained = training.fit(split, p, tuned.hyperparameters)
    parent, runs = mlflow.get_run(run.info.run_id), children(session, run.info.run_id)
    assert [child.info.run_name for child in runs] == ["trial 0", "trial 1"]
    assert [child.data.tags[tuning.OUTCOME_TAG] for child in runs] == ["complete"] * 2
    assert {child.info.status for child in runs} == {"FINISHED"}
    best = min(runs, key=lambda child: child.data.metrics["tuning_loss"])
    assert tuned.trials.iloc[0]["run_id"] == best.info.run_id
    for name, value in tuned.hyperparameters.items():
        assert best.data.params[name] == parent.data.params[f"tuned_{name}"] == str(value)
    assert parent.data.metrics["tuning_loss"] == best.data.metrics["tuning_loss"]
    history = session.client().get_metric_history(best.info.run_id, "epoch_loss")
    assert len(history) > 1 and [point.step for point in history] == list(range(1, len(history) + 1))
    assert {"optimization_history", "hyperparameter_importance"} == tuned.figures.keys()
    # The model of the run is the one with the best hyperparameters.
    with mlflow.start_run():
        again = training.fit(split, p, tuned.hyperparameters)
    assert trained.metrics == pytest.approx(again.metrics)
    if flavor == "sklearn":
        assert pytest.approx(1 / tuned.hyperparameters["regularization"]) == trained.model[-1].C


def test_a_trial_is_not_taken_for_the_newest_run_of_its_model_and_is_cleaned_up_with_it(
    session, spark, split, scripted
):
    parent_id, _ = study(session, split, settings("scripted"))
    assert tracking.find_run(session, "", "tuned").info.run_id == parent_id
    trial_ids = {child.info.run_id for child in children(session, parent_id)}
    for model_name, kept in (("tuned", set()), ("other", {"trained tuned, not other"})):
        p = parameters.parse(
            parameters.CleanUp,
            {"clean_up": "runs", "model_name": model_name, "experiment_name": session.experiment_name},
        )
        listed = [item for item in cleanup.find(spark, session, p) if item.name.partition("(")[2][:-1] in trial_ids]
        assert len(listed) == 3 and {item.keep_reason for item in listed} - {""} == kept


def test_the_same_seed_gives_the_same_trials_and_another_one_does_not(session, spark, table):
    found = []
    for seed in (5, 5, 6):
        split = splits.load_split(spark, table, label_column="y", id_column="id", test_fraction=0.3, seed=1)
        found.append(study(session, split, settings("xgboost", seed=seed))[1])
    assert hyperparameters(found[0]).equals(hyperparameters(found[1]))
    assert found[0].trials["tuning_loss"].tolist() == found[1].trials["tuning_loss"].tolist()
    assert found[0].hyperparameters != found[2].hyperparameters


def test_trials_worse_than_the_median_are_pruned_and_say_so(session, split, scripted):
    parent_id, tuned = study(session, split, settings("scripted", tuning_trials=12, epochs=10))
    outcomes = tuned.trials["outcome"]
    assert set(outcomes) == {"complete", "pruned"} and (outcomes == "complete").sum() >= 5
    assert tuned.hyperparameters["x"] == min(scripted.fits)
    for child in children(session, parent_id):
        epochs = session.client().get_metric_history(child.info.run_id, "epoch_loss")
        pruned = child.data.tags[tuning.OUTCOME_TAG] == "pruned"
        # Not in the first fifth of the epochs.
        assert (2 <= len(epochs) < 10) if pruned else len(epochs) == 10


def test_a_study_that_was_interrupted_goes_on_as_if_it_had_not_been(session, split, scripted):
    p = settings("scripted", tuning_trials=9, epochs=10)
    scripted.interrupt_at = 7
    with pytest.raises(KeyboardInterrupt):
        study(session, split, p)
    interrupted = list(scripted.fits)
    assert len(interrupted) == 7
    scripted.interrupt_at = None
    parent_id, tuned = study(session, split, p)
    assert "7 of them from a study that had not ended" in tuned.description
    assert len(scripted.fits) == 9 and len(set(scripted.fits)) == 9
    assert [child.info.run_name for child in children(session, parent_id)] == ["trial 7", "trial 8"]
    # The study has ended, so the next one is new. It comes to the same.
    _, fresh = study(session, split, p)
    assert scripted.fits[9:] == scripted.fits[:9]
    assert hyperparameters(fresh).equals(hyperparameters(tuned))
    assert fresh.trials["outcome"].sort_index().tolist() == tuned.trials["outcome"].sort_index().tolist()


def test_trials_of_other_rows_or_parameters_are_not_taken_over(session, split, spark, table, scripted):
    p = settings("scripted")
    scripted.interrupt_at = 2
    with pytest.raises(KeyboardInterrupt):
        study(session, split, p)
    scripted.interrupt_at = None
    other = splits.load_split(spark, table, label_column="y", id_column="id", test_fraction=0.3, seed=2)
    for changed_split, changed in (
        (other, p),
        (split, settings("scripted", epochs=5)),
        (split, settings("scripted", seed=7)),
    ):
        assert "had not ended" not in study(session, changed_split, changed)[1].description
    assert "2 of them" in study(session, split, p)[1].description


def test_a_trial_that_fails_ends_the_study_and_its_run_says_so(session, split, scripted, monkeypatch):
    monkeypatch.setattr(scripted, "predict", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        study(session, split, settings("scripted"))
    runs = session.client().search_runs([session.experiment_id], f"tags.{tuning.OUTCOME_TAG} = 'failed'")
    assert [run.info.status for run in runs] == ["FAILED"]


DIES = """
import mlflow, os, signal
from helpers import data, parameters, runtime, tracking, training
from helpers.training import trials
from tests.unit.test_tuning import settings, study

session = tracking.configure(parameters.parse(parameters.Tracking, {"experiment_name": os.environ["EXPERIMENT"]}))
split = data.load_split(
    runtime.spark(), "tuning_tests.rows", label_column="y", id_column="id", test_fraction=0.3, seed=1
)
train, calls = trials.train, []

def dying(*arguments):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return train(*arguments)

trials.train = dying
study(session, split, settings())
"""


def test_a_study_whose_process_was_killed_goes_on_in_the_next_one(session, split):
    client = session.client()
    environment = os.environ | {"EXPERIMENT": client.get_experiment(session.experiment_id).name}
    killed = subprocess.run(
        [sys.executable, "-c", DIES], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    _, tuned = study(session, split, settings())
    assert "3 trials, one after the other" in tuned.description
    assert "2 of them from a study that had not ended" in tuned.description
    runs = client.search_runs([session.experiment_id])
    ended = [run.data.params["regularization"] for run in runs if run.data.tags.get(tuning.OUTCOME_TAG) == "complete"]
    assert len(ended) == len(set(ended)) == 3


def test_the_rows_that_judge_the_model_are_not_read_and_not_among_those_that_compare_trials(
    session, split, spark, table
):
    class Judging:
        """Rows that must not be touched."""

        def __getattr__(self, name):
            raise AssertionError(f"the held-out rows are used: {name}")

    put_aside = tuning.tuning_split(split)
    assert put_aside.validation is put_aside.held_out
    ids = {name: {row.id for row in rows.select("id").collect()} for name, rows in
           {"train": put_aside.train, "aside": put_aside.validation, "judge": split.held_out}.items()}  # fmt: skip
    assert ids["train"].isdisjoint(ids["aside"]) and ids["judge"].isdisjoint(ids["train"] | ids["aside"])
    assert ids["train"] | ids["aside"] == {row.id for row in split.train.select("id").collect()}
    assert 0.12 < len(ids["aside"]) / split.train.count() < 0.28

    columns = {"label_column": "y", "id_column": "id", "test_fraction": 0.3, "seed": 1}
    by_column = splits.load_split(spark, table, **columns, split_by="column", split_column="part")
    assert tuning.tuning_split(by_column).validation is by_column.validation
    assert tuning.tuning_split(by_column).train is by_column.train
    for data in (split, by_column):
        # `record` alone reads their ids.
        record = data.record()
        watched = dataclasses.replace(data, held_out=Judging())
        if data.validation is data.held_out:
            watched = dataclasses.replace(watched, validation=watched.held_out)
        object.__setattr__(watched, "record", lambda record=record: record)
        assert study(session, watched, settings())[1].hyperparameters


def test_of_a_split_by_time_the_newest_training_rows_compare_the_trials(spark, schema):
    day = "date_add(DATE'2026-01-01', CAST(id DIV 20 AS INT)) AS day"
    spark.range(400).selectExpr("id", "id % 7 AS a", "id % 2 AS y", day).write.saveAsTable(f"{schema}.days")
    choices = {"label_column": "y", "id_column": "id", "test_fraction": 0.25, "seed": 1, "split_by": "time"}
    by_time = tuning.tuning_split(splits.load_split(spark, f"{schema}.days", **choices, split_column="day"))
    ids = {part: {row.id for row in getattr(by_time, part).collect()} for part in ("train", "validation")}
    assert ids == {"train": set(range(240)), "validation": set(range(240, 300))}
    assert by_time.train.columns == ["id", "a", "y"]
    spark.sql(f"CREATE TABLE {schema}.two AS SELECT id, a, y, IF(id < 300, 1, 2) AS day FROM {schema}.days")
    one_time = tuning.tuning_split(splits.load_split(spark, f"{schema}.two", **choices, split_column="day"))
    assert one_time.train.count() + one_time.validation.count() == 300


def test_what_cannot_be_tuned_is_refused_before_anything_starts(session, split, monkeypatch):
    monkeypatch.setitem(kinds.FLAVORS, "fixed", f"{__name__}:ScriptedFlavor")
    monkeypatch.setattr(ScriptedFlavor, "search_space", Flavor.search_space)
    with pytest.raises(ParameterError, match="tuning_trials=3: model_flavor=fixed has no search space"):
        training.with_flavor_defaults(settings("fixed"))
    training.with_flavor_defaults(settings("fixed", tuning_trials=0))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ParameterError, match=r"tuning_trials=3: needs optuna, .* `%pip install optuna==3[\d.]+`, or set"
    ):
        training.with_flavor_defaults(settings())


def test_a_flavor_whose_library_is_missing_says_how_to_install_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "helpers.training.flavors.xgboost", raising=False)
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(
        ParameterError, match=r"model_flavor='xgboost': needs xgboost, .* `%pip install xgboost-cpu==[\d.]+`"
    ):
        load_flavor("xgboost")


def test_a_class_that_is_too_rare_to_be_put_aside_is_named(session, spark, schema):
    spark.range(60).selectExpr("id", "id % 5 AS a", "IF(id IN (1, 2), 'rare', 'often') AS y").write.saveAsTable(
        f"{schema}.rare"
    )
    for seed in range(40):
        try:
            data = splits.load_split(
                spark, f"{schema}.rare", label_column="y", id_column="id", test_fraction=0.3, seed=seed
            )
        except ParameterError:
            continue
        break
    with pytest.raises(ParameterError, match="too few.*class 'rare'"):
        tuning.tuning_split(data)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with DatabricksStandIn.start(tmp_path_factory.mktemp("tuning_server")) as stand_in:
        yield stand_in


@pytest.fixture
def remote_session(server, tracking_parameters, monkeypatch):
    """MLflow on a server that Spark's workers can reach."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    mode = {"tracking_mode": "databricks", "model_registry": "databricks"}
    yield tracking.configure(tracking_parameters(**mode, experiment_name=f"/Shared/tuning{next(_numbers)}"))
    tracking.configure(tracking_parameters(experiment_name="back"))


def test_trials_run_in_sparks_workers_where_they_reach_the_server(remote_session, server, split, monkeypatch):
    p = settings("xgboost", tuning_trials=4, tuning_parallel=2)
    # In this process only: workers have modules of their own.
    monkeypatch.setattr(type(load_flavor("xgboost")), "fit", None)
    parent_id, tuned = study(remote_session, split, p)
    assert tuned.description == "4 trials, 2 side by side on Spark"
    runs = children(remote_session, parent_id)
    assert [len(remote_session.client().get_metric_history(run.info.run_id, "epoch_loss")) for run in runs] == [4] * 4
    assert len({run.data.params["max_depth"] + run.data.params["learning_rate"] for run in runs}) == 4
    monkeypatch.undo()
    # One after the other they come to the same: the first trials are random, and each takes one processor.
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    alone = study(remote_session, split, settings("xgboost", tuning_trials=4, tuning_parallel=1))[1]
    assert alone.description == "4 trials, one after the other"
    assert hyperparameters(alone).equals(hyperparameters(tuned))
    assert alone.trials["tuning_loss"].tolist() == pytest.approx(tuned.trials["tuning_loss"].tolist())


@pytest.mark.slow
def test_trials_run_here_where_workers_do_not_reach_the_server(remote_session, split, monkeypatch):
    nobody = {"DATABRICKS_HOST": "http://127.0.0.1:9"}
    monkeypatch.setattr(type(remote_session.tracking), "worker_environment", lambda _: nobody)
    tuned = study(remote_session, split, settings(tuning_trials=1, tuning_parallel=2))[1]
    assert "1 trials, one after the other: Spark's workers cannot reach the tracking server (" in tuned.description


def test_trials_run_here_with_the_local_store_and_where_each_needs_the_cluster(session, split):
    p = settings(tuning_trials=1, tuning_parallel=2)
    assert "one after the other: Spark's workers cannot reach" in study(session, split, p)[1].description
    on_cluster = settings("spark", tuning_trials=1, epochs=1)
    assert (
        "one after the other: each of them uses the whole cluster" in study(session, split, on_cluster)[1].description
    )
