"""Champions that are shared: from a local registry to Azure ML's, to another workspace, to Databricks."""

import pytest

from tests.scenarios.azureml import shared_models
from tests.scenarios.azureml.shared_models import CHECKS, PROD, REGISTRY
from tests.stand_ins.azureml.blobs import ACCOUNT, REGISTRY_ACCOUNT

COMPLETE = {"numbers": ["1"], "is_champion": True, "tags": True, "labels": True}
VERSION = "PUT .*/registries/.*/versions/1"


def test_a_champion_goes_from_test_over_a_registry_to_production_with_what_leads_back_to_its_run(process, aml):
    model = process.run(shared_models.from_test_to_prod, "shared")
    place = "Azure ML registry shared-models"
    assert model["said"] == [
        f"shared version 1 was shared: shared version 1 in {place}, its champion",
        f"shared version 1 was shared before: shared version 1 in {place}, its champion",
        f"shared version 1 is not the champion, so it is not shared with {place}",
        f"shared version 2 was shared: shared version 2 in {place}, its champion",
    ]
    assert model["numbers"] == {"shared": ["1", "2"], "prod": ["1"]}
    assert model["new"] == [True, False, True, False, False]
    # Copied back, it is the version that all are copies of.
    assert model["back"] == [2, True]
    tags, local, prod = model["tags"], model["addresses"]["local"], model["addresses"]["prod"]
    record = CHECKS | {
        "run_id": model["run_id"],
        "tracking_server": local,
        "first_registered_from": f"{local} shared/2",
    }
    for copy in ("shared", "prod", "copied"):
        assert record.items() <= tags[copy].items()
    assert [tags[copy]["registered_from"] for copy in ("shared", "prod", "copied")] == [
        f"{local} shared/2", f"{REGISTRY} shared/2", f"{prod} shared/1"
    ]  # fmt: skip
    # Only the registry's newest one is its champion; what was decided after it was shared, is there, too.
    assert [copy for copy in tags if "champion" in tags[copy]] == ["shared"]
    assert tags["first"]["approved_by"] == "Ada"
    assert model["labels"] and model["copied_labels"]
    # Production does not see the run of test, so it checks an endpoint with the model's own example.
    assert model["run_here"] == [False, True] and model["examples"]
    assert model["page"] == "https://ml.azure.com/registries/shared-models/models"
    assert model["deleted"] == [
        ["shared version 1", "", "True"], ["shared version 2", "the champion, unless force=true", ""]
    ]  # fmt: skip
    assert model["left"] == ["2"]
    statuses = {request.status for request in aml.requests("/registries/shared-models/models/shared")}
    assert statuses <= {200, 201, 202, 404}


@pytest.mark.parametrize(
    ("name", "target", "steps", "versions"),
    [
        (
            "killed_registry",
            REGISTRY,
            [[f"PUT /{REGISTRY_ACCOUNT}/.*model.skops", "kill"], [VERSION, "kill"], [VERSION, "kill_after"]],
            [[], [], ["1"]],
        ),
        (
            "killed_workspace",
            PROD,
            [[f"PUT /{ACCOUNT}/.*model.skops", "kill"], ["model-versions/create", "kill_after"]],
            [[], ["1"]],
        ),
    ],
)
def test_a_copy_that_is_killed_is_finished_by_the_next_one_and_there_is_one(process, name, target, steps, versions):
    model = process.run(shared_models.be_killed, name, target, steps)
    assert model["ends"] == [9] * len(steps) and model["versions"] == versions
    assert "was shared before" in model["last"]
    assert {key: model[key] for key in COMPLETE} == COMPLETE


@pytest.mark.parametrize(
    ("name", "target", "pattern", "numbers"),
    [
        ("raced_registry", REGISTRY, "POST .*/startPendingUpload", ["1"]),
        ("raced_workspace", PROD, "model-versions/create", ["1"]),
    ],
)
def test_two_that_share_a_champion_at_once_end_in_one_version(process, name, target, pattern, numbers):
    model = process.run(shared_models.share_at_once, name, target, pattern)
    assert model["ends"] == [0, 0] and model["raced"] == 2
    assert {key: model[key] for key in COMPLETE} == COMPLETE


def test_two_versions_that_are_copied_at_once_under_one_number_become_two(process):
    model = process.run(shared_models.copy_two_versions_at_once, "two")
    # The number of a deleted version cannot be taken again.
    again = [["1", False], ["3", True]]
    assert model == {"end": 0, "raced": 2, "again": again, "numbers": ["1", "2"], "sources": ["1", "2"]}


def test_errors_of_the_registry_leave_nothing_and_say_which_role_is_missing(process):
    model = process.run(shared_models.share_while_the_registry_fails, "failed")
    assert "answered 503" in model["failed"] and "run this again later" in model["failed"] and model["left"] == []
    assert "No permission for the Azure ML registry shared-models" in model["without_role"]
    assert "the role AzureML Registry User on the registry" in model["without_role"]
    assert "was shared" in model["said"] and {key: model[key] for key in COMPLETE} == COMPLETE


def test_a_registry_that_cannot_be_used_is_refused_before_anything_is_written(process):
    errors = process.run(shared_models.name_what_cannot_be_shared_with)
    assert "share_with='azureml://registries/nobodys': Azure has no registry of that name" in errors["unknown"]
    assert "model_registry='azureml://registries/nobodys': Azure has no" in errors["unknown_registry"]
    assert "share_with='local': is where the model is registered" in errors["itself"]
    assert "model_name='two words': cannot be shared with Azure ML registry shared-models" in errors["name"]
    assert "the role AzureML Registry User on the registry" in errors["role"]
    for form in ("azureml://registries/<name>", "/workspaces/<name>", "databricks-uc/<catalog>.<schema>", "local, "):
        assert form in errors["form"]
    assert errors["made"] is False
