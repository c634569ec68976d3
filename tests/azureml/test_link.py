"""The link of the Databricks workspace: shown, set once, never replaced, and refused where Azure does not support it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.azureml import link
from tests.scenarios.process import ScenarioProcess
from tests.stand_ins.azureml_workspace import AzureMLStandIn

TOKEN = "dapi-stand-in-token"


@pytest.fixture(scope="module")
def aml(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureMLStandIn]:
    with AzureMLStandIn.start(tmp_path_factory.mktemp("aml")) as stand_in:
        yield stand_in


@pytest.fixture
def run(aml: AzureMLStandIn, tmp_path: Path):
    """Run a scenario in its own process, since the helpers look up the Databricks workspace only once per process.

    There is no Databricks workspace unless the test names one.
    """
    no_databricks = {"DATABRICKS_HOST": "", "DATABRICKS_CONFIG_FILE": "/dev/null"}
    with ScenarioProcess.start(tmp_path, os.environ | aml.environment() | no_databricks) as process:
        yield lambda scenario, **environment: process.run(scenario, environment=environment)
    aml.faults.clear()


@pytest.fixture
def puts(aml: AzureMLStandIn):
    """Return the requests of this test that change a Databricks workspace."""
    before = len(aml.requests())

    def requests_so_far() -> list:
        received = aml.requests()[before:]
        return [request for request in received if request.method == "PUT" and "Microsoft.Databricks" in request.path]

    return requests_so_far


def test_a_workspace_found_by_its_address_is_shown_linked_once_and_keeps_everything_else(aml, run, puts):
    answers = run(link.show_set_and_set_again, DATABRICKS_HOST=aml.url, DATABRICKS_TOKEN=TOKEN)
    assert answers["shown"] == f"The Databricks workspace dbx is not linked to {aml.workspace_resource_id}."
    assert answers["unchanged"]
    assert answers["linked"] == f"The Databricks workspace dbx is now linked to {aml.workspace_resource_id}."
    assert answers["again"] == f"The Databricks workspace dbx is already linked to {aml.workspace_resource_id}."
    assert answers["shown_again"] == f"The Databricks workspace dbx is linked to {aml.workspace_resource_id}."

    before, after = answers["before"], answers["after"]
    parameters = after["properties"].pop("parameters")
    assert parameters.pop("amlWorkspaceId") == {"value": aml.workspace_resource_id}
    earlier = before["properties"].pop("parameters")
    assert earlier and {name: item["value"] for name, item in earlier.items()} == {
        name: item["value"] for name, item in parameters.items()
    }
    assert after == before and after["tags"] == {"team": "blue"}

    # The first PUT removed the link, the second set it, and there is no third.
    _, put = puts()
    sent = json.loads(put.body)
    assert sent["location"] == before["location"] and sent["sku"] == before["sku"]
    assert sent["properties"]["managedResourceGroupId"] == before["properties"]["managedResourceGroupId"]
    assert not {"id", "name", "type"} & sent.keys()
    assert not {"provisioningState", "workspaceUrl", "workspaceId"} & sent["properties"].keys()


def test_where_linking_is_not_supported_the_refusal_says_why_and_what_to_use_instead(aml, run, puts):
    address = aml.url.replace("127.0.0.1", "localhost")
    answers = run(
        link.link_where_it_is_not_supported,
        DATABRICKS_HOST=address,
        NO_PROXY="127.0.0.1,localhost",
        DATABRICKS_TOKEN=TOKEN,
    )
    reasons = {
        "private Databricks": "private link, which the Databricks workspace dbx-private has",
        "private Azure ML": "private link, which the Azure ML workspace ml-private has",
        "21Vianet": "21Vianet",
    }
    assert answers["known"].keys() == reasons.keys()
    for name, (shown, refused) in answers["known"].items():
        assert "is not linked, and cannot be" in shown
        assert refused.startswith("ParameterError: link_workspaces=True: linking is not supported")
        for line in (shown, refused):
            assert reasons[name] in line and "use tracking_mode=azureml or model_registry=azureml" in line
            assert "\n" not in line
    refusal = answers["refused_by_azure"]
    assert refusal.startswith("AzureError") and "answered 400" in refusal
    assert "use tracking_mode=azureml or model_registry=azureml" in refusal
    # The PUT that removed the link, and the one that Azure refused.
    assert [put.status for put in puts()] == [200, 400]


def test_the_link_of_another_workspace_is_shown_and_not_replaced(run):
    answers = run(link.replace_the_link_of_another_workspace)
    other = link.OTHER_WORKSPACE
    assert answers["shown"] == f"The Databricks workspace dbx is linked to another Azure ML workspace: {other}."
    assert answers["refused"].startswith("ParameterError: link_workspaces=True")
    assert other in answers["refused"] and "azureml_workspace=others" in answers["refused"]
    assert answers["after"]["amlWorkspaceId"] == {"value": other}


def test_without_a_workspace_to_link_the_line_says_so_and_asking_for_the_link_is_refused(aml, run):
    answers = run(link.link_without_a_workspace)
    shown, refused = answers["no_databricks"]
    assert shown.startswith("The link cannot be shown: no Databricks workspace is configured here")
    assert refused.startswith("ParameterError: link_workspaces=True: no Databricks workspace is configured here")
    assert "databricks_resource_id" in refused
    missing = f"no Databricks workspace {answers['address']} can be read in the subscription {aml.subscription_id}"
    for line in answers["unknown_address"]:
        assert missing in line and "set databricks_resource_id" in line
    shown, refused = answers["no_azureml"]
    assert shown.startswith("No Azure ML workspace is used")
    assert refused.startswith("ParameterError: link_workspaces=True") and "tracking_mode=azureml" in refused
    for line in answers["unknown_id"]:
        assert line.startswith(f"ParameterError: databricks_resource_id='{link.DATABRICKS}-2'")
        assert "ResourceNotFound" in line and "\n" not in line


def test_without_a_role_the_link_is_not_seen_and_not_set_and_one_line_names_the_role(run):
    answers = run(link.link_without_a_role)
    assert answers["unseen"].startswith("The link cannot be shown") and "role Reader" in answers["unseen"]
    for line in (answers["unread"], answers["unwritten"]):
        assert line.startswith("AzureError: No permission to link the Databricks workspace (403")
        assert "role Contributor" in line and "how-to-use-mlflow-azure-databricks" in line
        assert "\n" not in line
