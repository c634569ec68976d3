"""The Azure ML stand-in, tested with unpatched clients: it accepts and refuses what Azure accepts and refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.scenarios.azureml import plain_mlflow, resource_manager
from tests.scenarios.process import ScenarioProcess
from tests.stand_ins.azureml_workspace import AzureMLStandIn


@pytest.fixture
def process(aml: AzureMLStandIn, azureml_process: ScenarioProcess) -> Iterator[ScenarioProcess]:
    yield azureml_process
    aml.faults.clear()


def test_a_run_with_its_history_and_artifacts_is_read_back(aml, process):
    run = process.run(plain_mlflow.log_a_run_and_read_it_back)
    path = f"experiments/{run['experiment_id']}/runs/{run['run_id']}/artifacts"
    host = aml.url.removeprefix("https://")
    assert run["artifact_uri"] == f"azureml://{host}/mlflow/v2.0{aml.workspace_resource_id}/{path}"
    assert run["status"] == "FINISHED" and run["params"] == {"alpha": "0.5"} and run["team"] == "blue"
    assert run["history"] == [[0, 1.0], [1, 1 / 2], [2, 1 / 3], [3, 1 / 4]]
    assert run["root"] == [["folder", True], ["note.txt", False]]
    contents = {"folder/a.txt": "A", "folder/deep/ü 1.txt": "B", "folder/deep/empty": "", "note.txt": "note"}
    assert run["files"] == contents
    assert run["with_the_parameter"] == [run["run_id"]]


def test_log_model_fails_and_a_model_saved_logged_and_registered_by_hand_loads(process):
    model = process.run(plain_mlflow.register_a_model_by_hand)
    assert "/api/2.0/mlflow/logged-models failed with error code 404 != 200. Response body: ''" in model["log_model"]
    assert model["versions"] == [["1", model["run_id"]], ["2", model["run_id"]]]
    assert model["tags"] == {"1": {}, "2": {"role": "champion"}}
    assert model["predictions"] == [[0, 2, 4], [0, 2, 4]]
    assert "logged-models/search failed with error code 404" in model["register_model"]


def test_what_the_documents_call_unsupported_is_refused(process):
    answers = process.run(plain_mlflow.use_what_is_not_supported)
    assert answers["slashed_by_id"] == "team/experiment"
    assert answers["slashed_by_name"] is None and answers["slashed_in_search"] is False
    for what, refusal in answers["refused"].items():
        assert refusal is not None and "INVALID_PARAMETER_VALUE" in refusal, what
    assert answers["within"] is None and answers["more_params"] is None
    assert "A run may have 200 parameters" in answers["too_many_params"]
    assert "error code 404" in answers["alias"] and "error code 404" in answers["traces"]
    assert answers["model_searches"] == [200, 400]
    assert answers["by_attribute"] is None


def test_arm_knows_the_tracking_uri_and_names_what_is_missing_or_forbidden(aml, process):
    answers = process.run(resource_manager.find_workspaces)
    status, workspace = answers.pop("workspace")
    assert status == 200 and workspace["location"] == aml.region
    assert workspace["properties"]["mlFlowTrackingUri"] == aml.tracking_uri
    assert {name: (status, content["error"]["code"]) for name, (status, content) in answers.items()} == {
        "no_workspace": (404, "ResourceNotFound"),
        "no_group": (404, "ResourceGroupNotFound"),
        "no_subscription": (404, "SubscriptionNotFound"),
        "forbidden": (403, "AuthorizationFailed"),
    }


def test_a_databricks_workspace_is_linked_by_replacing_it_and_a_private_one_is_not(aml, process):
    answers = process.run(resource_manager.link_databricks_workspaces)
    assert answers["names"] == ["dbx", "dbx-private"]
    assert answers["before"][1]["properties"]["publicNetworkAccess"] == "Disabled"
    (status, linked), (refused, error) = answers["put"]
    assert status == 200 and linked["properties"]["provisioningState"] == "Updating"
    parameters = answers["after"]["properties"]["parameters"]
    assert parameters.pop("amlWorkspaceId") == {"value": aml.workspace_resource_id}
    earlier = answers["before"][0]["properties"]["parameters"]
    assert parameters == {name: value for name, value in earlier.items() if name != "amlWorkspaceId"}
    assert refused == 400 and "private link" in error["error"]["message"]
    assert answers["patched"][0] == 400 and answers["incomplete"][0] == 400


def test_a_sign_in_that_cannot_work_is_refused_with_entra_ids_codes(process):
    errors = process.run(resource_manager.sign_in_wrongly)
    assert errors["wrong"].startswith("ClientAuthenticationError") and "AADSTS7000215" in errors["wrong"]
    assert errors["expired"].startswith("ClientAuthenticationError") and "AADSTS7000222" in errors["expired"]
    assert errors["unknown"].startswith("ClientAuthenticationError") and "AADSTS700016" in errors["unknown"]


def test_no_service_answers_without_a_valid_token(process):
    answers = process.run(resource_manager.ask_without_a_token)
    assert answers["statuses"] == [401] * 8
    assert answers["blob"] == [403, "AuthenticationFailed"]


def test_a_delay_and_a_dropped_sign_in_reach_the_client(aml, process):
    aml.faults.add("oauth2/token", "drop")
    aml.faults.add("metadata/endpoints", delay=0.2)
    met = process.run(resource_manager.meet_a_delay_and_a_dropped_sign_in)
    assert met["seconds"] >= 0.2
    assert met["error"].startswith("ClientAuthenticationError")


def test_a_large_artifact_arrives_whole_and_is_written_once(process):
    artifact = process.run(plain_mlflow.log_a_large_artifact_twice)
    conflict = f"Resource Conflict: ArtifactId ExperimentRun/dcid.{artifact['run_id']}/large.bin already exists."
    assert artifact["refusal"] == f"Exception: UserError: {conflict}"
    assert artifact["same"]


def test_a_model_in_a_folder_is_registered_without_a_run_and_one_from_elsewhere_is_refused(process):
    answers = process.run(plain_mlflow.register_files_without_a_run)
    assert answers["version"] == "1" and answers["source"].startswith("azureml://artifacts/LocalUpload/")
    assert answers["content"].startswith("flavors: {}")
    assert answers["with_run_id"].startswith('ValueError: "run_id=000')
    assert "INVALID_PARAMETER_VALUE" in answers["foreign"] and "azureml://artifacts/<origin>" in answers["foreign"]
    assert "was not found" in answers["foreign_run"]
    assert "No artifacts were found" in answers["empty_source"]


def test_the_plugin_names_what_is_wrong_with_its_credentials_at_the_call_that_needs_them(process):
    errors = process.run(plain_mlflow.call_with_credentials_that_do_not_work)
    assert errors["wrong"].startswith("ClientAuthenticationError") and "AADSTS7000215" in errors["wrong"]
    failed = "MlflowException: API request to endpoint /api/2.0/mlflow/experiments/search failed with error code"
    assert errors["without_role"] == f"{failed} 403 != 200. Response body: ''"
    assert errors["before"] is None and errors["revoked"] == f"{failed} 401 != 200. Response body: ''"


def test_passing_faults_are_retried_by_the_client_and_a_lasting_one_ends_with_its_status(aml, process):
    aml.faults.add("experiments/get-by-name", 503, times=1)
    aml.faults.add("experiments/get-by-name", 429, times=1, retry_after=0)
    aml.faults.add("experiments/get-by-name", "drop", times=1)
    aml.faults.add("experiments/search", 503)
    no_pause = {"MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0", "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0"}
    experiment = process.run(plain_mlflow.meet_passing_and_lasting_faults, environment=no_pause)
    assert experiment["name"] == "Default"
    assert [request.status for request in aml.requests("experiments/get-by-name")][-4:] == [503, 429, None, 200]
    assert "too many 503 error responses" in experiment["lasting"]
    assert [request.status for request in aml.requests("experiments/search")][-2:] == [503, 503]


def test_a_lost_answer_makes_a_second_run_and_artifacts_that_conflict_with_themselves(aml, process):
    aml.faults.add("POST .*runs/create", "lose_answer", times=1)
    aml.faults.add("artifacts/batch/metadata", "lose_answer", times=1)
    run = process.run(plain_mlflow.log_while_answers_get_lost)
    assert run["statuses"] == ["FINISHED", "RUNNING"]
    assert "Resource Conflict" in run["log_text"]


def test_everything_received_can_be_searched_for_secrets(aml, process):
    before = len(aml.requests())
    process.run(resource_manager.send_a_secret)
    received = aml.requests()[before:]
    leaks = [request for request in received if aml.client_secret in request.query + (request.body or "")]
    # Not the sign-in, which must contain the secret.
    assert [request.path for request in leaks] == [aml.databricks_workspace_resource_id]
