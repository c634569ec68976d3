"""The notebooks on a laptop, from start to end: what they leave behind, read with other tools."""

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import requests
from sklearn.datasets import load_wine

from helpers.jobs.__main__ import main as run_jobs
from helpers.serving.local_endpoint import LocalEndpoint
from tests.notebooks.machine import NO_LIMIT_MS, NOTEBOOKS, PLOTS, ROOT, Machine, artifacts


@pytest.fixture(scope="module")
def machine(tmp_path_factory, quick_jvm):
    """A laptop on which nothing has run yet, with a temporary folder of its own."""
    folder = tmp_path_factory.mktemp("machine")
    (folder / "tmp").mkdir()
    machine = Machine(folder, quick_jvm, {"TMPDIR": str(folder / "tmp")})
    yield machine
    machine.end_endpoints()


@pytest.fixture(scope="module")
def first_round(machine):
    """The state after the notebooks have run with their defaults, and nothing else."""
    endpoint = {"health_requests": 5, "latency_limit_ms": NO_LIMIT_MS}
    machine.nbmake(*NOTEBOOKS, "05_deploy_endpoint", batch_id="monday", **endpoint)
    state, answers = ask_endpoint(machine)
    return SimpleNamespace(
        training=machine.table("training"),
        scoring=machine.table("scoring"),
        run=machine.newest_run("azureml_mlflow"),
        champion=machine.client.get_model_version_by_alias("diabetes", "champion"),
        predictions=machine.table("diabetes_predictions"),
        endpoint=state,
        answers=answers,
    )


@pytest.fixture(scope="module")
def second_round(first_round, machine, connected):
    """What a worse model leaves, after the same batch was scored again."""
    worse = {"model_flavor": "xgboost", "epochs": 1, "learning_rate": 1e-9}
    connected.nbmake("02_train", "03_register", "04_batch_score", **worse, batch_id="monday")
    return SimpleNamespace(
        versions=machine.client.search_model_versions("name = 'diabetes'"),
        champion=machine.client.get_model_version_by_alias("diabetes", "champion"),
        predictions=machine.table("diabetes_predictions"),
    )


@pytest.fixture(scope="module")
def taken_over(second_round, connected):
    """The states of the endpoint after version 2 was deployed, and after it was deployed again."""
    endpoint = {"health_requests": 5, "latency_limit_ms": NO_LIMIT_MS, "rollout_steps": "50, 100"}
    states = []
    for _ in range(2):
        connected.nbmake("05_deploy_endpoint", model_version=2, **endpoint)
        states.append(ask_endpoint(connected)[0])
    return states


def test_set_up_makes_the_two_tables(first_round):
    assert first_round.training.shape == (442, 12)
    assert first_round.scoring.shape == (442, 11)
    assert first_round.training["outcome"].value_counts().to_dict() == {"better": 221, "worse": 221}
    assert "outcome" not in first_round.scoring
    assert first_round.training["id"].is_unique


def test_a_run_has_parameters_histories_its_dataset_and_plots(first_round, machine):
    run = first_round.run
    assert run.info.status == "FINISHED"
    assert run.data.params["training_table"] == "azureml_mlflow.training"
    assert run.data.params["epochs"] == "20"
    history = machine.client.get_metric_history(run.info.run_id, "epoch_loss")
    assert [point.step for point in history] == list(range(1, len(history) + 1)) and 3 < len(history) <= 20
    assert history[-1].value < history[0].value
    assert len(machine.client.get_metric_history(run.info.run_id, "val_roc_auc")) == len(history)
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "azureml_mlflow.training"
    assert len(json.loads(dataset.dataset.schema)["mlflow_colspec"]) == 12
    assert artifacts(run, "plots") == {f"plots/{name}.png" for name in PLOTS}


def test_the_first_model_becomes_version_1_and_champion(first_round):
    version = first_round.champion
    assert str(version.version) == "1"
    assert version.tags["check_threshold"].startswith("passed: accuracy_score")
    assert version.run_id == version.tags["run_id"] == first_round.run.info.run_id


def test_each_row_is_scored_once_with_the_version_beside_it(first_round):
    predictions = first_round.predictions
    assert sorted(predictions["id"]) == sorted(first_round.training["id"])
    assert set(predictions["batch_id"]) == {"monday"}
    assert set(predictions["model_version"]) == {1}
    assert predictions["probability"].between(0.5, 1).all()
    right = predictions.merge(first_round.training, on="id").eval("prediction == outcome")
    assert right.mean() > 0.7


def test_no_copy_of_a_model_stays_in_the_temporary_folder(first_round, machine):
    left = [path.name for path in (machine.folder / "tmp").iterdir()]
    assert [name for name in left if name.startswith(("azureml_mlflow_", "model_"))] == []


def test_the_endpoint_answers_anybody_who_has_its_key_as_the_batch_was_scored(first_round):
    assert first_round.endpoint.traffic == {"diabetes-1": 100}
    assert first_round.answers == first_round.predictions.sort_values("id")["prediction"].tolist()


def test_the_checks_of_a_rollout_are_with_the_run_of_its_model(first_round, machine):
    for name, step in (("deployment_p95_ms", 0), ("endpoint_p50_ms", 100), ("endpoint_errors", 100)):
        (point,) = machine.client.get_metric_history(first_round.run.info.run_id, name)
        assert point.step == step and (point.value == 0) == (name == "endpoint_errors")
    assert len(artifacts(first_round.run, "rollouts")) == 1


def test_a_worse_model_is_registered_but_not_promoted(second_round):
    versions = {int(version.version): version for version in second_round.versions}
    assert sorted(versions) == [1, 2]
    assert versions[2].tags["check_champion"].startswith("failed: accuracy_score")
    assert str(second_round.champion.version) == "1"


def test_a_batch_scored_again_is_replaced(first_round, second_round):
    before, after = first_round.predictions, second_round.predictions
    columns = ["id", "prediction", "probability", "model_version"]
    pd.testing.assert_frame_equal(
        after[columns].sort_values("id", ignore_index=True), before[columns].sort_values("id", ignore_index=True)
    )
    assert (after["scored_at"] > before["scored_at"].max()).all()


def test_a_version_takes_over_the_endpoint_and_deploying_it_again_changes_nothing(taken_over, machine):
    for state in taken_over:
        assert state.traffic == {"diabetes-2": 100} and state.deployments.keys() == {"diabetes-2"}
    run_id = machine.client.get_model_version("diabetes", "2").run_id
    points = machine.client.get_metric_history(run_id, "endpoint_p95_ms")
    # Only those of the first time.
    assert sorted(point.step for point in points) == [50, 100]


def test_clean_up_ends_the_endpoint(taken_over, machine, connected):
    connected.nbmake("07_clean_up", clean_up="endpoints", dry_run="false", force="true")
    assert LocalEndpoint.all(machine.folder / "endpoints") == []
    with pytest.raises(requests.ConnectionError):
        requests.get(taken_over[-1].url)


def test_a_stream_scores_each_row_once_and_a_second_one_finds_none_new_and_so_in_the_shadow(
    first_round, second_round, machine
):
    machine.client.set_registered_model_alias("diabetes", "challenger", "2")
    tables = []
    for _ in range(2):
        in_the_shadow = {"model_version": 1, "shadow": "challenger"}
        machine.nbmake("04_batch_score", mode="stream", prediction_table="streamed", **in_the_shadow)
        tables.append(machine.table("streamed").sort_values("id", ignore_index=True))
    first, second = tables
    assert first["id"].tolist() == sorted(first_round.training["id"])
    assert first["batch_id"].str.startswith("stream-").all() and first["batch_id"].nunique() == 1
    pd.testing.assert_frame_equal(second, first)
    shadow = machine.table("streamed_shadow")
    assert sorted(shadow["id"]) == first["id"].tolist() and set(shadow["model_version"]) == {2}
    assert list(shadow) == list(machine.table("streamed"))


def ask_endpoint(machine):
    """Send the rows of the scoring table, using only the address and the key; return endpoint state and answers."""
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
    assert train["register"]["task_values"] == {
        "model_name": "wine",
        "model_version": "1",
        "promoted": True,
        "challenger": False,
        "not_promoted_because": "",
        "deploy": "false",
    }
    assert train["train"]["task_values"]["run_id"] == machine.newest_run("azureml_mlflow").info.run_id
    assert score["score"]["task_values"]["rows_scored"] == 178
    assert Path(score["score"]["executed_notebook"]).is_file()
    assert "B-000" in printed and "wine version 1" in printed
    assert train["train"]["task_values"]["run_page"] in printed
    pages = {task: Path(results[task]["html"]).read_text() for results, task in ((train, "setup"), (train, "train"))}
    assert 'href="register.html"' in pages["train"] and 'href="../batch_score/score.html"' in pages["train"]
    assert 'href="05_deploy_endpoint' not in pages["train"] and "mlflow.store" not in pages["setup"]

    predictions = machine.table("wine_predictions").merge(rows, on="Bottle No.")
    assert len(predictions) == 178
    assert (predictions["prediction"] == predictions["Cultivar Class"]).mean() > 0.95
    assert predictions["probability"].between(1 / 3, 1).all()
