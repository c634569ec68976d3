"""README's recipes that no other test follows: a flavor all the way, a server and its mode, a kind of clean-up, a plot.

The others are followed where their table is: test_engines, test_endpoint_kinds, test_registration, test_tables,
test_jobs_run.
"""

from __future__ import annotations

import mlflow
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.naive_bayes import GaussianNB

from helpers import cleanup, kinds, parameters, registration, runtime, scoring, tracking, training
from helpers.data import EvaluationRows
from helpers.data import split as splits
from helpers.ownership import Item
from helpers.tracking.servers.local import LocalServer
from helpers.training import plots
from helpers.training.flavors.base import Flavor


class BayesFlavor(Flavor):
    """Naive Bayes on numbers, trained in one epoch."""

    mlflow_flavor = "sklearn"

    def fit(self, split, *, epochs, learning_rate, seed, on_epoch):
        rows = split.train.toPandas()
        model = GaussianNB().fit(rows[split.features], rows[split.label_column])
        on_epoch(1, {"epoch_loss": 0.5})
        return model

    def predict(self, model, split):
        rows = split.held_out.toPandas()
        features = rows[split.features]
        return rows[split.label_column].to_numpy(), model.predict(features), model.predict_proba(features)

    def importance(self, model, split, seed):
        return pd.Series(model.theta_.std(axis=0), split.features, name="spread of the means")


class SecondServer(LocalServer):
    """A second store on this machine, which calls experiments otherwise."""

    @property
    def uri(self):
        return f"sqlite:///{runtime.local_dir() / 'second.db'}"

    def experiment_name(self, name):
        return f"second {name}"


@pytest.fixture
def labelled(spark, schema):
    numbers = np.random.default_rng(0).normal(size=(200, 2))
    rows = pd.DataFrame(numbers, columns=["a", "b"]).assign(id=range(200), y=np.where(numbers[:, 0] > 0, "high", "low"))
    spark.createDataFrame(rows).write.saveAsTable(f"{schema}.labelled")
    return splits.load_split(spark, f"{schema}.labelled", label_column="y", id_column="id", test_fraction=0.3, seed=1)


def train(session, split, flavor, model_name):
    with mlflow.start_run(experiment_id=session.experiment_id, tags={tracking.MODEL_NAME_TAG: model_name}) as run:
        trained = training.fit(split, model_flavor=flavor, epochs=1, learning_rate=0.1, seed=1)
        uri = tracking.log_model(
            trained.model, flavor=trained.flavor, signature=trained.signature, classes=trained.classes
        )
    return mlflow.get_run(run.info.run_id), uri, trained


def test_a_flavor_in_its_table_is_a_choice_and_is_trained_registered_and_scored(
    spark, schema, session, labelled, model_name, monkeypatch
):
    monkeypatch.setitem(kinds.FLAVORS, "bayes", f"{__name__}:BayesFlavor")
    p = parameters.parse(parameters.Train, {"model_flavor": "bayes"})
    assert "bayes" in parameters.choices("model_flavor")
    run, uri, trained = train(session, labelled, p.model_flavor, model_name)
    metrics = registration.evaluate(session, uri, EvaluationRows.held_out_of(labelled))
    assert {f"val_{name}": pytest.approx(value) for name, value in metrics.items()} == trained.metrics
    version, _ = registration.register(session, run, tracking.logged_model_uri(session, run), model_name, {})
    scorer = scoring.Scorer(session, version, f"{schema}.labelled", f"{schema}.predictions", "id")
    batch = scorer.score_batch(scoring.rows_to_score(spark, f"{schema}.labelled", "", "id"), "b1")
    assert (batch.rows_scored, batch.rows_quarantined) == (200, 0)
    scored = spark.table(f"{schema}.predictions").toPandas().sort_values("id")
    rows = spark.table(f"{schema}.labelled").toPandas().sort_values("id")
    assert scored["prediction"].tolist() == trained.model.predict(rows[labelled.features]).tolist()


def test_a_server_and_a_mode_in_their_tables_get_the_runs_and_models(
    labelled, tracking_parameters, model_name, monkeypatch
):
    monkeypatch.setitem(kinds.SERVERS, "second", f"{__name__}:SecondServer")
    monkeypatch.setitem(kinds.TRACKING_MODES, "second", ("second", "second"))
    session = tracking.configure(tracking_parameters(tracking_mode="second", experiment_name="runs"))
    assert session.experiment_name == "second runs" and session.table()["where"][0].endswith("second.db")
    run, uri, _ = train(session, labelled, "sklearn", model_name)
    version, _ = registration.register(session, run, uri, model_name, {})
    tracking.promote(session, model_name, version.version)
    assert tracking.champion(session, model_name).run_id == run.info.run_id
    local = tracking.configure(tracking_parameters(experiment_name="runs"))
    assert tracking.versions(local, model_name) == []


NOTES = {"a": True, "b": False}


def list_notes(spark, session, p):
    for name, is_ours in NOTES.items():
        yield Item("notes", name, "memory", lambda name=name: NOTES.pop(name), "" if is_ours else "somebody else's")


def test_a_kind_of_clean_up_in_its_table_is_a_choice_listed_and_deleted(spark, schema, session, monkeypatch):
    monkeypatch.setitem(kinds.CLEAN_UP, "notes", f"{__name__}:list_notes")
    values = {"clean_up": "notes", "schema": schema, "experiment_name": session.experiment_name}
    p = parameters.parse(parameters.CleanUp, values)
    planned = [item for item in cleanup.plan(cleanup.find(spark, session, p), p.clean_up) if item.kind == "notes"]
    results = [outcome.result for outcome in cleanup.delete(planned)]
    assert results == ["deleted", "kept: somebody else's"] and NOTES == {"b": False}


def test_a_plot_in_its_table_is_among_the_figures_of_a_fit(session, labelled, model_name, monkeypatch):
    def balance(fit):
        figure = Figure()
        figure.add_subplot().bar(*np.unique(fit.predictions, return_counts=True))
        return figure

    monkeypatch.setitem(plots.FIGURES, "balance", balance)
    _, _, trained = train(session, labelled, "sklearn", model_name)
    assert trained.figures.keys() == plots.FIGURES.keys()
    assert len(trained.figures["balance"].axes[0].patches) == 2
