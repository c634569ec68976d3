"""The link of the Databricks workspace: shown, set once, never replaced, and refused where Azure has none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azureml.client import ARM, Client
from tests.azureml.stand_in import AzureMLStandIn


@pytest.fixture(scope="module")
def aml(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureMLStandIn]:
    with AzureMLStandIn.start(tmp_path_factory.mktemp("aml")) as stand_in:
        yield stand_in


@pytest.fixture
def databricks(aml: AzureMLStandIn) -> str:
    return aml.databricks_workspace_resource_id


@pytest.fixture
def client(aml: AzureMLStandIn, tmp_path: Path) -> Iterator[LinkClient]:
    yield LinkClient(aml, tmp_path)
    aml.faults.clear()


class LinkClient(Client):
    """Runs scripts that know the AML workspace as a notebook does, on a laptop without Databricks."""

    def __init__(self, aml: AzureMLStandIn, folder: Path) -> None:
        super().__init__(aml, folder)
        self._connect = f"""
import dataclasses
from helpers import azureml, parameters
from tests.azureml.stand_in import AzureMLStandIn
faults = AzureMLStandIn(Path({str(aml.folder)!r}), {aml.url!r}).faults
values = {{name: parameters.default_text(name) for name in parameters.TRACKING}}
workspace = azureml.connect(parameters.parse(values | {{"azureml_tracking_uri": {aml.tracking_uri!r}}}))
link = azureml.workspace_link

def set_link(path, aml_workspace=None):
    # As others would do it; with nothing, the link is taken away.
    resource = arm("GET", path)[1]
    resource["properties"]["parameters"].pop("amlWorkspaceId", None)
    if aml_workspace:
        resource["properties"]["parameters"]["amlWorkspaceId"] = {{"value": aml_workspace}}
    return arm("PUT", path, resource)[0]
"""

    def run(self, code: str, **environment: str) -> dict:
        """Return what the script answered; no variable of this process names a Databricks workspace."""
        none = {"DATABRICKS_HOST": "", "DATABRICKS_CONFIG_FILE": "/dev/null"}
        return super().run(ARM, self._connect, code, **none | environment)


def puts(aml: AzureMLStandIn) -> list:
    return [request for request in aml.requests("Microsoft.Databricks") if request.method == "PUT"]


def test_a_workspace_found_by_its_address_is_shown_linked_once_and_keeps_everything_else(aml, databricks, client):
    found = client.run(
        f"""
        path = {databricks!r}
        set_link(path)
        arm("PATCH", path, {{"tags": {{"team": "blue"}}}})
        before = arm("GET", path)[1]
        shown = link(workspace)
        unchanged = arm("GET", path)[1] == before
        linked = link(workspace, link=True)
        after = arm("GET", path)[1]
        answer(
            before=before, shown=shown, unchanged=unchanged, linked=linked, after=after,
            again=link(workspace, link=True), shown_again=link(workspace, path),
        )
        """,
        DATABRICKS_HOST=aml.url,
        DATABRICKS_TOKEN="dapi-stand-in-token",
    )
    assert found["shown"] == f"The Databricks workspace dbx is not linked to {aml.workspace_resource_id}."
    assert found["unchanged"]
    assert found["linked"] == f"The Databricks workspace dbx is now linked to {aml.workspace_resource_id}."
    assert found["again"] == f"The Databricks workspace dbx is already linked to {aml.workspace_resource_id}."
    assert found["shown_again"] == f"The Databricks workspace dbx is linked to {aml.workspace_resource_id}."

    before, after = found["before"], found["after"]
    parameters = after["properties"].pop("parameters")
    assert parameters.pop("amlWorkspaceId") == {"value": aml.workspace_resource_id}
    earlier = before["properties"].pop("parameters")
    assert earlier and {name: item["value"] for name, item in earlier.items()} == {
        name: item["value"] for name, item in parameters.items()
    }
    assert after == before and after["tags"] == {"team": "blue"}

    # The first PUT took the link away, the second set it, and there is no third.
    _, put = puts(aml)
    sent = json.loads(put.body)
    assert sent["location"] == before["location"] and sent["sku"] == before["sku"]
    assert sent["properties"]["managedResourceGroupId"] == before["properties"]["managedResourceGroupId"]
    assert not {"id", "name", "type"} & sent.keys()
    assert not {"provisioningState", "workspaceUrl", "workspaceId"} & sent["properties"].keys()


def test_where_linking_is_not_supported_it_is_said_and_refused_with_what_to_use_instead(aml, databricks, client):
    before = len(puts(aml))
    found = client.run(
        f"""
        set_link({databricks!r})
        china = dataclasses.replace(workspace, cloud="AzureChinaCloud")
        private = dataclasses.replace(workspace, resource_id={aml.private_workspace_resource_id!r})
        known = {{
            name: [link(aml, path), error(link, aml, path, True)]
            for name, aml, path in [
                # By its address, which is on the list's second page.
                ("private Databricks", workspace, ""),
                ("private Azure ML", private, {databricks!r}),
                ("21Vianet", china, {databricks!r}),
            ]
        }}
        faults.add("PUT .*Microsoft.Databricks", 400)
        answer(known=known, refused_by_azure=error(link, workspace, {databricks!r}, True))
        """,
        DATABRICKS_HOST=aml.url.replace("127.0.0.1", "localhost"),
        NO_PROXY="127.0.0.1,localhost",
        DATABRICKS_TOKEN="dapi-stand-in-token",
    )
    reasons = {
        "private Databricks": "private link, which the Databricks workspace dbx-private has",
        "private Azure ML": "private link, which the Azure ML workspace ml-private has",
        "21Vianet": "21Vianet",
    }
    assert found["known"].keys() == reasons.keys()
    for name, (shown, refused) in found["known"].items():
        assert "is not linked, and cannot be" in shown
        assert refused.startswith("ParameterError: link_workspaces=True: linking is not supported")
        for line in (shown, refused):
            assert reasons[name] in line and "use tracking_mode=azureml or model_registry=azureml" in line
            assert "\n" not in line
    assert found["refused_by_azure"].startswith("AzureError") and "answered 400" in found["refused_by_azure"]
    assert "use tracking_mode=azureml or model_registry=azureml" in found["refused_by_azure"]
    # The one that took the link away, and the one that Azure refused.
    assert [put.status for put in puts(aml)[before:]] == [200, 400]


def test_the_link_of_another_workspace_is_shown_and_not_replaced(databricks, aml, client):
    other = aml.workspace_resource_id.replace(aml.workspace, "others")
    found = client.run(
        f"""
        set_link({databricks!r}, {other!r})
        shown, refused = link(workspace, {databricks!r}), error(link, workspace, {databricks!r}, True)
        answer(shown=shown, refused=refused, after=arm("GET", {databricks!r})[1]["properties"]["parameters"])
        """
    )
    assert found["shown"] == f"The Databricks workspace dbx is linked to another Azure ML workspace: {other}."
    assert found["refused"].startswith("ParameterError: link_workspaces=True")
    assert other in found["refused"] and "azureml_workspace=others" in found["refused"]
    assert found["after"]["amlWorkspaceId"] == {"value": other}


def test_without_a_workspace_to_link_it_is_said_and_asking_for_the_link_is_refused(aml, databricks, client):
    found = client.run(
        f"""
        from http.server import HTTPServer, SimpleHTTPRequestHandler
        from threading import Thread
        no_databricks = [link(workspace), error(link, workspace, link=True)]
        elsewhere = HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
        Thread(target=elsewhere.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{{elsewhere.server_port}}"
        os.environ |= {{"DATABRICKS_HOST": f"http://{{address}}", "DATABRICKS_TOKEN": "dapi-stand-in-token"}}
        answer(
            no_databricks=no_databricks,
            address=address, elsewhere=[link(workspace), error(link, workspace, link=True)],
            no_azureml=[link(None), error(link, None, link=True)],
            unknown=[error(link, workspace, {databricks!r} + "-2", asked) for asked in (False, True)],
        )
        """
    )
    shown, refused = found["no_databricks"]
    assert shown.startswith("The link cannot be shown: no Databricks workspace is configured here")
    assert refused.startswith("ParameterError: link_workspaces=True: no Databricks workspace is configured here")
    assert "databricks_resource_id" in refused
    missing = f"no Databricks workspace {found['address']} can be read in the subscription {aml.subscription_id}"
    for line in found["elsewhere"]:
        assert missing in line and "set databricks_resource_id" in line
    shown, refused = found["no_azureml"]
    assert shown.startswith("No Azure ML workspace is used")
    assert refused.startswith("ParameterError: link_workspaces=True") and "tracking_mode=azureml" in refused
    for line in found["unknown"]:
        assert line.startswith(f"ParameterError: databricks_resource_id='{databricks}-2'")
        assert "ResourceNotFound" in line and "\n" not in line


def test_without_a_role_the_link_is_not_seen_and_not_set_and_one_line_names_the_role(aml, databricks, client):
    found = client.run(
        f"""
        set_link({databricks!r})
        faults.add("PUT .*Microsoft.Databricks", 403)
        unwritten = error(link, workspace, {databricks!r}, True)
        faults.add("GET .*Microsoft.Databricks", 403)
        answer(
            unwritten=unwritten, unseen=link(workspace, {databricks!r}),
            unread=error(link, workspace, {databricks!r}, True),
        )
        """
    )
    assert found["unseen"].startswith("The link cannot be shown") and "role Reader" in found["unseen"]
    for line in (found["unread"], found["unwritten"]):
        assert line.startswith("AzureError: No permission to link the Databricks workspace (403")
        assert "role Contributor" in line and "how-to-use-mlflow-azure-databricks" in line
        assert "\n" not in line
