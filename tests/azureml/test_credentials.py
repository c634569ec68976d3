"""Signing in to Azure with the unpatched azure-identity: what works, what is refused, and what stays secret."""

from __future__ import annotations

import json
import os
import urllib.parse
import urllib.request
from collections.abc import Iterator
from ssl import create_default_context

import pytest

from tests.scenarios.azureml.connect import be_a_job_on_databricks, connect, log_and_register_a_run, refusal
from tests.scenarios.process import ScenarioProcess
from tests.stand_ins.azureml import names
from tests.stand_ins.azureml_workspace import AzureMLStandIn

# azure-identity renews a token five minutes before it expires, so it renews these for each call.
TOKEN_LIFETIME = 200
SERVICE_PRINCIPAL = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
NO_SERVICE_PRINCIPAL = dict.fromkeys(SERVICE_PRINCIPAL)


@pytest.fixture(scope="module")
def aml(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureMLStandIn]:
    with AzureMLStandIn.start(tmp_path_factory.mktemp("aml"), TOKEN_LIFETIME) as stand_in:
        yield stand_in


def environment(aml: AzureMLStandIn) -> dict[str, str]:
    """Return a notebook's environment on a machine without Azure's tools, with the stand-in as metadata service."""
    own = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "TMPDIR")}
    return own | aml.environment() | {"AZURE_POD_IDENTITY_AUTHORITY_HOST": aml.url, "PATH": "/nowhere"}


@pytest.fixture(scope="module")
def notebook(aml: AzureMLStandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScenarioProcess]:
    with ScenarioProcess.start(tmp_path_factory.mktemp("notebook"), environment(aml)) as process:
        yield process


@pytest.fixture
def new_requests(aml: AzureMLStandIn):
    """Return the requests of this test whose path contains a text."""
    before = len(aml.requests())
    yield lambda path: [request for request in aml.requests()[before:] if path in request.path]
    aml.faults.clear()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"AZURE_CLIENT_SECRET": "wrong~secret"}, ["AADSTS7000215", "the client secret is wrong", "not its id"]),
        ({"AZURE_CLIENT_SECRET": names.EXPIRED_SECRET}, ["AADSTS7000222", "has expired", "make a new one"]),
        ({"AZURE_CLIENT_ID": "11111111-aaaa-4aaa-8aaa-00000000000f"}, ["AADSTS700016", "no application"]),
    ],
)
def test_a_refused_service_principal_gives_one_line_after_one_attempt(notebook, new_requests, changes, parts):
    error = notebook.run(refusal, environment=changes)
    assert error.startswith("AzureError: Azure: sign-in with the service principal of AZURE_TENANT_ID, AZURE_CLIENT_ID")
    assert "\n" not in error
    assert all(part in error for part in parts)
    assert [request.status for request in new_requests("/oauth2/token")] in ([400], [401])
    output = notebook.output_file.read_text()
    assert all(secret not in output for secret in ("wrong~secret", names.EXPIRED_SECRET, names.CLIENT_SECRET))
    assert "Attempted credentials" not in output


def test_a_tenant_that_does_not_exist_gives_one_line(aml, notebook, new_requests):
    aml.faults.add("openid-configuration", 400)
    error = notebook.run(refusal)
    assert "AADSTS90002" in error and "there is no such tenant" in error and "\n" not in error
    assert len(new_requests("openid-configuration")) == 1


def test_a_sign_in_that_is_down_is_tried_four_times(aml, notebook, new_requests):
    aml.faults.add("POST /adfs/oauth2/token", "drop")
    error = notebook.run(refusal)
    assert error.startswith("AzureError: Azure: Microsoft Entra ID cannot be reached (") and "\n" not in error
    assert len(new_requests("/oauth2/token")) == 4


def test_a_job_without_credentials_names_what_is_missing_and_does_not_sign_in(aml, notebook, new_requests, tmp_path):
    aml.faults.add("GET /metadata/identity", "drop")
    job = {"BUNDLE_TASK_VALUES": str(tmp_path / "values.json")}
    error = notebook.run(refusal, environment=NO_SERVICE_PRINCIPAL | job)
    missing = "AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET not set; "
    assert error.startswith(f"AzureError: Azure: no usable credentials ({missing}")
    assert "no response from the IMDS endpoint; AzureCliCredential: Azure CLI not found" in error and "\n" not in error
    assert "spark_env_vars" in error and "azureml_secret_scope" in error
    assert len(new_requests("/metadata/identity")) == 4
    assert new_requests("/adfs/") == []


def test_a_variable_that_is_missing_or_empty_is_named(aml, notebook, new_requests):
    aml.faults.add("GET /metadata/identity", 400)
    error = notebook.run(refusal, environment={"AZURE_CLIENT_SECRET": None})
    assert "no usable credentials (AZURE_CLIENT_SECRET not set; " in error
    error = notebook.run(refusal, environment={"AZURE_CLIENT_SECRET": ""})
    assert "AZURE_CLIENT_SECRET" in error and "cannot be used" in error and "\n" not in error


def test_the_machines_managed_identity_signs_in(aml, notebook, new_requests):
    assert notebook.run(connect, environment=NO_SERVICE_PRINCIPAL)["name"] == aml.workspace
    chosen = {"AZURE_CLIENT_ID": names.MANAGED_IDENTITY_CLIENT_ID}
    assert notebook.run(connect, environment=NO_SERVICE_PRINCIPAL | chosen)["name"] == aml.workspace
    assert {request.status for request in new_requests("/metadata/identity")} == {200}
    assert new_requests("/adfs/") == []


def test_the_azure_cli_signs_in_where_there_is_no_managed_identity(aml, notebook, new_requests, tmp_path):
    aml.faults.add("GET /metadata/identity", 400)
    # The CLI's output: https://learn.microsoft.com/cli/azure/account#az-account-get-access-token
    printed = {"accessToken": token(aml), "expiresOn": "2999-01-01 00:00:00.000000", "tokenType": "Bearer"}
    cli = tmp_path / "az"
    cli.write_text(f"#!/bin/sh\n[ \"$1 $2\" = 'account get-access-token' ] && echo '{json.dumps(printed)}'\n")
    cli.chmod(0o755)
    only_cli = NO_SERVICE_PRINCIPAL | {"PATH": str(tmp_path)}
    assert notebook.run(connect, environment=only_cli)["name"] == aml.workspace
    cli.write_text("#!/bin/sh\necho \"ERROR: Please run 'az login' to setup account.\" >&2\nexit 1\n")
    error = notebook.run(refusal, environment=only_cli)
    assert "AzureCliCredential: Please run 'az login' to set up an account" in error
    # The test signs in itself, for the token that the CLI prints.
    assert len(new_requests("/adfs/")) == 1


def test_somebody_at_the_notebook_can_sign_in_and_in_a_job_nobody_is_asked(aml, notebook, new_requests, tmp_path):
    aml.faults.add("GET /metadata/identity", 400)
    # The stand-in's only tenant, without a client secret.
    person = NO_SERVICE_PRINCIPAL | {"AZURE_TENANT_ID": names.TENANT}
    job = {"BUNDLE_TASK_VALUES": str(tmp_path / "values.json")}
    error = notebook.run(refusal, azureml_sign_in="device_code", environment=person | job)
    assert error.startswith("ParameterError: azureml_sign_in='device_code': nobody is there to sign in during a job")
    assert new_requests("/adfs/") == new_requests("/metadata/identity") == []
    assert notebook.run(connect, azureml_sign_in="device_code", environment=person)["name"] == aml.workspace
    assert len(new_requests("/devicecode")) == 1
    assert "enter the code STANDIN1" in notebook.output_file.read_text()


def test_a_secret_scope_alone_serves_a_whole_run_and_its_secret_is_left_nowhere(aml, new_requests, tmp_path):
    cluster = environment(aml) | {"IPYTHONDIR": str(tmp_path / "ipython")}
    cluster = {name: value for name, value in cluster.items() if name not in SERVICE_PRINCIPAL}
    scope = {"azure-tenant-id": names.TENANT, "azure-client-id": aml.client_id}
    with ScenarioProcess.start(tmp_path / "notebook", cluster) as notebook:
        # With the line end that `databricks secrets put-secret` keeps when it reads a file.
        notebook.run(be_a_job_on_databricks, {"azureml": scope | {"azure-client-secret": f"{aml.client_secret}\n"}})
        missing = notebook.run(refusal, azureml_secret_scope="other")
        run = notebook.run(log_and_register_a_run, azureml_secret_scope="azureml")
        notebook.run(be_a_job_on_databricks, {"azureml": scope | {"azure-client-secret": "wrong~secret"}})
        wrong = notebook.run(refusal, azureml_secret_scope="azureml")
    assert missing.startswith("ParameterError: azureml_secret_scope='other': its key 'azure-tenant-id'")
    assert "Secret does not exist" in missing and "\n" not in missing
    assert "with the service principal of secret scope 'azureml' refused (AADSTS7000215)" in wrong
    assert run == {"in_job": True, "metric": 0.5, "artifact": "flavors: {}", "version": ["1", True]}
    # The token was renewed meanwhile, and no other service was asked for one.
    assert [request.status for request in new_requests("/oauth2/token")].count(200) > 2
    assert new_requests("/metadata/identity") == [] and new_requests("/devicecode") == []
    left = [file for folder in (aml.folder, tmp_path) for file in folder.rglob("*") if file.is_file()]
    assert {"output.txt", "requests.jsonl", "MLmodel"} <= {file.name for file in left}
    for text in (aml.client_secret, "wrong~secret", token(aml)[:20]):
        assert [str(file) for file in left if text.encode() in file.read_bytes()] == []


def token(aml: AzureMLStandIn) -> str:
    """Sign in as the service principal, and return the token."""
    form = {"grant_type": "client_credentials", "client_id": aml.client_id, "client_secret": aml.client_secret}
    body = urllib.parse.urlencode(form).encode()
    trusting = create_default_context(cafile=aml.ca_file)
    with urllib.request.urlopen(f"{aml.url}/{names.TENANT}/oauth2/token", body, context=trusting) as answer:
        return json.load(answer)["access_token"]
