"""Who signs in to Azure, with the unpatched azure-identity: what works, what is refused, and what is never shown."""

from __future__ import annotations

import json
import os
import urllib.parse
import urllib.request
from collections.abc import Iterator
from ssl import create_default_context

import pytest

from tests.azureml import names
from tests.azureml.python_process import PythonProcess
from tests.azureml.stand_in import AzureMLStandIn

# azure-identity renews a token five minutes before it expires, so these are renewed for each call.
TOKEN_LIFETIME = 200
SERVICE_PRINCIPAL = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
NO_SERVICE_PRINCIPAL = dict.fromkeys(SERVICE_PRINCIPAL)
CONNECT = """
import json, os
from helpers import azureml, parameters, runtime

defaults = {name: parameters.FIELDS[name].default for name in parameters.TRACKING}
p = parameters.parse(defaults | json.loads(os.environ["PARAMETERS"]))
answer(workspace=azureml.connect(p).name)
"""


@pytest.fixture(scope="module")
def aml(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureMLStandIn]:
    with AzureMLStandIn.start(tmp_path_factory.mktemp("aml"), TOKEN_LIFETIME) as stand_in:
        yield stand_in


def environment(aml: AzureMLStandIn, **parameters: str) -> dict[str, str]:
    """A notebook's, on a machine with no tool of Azure's, whose metadata service is the stand-in."""
    given = {"azureml_subscription_id": aml.subscription_id, "azureml_resource_group": aml.resource_group}
    given |= {"tracking_mode": "azureml", "azureml_workspace": aml.workspace} | parameters
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "TMPDIR")}
    extra = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": aml.url, "PATH": "/nowhere", "PARAMETERS": json.dumps(given)}
    return kept | aml.environment() | extra


@pytest.fixture(scope="module")
def notebook(aml: AzureMLStandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PythonProcess]:
    with PythonProcess.start(tmp_path_factory.mktemp("notebook"), environment(aml)) as process:
        yield process


@pytest.fixture
def new_requests(aml: AzureMLStandIn):
    """Return the requests of this test whose path holds a text."""
    before = len(aml.requests())
    yield lambda path: [request for request in aml.requests()[before:] if path in request.path]
    aml.faults.clear()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"AZURE_CLIENT_SECRET": "wrong~secret"}, ["AADSTS7000215", "the client secret is wrong", "not its id"]),
        ({"AZURE_CLIENT_SECRET": names.EXPIRED_SECRET}, ["AADSTS7000222", "has expired", "make a new one"]),
        ({"AZURE_CLIENT_ID": "11111111-aaaa-4aaa-8aaa-00000000000f"}, ["AADSTS700016", "no application"]),
    ],
)
def test_a_refused_service_principal_is_told_in_one_line_after_one_try(aml, notebook, new_requests, changes, told):
    error = notebook.run(CONNECT, **changes)["error"]
    assert error.startswith("AzureError: Azure: sign-in with the service principal of AZURE_TENANT_ID, AZURE_CLIENT_ID")
    assert "\n" not in error
    assert all(part in error for part in told)
    assert [request.status for request in new_requests("/oauth2/token")] in ([400], [401])
    output = notebook.output_file.read_text()
    assert all(secret not in output for secret in ("wrong~secret", names.EXPIRED_SECRET, names.CLIENT_SECRET))
    assert "Attempted credentials" not in output


def test_a_tenant_that_does_not_exist_is_told_in_one_line(aml, notebook, new_requests):
    aml.faults.add("openid-configuration", 400)
    error = notebook.run(CONNECT)["error"]
    assert "AADSTS90002" in error and "there is no such tenant" in error and "\n" not in error
    assert len(new_requests("openid-configuration")) == 1


def test_a_sign_in_that_is_down_is_tried_four_times(aml, notebook, new_requests):
    aml.faults.add("POST /adfs/oauth2/token", "drop")
    error = notebook.run(CONNECT)["error"]
    assert error.startswith("AzureError: Azure: Microsoft Entra ID cannot be reached (") and "\n" not in error
    assert len(new_requests("/oauth2/token")) == 4


def test_a_job_without_credentials_is_told_what_is_missing_and_asks_nobody(aml, notebook, new_requests, tmp_path):
    aml.faults.add("GET /metadata/identity", "drop")
    job = {"BUNDLE_TASK_VALUES": str(tmp_path / "values.json")}
    error = notebook.run(CONNECT, **NO_SERVICE_PRINCIPAL, **job)["error"]
    missing = "AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET not set; "
    assert error.startswith(f"AzureError: Azure: no usable credentials ({missing}")
    assert "no response from the IMDS endpoint; AzureCliCredential: Azure CLI not found" in error and "\n" not in error
    assert "spark_env_vars" in error and "azureml_secret_scope" in error
    assert len(new_requests("/metadata/identity")) == 4
    assert new_requests("/adfs/") == []


def test_a_variable_that_is_missing_or_empty_is_named(aml, notebook, new_requests):
    aml.faults.add("GET /metadata/identity", 400)
    error = notebook.run(CONNECT, AZURE_CLIENT_SECRET=None)["error"]
    assert "no usable credentials (AZURE_CLIENT_SECRET not set; " in error
    error = notebook.run(CONNECT, AZURE_CLIENT_SECRET="")["error"]
    assert "AZURE_CLIENT_SECRET" in error and "cannot be used" in error and "\n" not in error


def test_the_machines_managed_identity_signs_in(aml, notebook, new_requests):
    assert notebook.run(CONNECT, **NO_SERVICE_PRINCIPAL) == {"workspace": aml.workspace}
    chosen = {"AZURE_CLIENT_ID": names.MANAGED_IDENTITY_CLIENT_ID}
    assert notebook.run(CONNECT, **NO_SERVICE_PRINCIPAL | chosen) == {"workspace": aml.workspace}
    assert {request.status for request in new_requests("/metadata/identity")} == {200}
    assert new_requests("/adfs/") == []


def test_the_azure_cli_signs_in_where_there_is_no_managed_identity(aml, notebook, new_requests, tmp_path):
    aml.faults.add("GET /metadata/identity", 400)
    # What it prints: https://learn.microsoft.com/cli/azure/account#az-account-get-access-token
    said = {"accessToken": token(aml), "expiresOn": "2999-01-01 00:00:00.000000", "tokenType": "Bearer"}
    cli = tmp_path / "az"
    cli.write_text(f"#!/bin/sh\n[ \"$1 $2\" = 'account get-access-token' ] && echo '{json.dumps(said)}'\n")
    cli.chmod(0o755)
    assert notebook.run(CONNECT, **NO_SERVICE_PRINCIPAL, PATH=str(tmp_path)) == {"workspace": aml.workspace}
    cli.write_text("#!/bin/sh\necho \"ERROR: Please run 'az login' to setup account.\" >&2\nexit 1\n")
    error = notebook.run(CONNECT, **NO_SERVICE_PRINCIPAL, PATH=str(tmp_path))["error"]
    assert "AzureCliCredential: Please run 'az login' to set up an account" in error
    # The test's own, for the token that the CLI prints.
    assert len(new_requests("/adfs/")) == 1


def test_somebody_at_the_notebook_can_sign_in_and_in_a_job_nobody_is_asked(aml, notebook, new_requests, tmp_path):
    aml.faults.add("GET /metadata/identity", 400)
    asked = {"PARAMETERS": environment(aml, azureml_sign_in="device_code")["PARAMETERS"]}
    # The tenant is the stand-in's only one, and no client secret goes with it.
    person = NO_SERVICE_PRINCIPAL | {"AZURE_TENANT_ID": names.TENANT} | asked
    error = notebook.run(CONNECT, **person, BUNDLE_TASK_VALUES=str(tmp_path / "values.json"))["error"]
    assert error.startswith("ParameterError: azureml_sign_in='device_code': nobody is there to sign in during a job")
    assert new_requests("/adfs/") == new_requests("/metadata/identity") == []
    assert notebook.run(CONNECT, **person) == {"workspace": aml.workspace}
    assert len(new_requests("/devicecode")) == 1
    assert "enter the code STANDIN1" in notebook.output_file.read_text()


DATABRICKS = """
import os
from types import SimpleNamespace

from IPython.core.interactiveshell import InteractiveShell

SECRETS = {"azure-tenant-id": "adfs", "azure-client-id": os.environ["CLIENT_ID"]}

def get_secret(scope, key):
    if (scope, key) == ("azureml", "azure-client-secret"):
        # As `databricks secrets put-secret` takes it from a file.
        return os.environ["SECRET_IN_SCOPE"] + "\\n"
    if scope != "azureml" or key not in SECRETS:
        reason = f"java.lang.IllegalArgumentException: Secret does not exist with scope: {scope} and key: {key}"
        raise RuntimeError(f"An error occurred while calling o1.get.\\n: {reason}\\n\\tat com.databricks")
    return SECRETS[key]

context = SimpleNamespace(safeToJson=lambda: '{"attributes": {"jobId": "7"}}')
entry_point = SimpleNamespace(
    getDbutils=lambda: SimpleNamespace(notebook=lambda: SimpleNamespace(getContext=lambda: context))
)
dbutils = SimpleNamespace(
    secrets=SimpleNamespace(get=get_secret), notebook=SimpleNamespace(entry_point=entry_point)
)
InteractiveShell.instance().user_ns["dbutils"] = dbutils
"""
RUN = """
import json, os
from pathlib import Path

import mlflow

from helpers import parameters, runtime, tracking

defaults = {name: parameters.FIELDS[name].default for name in parameters.TRACKING}
p = parameters.parse(defaults | json.loads(os.environ["PARAMETERS"]))
servers = tracking.configure(p)
runtime.display(servers.table())
Path("model").mkdir()
Path("model/MLmodel").write_text("flavors: {}")
with mlflow.start_run() as run:
    mlflow.log_metric("loss", 0.5)
    mlflow.log_artifacts("model", "model")
version = tracking.create_version(run, f"runs:/{run.info.run_id}/model", "from-a-scope", {})
answer(
    in_job=runtime.in_job(),
    metric=mlflow.get_run(run.info.run_id).data.metrics["loss"],
    artifact=mlflow.artifacts.load_text(f"{run.info.artifact_uri}/model/MLmodel"),
    version=[str(version.version), version.run_id == run.info.run_id],
)
"""


def test_a_secret_scope_alone_serves_a_whole_run_and_its_secret_is_left_nowhere(aml, new_requests, tmp_path):
    in_scope = {"CLIENT_ID": aml.client_id, "IPYTHONDIR": str(tmp_path / "ipython")}
    cluster = environment(aml, azureml_secret_scope="azureml") | in_scope
    cluster = {name: value for name, value in cluster.items() if name not in SERVICE_PRINCIPAL}
    with PythonProcess.start(tmp_path / "notebook", cluster) as notebook:
        assert notebook.run(DATABRICKS, SECRET_IN_SCOPE=aml.client_secret) == {}
        secret = {"SECRET_IN_SCOPE": aml.client_secret}
        other = environment(aml, azureml_secret_scope="other")["PARAMETERS"]
        missing = notebook.run(CONNECT, **secret, PARAMETERS=other)
        wrong = notebook.run(CONNECT, SECRET_IN_SCOPE="wrong~secret")
        found = notebook.run(RUN, **secret)
    assert missing["error"].startswith("ParameterError: azureml_secret_scope='other': its key 'azure-tenant-id'")
    assert "Secret does not exist" in missing["error"] and "\n" not in missing["error"]
    assert "with the service principal of secret scope 'azureml' refused (AADSTS7000215)" in wrong["error"]
    assert found == {"in_job": True, "metric": 0.5, "artifact": "flavors: {}", "version": ["1", True]}
    # Renewed on the way, and asked of nobody else.
    assert [request.status for request in new_requests("/oauth2/token")].count(200) > 2
    assert new_requests("/metadata/identity") == [] and new_requests("/devicecode") == []
    left = [file for folder in (aml.folder, tmp_path) for file in folder.rglob("*") if file.is_file()]
    assert {"output.txt", "requests.jsonl", "MLmodel"} <= {file.name for file in left}
    for text in (aml.client_secret, "wrong~secret", token(aml)[:20]):
        assert [str(file) for file in left if text.encode() in file.read_bytes()] == []


def token(aml: AzureMLStandIn) -> str:
    """Sign in as the service principal does."""
    form = {"grant_type": "client_credentials", "client_id": aml.client_id, "client_secret": aml.client_secret}
    body = urllib.parse.urlencode(form).encode()
    trusting = create_default_context(cafile=aml.ca_file)
    with urllib.request.urlopen(f"{aml.url}/{names.TENANT}/oauth2/token", body, context=trusting) as answer:
        return json.load(answer)["access_token"]
