"""`helpers.serving` against online endpoints of the Azure ML stand-in: rollouts, refusals, and faults at every step."""

from __future__ import annotations

import json
import os
import re

import pytest
import yaml

from tests.scenarios.azureml import rollouts
from tests.scenarios.process import ScenarioProcess
from tests.stand_ins import both_servers
from tests.stand_ins.azureml.model_server import VENDORS_ENVIRONMENT

OLD, NEW = "rolled-1", "rolled-2"
SERVES_OLD = {"traffic": {OLD: 100}, "deployments": [OLD], "ours": True}
SERVES_NEW = {"traffic": {NEW: 100}, "deployments": [NEW], "ours": True}


@pytest.fixture(scope="module")
def signed_in(aml, databricks, tmp_path_factory):
    """A process that is signed in to both, with the model ``rolled`` in Azure ML."""
    folder = tmp_path_factory.mktemp("client")
    environment = both_servers.environment(aml, databricks) | {"BUNDLE_LOCAL_DIR": str(folder / "local")}
    with ScenarioProcess.start(folder, os.environ | environment) as process:
        process.run(rollouts.register_models)
        yield process
        process.run(rollouts.delete_endpoints)


@pytest.fixture
def process(signed_in, aml):
    yield signed_in
    aml.faults.clear()


@pytest.fixture
def vendors_server(aml, inference_environment):
    """Have Azure ML's own server serve what is deployed."""
    file = aml.folder / "model_servers" / VENDORS_ENVIRONMENT
    file.parent.mkdir(exist_ok=True)
    file.write_text(str(inference_environment))
    yield
    file.unlink()


def test_no_request_fails_while_a_version_takes_over_and_the_plugin_sees_what_it_left(process, aml, vendors_server):
    before = len(aml.requests())
    served = process.run(rollouts.take_over_under_load)
    print(
        f"{served['mirrored']}; {sum(served['answered'].values())} requests, {len(served['failed'])} failed, {served['answered']}"
    )
    assert served["first"] == SERVES_OLD
    assert served["failed"] == [] and served["wrong"] == 0
    assert min(served["answered"][OLD], served["answered"][NEW]) > 10
    assert served["after"] == SERVES_NEW
    assert served["checks"] == [
        [0, 0, NEW, 0], [0, 50, "endpoint", 0], [0, 50, NEW, 0], [10, 0, "endpoint", 0], [10, 0, NEW, 0],
        [50, 0, "endpoint", 0], [50, 0, NEW, 0], [100, 0, "endpoint", 0]
    ]  # fmt: skip
    # While requests were mirrored, the old version answered them. The new one's log has the copies, and the 11 requests
    # that named it.
    assert served["while_mirrored"] == f"{OLD}: 10"
    assert served["mirrored"]["answered"] > 11 + 5 and served["mirrored"]["failed"] == 0
    (comparison,), (line,) = served["comparison"], served["comparison_lines"]
    assert (comparison["rows"], comparison["different"]) == (10, served["different"]) and served["different"]
    assert f"  {line}" in served["lines"]
    mirrors = [
        json.loads(request.body)["properties"]["mirrorTraffic"]
        for request in aml.requests()[before:]
        if request.method == "PATCH" and "mirrorTraffic" in (request.body or "")
    ]
    assert mirrors == [{NEW: 50}, {NEW: 0}, {OLD: 10}]
    assert [each["failed"] for each in served["errors"]] == [0, 1, 0]
    assert "the log of rolled-1 has answers with a status of 500" in served["errors"][1]["error"]
    # The container's log is shown while it starts.
    for lines, deployment in ((served["first_lines"], OLD), (served["lines"], NEW)):
        assert f"  {deployment}: Succeeded" in lines and any(
            "Azure ML Inferencing HTTP server" in line for line in lines
        )
    assert served["changed_again"] is False and "nothing is changed" in served["again_lines"][0]
    assert served["endpoint"]["tags"] == {"azureml_mlflow": "rolled"}
    (deployment,) = served["deployments"]
    assert deployment["sku"]["capacity"] == 1 and deployment["properties"]["instanceType"] == "Standard_DS3_v2"
    assert deployment["properties"]["model"].endswith("/models/rolled/versions/2")
    properties = served["properties"]
    assert properties["dataCollector"]["rollingRate"] == "Hour"
    # Numbers: https://learn.microsoft.com/rest/api/azureml/online-deployments/create-or-update#collection
    for name, rate in {"model_inputs": 0.25, "model_outputs": 1.0}.items():
        collection = properties["dataCollector"]["collections"][name]
        assert (collection["dataCollectionMode"], collection["samplingRate"]) == ("Enabled", rate)
        # The data asset exists, and is the folder that Azure ML writes to.
        folder = served["assets"][collection["dataId"]]
        assert folder.endswith(f"/datastores/workspaceblobstore/paths/modelDataCollector/under-load/{NEW}/{name}")
    assert properties["requestSettings"] == {"requestTimeout": "PT30S", "maxConcurrentRequestsPerInstance": 2}
    # Azure ML's own server has started two processes.
    assert properties["environmentVariables"] == {"WORKER_COUNT": "2"}
    assert served["workers"] == 2
    assert properties["livenessProbe"] == properties["readinessProbe"]
    assert properties["livenessProbe"]["failureThreshold"] == 10 and properties["livenessProbe"]["period"] == "PT10S"
    assert properties["egressPublicNetworkAccess"] == "Enabled"
    store = "azureml-blobstore-1@amlstorage.dfs.core.windows.net"
    assert served["collected_data"] == f"abfss://{store}/modelDataCollector/under-load"
    assert any(request.path.endswith("under-load/listKeys") for request in aml.requests()[before:])


@pytest.fixture(scope="module")
def with_faults(signed_in):
    """The state after rollouts that failed at each of their steps."""
    return signed_in.run(rollouts.fail_at_each_step)


@pytest.mark.parametrize("fault", rollouts.FAULTS | rollouts.MIRROR_FAULTS)
def test_whatever_fails_in_a_rollout_the_endpoint_serves_what_it_served_before(with_faults, fault):
    outcome = with_faults["outcomes"][fault]
    assert outcome["met"], outcome
    assert outcome["state"] == SERVES_OLD and outcome["right"]
    assert outcome["error"] and f"Endpoint faults serves what it served before: {OLD} 100 %." in outcome["error"]


@pytest.mark.parametrize(
    ("fault", "words"),
    list(zip(
        rollouts.MIRROR_FAULTS,
        [
            "mirrors to rolled-2 cannot be set to 50 %", "mirrors to rolled-2 cannot be set to 50 %",
            "0 % of the requests, 50 % mirrored, failed: Endpoint faults answered 503",
            "0 % of the requests, 50 % mirrored, failed: Endpoint faults, deployment rolled-2, answered 424",
            "answered 500 InternalServerError after 4 attempts: The stand-in was told to answer 500",
            "mirrors to rolled-2 cannot be set to 0 %",
        ],
        strict=True,
    )),
)  # fmt: skip
def test_what_fails_while_requests_are_mirrored_is_named(with_faults, fault, words):
    assert words in with_faults["outcomes"][fault]["error"]


def test_a_request_that_is_always_answered_with_500_is_repeated_three_times_only(with_faults):
    # One that begins to mirror, and one that ends it, in case the first was carried out.
    assert with_faults["outcomes"]["mirroring is always answered with 500"]["met"] == 2 * 4


def test_after_rollouts_that_failed_or_were_killed_while_mirroring_the_next_one_is_complete(with_faults):
    assert with_faults["left"] == {"traffic": {OLD: 100}, "deployments": [OLD, NEW], "ours": True, "mirror": {NEW: 30}}
    assert (
        f"{NEW}: 30 % of the requests are mirrored to it, from an earlier attempt; ending that" in with_faults["lines"]
    )
    # The client repeats what was answered with 500.
    assert with_faults["met"] == 1
    assert with_faults["after"] == SERVES_NEW


def test_a_rollout_that_is_killed_while_it_mirrors_leaves_the_old_version_and_is_completed_by_the_next(process):
    killed = process.run(rollouts.be_killed_while_mirroring)
    # SIGKILL.
    assert killed["ends"] == [9] * 3 and killed["right"] == [True] * 3
    assert killed["states"] == [SERVES_OLD | {"deployments": [OLD, NEW], "mirror": {NEW: 50}}] * 3
    ended = f"{NEW}: 50 % of the requests are mirrored to it, from an earlier attempt; ending that"
    assert killed["lines"][0] == ended and f"{NEW}: already deployed" in killed["lines"]
    assert any(line.startswith(f"{NEW}: mirroring has ended") for line in killed["lines"])
    assert killed["after"] == SERVES_NEW


def test_what_azure_keeps_from_ending_is_named_with_the_mirror_that_is_left_and_the_next_rollout_ends_it(process):
    model = process.run(rollouts.lose_azure_while_mirroring)
    for outcome in model["outcomes"]:
        assert outcome["state"] == SERVES_OLD | {"deployments": [OLD, NEW], "mirror": {NEW: 50}} and outcome["right"]
    changes, everything = (outcome["error"] for outcome in model["outcomes"])
    assert (
        f"Endpoint lasting serves what it served before: {OLD} 100 %. But {NEW} was not deleted, and still gets"
        in changes
    )
    assert "copies of 50 % of the requests: " in changes and "The next rollout or clean-up ends that." in changes
    assert f"could not be put back to {OLD} 100 %: Endpoint lasting cannot be read" in everything
    assert "Run this again when the endpoint can be reached" in everything
    assert model["lines"][0] == f"{NEW}: 50 % of the requests are mirrored to it, from an earlier attempt; ending that"
    assert model["after"] == SERVES_NEW


def test_a_change_that_azure_does_not_end_is_an_error_and_the_next_rollout_goes_on(process):
    model = process.run(rollouts.give_up_waiting)
    assert (
        "of endpoint slow cannot be set to {'rolled-1': 90, 'rolled-2': 10}: the change is InProgress"
        in model["traffic"]
    )
    assert "Azure has not ended it after 0 minutes. Run this again when the studio shows" in model["traffic"]
    assert f"{NEW}: already deployed" in model["lines"] and model["after"] == SERVES_NEW
    assert "Endpoint slow was not deleted: the deletion is InProgress" in model["deletion"]


def test_what_could_not_be_put_back_or_deleted_is_named_and_the_next_rollout_goes_on(process):
    states = process.run(rollouts.get_stuck_half_way)
    assert "could not be put back to rolled-1 100 %" in states["stuck"] and "Run this again" in states["stuck"]
    assert states["half_way"]["traffic"] == {OLD: 90, NEW: 10}
    assert states["shares"] == [10, 10, 50, 50, 100] and any("already deployed" in line for line in states["lines"])
    assert states["went_on"] == SERVES_NEW
    assert "Deployment rolled-2 of endpoint half-way was not deleted" in states["left"]
    assert states["with_both"] == {"traffic": {OLD: 100}, "deployments": [OLD, NEW], "ours": True}
    assert states["done"] == SERVES_OLD


def test_what_azure_does_not_accept_is_refused_in_its_words_and_changes_nothing(process, aml):
    answers = process.run(rollouts.ask_for_what_azure_refuses)
    assert "Not enough quota" in answers["too_many"] and "smaller instance_type" in answers["too_many"]
    assert "Standard_None" in answers["no_such_size"]
    assert "container" in answers["crash"] and "Traceback" in answers["log"]
    assert "the rows do not fit" in answers["column"]
    assert "missing inputs" in answers["column"] and "'b'" in answers["column"]
    assert "column a" in answers["kind"] and "text" in answers["kind"]
    assert "ParameterError: endpoint_name='somebody-elses'" in answers["foreign"]
    assert "ParameterError: endpoint_auth='aad_token'" in answers["other_auth"]
    assert answers["renewed"] == OLD
    assert "answered 401" in answers["unauthorized"] and "key or token" in answers["unauthorized"]
    assert answers["before"] == answers["after"]
    everything = "".join(map(str, answers.values()))
    assert aml.client_secret not in everything and "Bearer" not in everything


def test_without_a_role_the_error_names_the_one_that_is_needed(process):
    answers = process.run(rollouts.create_without_a_role)
    assert "cannot be created" in answers["refused"] and "AzureML Data Scientist" in answers["refused"]
    assert answers["state"] is None


def test_a_token_serves_as_the_key_where_callers_sign_in_with_entra_id(process):
    answers = process.run(rollouts.serve_with_tokens)
    assert answers["state"]["traffic"] == {OLD: 100} and answers["answered"] == OLD
    assert answers["after_deletion"] is None


def test_a_model_of_another_registry_is_registered_in_azure_ml_once_with_where_it_comes_from(process):
    model = process.run(rollouts.serve_a_model_of_another_registry)
    assert model["versions"] == ["1", "1"] and model["registry"] == model["local"]
    assert model["tags"]["registered_from"] == f"{model['local']} elsewhere/1"
    assert model["own_tags"].items() <= model["tags"].items() and model["own_tags"]["run_id"]
    assert model["state"]["traffic"] == {"elsewhere-1": 100} and model["name"].startswith("elsewhere-")
    assert "endpoint_target='managed': Azure ML cannot serve needs_java version 1" in model["needs_java"]
    assert "needs Java" in model["needs_java"] and "RESOURCE_DOES_NOT_EXIST" in model["not_registered"]


def bodies(requests, pattern):
    """The JSON bodies of the requests that make something, by the last part of their path."""
    return [
        (request.path.rpartition("/")[2], json.loads(request.body))
        for request in requests
        if request.method == "PUT" and re.search(pattern, request.path) and request.status < 300
    ]


def test_own_code_and_environment_are_made_once_whatever_fails_before_and_clean_up_deletes_them(
    process, aml, vendors_server
):
    before = len(aml.requests())
    served = process.run(rollouts.serve_with_own_code)
    requests = aml.requests()[before:]
    for fault, (met, assets, deployments, error) in served["left_by_faults"].items():
        kinds = [name.split("/")[0] for name in assets]
        made = ["codes", "environments"] if "deployments" in fault else ["codes"] if "environments" in fault else []
        assert met and kinds == made and deployments == [] and "deployment rolled-1 failed" in error, (fault, error)
        assert "sig=" not in error
    assert all(each == served["at_once"][0] for each in served["at_once"])
    assert [len(names) for names in served["made"].values()] == [2, 2]
    assert served["lost_answer"]["environmentId"].endswith(served["made"]["other"][1].rpartition("/")[2])
    assert served["state"] == SERVES_OLD and len(served["of_model"]) == 2
    assert "(the rows do not fit the model's signature): " in served["bad"] and "missing inputs ['b']" in served["bad"]

    workspace = aml.workspace_resource_id
    ((code_version, code),) = bodies(requests, "/codes/rolled-endpoint/")
    assert code["properties"].pop("codeUri").endswith("/onlinescoring")
    assert code == {"properties": {"isAnonymous": False, "tags": {"azureml_mlflow": "rolled"}}}
    ((environment_version, environment),) = bodies(requests, "/environments/rolled-endpoint/")
    conda = yaml.safe_load(environment["properties"].pop("condaFile"))
    assert {"mlflow", "scikit-learn", "azureml-inference-server-http", "azureml-ai-monitoring"} <= {
        line.partition("==")[0] for line in conda["dependencies"][-1]["pip"]
    }
    assert environment == {
        "properties": {
            "image": "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04",
            "osType": "Linux",
            "isAnonymous": False,
            "tags": {"azureml_mlflow": "rolled"},
        }
    }
    ((_, deployment),) = bodies(requests, "/onlineEndpoints/own-code/deployments/")
    properties = deployment["properties"]
    assert properties["model"] == f"{workspace}/models/rolled/versions/1"
    assert properties["endpointComputeType"] == "Managed" and properties["instanceType"] == "Standard_DS3_v2"
    assert properties["codeConfiguration"] == {
        "codeId": f"{workspace}/codes/rolled-endpoint/versions/{code_version}",
        "scoringScript": "score.py",
    }
    assert properties["environmentId"] == f"{workspace}/environments/rolled-endpoint/versions/{environment_version}"

    assert set(served["kept"]) == set(served["of_model"])
    assert all(reason.startswith("holds what is kept, own-code") for reason in served["kept"].values())
    assert served["outcomes"] == ["deleted"] * 4 and served["left"] == []
    # Those of other models stay.
    assert [len(names) for names in served["others"]] == [2, 2]


def test_a_kubernetes_endpoint_is_rolled_out_as_a_managed_one_on_the_cluster_of_the_workspace(process, aml):
    before = len(aml.requests())
    served = process.run(rollouts.serve_on_a_cluster)
    requests = aml.requests()[before:]
    cluster = f"{aml.workspace_resource_id}/computes/arc-cluster"
    assert served["state"] == SERVES_OLD and served["compute"] == cluster
    ((_, endpoint),) = bodies(requests, "/onlineEndpoints/on-cluster$")
    assert endpoint["properties"] == {
        "authMode": "Key", "properties": {"azureml.mlflow_client_endpoint": "True"}, "compute": cluster,
    }  # fmt: skip
    ((_, deployment),) = bodies(requests, "/onlineEndpoints/on-cluster/deployments/")
    assert deployment["properties"]["endpointComputeType"] == "Kubernetes" and deployment["sku"]["capacity"] == 1
    assert not {"instanceType", "egressPublicNetworkAccess"} & deployment["properties"].keys()
    refused = served["refused"]
    assert "instance type none-such does not exist on the cluster" in refused["instance_type"]
    assert "endpoint_target='managed': endpoint on-cluster is on arc-cluster" in refused["managed"]
    assert "endpoint_target='kubernetes': endpoint not-on-cluster is on managed compute" in refused["other_way"]
    assert served["listed"] == [
        ["deployments", "on-cluster/rolled-1", ""],
        ["endpoints", "not-on-cluster", ""],
        ["endpoints", "on-cluster", ""],
    ]
    assert all(served["deleted"]) and served["after_deletion"] is None


def test_without_the_cluster_nothing_is_made_and_the_error_names_those_that_exist(process, aml):
    before = len(aml.requests())
    answers = process.run(rollouts.ask_for_another_cluster)
    for name, value in (("no_such", "none-such"), ("of_version_1", "aks-cluster")):
        assert f"endpoint_compute='{value}': " in answers[name] and "it has arc-cluster" in answers[name]
    assert "mirror_percent='10': needs endpoint_target=managed or local" in answers["mirror"]
    assert not [request for request in aml.requests()[before:] if request.method in ("PUT", "PATCH", "DELETE")]


def test_clean_up_lists_the_models_endpoints_and_deletes_what_serves_only_if_forced(process):
    listed = process.run(rollouts.list_for_clean_up)
    others = {
        "other-model": "made by this bundle, and not named by these parameters",
        "other-model/other-1": "made by this bundle, and not named by these parameters",
        "not-ours": "not made by this bundle",
    }
    assert listed["kept"] == others | {
        "listed": "serves requests: rolled-1 gets 100 %; force=true deletes it",
        "listed/rolled-1": "gets 100 % of the requests; force=true deletes it",
        # Copies are not requests that somebody waits for.
        "listed/rolled-2": "",
        "listed-service": "serves requests: rolled-1 gets 100 %; force=true deletes it",
    }
    of_model = dict.fromkeys(("listed", "listed/rolled-1", "listed/rolled-2", "listed-service"), "")
    assert listed["kept_by_force"] == others | of_model
    assert listed["kinds"] == [
        ["deployments", "listed/rolled-1"],
        ["deployments", "listed/rolled-2"],
        ["endpoints", "listed"],
        ["endpoints", "listed-service"],
    ]
    assert listed["where"] == ["Azure ML workspace ml-workspace"]
    assert listed["deleted"] == [True] * 4 and listed["deleted_again"] == [False] * 4
    assert listed["left"] == sorted(others)


@pytest.mark.parametrize(("kind", "successor"), [("aci", "managed"), ("aks", "kubernetes")])
def test_a_web_service_has_one_version_which_the_next_replaces_unless_it_does_not_answer_rightly(
    process, kind, successor
):
    answers = process.run(rollouts.serve_as_a_web_service, kind)
    assert answers["first"] == SERVES_OLD
    (deprecated,) = [line for line in answers["lines"] if "deprecated" in line]
    assert f"endpoint_target={kind} is deprecated" in deprecated and f"use endpoint_target={successor}, " in deprecated
    assert answers["checks"] == [[100, 0]] and answers["changed_again"] is False
    assert "rolled-2 was put back in its place." in answers["broken"]
    assert "do not agree" in answers["wrong"] and "rolled-2 was put back" in answers["wrong"]
    assert answers["state"] == SERVES_NEW
    assert answers["right"] and answers["after_deletion"] is None
    assert answers["no_cluster"].startswith("ParameterError: aks_compute=''")
