"""The stand-in against the unpatched clients: what works on AML works, what AML refuses is refused.

Each client is a script in a process of its own, because it reads the cloud's addresses on import.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azureml.client import ARM, Client
from tests.azureml.stand_in import ROOT, AzureMLStandIn

MLFLOW = """
import mlflow
mlflow.set_tracking_uri(os.environ["TRACKING_URI"])
mlflow.set_registry_uri(os.environ["TRACKING_URI"])
client = mlflow.MlflowClient()
"""
MODEL = """
import numpy as np
from sklearn.linear_model import LinearRegression
x = np.arange(10.0).reshape(-1, 1)
model = LinearRegression().fit(x, 2 * x.ravel())
"""


@pytest.fixture
def client(aml: AzureMLStandIn, tmp_path: Path) -> Iterator[Client]:
    yield Client(aml, tmp_path)
    aml.faults.clear()


def test_a_run_with_its_history_and_artifacts_is_read_back(aml, client):
    found = client.run(
        MLFLOW,
        """
        mlflow.set_experiment("tracking")
        Path("files/deep").mkdir(parents=True)
        for name, content in {"a.txt": "A", "deep/ü 1.txt": "B", "deep/empty": ""}.items():
            (Path("files") / name).write_text(content)
        with mlflow.start_run(run_name="first") as run:
            mlflow.log_params({"alpha": 0.5})
            for step in range(4):
                mlflow.log_metric("loss", 1 / (step + 1), step=step)
            mlflow.set_tag("team", "blue")
            mlflow.log_artifacts("files", "folder")
            mlflow.log_text("note", "note.txt")
        run = client.get_run(run.info.run_id)
        downloaded = Path(client.download_artifacts(run.info.run_id, ""))
        answer(
            uri=run.info.artifact_uri, run_id=run.info.run_id, experiment_id=run.info.experiment_id,
            status=run.info.status, params=run.data.params, team=run.data.tags["team"],
            history=[[metric.step, metric.value] for metric in client.get_metric_history(run.info.run_id, "loss")],
            root=[[item.path, item.is_dir] for item in client.list_artifacts(run.info.run_id)],
            files={str(p.relative_to(downloaded)): p.read_text() for p in downloaded.rglob("*") if p.is_file()},
            found=list(mlflow.search_runs(filter_string="params.alpha = '0.5'", order_by=["start_time DESC"]).run_id),
        )
        """,
    )
    run = f"experiments/{found['experiment_id']}/runs/{found['run_id']}/artifacts"
    host = aml.url.removeprefix("https://")
    assert found["uri"] == f"azureml://{host}/mlflow/v2.0{aml.workspace_resource_id}/{run}"
    assert found["status"] == "FINISHED" and found["params"] == {"alpha": "0.5"} and found["team"] == "blue"
    assert found["history"] == [[0, 1.0], [1, 1 / 2], [2, 1 / 3], [3, 1 / 4]]
    assert found["root"] == [["folder", True], ["note.txt", False]]
    contents = {"folder/a.txt": "A", "folder/deep/ü 1.txt": "B", "folder/deep/empty": "", "note.txt": "note"}
    assert found["files"] == contents
    assert found["found"] == [found["run_id"]]


def test_log_model_fails_and_a_model_saved_logged_and_registered_by_hand_loads(client):
    found = client.run(
        MLFLOW,
        MODEL,
        """
        mlflow.set_experiment("model")
        with mlflow.start_run() as run:
            log_model = error(mlflow.sklearn.log_model, model, name="model", pip_requirements=[])
            mlflow.sklearn.save_model(model, "saved", pip_requirements=[], skops_trusted_types=[])
            mlflow.log_artifacts("saved", "model")
        client.create_registered_model("by-hand")
        source = f"{run.info.artifact_uri}/model"
        versions = [client.create_model_version("by-hand", source, run_id=run.info.run_id) for _ in range(2)]
        client.set_model_version_tag("by-hand", "2", "role", "champion")
        listed = client.search_model_versions("name = 'by-hand'")
        uris = ["models:/by-hand/1", f"runs:/{run.info.run_id}/model"]
        answer(
            log_model=log_model, run_id=run.info.run_id,
            versions=[[version.version, version.run_id] for version in versions],
            tags={version.version: version.tags for version in listed},
            predictions=[mlflow.pyfunc.load_model(uri).predict(x[:3]).round(6).tolist() for uri in uris],
            register_model=error(mlflow.register_model, uris[1], "by-hand"),
        )
        """,
    )
    assert "/api/2.0/mlflow/logged-models failed with error code 404 != 200. Response body: ''" in found["log_model"]
    assert found["versions"] == [["1", found["run_id"]], ["2", found["run_id"]]]
    assert found["tags"] == {"1": {}, "2": {"role": "champion"}}
    assert found["predictions"] == [[0, 2, 4], [0, 2, 4]]
    assert "logged-models/search failed with error code 404" in found["register_model"]


def test_what_the_documents_call_unsupported_is_refused(client):
    found = client.run(
        MLFLOW,
        """
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.utils.rest_utils import http_request
        slashed = client.create_experiment("team/experiment")
        experiment = mlflow.set_experiment("rules")
        run = client.create_run(experiment.experiment_id)
        client.create_registered_model("rules")
        batch = lambda **kinds: error(client.log_batch, run.info.run_id, **kinds)
        params = lambda *numbers: [Param(str(i), "") for i in range(*numbers)]
        models = lambda condition: http_request(
            client._tracking_client.store.get_host_creds(), "/api/2.0/mlflow/registered-models/search", "GET",
            params={"filter": condition},
        ).status_code
        search = lambda **terms: error(client.search_runs, [experiment.experiment_id], **terms)
        answer(
            slashed_by_id=client.get_experiment(slashed).name,
            slashed_by_name=client.get_experiment_by_name("team/experiment"),
            slashed_in_search="team/experiment" in [item.name for item in client.search_experiments()],
            refused={
                "order by metric": search(order_by=["metrics.loss"]),
                "tags !=": search(filter_string="tags.a != 'b'"),
                # The client itself adds a condition on a tag.
                "models": error(client.search_registered_models, "name = 'rules'"),
                "rename": error(client.rename_registered_model, "rules", "other"),
                "delete": error(client.delete_registered_model, "rules"),
                "metric rows": batch(metrics=[Metric("m", i, i, i) for i in range(251)]),
                "tag value": batch(tags=[RunTag("t", "v" * 1001)]),
                "tag key": batch(tags=[RunTag("t" * 101, "v")]),
                "tags": batch(tags=[RunTag(str(i), "v") for i in range(51)]),
            },
            within=batch(metrics=[Metric("m", i, i, i) for i in range(250)], params=params(100)),
            more_params=batch(params=params(100, 200)),
            too_many_params=batch(params=params(200, 201)),
            models=[models("name = 'rules'"), models("name LIKE 'r%'")],
            alias=error(client.set_registered_model_alias, "rules", "champion", "1"),
            traces=error(client.search_traces, locations=[experiment.experiment_id]),
            by_attribute=search(filter_string="status = 'RUNNING'", order_by=["end_time"]),
        )
        """,
    )
    assert found["slashed_by_id"] == "team/experiment"
    assert found["slashed_by_name"] is None and found["slashed_in_search"] is False
    for what, refusal in found["refused"].items():
        assert refusal is not None and "INVALID_PARAMETER_VALUE" in refusal, what
    assert found["within"] is None and found["more_params"] is None
    assert "A run may have 200 parameters" in found["too_many_params"]
    assert "error code 404" in found["alias"] and "error code 404" in found["traces"]
    assert found["models"] == [200, 400]
    assert found["by_attribute"] is None


def test_arm_tells_the_tracking_uri_and_what_is_missing_or_forbidden(aml, client):
    found = client.run(
        ARM,
        f"""
        workspace = {aml.workspace_resource_id!r}
        answer(
            workspace=arm("GET", workspace),
            no_workspace=arm("GET", workspace + "-2"),
            no_group=arm("GET", workspace.replace("ml-group", "no-group")),
            no_subscription=arm("GET", workspace.replace("22222222", "99999999")),
            forbidden=arm("GET", workspace, client_id={aml.client_id_without_role!r}),
        )
        """,
    )
    status, workspace = found["workspace"]
    assert status == 200 and workspace["location"] == aml.region
    assert workspace["properties"]["mlFlowTrackingUri"] == aml.tracking_uri
    answers = {name: (status, content["error"]["code"]) for name, (status, content) in found.items() if status != 200}
    assert answers == {
        "no_workspace": (404, "ResourceNotFound"),
        "no_group": (404, "ResourceGroupNotFound"),
        "no_subscription": (404, "SubscriptionNotFound"),
        "forbidden": (403, "AuthorizationFailed"),
    }


def test_a_databricks_workspace_is_linked_by_replacing_it_and_a_private_one_is_not(aml, client):
    found = client.run(
        ARM,
        f"""
        resources = {aml.databricks_workspace_resource_id!r}, {aml.private_databricks_workspace_resource_id!r}
        listed = arm("GET", resources[0].rpartition("/")[0])[1]["value"]
        before = [arm("GET", resource)[1] for resource in resources]
        put = []
        for resource in before:
            changed = json.loads(json.dumps(resource))
            changed["properties"]["parameters"]["amlWorkspaceId"] = {{"value": {aml.workspace_resource_id!r}}}
            put.append(arm("PUT", resource["id"], changed))
        answer(
            listed=[item["name"] for item in listed], before=before, put=put,
            after=arm("GET", resources[0])[1],
            patched=arm("PATCH", resources[0], {{"properties": {{}}}}),
            incomplete=arm("PUT", resources[0], {{"location": "westeurope"}}),
        )
        """,
    )
    assert found["listed"] == ["dbx", "dbx-private"]
    assert found["before"][1]["properties"]["publicNetworkAccess"] == "Disabled"
    assert found["put"][0][0] == 200 and found["put"][0][1]["properties"]["provisioningState"] == "Updating"
    parameters = found["after"]["properties"]["parameters"]
    assert parameters.pop("amlWorkspaceId") == {"value": aml.workspace_resource_id}
    assert parameters == found["before"][0]["properties"]["parameters"]
    assert found["put"][1][0] == 400 and "private link" in found["put"][1][1]["error"]["message"]
    assert found["patched"][0] == 400 and found["incomplete"][0] == 400


def test_a_sign_in_that_cannot_work_is_refused_with_entra_ids_codes(aml, client):
    found = client.run(
        ARM,
        f"""
        path = {aml.workspace_resource_id!r}
        answer(
            wrong=error(arm, "GET", path, secret="wrong"),
            expired=error(arm, "GET", path, secret={aml.expired_secret!r}),
            unknown=error(arm, "GET", path, client_id="99999999-0000-0000-0000-000000000000"),
        )
        """,
    )
    assert found["wrong"].startswith("ClientAuthenticationError") and "AADSTS7000215" in found["wrong"]
    assert found["expired"].startswith("ClientAuthenticationError") and "AADSTS7000222" in found["expired"]
    assert found["unknown"].startswith("ClientAuthenticationError") and "AADSTS700016" in found["unknown"]


def test_no_service_answers_without_a_good_token(aml, client):
    found = client.run(
        ARM,
        f"""
        import requests
        workspace = {aml.workspace_resource_id!r}
        paths = [f"{{workspace}}?api-version=1", "/no/such"]
        paths.append(f"/mlflow/v2.0{{workspace}}/api/2.0/mlflow/experiments/get")
        paths.append(f"/history/v1.0{{workspace}}/experiments/e/runs/r/artifacts")
        bearers = [{{}}, {{"Authorization": "Bearer nonsense"}}]
        statuses = [requests.get(url + path, headers=header).status_code for path in paths for header in bearers]
        blob = requests.get(f"{{url}}/standin.blob.storage.stand-in/azureml/a/b/c?sp=r&se=9999999999&sig=bad")
        answer(statuses=statuses, blob=[blob.status_code, blob.headers["x-ms-error-code"]])
        """,
    )
    assert found["statuses"] == [401] * 8
    assert found["blob"] == [403, "AuthenticationFailed"]


def test_a_delay_and_a_dropped_sign_in_reach_the_client(aml, client):
    aml.faults.add("oauth2/token", "drop")
    aml.faults.add("metadata/endpoints", delay=0.2)
    code = "from time import monotonic as now; import requests; start = now()\n"
    code += "requests.get(os.environ['ARM_CLOUD_METADATA_URL']); seconds = now() - start\n"
    code += "from azure.identity import ClientSecretCredential as Credential\n"
    code += "credential = Credential('adfs', 'id', 'secret', retry_total=0)\n"
    code += "answer(seconds=seconds, raised=error(credential.get_token, 'https://x/.default'))"
    found = client.run(code)
    assert found["seconds"] >= 0.2
    assert found["raised"].startswith("ClientAuthenticationError")


def test_a_large_artifact_arrives_whole_and_is_written_once(client):
    found = client.run(
        MLFLOW,
        """
        mlflow.set_experiment("large")
        # More than the 64 MiB that the blob client puts at once, so that it sends blocks.
        content = os.urandom(1024) * 70 * 1024
        Path("large.bin").write_bytes(content)
        with mlflow.start_run() as run:
            mlflow.log_artifact("large.bin")
            Path("large.bin").write_text("other")
            refusal = error(mlflow.log_artifact, "large.bin")
        back = Path(client.download_artifacts(run.info.run_id, "large.bin"))
        answer(run=run.info.run_id, refusal=refusal, same=back.read_bytes() == content)
        """,
    )
    conflict = f"Resource Conflict: ArtifactId ExperimentRun/dcid.{found['run']}/large.bin already exists."
    assert found["refusal"] == f"Exception: UserError: {conflict}"
    assert found["same"]


def test_a_model_in_a_folder_is_registered_without_a_run_and_one_of_elsewhere_is_refused(client):
    found = client.run(
        MLFLOW,
        """
        Path("saved").mkdir()
        Path("saved/MLmodel").write_text("flavors: {}")
        client.create_registered_model("uploaded")
        folder = Path("saved").absolute().as_uri()
        with_run_id = error(client.create_model_version, "uploaded", folder, run_id="0" * 32)
        version = client.create_model_version("uploaded", folder)
        foreign = f"https://elsewhere/runs/{'0' * 32}/artifacts/model"
        answer(
            version=version.version, source=version.source, with_run_id=with_run_id,
            content=(Path(mlflow.artifacts.download_artifacts("models:/uploaded/1")) / "MLmodel").read_text(),
            foreign=error(client.create_model_version, "uploaded", foreign),
            foreign_run=error(client.create_model_version, "uploaded", version.source, run_id="0" * 32),
            nothing_there=error(client.create_model_version, "uploaded", version.source + "/no"),
        )
        """,
    )
    assert found["version"] == "1" and found["source"].startswith("azureml://artifacts/LocalUpload/")
    assert found["content"].startswith("flavors: {}")
    assert found["with_run_id"].startswith('ValueError: "run_id=000')
    assert "INVALID_PARAMETER_VALUE" in found["foreign"] and "azureml://artifacts/<origin>" in found["foreign"]
    assert "was not found" in found["foreign_run"]
    assert "No artifacts were found" in found["nothing_there"]


def test_the_plugin_says_what_is_wrong_with_its_credentials_at_the_call_that_needs_them(aml, client):
    found = client.run(
        f"""
        sys.path.insert(0, {str(ROOT)!r})
        from tests.azureml.stand_in import AzureMLStandIn
        import mlflow

        def first_call(path="", **environment):
            os.environ.update(environment)
            # The plugin keeps its credentials for as long as the address is spelt the same.
            return mlflow.MlflowClient(os.environ["TRACKING_URI"].replace("/mlflow/v1.0", path + "/mlflow/v1.0"))

        right_secret = os.environ["AZURE_CLIENT_SECRET"]
        wrong = first_call("", AZURE_CLIENT_SECRET="wrong")
        right = first_call("/2", AZURE_CLIENT_SECRET=right_secret)
        without_role = first_call("/3", AZURE_CLIENT_ID={aml.client_id_without_role!r})
        before = error(right.search_experiments)
        AzureMLStandIn(Path({str(aml.folder)!r}), {aml.url!r}).expire_tokens()
        answer(
            wrong=error(wrong.search_experiments), before=before, expired=error(right.search_experiments),
            without_role=error(without_role.search_experiments),
        )
        """,
    )
    assert found["wrong"].startswith("ClientAuthenticationError") and "AADSTS7000215" in found["wrong"]
    failed = "MlflowException: API request to endpoint /api/2.0/mlflow/experiments/search failed with error code"
    assert found["without_role"] == f"{failed} 403 != 200. Response body: ''"
    assert found["before"] is None and found["expired"] == f"{failed} 401 != 200. Response body: ''"


def test_passing_faults_are_retried_by_the_client_and_a_lasting_one_ends_with_its_status(aml, client):
    aml.faults.add("experiments/get-by-name", 503, times=1)
    aml.faults.add("experiments/get-by-name", 429, times=1, retry_after=0)
    aml.faults.add("experiments/get-by-name", "drop", times=1)
    aml.faults.add("experiments/search", 503)
    found = client.run(
        MLFLOW,
        """
        name = client.get_experiment_by_name("Default").name
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"
        answer(name=name, lasting=error(client.search_experiments))
        """,
        MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR="0",
        MLFLOW_HTTP_REQUEST_BACKOFF_JITTER="0",
    )
    assert found["name"] == "Default"
    assert [request.status for request in aml.requests("experiments/get-by-name")][-4:] == [503, 429, None, 200]
    assert "too many 503 error responses" in found["lasting"]
    assert [request.status for request in aml.requests("experiments/search")][-2:] == [503, 503]


def test_a_lost_answer_makes_a_second_run_and_artifacts_that_conflict_with_themselves(aml, client):
    aml.faults.add("POST .*runs/create", "lose_answer", times=1)
    aml.faults.add("artifacts/batch/metadata", "lose_answer", times=1)
    found = client.run(
        MLFLOW,
        """
        experiment = mlflow.set_experiment("lost answer")
        with mlflow.start_run() as run:
            log_text = error(mlflow.log_text, "text", "a.txt")
        runs = client.search_runs([experiment.experiment_id])
        answer(statuses=sorted(run.info.status for run in runs), log_text=log_text)
        """,
    )
    assert found["statuses"] == ["FINISHED", "RUNNING"]
    assert "Resource Conflict" in found["log_text"]


def test_everything_received_can_be_searched_for_secrets(aml, client):
    client.run(
        ARM,
        f"""
        leak = {{"tags": {{"leak": os.environ["AZURE_CLIENT_SECRET"]}}}}
        answer(patched=arm("PATCH", {aml.databricks_workspace_resource_id!r}, leak))
        """,
    )
    leaks = [request for request in aml.requests() if aml.client_secret in request.query + (request.body or "")]
    # Not the sign-in, which has to hold it.
    assert [request.path for request in leaks] == [aml.databricks_workspace_resource_id]
