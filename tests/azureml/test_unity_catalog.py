"""Models in Unity Catalog's registry, with MLflow's unpatched client."""

import os

import pytest

from tests.scenarios.azureml import unity_catalog
from tests.scenarios.azureml.shared_models import CHECKS
from tests.scenarios.process import ScenarioProcess
from tests.stand_ins import both_servers
from tests.stand_ins.unity_catalog import UnityCatalogStandIn


@pytest.fixture(scope="module")
def catalog(databricks, tmp_path_factory):
    with UnityCatalogStandIn.start(tmp_path_factory.mktemp("unity_catalog"), databricks.url) as stand_in:
        yield stand_in


@pytest.fixture(scope="module")
def signed_in(aml, databricks, catalog, tmp_path_factory):
    """A process that is signed in to Azure ML and to a Databricks workspace with Unity Catalog."""
    folder = tmp_path_factory.mktemp("signed_in")
    environment = os.environ | both_servers.environment(aml, databricks)
    # Requests to the workspace pass through Azure ML's stand-in, for its faults.
    environment |= {"DATABRICKS_HOST": aml.front_of(catalog.url), "BUNDLE_LOCAL_DIR": str(folder / "local")}
    with ScenarioProcess.start(folder, environment) as process:
        yield process


@pytest.fixture
def process(signed_in, aml):
    yield signed_in
    aml.faults.clear()


WITH_THE_SDK = {"MLFLOW_USE_DATABRICKS_SDK_MODEL_ARTIFACTS_REPO_FOR_UC": "true"}


def test_a_model_that_is_registered_twice_has_two_versions_whose_champion_is_scored_with_and_is_cleaned_up(
    process, catalog
):
    model = process.run(unity_catalog.register_twice_and_score, "twice")
    missing, versions = model["nothing"]
    assert versions == [] and "no registered version of it in databricks-uc; models there: none" in missing
    assert model["registered"] == [["1", "READY", True], ["2", "READY", True], ["1", "READY", False]]
    assert model["champions"] == ["1", "2"] and model["by_alias"] and model["loaded"]
    run_id, *others = model["run_id"]
    assert others == [run_id, run_id]
    expected = CHECKS | {"run_id": run_id, "azureml_mlflow": "main.ml.twice"}
    assert expected.items() <= model["champion_tags"].items()
    assert model["waiting"][0] == "1" and "version 1 was refused by Ada" in model["waiting"][1]
    assert model["deployed"] == [["twice", "1", True], ["twice", "1", False]]
    assert model["page"] == "databricks-uc" and "is unsupported for models in the Unity Catalog" in model["stages"]
    # The run of the first version was a job's.
    assert [made_by["entities"] for made_by in catalog.lineage] == [[{"job": {"id": "7"}}]]
    first, second, whole = (f"main.ml.twice {what}" for what in ("version 1", "version 2", "(the registered model)"))
    assert process.run(unity_catalog.clean_up, "twice") == {
        "kept": [[first, ""], [second, "the champion, unless force=true"], [whole, ""]],
        "forced": {first: True, second: True, whole: True},
        "left": False,
        "again": [],
    }


@pytest.mark.parametrize(
    ("name", "environment", "way"), [("signed", {}, "/storage"), ("sdk", WITH_THE_SDK, "/api/2.0/fs/files")]
)
def test_a_champion_of_azure_ml_is_in_unity_catalog_once_and_can_be_copied_on_and_back(process, name, environment, way):
    model = process.run(unity_catalog.share_from_azure_ml_and_back, name, environment=environment)
    copy = f"prod.ml.{name} version 1 in Unity Catalog, its champion"
    assert model["said"] == [f"{name} version 1 was shared: {copy}", f"{name} version 1 was shared before: {copy}"]
    assert model["all"] == [["1", "READY"]] and model["champion"] == "1" and model["labels"]
    record = CHECKS | {
        "registered_from": f"{model['address']} {name}/1",
        "azureml_mlflow": f"prod.ml.{name}",
        "approved_by": "Ada",
        # Unity Catalog accepts neither dots nor more than 1,000 characters.
        "team_name": "t" * 1_000,
    }
    assert record.items() <= model["tags"].items()
    # Back in the workspace, it is the version that all are copies of.
    assert model["on"] == [[name, "1", True], [name, "1", False], [name, "1", False]]
    assert model["on_tags"]["first_registered_from"] == record["registered_from"]
    assert way in model["requests"]


@pytest.mark.parametrize(
    ("name", "environment", "steps", "found"),
    [
        (
            "killed",
            {},
            [
                ["POST .*/model-versions/create", "kill_after"],
                ["PUT /storage/.*MLmodel", "kill"],
                ["POST .*/model-versions/finalize", "kill"],
                ["POST .*/model-versions/finalize", "kill_after"],
            ],
            [[1, 0], [2, 0], [3, 0], [4, 1]],
        ),
        ("killed_sdk", WITH_THE_SDK, [["PUT /api/2.0/fs/files/.*MLmodel", "kill"]], [[1, 0]]),
    ],
)
def test_a_copy_that_is_killed_is_never_used_and_the_next_one_is_whole(process, name, environment, steps, found):
    model = process.run(unity_catalog.be_killed, name, steps, environment=environment)
    assert model["ends"] == [9] * len(steps) and model["found"] == found
    number = str(found[-1][0] + 1 - found[-1][1])
    is_new = "was shared before" if found[-1][1] else "was shared"
    assert [text.partition(": ")[0] for text in model["said"]] == [
        f"{name} version 1 {is_new}",
        f"{name} version 1 was shared before",
    ]
    assert model["champion"] == [number, True]
    assert model["deleted"] == [
        *([f"prod.ml.{name} version {it + 1}", True] for it in range(int(number))),
        [f"prod.ml.{name} (the registered model)", True],
    ]


def test_a_version_whose_upload_was_killed_is_never_the_one_that_is_found(process):
    model = process.run(unity_catalog.register_and_be_killed, "half")
    assert model["ends"] == [9] and model["left"] == [["1", "PENDING_REGISTRATION"]]
    for error in model["unfinished"]:
        assert "has no version in databricks-uc" in error and "Run 03_register" in error
    assert model["registered"] == ["2", True] and model["again"] is False and model["labels"]
    assert "main.ml.half has no such version; it has: 2" in model["first"]
    assert model["planned"] == [
        ["main.ml.half version 1", ""],
        ["main.ml.half version 2", "the champion, unless force=true"],
        ["main.ml.half (the registered model)", ""],
    ]


def test_of_two_that_share_at_once_one_version_stays_whichever_finishes_first(process):
    model = process.run(unity_catalog.finish_in_the_other_order, "ordered")
    assert "was shared: prod.ml.ordered version 2" in model["said"] and model["end"] == 0
    assert model["all"] == [["1", "READY"]] and model["champion"] == "1" and model["labels"]


def test_what_unity_catalog_does_not_accept_leaves_no_version_that_can_be_found(process):
    model = process.run(unity_catalog.share_what_cannot_be_stored, "refused")
    unsigned, elsewhere = model["errors"]
    assert "did not contain any signature metadata" in unsigned
    assert "pip install mlflow[databricks]" in elsewhere
    assert model["usable"] == [0, 0]
