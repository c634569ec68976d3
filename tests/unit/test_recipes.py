"""The recipes of docs/guide/extending.md that no other test follows: flavor, server and tracking mode, clean-up, plot,
notebook, parameter.

The others are in test_engines, test_endpoint_kinds, test_registration, test_tables and test_jobs_run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
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
    """Naive Bayes on numeric columns, trained in one epoch."""

    mlflow_flavor = "sklearn"

    def fit(self, split, p, on_epoch, hyperparameters):
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
    """A second store on this machine, which names experiments differently."""

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
        trained = training.fit(split, parameters.parse(parameters.Fit, {"model_flavor": flavor, "epochs": 1}))
        uri = tracking.log_model(
            trained.model, flavor=trained.flavor, signature=trained.signature, classes=trained.classes
        )
    return mlflow.get_run(run.info.run_id), uri, trained


@pytest.mark.slow
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


@pytest.mark.slow
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

    monkeypatch.setitem(plots.FIGURES["classifier"], "balance", balance)
    _, _, trained = train(session, labelled, "sklearn", model_name)
    assert trained.figures.keys() == plots.FIGURES["classifier"].keys()
    assert len(trained.figures["balance"].axes[0].patches) == 2


GROUP = '''
@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Greet(IdColumn):
    """Parameters of 07_greet."""

    times: int = Field(default=1, ge=1, description="How often")


STAGES = (SetUp, Greet, '''
CELLS = """
import sys

sys.path.insert(0, "..")

from helpers import parameters, runtime

p = runtime.read_parameters(parameters.Greet)
runtime.set_task_value("greeting", p.times * f"hello {p.id_column} ")
"""


@pytest.mark.slow
def test_a_notebook_with_a_parameter_of_its_own_runs_as_a_job_that_checks_the_parameter(tmp_path):
    root = Path(__file__).parents[2]
    shutil.copytree(root / "helpers", tmp_path / "helpers", ignore=shutil.ignore_patterns("__pycache__"))
    declarations = tmp_path / "helpers" / "parameters.py"
    declarations.write_text(declarations.read_text().replace("\nSTAGES = (SetUp, ", GROUP))
    (tmp_path / "notebooks").mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELLS)])
    nbformat.write(notebook, tmp_path / "notebooks" / "07_greet.ipynb")
    task = {"task_key": "greet", "notebook_task": {"notebook_path": "notebooks/07_greet.ipynb"}}
    job = {"parameters": [{"name": "times", "default": "1"}], "tasks": [task]}
    bundle = {"bundle": {"name": "toy"}, "resources": {"jobs": {"greet": job}}}
    (tmp_path / "databricks.yml").write_text(yaml.safe_dump(bundle))

    def run(times):
        command = [sys.executable, "-m", "helpers.jobs", "greet", "--output", "out", "--param", f"times={times}"]
        environment = os.environ | {"BUNDLE_LOCAL_DIR": str(tmp_path / "local")}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    refused = run(0)
    assert refused.returncode == 2 and "times='0' (from --param): not accepted" in refused.stderr
    done = run(2)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "out" / "summary.json").read_text())["jobs"]["greet"]["tasks"]["greet"]
    assert result["task_values"] == {"greeting": "hello id hello id "}
