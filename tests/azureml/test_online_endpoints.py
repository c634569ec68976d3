"""Online endpoints of the stand-in, tested with MLflow's unpatched plugin: what it deploys is really served.

Each test uses its own endpoint names, because all tests share the stand-in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.scenarios.azureml import online_endpoints
from tests.scenarios.process import ScenarioProcess
from tests.stand_ins.azureml import names


@pytest.fixture(scope="module")
def models(azureml_process) -> ScenarioProcess:
    """A process with the models ``served`` and ``waiting``."""
    azureml_process.run(online_endpoints.register_models)
    return azureml_process


@pytest.fixture(scope="module")
def blue_and_green(models) -> None:
    """An endpoint with the deployments blue, which doubles, and green, which triples; without traffic."""
    models.run(online_endpoints.deploy_blue_and_green)


@pytest.fixture
def process(aml, models) -> Iterator[ScenarioProcess]:
    yield models
    aml.faults.clear()


def test_the_plugin_deploys_a_model_splits_traffic_and_takes_everything_away(process):
    answers = process.run(online_endpoints.deploy_with_the_plugin)
    properties = answers["created"]["properties"]
    assert properties["provisioningState"] == "Succeeded" and properties["instanceType"] == "Standard_DS2_v2"
    assert answers["without_traffic"][0].startswith("HttpResponseError: No valid deployments to route to.")
    assert answers["without_traffic"][1] == answers["with_traffic"] == [2, 4]
    assert answers["updated"] == [3, 6]
    assert answers["endpoint"]["tags"] == {"team": "blue"}
    assert answers["endpoint"]["properties"]["traffic"] == {"blue": 100}
    assert [item["properties"]["model"].rpartition("/")[2] for item in answers["deployments"]] == ["2"]
    assert answers["no_endpoint"].startswith("ResourceNotFoundError: (ResourceNotFound)")
    assert answers["no_deployment"].startswith("MlflowException: ")
    assert answers["no_deployments"].startswith("MlflowException: ")
    assert answers["left"] == []
    assert answers["gone"].startswith("ResourceNotFoundError")


def test_endpoints_and_deployments_are_listed_page_by_page(process, blue_and_green):
    answers = process.run(online_endpoints.list_page_by_page)
    assert {"listed-1", "listed-2", online_endpoints.BOTH} <= set(answers["endpoints"]) and answers["page"] == 2
    assert answers["deployments"] == ["blue", "green"]
    assert answers["first"] == "blue"
    assert [item["name"] for item in answers["second"]["value"]] == ["green"] and "nextLink" not in answers["second"]


def test_a_deployment_is_in_state_creating_until_its_server_answers(process):
    answers = process.run(online_endpoints.deploy_while_the_model_does_not_load)
    assert answers["put"] == [201, "Creating"] and answers["state"] == "Creating" and answers["twice"] == 409
    assert answers["statuses"][0] == "InProgress" and answers["statuses"][-1] == "Succeeded"
    assert answers["deleted"] == [202, 404, 204]


def test_traffic_is_split_by_weight_and_no_request_fails_while_it_changes(process, blue_and_green):
    answers = process.run(online_endpoints.split_traffic)
    blue, green = [200, "blue", 2], [200, "green", 3]
    assert answers["half"].count(blue) > 10 and answers["half"].count(green) > 10
    assert all(answer in (blue, green) for answer in answers["half"] + answers["during"])
    assert answers["put"] == "Succeeded" and answers["all_green"] == [green] * 10
    assert answers["picked"] == blue and answers["unknown"] == 404
    assert "has traffic" in str(answers["with_traffic"])


def test_keys_and_tokens_are_checked_where_a_model_scores(process, blue_and_green):
    answers = process.run(online_endpoints.ask_with_keys_and_tokens)
    assert answers["keys"] == [200, 200, 401, 401]
    # These endpoints have no deployment of that name; a 404 means that the key or token was accepted.
    assert answers["tokens"] == [404, 401, 401] and answers["identities"] == [404, 401, 403]
    assert answers["keys_of_token"] == answers["token_of_key"] == 400
    assert answers["for_arm"] == answers["swagger"] == 401
    assert answers["forbidden"]["code"] == "AuthorizationFailed"
    assert "workspaces/onlineEndpoints/listKeys/action'" in answers["forbidden"]["message"]


def test_what_aml_refuses_is_refused_before_anything_starts(process):
    refusals = process.run(online_endpoints.deploy_what_is_refused)
    status, parent = refusals["answers"].pop("parent")
    assert status == 404 and parent["code"] == "ParentResourceNotFound"
    for status, error in refusals["answers"].values():
        assert status == 400 and error["code"] == "BadRequest"
        assert error["details"][0]["code"] == "InferencingClientCallFailed"
    details = {name: error["details"][0]["message"] for name, (_, error) in refusals["answers"].items()}
    reasons = {name: json.loads(detail)["errors"] for name, detail in details.items()}
    limit = f"/{names.CORE_QUOTA}. Additional needed: 128"
    assert limit in reasons["quota"]["VmSize"][0] and limit in refusals["plugin"]
    assert refusals["plugin"].splitlines()[0] == "HttpResponseError: (BadRequest) The request is invalid."
    assert list(reasons["instance_type"]) == ["VmSize"] and "AuthMode" in reasons["other_mode"]
    assert "Endpoint name '1st'" in reasons["endpoint_name"]["Name"][0]
    assert refusals["deployments"] == {"value": []}


@pytest.mark.parametrize(
    ("version", "reason"), [("3", "zip"), ("4", "ModuleNotFoundError: No module named 'azureml.ai'")]
)
def test_a_model_that_does_not_load_fails_with_its_log_and_gets_no_request(process, version, reason):
    answers = process.run(online_endpoints.deploy_a_model_that_does_not_load, version)
    assert answers["failed"].startswith("HttpResponseError: (None) ResourceNotReady: User container has crashed")
    assert answers["state"] == "Failed"
    assert "Traceback (most recent call last)" in answers["log"]
    assert reason in answers["log"] and answers["log"].endswith(answers["tail"]) and answers["initializer"] == ""
    assert "unrecoverable state" in answers["again"] and answers["asked"] == 404 and answers["traffic"] == 400
    assert answers["deleted"] == "Succeeded"


def test_a_failed_update_leaves_the_model_that_was_served(process, blue_and_green):
    answers = process.run(online_endpoints.fail_to_update)
    assert answers["failed"]["code"] is None and answers["failed"]["message"].startswith("ResourceNotReady")
    assert [round(value) for value in answers["predictions"]] == [2]
    assert answers["state"] == "Failed" and answers["mended"] == "Succeeded"


def test_a_payload_that_is_wrong_is_told_apart_from_one_that_the_model_refuses(process, blue_and_green):
    answers = process.run(online_endpoints.send_wrong_payloads)
    assert [status for status, _ in answers["answers"]] == [400, 400, 424, 424]
    assert "'input_data'" in answers["answers"][0][1] and "missing inputs ['x']" in answers["answers"][2][1]
    assert answers["container"] == "400" and "missing inputs ['x']" in answers["plugin"]
    assert [[round(value) for value in values] for values in answers["tensors"]] == [[2], [2]]


def test_a_deleted_deployment_answers_what_it_was_asked_before(process):
    answers = process.run(online_endpoints.delete_while_a_request_is_answered)
    assert answers["state"] == "Deleting" and not answers["answered_meanwhile"] and answers["refused"] == 404
    assert answers["answer"] == [200, [7.0]]
    assert answers["ended"] == "Succeeded" and answers["after"] == 404


def test_faults_meet_changes_logs_and_scoring_too(aml, process, blue_and_green):
    before = len(aml.requests())
    aml.faults.add("PATCH .*/onlineEndpoints/blue-and-green", 500, times=1)
    aml.faults.add("POST /online/blue-and-green/score", 500, times=1)
    aml.faults.add("mfeOperationsStatus", 503, times=1, retry_after=0)
    aml.faults.add("POST .*/deployments/blue/getLogs", 429)
    answers = process.run(online_endpoints.change_and_ask_while_requests_fail)
    assert "The stand-in was told to answer 500" in answers["failed"] and answers["predictions"] == [3, 6]
    assert answers["logs"] == 429
    changes = [request for request in aml.requests()[before:] if request.method == "PATCH"]
    assert [request.status for request in changes][:2] == [500, 202]
