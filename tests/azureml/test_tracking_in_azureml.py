"""`helpers.tracking` against Azure ML and Databricks: runs, models, versions, the champion, and lost servers."""

import pytest

from tests.scenarios.azureml import lost_answers, tracked_models


@pytest.mark.parametrize("tracking_mode", ["azureml", "databricks"])
def test_in_azure_mls_registry_a_run_is_registered_once_and_champion_and_challenger_move(
    aml, databricks, process, tracking_mode
):
    model = process.run(tracked_models.register_and_promote, f"moves_{tracking_mode}", tracking_mode)
    first, second = model["runs"]
    assert model["registered"] == [["1", first, True], ["2", second, True], ["1", first, False]]
    assert model["champions"] == [None, None, "1", "2", "1", "1", "2", "1"]
    server = {"azureml": aml.tracking_uri, "databricks": databricks.url}[tracking_mode]
    assert {name: model["tags"]["1"][name] for name in ("n", "run_id", "tracking_server")} == {
        "n": "2", "run_id": first, "tracking_server": server
    }  # fmt: skip
    assert "champion" in model["tags"]["1"] and "champion" not in model["tags"]["2"]
    assert model["predictions"] == tracked_models.LABELS
    assert "model_version='3'" in model["missing_version"] and "it has: 1, 2" in model["missing_version"]
    assert "model_name='nobody'" in model["missing_model"] and "Run 03_register first" in model["missing_model"]
    assert model["newest_run"] == second
    assert model["approval"]["steps"] == {
        "waiting": ["1", "2"], "approved": ["2", None], "waiting again": ["2", "1"], "refused": ["2", None],
        "registered again": ["2", None],
    }  # fmt: skip
    refused, approved = (model["approval"]["tags"][number] for number in "12")
    assert refused.keys() == {"approval", "approved_by", "approval_time"} and refused["approval"] == "refused"
    assert (approved["approval"], approved["approved_by"], len(approved["approval_reason"])) == (
        "approved",
        "Ada",
        1_000,
    )
    links = {row["what"]: row["open"] for row in model["table"]}
    assert links["model registry"].startswith("https://ml.azure.com/model/list?wsid=/subscriptions/")
    studio = "https://ml.azure.com"
    assert links["experiment"].startswith(f"{studio}/experiments/" if tracking_mode == "azureml" else databricks.url)
    assert model["page"].startswith(f"{studio}/runs/{first}?" if tracking_mode == "azureml" else databricks.url)


def test_the_files_of_another_servers_model_are_registered_once_although_an_answer_was_lost(process):
    registered = process.run(lost_answers.register_files, "files", "lose_answer")
    assert registered == {"error": None, "versions": ["1"], "requests": 1}


def test_a_refused_version_is_not_requested_again(process):
    refused = process.run(lost_answers.register_files, "refused", 403)
    assert "403" in refused["error"] and refused["requests"] == 1


def test_of_several_models_in_one_run_the_named_one_is_registered_and_without_a_name_all_are_listed(process):
    run = process.run(tracked_models.register_one_of_three, "three")
    uris = run["uris"]
    assert uris == {name: f"runs:/{run['run_id']}/{name}" for name in ("first", "second", "third")}
    listed = ", ".join(f"{uri} ({name})" for name, uri in uris.items())
    assert run["unnamed"] == (
        f"ParameterError: model_uri='': run {run['run_id']} has 3 models, so say which one; there are: {listed}"
    )
    assert run["unknown"].startswith(f"ParameterError: model_uri='runs:/{run['run_id']}/fourth'")
    assert listed in run["unknown"]
    assert run["registered"] == run["logged"]["second"] not in (run["logged"]["first"], run["logged"]["third"])
    assert "MLmodel" in run["registered"] and run["version_run_id"] == run["run_id"]
    assert run["predictions"] == ["c", "c", "d", "d"]


def test_a_model_that_was_logged_without_this_bundle_is_found_by_its_file(process):
    run = process.run(tracked_models.find_a_model_that_was_logged_by_hand)
    assert run["uri"] == f"runs:/{run['run_id']}/by/hand"


def test_autolog_leaves_a_finished_run_with_its_metrics_in_azure_ml(process):
    run = process.run(tracked_models.autolog)
    assert run["status"] == "FINISHED" and run["c"] == "0.5"
    assert "training_accuracy_score" in run["metrics"]


def test_a_run_whose_server_goes_away_is_never_taken_for_a_finished_one(process):
    runs = process.run(tracked_models.lose_the_server, environment={"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"})
    assert "503" in runs["refused"]
    assert runs["newest"] == runs["complete"] != runs["lost"]
    assert f"run_id='{runs['lost']}': this run is {runs['status']}, not FINISHED" in runs["named"]
