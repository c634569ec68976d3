"""The notebooks, run from start to end, and what they leave behind, read with other tools."""

import json
from pathlib import Path

import pandas as pd
import pytest
import requests
from sklearn.datasets import load_wine

from helpers.jobs.__main__ import main as run_jobs
from helpers.serving.local_endpoint import LocalEndpoint
from tests.notebooks.machine import NOTEBOOKS, ROOT, Machine, artifacts


@pytest.fixture(scope="module")
def machine(tmp_path_factory, quick_jvm):
    """A laptop on which nothing has been run yet."""
    machine = Machine(tmp_path_factory.mktemp("machine"), quick_jvm)
    yield machine
    machine.end_endpoints()


@pytest.fixture(scope="module")
def first_round(machine):
    """The notebooks with their defaults."""
    machine.nbmake(*NOTEBOOKS, "05_deploy_endpoint", batch_id="monday", health_requests=5)
    return machine


def test_set_up_makes_the_two_tables(first_round):
    training, scoring = first_round.table("training"), first_round.table("scoring")
    assert training.shape == (569, 32)
    assert scoring.shape == (569, 31)
    assert set(training["diagnosis"]) == {"malignant", "benign"}
    assert "diagnosis" not in scoring
    assert training["id"].is_unique


def test_a_run_can_be_understood_without_its_author(first_round):
    run = first_round.newest_run("azureml_mlflow")
    assert run.info.status == "FINISHED"
    assert run.data.params["training_table"] == "azureml_mlflow.training"
    assert run.data.params["epochs"] == "20"
    history = first_round.client.get_metric_history(run.info.run_id, "epoch_loss")
    assert [point.step for point in history] == list(range(1, 21))
    assert history[-1].value < history[0].value
    assert len(first_round.client.get_metric_history(run.info.run_id, "val_roc_auc")) == 20
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "azureml_mlflow.training"
    assert len(json.loads(dataset.dataset.schema)["mlflow_colspec"]) == 32
    plots = ("loss_curve", "roc_curve", "confusion_matrix", "feature_importance")
    assert artifacts(run, "plots") == {f"plots/{name}.png" for name in plots}


def test_the_first_model_becomes_version_1_and_champion(first_round):
    version = first_round.client.get_model_version_by_alias("breast_cancer", "champion")
    assert str(version.version) == "1"
    assert version.tags["check_threshold"].startswith("passed: accuracy_score")
    assert version.run_id == version.tags["run_id"] == first_round.newest_run("azureml_mlflow").info.run_id


def test_each_row_is_scored_once_with_the_version_beside_it(first_round):
    predictions, training = first_round.table("breast_cancer_predictions"), first_round.table("training")
    assert sorted(predictions["id"]) == sorted(training["id"])
    assert set(predictions["batch_id"]) == {"monday"}
    assert set(predictions["model_version"]) == {1}
    assert predictions["probability"].between(0.5, 1).all()
    right = predictions.merge(training, on="id").eval("prediction == diagnosis")
    assert right.mean() > 0.95


def test_the_endpoint_answers_anybody_who_has_its_key_as_the_batch_was_scored(first_round):
    state, answers = ask_endpoint(first_round)
    assert state.traffic == {"breast-cancer-1": 100}
    predictions = first_round.table("breast_cancer_predictions").sort_values("id")
    assert answers == predictions["prediction"].tolist()
    run = first_round.newest_run("azureml_mlflow")
    for name, step in (("deployment_p95_ms", 0), ("endpoint_p50_ms", 100), ("endpoint_errors", 100)):
        (point,) = first_round.client.get_metric_history(run.info.run_id, name)
        assert point.step == step and (point.value == 0) == (name == "endpoint_errors")
    assert len(artifacts(run, "rollouts")) == 1


def test_a_worse_model_is_registered_but_not_promoted_and_a_batch_scored_again_is_replaced(first_round):
    before = first_round.table("breast_cancer_predictions")
    first_round.nbmake("02_train", "03_register", "04_batch_score", epochs=1, learning_rate=1e-9, batch_id="monday")

    versions = first_round.client.search_model_versions("name = 'breast_cancer'")
    assert sorted(int(version.version) for version in versions) == [1, 2]
    second = first_round.client.get_model_version("breast_cancer", "2")
    assert second.tags["check_champion"].startswith("failed: accuracy_score")
    assert str(first_round.client.get_model_version_by_alias("breast_cancer", "champion").version) == "1"

    after = first_round.table("breast_cancer_predictions")
    columns = ["id", "prediction", "probability", "model_version"]
    pd.testing.assert_frame_equal(
        after[columns].sort_values("id", ignore_index=True), before[columns].sort_values("id", ignore_index=True)
    )
    assert (after["scored_at"] > before["scored_at"].max()).all()


def test_a_version_takes_over_the_endpoint_once_and_clean_up_ends_it(first_round):
    for _ in range(2):
        first_round.nbmake("05_deploy_endpoint", model_version=2, health_requests=5, rollout_steps="50, 100")
        state, _ = ask_endpoint(first_round)
        assert state.traffic == {"breast-cancer-2": 100} and state.deployments.keys() == {"breast-cancer-2"}
    run_id = first_round.client.get_model_version("breast_cancer", "2").run_id
    points = first_round.client.get_metric_history(run_id, "endpoint_p95_ms")
    # Not those of the second time, which has changed nothing.
    assert sorted(point.step for point in points) == [50, 100]
    first_round.nbmake("06_clean_up", clean_up="endpoints", dry_run="false", force="true")
    assert LocalEndpoint.all(first_round.folder / "endpoints") == []
    with pytest.raises(requests.ConnectionError):
        requests.get(state.url)


def test_a_stream_scores_each_row_once_and_a_second_one_finds_none_new(first_round):
    seen = []
    for _ in range(2):
        first_round.nbmake("04_batch_score", mode="stream", prediction_table="streamed", model_version=1)
        seen.append(first_round.table("streamed").sort_values("id", ignore_index=True))
    assert seen[0]["id"].tolist() == sorted(first_round.table("training")["id"])
    assert seen[0]["batch_id"].str.startswith("stream-").all() and seen[0]["batch_id"].nunique() == 1
    pd.testing.assert_frame_equal(seen[1], seen[0])


def ask_endpoint(machine):
    """Send the rows of the scoring table with nothing but the address and the key; return its state and the answers."""
    (endpoint,) = LocalEndpoint.all(machine.folder / "endpoints")
    rows = machine.table("scoring").sort_values("id").drop(columns="id")
    body = {"input_data": {"columns": list(rows), "index": list(range(len(rows))), "data": rows.to_numpy().tolist()}}
    key = json.loads((endpoint.folder / "endpoint.json").read_text())["key"]
    state = endpoint.state()
    return state, requests.post(state.url, json=body, headers={"Authorization": f"Bearer {key}"}).json()


def test_the_jobs_run_on_data_of_another_shape_with_the_spark_flavor(tmp_path, quick_jvm, monkeypatch, capsys):
    wine = load_wine(as_frame=True)
    rows = wine.data.rename(columns={"alcohol": "Alcohol % vol", "malic_acid": "malic.acid", "hue": "HUE"})
    rows.insert(0, "Bottle No.", [f"B-{i:03d}" for i in range(len(rows))])
    rows["Région, AOC"] = ["Nord" if alcohol > 13 else None for alcohol in wine.data["alcohol"]]
    rows["Cultivar Class"] = wine.target.map({0: "Barolo", 1: "Grignolino", 2: "Barbera"})
    rows.to_csv(tmp_path / "wine.csv", index=False)
    machine = Machine(tmp_path / "local", quick_jvm)
    for name, value in machine.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)
    own_data = {
        "label_column": "Cultivar Class",
        "id_column": "Bottle No.",
        "model_name": "wine",
        "model_flavor": "spark",
    }
    status = run_jobs(
        ["train_and_register", "batch_score", "--output", str(tmp_path / "out")]
        + [f"--param=source_path={tmp_path / 'wine.csv'}", "--param=validation_metric=roc_auc"]
        + [f"--param={name}={value}" for name, value in own_data.items()]
    )
    printed = capsys.readouterr().out
    assert status == 0, printed

    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    train, score = (summary["jobs"][job]["tasks"] for job in ("train_and_register", "batch_score"))
    assert summary["state"] == "SUCCESS"
    assert train["register"]["task_values"] == {"model_name": "wine", "model_version": "1", "promoted": True}
    assert train["train"]["task_values"]["run_id"] == machine.newest_run("azureml_mlflow").info.run_id
    assert score["score"]["task_values"]["rows_scored"] == 178
    assert Path(score["score"]["executed_notebook"]).is_file()
    assert "B-000" in printed and "wine version 1" in printed

    predictions = machine.table("wine_predictions").merge(rows, on="Bottle No.")
    assert len(predictions) == 178
    assert (predictions["prediction"] == predictions["Cultivar Class"]).mean() > 0.95
    assert predictions["probability"].between(1 / 3, 1).all()
