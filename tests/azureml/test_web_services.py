"""Web services of version 1 of the stand-in against the unpatched plugin of MLflow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.azureml.deploying_client import REGISTER, DeployingClient


@pytest.fixture(scope="module")
def client(aml, tmp_path_factory) -> Iterator[DeployingClient]:
    """A client, and the model ``web``, whose versions double and triple, and whose third one does not load."""
    with DeployingClient.start(aml, tmp_path_factory.mktemp("client")) as process:
        process.run(
            REGISTER,
            """
            register("web", save(2))
            register("web", save(3))
            folder = save(4)
            Path(folder, "model.skops").write_bytes(b"damaged")
            register("web", folder)
            """,
        )
        yield process


def test_a_container_instance_serves_a_model_with_and_without_keys_until_it_is_deleted(client):
    found = client.run(
        """
        predict = lambda: client.predict("instance", rows)[0].round().tolist()
        created = client.create_deployment("instance", "models:/web/1")
        first = predict()
        # Only in lower case does the plugin know the kind of compute again.
        changed = config("deploy", computeType="aci", authEnabled=True, tags={"team": "blue"})
        client.update_deployment("instance", "models:/web/2", config=changed)
        found = client.get_deployment("instance")
        data = {"input_data": {"columns": ["x"], "index": [0], "data": [[1.0]]}}
        answer(
            created=created, first=first, second=predict(), found=found,
            without_key=requests.post(found["scoringUri"], json=data).status_code,
            listed=[item["name"] for item in client.list_deployments()],
            deleted=[client.delete_deployment("instance"), error(client.get_deployment, "instance")],
        )
        """
    )
    assert found["created"]["state"] == "Healthy" and found["created"]["computeType"] == "ACI"
    assert found["first"] == [2, 4] and found["second"] == [3, 6]
    assert found["found"]["tags"] == {"team": "blue"} and found["without_key"] == 401
    assert "instance" in found["listed"]
    assert found["deleted"][1] == "MlflowException: No deployment with name instance found"


def test_on_kubernetes_keys_or_tokens_are_asked_for_and_the_cluster_has_to_be_attached(aml, client):
    found = client.run(
        f"""
        def deploy(name, model="models:/web/1", **more):
            more = {{"computeType": "aks", "computeTargetName": {aml.attached_compute!r}}} | more
            return client.create_deployment(name, model, config=config("deploy", **more))

        predict = lambda name: client.predict(name, rows)[0].round().tolist()
        def reason(*arguments, **named):
            try:
                deploy(*arguments, **named)
            except Exception as raised:
                return str(raised.__cause__)
        deploy("with-keys")
        deploy("with-tokens", authEnabled=False, tokenAuthEnabled=True)
        uri = client.get_deployment("with-tokens")["scoringUri"]
        answer(
            keys=predict("with-keys"), tokens=predict("with-tokens"), without=requests.post(uri, json={{}}).status_code,
            not_attached=reason("elsewhere", computeTargetName="no-cluster"), taken=reason("with-keys"),
            crashed=reason("crashed", "models:/web/3"), state=client.get_deployment("crashed")["state"],
            deleted=[client.delete_deployment(name) for name in ("with-keys", "with-tokens", "crashed")],
        )
        """
    )
    assert found["keys"] == found["tokens"] == [2, 4] and found["without"] == 401
    assert "ComputeNotFound" in found["not_attached"] and "ServiceAlreadyExists" in found["taken"]
    assert "container application crashed" in found["crashed"] and found["state"] == "Failed"
