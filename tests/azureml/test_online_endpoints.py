"""Online endpoints of the stand-in against the unpatched plugin of MLflow: what it deploys is really served.

Each test's endpoints have names of their own, because all share the stand-in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.azureml import names
from tests.azureml.deploying_client import REGISTER, DeployingClient


@pytest.fixture(scope="module")
def process(aml, tmp_path_factory) -> Iterator[DeployingClient]:
    """A client, and the model ``served``: 1 doubles, 2 triples, 3 does not load, 4 lacks a package that AML needs."""
    with DeployingClient.start(aml, tmp_path_factory.mktemp("client")) as client:
        client.run(
            REGISTER,
            """
            register("served", save(2, *FOR_AML))
            register("served", save(3, *FOR_AML))
            folder = save(4, *FOR_AML)
            Path(folder, "model.skops").write_bytes(b"damaged")
            register("served", folder)
            register("served", save(5, *FOR_AML[:1]))
            """,
        )
        yield client


@pytest.fixture
def client(aml, process) -> Iterator[DeployingClient]:
    yield process
    aml.faults.clear()


@pytest.fixture(scope="module")
def blue_and_green(process) -> str:
    """Return an endpoint with two deployments and no traffic: blue doubles, green triples."""
    process.run(
        """
        put_endpoint("blue-and-green")
        answers = [
            arm("PUT", f"/blue-and-green/deployments/{name}", deployment(model))
            for name, model in {"blue": "served/1", "green": "served/2"}.items()
        ]
        states = [status(answer)["status"] for answer in answers]
        assert states == ["Succeeded", "Succeeded"], states
        """
    )
    return "blue-and-green"


def test_the_plugin_deploys_a_model_splits_traffic_and_takes_everything_away(client):
    found = client.run(
        """
        client.create_endpoint("plugin", config("endpoint", auth_mode="key", tags={"team": "blue"}))
        created = client.create_deployment(
            "blue", "models:/served/1", config=deployment_config(), endpoint="plugin"
        )
        predict = lambda name=None: client.predict(name, rows, endpoint="plugin")[0].round().tolist()
        without_traffic = [error(predict), predict("blue")]
        client.update_endpoint("plugin", config("endpoint", traffic={"blue": 100}))
        with_traffic = predict()
        client.update_deployment("blue", "models:/served/2", endpoint="plugin")
        answer(
            created=created, without_traffic=without_traffic, with_traffic=with_traffic, updated=predict(),
            endpoint=client.get_endpoint("plugin"), deployments=client.list_deployments("plugin"),
            missing=error(client.get_endpoint, "nobody"), none_of_it=error(client.get_deployment, "no", "plugin"),
            unknown=error(client.list_deployments, "nobody"),
            deleted=[client.delete_deployment("blue", "plugin"), client.list_deployments("plugin")],
            gone=[client.delete_endpoint("plugin"), error(client.get_endpoint, "plugin")],
        )
        """
    )
    properties = found["created"]["properties"]
    assert properties["provisioningState"] == "Succeeded" and properties["instanceType"] == "Standard_DS2_v2"
    assert found["without_traffic"][0].startswith("HttpResponseError: No valid deployments to route to.")
    assert found["without_traffic"][1] == found["with_traffic"] == [2, 4]
    assert found["updated"] == [3, 6]
    assert found["endpoint"]["tags"] == {"team": "blue"}
    assert found["endpoint"]["properties"]["traffic"] == {"blue": 100}
    assert [item["properties"]["model"].rpartition("/")[2] for item in found["deployments"]] == ["2"]
    assert found["missing"].startswith("ResourceNotFoundError: (ResourceNotFound)")
    assert found["none_of_it"].startswith("MlflowException: ")
    assert found["unknown"].startswith("MlflowException: ")
    assert found["deleted"] == [None, []]
    assert found["gone"][1].startswith("ResourceNotFoundError")


def test_endpoints_and_deployments_are_listed_page_by_page(client, blue_and_green):
    found = client.run(
        """
        for name in ("listed-1", "listed-2"):
            put_endpoint(name)
        one = arm("GET", "/blue-and-green/deployments?count=1").json()
        answer(
            endpoints=[item["name"] for item in client.list_endpoints()],
            page=len(arm("GET", "").json()["value"]),
            deployments=[item["name"] for item in client.list_deployments("blue-and-green")],
            one=[one["value"][0]["name"], requests.get(one["nextLink"], headers=signed_in()).json()],
        )
        """
    )
    assert {"listed-1", "listed-2", blue_and_green} <= set(found["endpoints"]) and found["page"] == 2
    assert found["deployments"] == ["blue", "green"]
    assert found["one"][0] == "blue"
    assert [item["name"] for item in found["one"][1]["value"]] == ["green"] and "nextLink" not in found["one"][1]


def test_a_deployment_is_creating_until_its_server_answers_and_says_so(client):
    found = client.run(
        """
        put_endpoint("states")
        path = "/states/deployments/blue"
        seen.clear()
        put = arm("PUT", path, deployment("served/1"))
        twice = arm("PUT", path, deployment("served/1"))
        status(put)
        deleted = [arm("DELETE", "/states"), arm("GET", "/states")]
        status(deleted[0])
        answer(
            put=[put.status_code, put.json()["properties"]["provisioningState"]], twice=twice.status_code, seen=seen,
            deleted=[deleted[0].status_code, arm("GET", path).status_code, arm("DELETE", "/states").status_code],
        )
        """
    )
    assert found["put"] == [201, "Creating"] and found["twice"] == 409
    assert found["seen"][0] == "InProgress" and found["seen"][-1] == "Succeeded"
    assert found["deleted"] == [202, 404, 204]


def test_traffic_is_split_by_weight_and_no_request_fails_while_it_changes(client, blue_and_green):
    found = client.run(
        """
        preview = "2022-02-01-preview"
        def set_traffic(version=preview, **traffic):
            if version == preview:
                return arm("PATCH", "/blue-and-green", {"properties": {"traffic": traffic}}, version)
            body = {"location": "westeurope", "properties": {"authMode": "Key", "traffic": traffic}}
            return arm("PUT", "/blue-and-green", body)

        key = arm("POST", "/blue-and-green/listKeys").json()["primaryKey"]
        def ask(_=None, **headers):
            answered = score("blue-and-green", key=key, **headers)
            name = answered.headers.get("azureml-model-deployment")
            return [answered.status_code, name, round(answered.json()[0])]

        status(set_traffic(blue=50, green=50))
        with ThreadPoolExecutor(4) as pool:
            half = list(pool.map(ask, range(60)))
            asked = [pool.submit(ask) for _ in range(60)]
            changes = [set_traffic(blue=10 * i, green=100 - 10 * i) for i in range(3)]
            during = [future.result() for future in asked]
        status(changes[0])
        put = status(set_traffic("2024-04-01", green=100, blue=0))
        all_green = [ask() for _ in range(10)]
        answer(
            half=half, during=during, put=put["status"], all_green=all_green,
            picked=ask(azureml_model_deployment="blue"),
            unknown=score("blue-and-green", key=key, azureml_model_deployment="red").status_code,
            with_traffic=arm("DELETE", "/blue-and-green/deployments/green").json(),
        )
        """
    )
    blue, green = [200, "blue", 2], [200, "green", 3]
    assert found["half"].count(blue) > 10 and found["half"].count(green) > 10
    assert all(answered in (blue, green) for answered in found["half"] + found["during"])
    assert found["put"] == "Succeeded" and found["all_green"] == [green] * 10
    assert found["picked"] == blue and found["unknown"] == 404
    assert "has traffic" in str(found["with_traffic"])


def test_keys_and_tokens_are_checked_where_a_model_scores(aml, client, blue_and_green):
    found = client.run(
        f"""
        put_endpoint("by-token", "AMLToken")
        put_endpoint("by-identity", "AADToken")
        names = ("blue-and-green", "by-token", "by-identity")
        keys = arm("POST", "/blue-and-green/listKeys").json()
        tokens = [arm("POST", f"/{{name}}/token").json()["accessToken"] for name in names[1:]]
        nobody = signed_in({aml.client_id_without_role!r})
        ask = lambda name, key: score(name, key=key, azureml_model_deployment="blue").status_code
        answer(
            keys=[ask(names[0], key) for key in (*keys.values(), "wrong", tokens[0])],
            tokens=[ask(names[1], token) for token in (tokens[0], tokens[1], "wrong")],
            identities=[ask(names[2], token) for token in (tokens[1], tokens[0], nobody["Authorization"][7:])],
            wrong_kind=[arm("POST", "/by-token/listKeys").status_code, arm("POST", f"/{{names[0]}}/token").status_code],
            for_arm=arm("GET", "", headers={{"Authorization": f"Bearer {{tokens[0]}}"}}).status_code,
            forbidden=arm("POST", "/blue-and-green/listKeys", headers=nobody).json()["error"],
            swagger=requests.get(f"{{url}}/online/blue-and-green/swagger.json").status_code,
        )
        """
    )
    assert found["keys"] == [200, 200, 401, 401]
    # They have no deployment of that name: 404 is beyond the check.
    assert found["tokens"] == [404, 401, 401] and found["identities"] == [404, 401, 403]
    assert found["wrong_kind"] == [400, 400] and found["for_arm"] == found["swagger"] == 401
    assert found["forbidden"]["code"] == "AuthorizationFailed"
    assert "workspaces/onlineEndpoints/listKeys/action'" in found["forbidden"]["message"]


def test_what_aml_refuses_is_refused_before_anything_starts(client):
    found = client.run(
        """
        put_endpoint("refused")
        endpoint = {"location": "westeurope", "properties": {"authMode": "Key"}}
        make = lambda name, body: arm("PUT", f"/refused/deployments/{name}", body)
        large = deployment("served/1", instanceType="standard_ds5_v2") | {"sku": {"name": "Default", "capacity": 6}}
        traffic = lambda version="2022-02-01-preview", **shares: arm(
            "PATCH", "/refused", {"properties": {"traffic": shares}}, version
        )
        answers = {
            "endpoint_name": arm("PUT", "/1st", endpoint),
            "two_dashes": arm("PUT", "/a--b", endpoint),
            "deployment_name": make("x", deployment("served/1")),
            "other_mode": arm("PUT", "/refused", endpoint | {"properties": {"authMode": "AMLToken"}}),
            "no_such_mode": arm("PUT", "/refused-2", endpoint | {"properties": {"authMode": "key"}}),
            "quota": make("large", large),
            "instance_type": make("blue", deployment("served/1", instanceType="Standard_No")),
            "model": make("blue", deployment("served/99")),
            "no_such_deployment": traffic(blue=100),
            "patch_of_later_version": traffic("2024-04-01"),
            "parent": arm("PUT", "/nobody/deployments/blue", deployment("served/1")),
        }
        found = error(
            client.create_deployment, "large", "models:/served/1", endpoint="refused",
            config=deployment_config(instance_type="Standard_DS5_v2", instance_count=6),
        )
        answer(
            answers={name: [found.status_code, found.json()["error"]] for name, found in answers.items()},
            plugin=found, deployments=arm("GET", "/refused/deployments").json(),
        )
        """
    )
    parent = found["answers"].pop("parent")
    assert parent[0] == 404 and parent[1]["code"] == "ParentResourceNotFound"
    for status, error in found["answers"].values():
        assert status == 400 and error["code"] == "BadRequest"
        assert error["details"][0]["code"] == "InferencingClientCallFailed"
    details = {name: error["details"][0]["message"] for name, (_, error) in found["answers"].items()}
    reasons = {name: json.loads(detail)["errors"] for name, detail in details.items()}
    limit = f"/{names.CORE_QUOTA}. Additional needed: 128"
    assert limit in reasons["quota"]["VmSize"][0] and limit in found["plugin"]
    assert found["plugin"].splitlines()[0] == "HttpResponseError: (BadRequest) The request is invalid."
    assert list(reasons["instance_type"]) == ["VmSize"] and "AuthMode" in reasons["other_mode"]
    assert "Endpoint name '1st'" in reasons["endpoint_name"]["Name"][0]
    assert found["deployments"] == {"value": []}


@pytest.mark.parametrize(
    ("version", "reason"), [("3", "zip"), ("4", "ModuleNotFoundError: No module named 'azureml.ai'")]
)
def test_a_model_that_does_not_load_fails_with_its_log_and_the_endpoint_serves_on(client, version, reason):
    found = client.run(
        f"""
        name = "failing-{version}"
        put_endpoint(name)
        failed = error(
            client.create_deployment, "new", "models:/served/{version}", config=deployment_config(), endpoint=name
        )
        path = f"/{{name}}/deployments/new"
        logs = lambda **wanted: arm("POST", f"{{path}}/getLogs", wanted).json()["content"]
        answer(
            failed=failed, state=arm("GET", path).json()["properties"]["provisioningState"],
            log=logs(containerType="InferenceServer", tail=50), tail=logs(tail=1),
            initializer=logs(containerType="StorageInitializer"),
            again=arm("PUT", path, deployment("served/1")).json()["error"]["details"][0]["message"],
            asked=score(name, azureml_model_deployment="new").status_code,
            traffic=arm("PATCH", f"/{{name}}", {{"properties": {{"traffic": {{"new": 100}}}}}}).status_code,
            deleted=status(arm("DELETE", path))["status"],
        )
        """
    )
    assert found["failed"].startswith("HttpResponseError: (None) ResourceNotReady: User container has crashed")
    assert found["state"] == "Failed"
    assert "Traceback (most recent call last)" in found["log"]
    assert reason in found["log"] and found["log"].endswith(found["tail"]) and found["initializer"] == ""
    assert "unrecoverable state" in found["again"] and found["asked"] == 404 and found["traffic"] == 400
    assert found["deleted"] == "Succeeded"


def test_a_failed_update_leaves_the_model_that_was_served(client, blue_and_green):
    found = client.run(
        """
        path = "/blue-and-green/deployments/blue"
        failed = status(arm("PUT", path, deployment("served/3")))
        served = score("blue-and-green", azureml_model_deployment="blue").json()
        state = arm("GET", path).json()["properties"]["provisioningState"]
        mended = status(arm("PUT", path, deployment("served/1")))["status"]
        answer(failed=failed["error"], served=served, state=state, mended=mended)
        """
    )
    assert found["failed"]["code"] is None and found["failed"]["message"].startswith("ResourceNotReady")
    assert [round(value) for value in found["served"]] == [2]
    assert found["state"] == "Failed" and found["mended"] == "Succeeded"


def test_a_payload_that_is_wrong_is_told_apart_from_one_that_the_model_refuses(client, blue_and_green):
    found = client.run(
        """
        ask = lambda data: score("blue-and-green", data, azureml_model_deployment="blue")
        frame = lambda name, value: {"input_data": {"columns": [name], "index": [0], "data": [[value]]}}
        answers = [ask(data) for data in ({"data": []}, [1], frame("y", 1.0), frame("x", "text"))]
        answer(
            answers=[[found.status_code, found.json()["error"]["message"]] for found in answers],
            container=answers[2].headers.get("ms-azureml-model-error-statuscode"),
            tensors=[ask({"input_data": data}).json() for data in ([{"x": 1.0}], {"x": [1.0]})],
            plugin=error(client.predict, "blue", pd.DataFrame({"y": [1.0]}), endpoint="blue-and-green"),
        )
        """
    )
    assert [status for status, _ in found["answers"]] == [400, 400, 424, 424]
    assert "'input_data'" in found["answers"][0][1] and "missing inputs ['x']" in found["answers"][2][1]
    assert found["container"] == "400" and "missing inputs ['x']" in found["plugin"]
    assert [[round(value) for value in values] for values in found["tensors"]] == [[2], [2]]


def test_a_deleted_deployment_answers_what_it_was_asked_before(client):
    found = client.run(
        REGISTER,
        """
        # Pipes, which make model and test wait for one another.
        os.mkfifo("asked")
        os.mkfifo("answers")
        folder = Path().absolute()
        Path("waiting.py").write_text(
            "import mlflow\\n"
            "class Waiting(mlflow.pyfunc.PythonModel):\\n"
            "    def predict(self, context, model_input, params=None):\\n"
            f"        open('{folder}/asked', 'w').close()\\n"
            f"        open('{folder}/answers').close()\\n"
            "        return [7.0]\\n"
            "mlflow.models.set_model(Waiting())\\n"
        )
        mlflow.pyfunc.save_model("waiting", python_model="waiting.py", pip_requirements=[*FOR_AML])
        register("waiting", "waiting")
        put_endpoint("waiting")
        path = "/waiting/deployments/blue"
        assert status(arm("PUT", path, deployment("waiting/1")))["status"] == "Succeeded"
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(score, "waiting", azureml_model_deployment="blue")
            open("asked").close()
            deleted = arm("DELETE", path)
            during = [arm("GET", path).json()["properties"]["provisioningState"], asked.done()]
            refused = score("waiting", azureml_model_deployment="blue").status_code
            open("answers", "w").close()
            answered = asked.result()
        ended = status(deleted)["status"]
        answer(
            during=during, refused=refused, answered=[answered.status_code, answered.json()],
            ended=ended, after=arm("GET", path).status_code,
        )
        """,
    )
    assert found["during"] == ["Deleting", False] and found["refused"] == 404
    assert found["answered"] == [200, [7.0]]
    assert found["ended"] == "Succeeded" and found["after"] == 404


def test_faults_meet_changes_logs_and_scoring_too(aml, client, blue_and_green):
    aml.faults.add("PATCH .*/onlineEndpoints/blue-and-green", 500, times=1)
    aml.faults.add("POST /online/blue-and-green/score", 500, times=1)
    aml.faults.add("mfeOperationsStatus", 503, times=1, retry_after=0)
    aml.faults.add("POST .*/deployments/blue/getLogs", 429)
    found = client.run(
        """
        client.update_endpoint("blue-and-green", config("endpoint", traffic={"green": 100}))
        predict = lambda: client.predict(df=rows, endpoint="blue-and-green")[0].round().tolist()
        answer(
            failed=error(predict), scored=predict(),
            logs=arm("POST", "/blue-and-green/deployments/blue/getLogs", {}).status_code,
        )
        """
    )
    assert "The stand-in was told to answer 500" in found["failed"] and found["scored"] == [3, 6]
    assert found["logs"] == 429
    patches = [item.status for item in aml.requests("/onlineEndpoints/blue-and-green") if item.method == "PATCH"]
    assert patches[-2:] == [500, 202]
