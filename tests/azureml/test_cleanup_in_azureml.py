"""Clean-up in Azure ML, and of runs in Databricks with copies in Azure ML."""

import os
import sqlite3

import pytest

from tests.scenarios.azureml import clean_up
from tests.scenarios.process import ScenarioProcess
from tests.stand_ins import both_servers

# The requests of MLflow's API that only read.
READING = {
    "experiments/get", "experiments/get-by-name", "experiments/search", "runs/get", "runs/search",
    "registered-models/get", "model-versions/search", "model-versions/get",
}  # fmt: skip


@pytest.fixture(scope="module")
def signed_in(aml, databricks, tmp_path_factory):
    """A process that is signed in to both, and never repeats a request."""
    folder = tmp_path_factory.mktemp("clean_up")
    # Older MLflow does not create the folder of its database.
    (folder / "local").mkdir()
    variables = both_servers.environment(aml, databricks) | {"BUNDLE_LOCAL_DIR": str(folder / "local")}
    variables |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_DATABRICKS_ENDPOINT_HTTP_RETRY_TIMEOUT": "1"}
    with ScenarioProcess.start(folder, os.environ | variables) as process:
        yield process


@pytest.fixture
def process(signed_in, aml):
    yield signed_in
    aml.faults.clear()


@pytest.fixture(scope="module")
def cleaned(signed_in, aml):
    """What existed in Azure ML, what clean-up listed, the requests that it sent, and what was left."""
    runs = signed_in.run(clean_up.leave_runs_and_versions, "cleaned")

    def calls(first):
        paths = [request.path for request in aml.requests()[first:]]
        return {path.split("/mlflow/")[-1] for path in paths if "/api/2.0/" in path}

    before = len(aml.requests())
    listed = signed_in.run(clean_up.list_what_is_there, "cleaned") | {"calls_of_list": calls(before)}
    cleaned = signed_in.run(clean_up.clean_twice_and_by_force, "cleaned") | {"calls": calls(before)}
    return listed | cleaned | {"made": runs}


def test_in_azure_ml_the_list_has_what_will_happen_and_why_and_writes_nothing(cleaned):
    assert cleaned["calls_of_list"] <= READING and cleaned["nothing"] == 0
    assert {line["where"] for line in cleaned["planned"]} == {"Azure ML workspace ml-workspace"}
    runs = cleaned["made"]
    assert {line["name"]: line["what"] for line in cleaned["planned"]} == {
        "cleaned version 1": "delete",
        "cleaned version 2": "keep: the champion, unless force=true",
        "cleaned version 3": "keep: not made by this bundle",
        f"trained ({runs['first']})": "delete",
        f"trained ({runs['best']})": "keep: its model is cleaned version 2, which stays (the champion, "
        "unless force=true)",
        f"trained ({runs['foreign']})": "keep: not made by this bundle",
        f"trained ({runs['other']})": "keep: trained another, not cleaned",
        "cleaned": "keep: not known to be made by this bundle: it has other runs, or none",
    }


def test_in_azure_ml_what_the_bundle_made_is_deleted_and_the_champion_only_by_force(cleaned):
    assert cleaned["results"] == [["deleted", "deleted"], [], ["deleted", "deleted"]]
    assert cleaned["versions"] == ["3"]
    assert cleaned["runs"] == sorted([cleaned["made"]["foreign"], cleaned["made"]["other"]])
    assert "model-versions/delete" in cleaned["calls"] and "registered-models/delete" not in cleaned["calls"]


def test_in_azure_ml_an_experiment_goes_if_all_that_it_ever_held_was_the_bundles(process):
    experiments = process.run(clean_up.clean_experiments)
    assert experiments["results"] == ["deleted", "kept: clean_up does not name experiments", "deleted"]
    assert experiments["left"] is None
    assert experiments["empty"] == ["kept: not known to be made by this bundle: it has other runs, or none"]
    assert "experiment_name='owned': was deleted on azureml:" in experiments["refused"]


def test_what_fails_has_a_line_and_does_not_stop_the_rest_and_the_next_clean_up_deletes_it(process):
    cleaned = process.run(clean_up.clean_while_deletions_fail)
    version, first, second, third, gone, experiment = clean_up.results(cleaned["first"])
    assert version.startswith("failed: ") and "503" in version and "\n" not in version
    assert first.startswith("failed: ") and "403" in first
    assert (second, third, gone, experiment) == ("deleted", "deleted", "already gone", "failed: it has runs")
    red = "CleanUpError: 3 not deleted, model_versions failing_deletions version 1 among them: failed: "
    assert cleaned["check"].startswith(red)
    assert clean_up.results(cleaned["second"]) == ["deleted"] * 3 and cleaned["third"] == 0


@pytest.mark.parametrize("answer", ["kill", "kill_after"])
def test_a_job_that_is_killed_at_any_deletion_is_finished_by_the_next(process, answer):
    killed = process.run(clean_up.be_killed_at_each_deletion, answer)
    assert killed["ends"] == [9] * 4
    assert killed["left"] == (5 if answer == "kill" else 1)
    assert set(killed["last"]) == {"deleted"} and killed["then"] == 0


def content(databricks):
    """The content of the server's database."""
    with sqlite3.connect(databricks.store) as store:
        return list(store.iterdump())


def test_in_dual_mode_runs_go_on_both_servers_and_the_champions_stays_on_both(process, databricks):
    runs = process.run(clean_up.leave_mirrored_runs, "cleaned_both")
    before = content(databricks)
    process.run(clean_up.list_on_both_servers, "cleaned_both", "nobodys")
    assert content(databricks) == before
    cleaned = process.run(clean_up.clean_on_both_servers, "cleaned_both")
    assert [line[:3] for line in cleaned["cleaned"] if line[3] == "deleted"] == [
        ["model_versions", "cleaned_both version 1", "Azure ML workspace ml-workspace"],
        ["runs", f"trained ({runs['first']})", "Databricks"],
        ["runs", f"trained ({runs['copies'][0]})", "Azure ML workspace ml-workspace"],
        ["runs", f"trained ({runs['copies'][2]})", "Azure ML workspace ml-workspace"],
    ]
    assert cleaned["left"] == [sorted([runs["best"], runs["foreign"]]), [runs["copies"][1]]]
    # The source of the third copy was made by somebody else, the copy by this bundle.
    assert cleaned["left_after_force"] == [[runs["foreign"]], None]
    foreign = f"trained ({runs['foreign']})"
    assert clean_up.results(cleaned["again"]) == [
        "kept: not made by this bundle",
        f"kept: holds what is kept, {foreign}",
    ]


def test_an_experiment_of_copies_that_was_deleted_is_named_when_the_next_run_is_to_be_mirrored(process):
    pending = process.run(clean_up.mirror_after_clean_up, "mirror_gone")["pending"]
    assert "Mirroring to Azure ML is pending" in pending
    assert "experiment 'mirror_gone' was deleted in Azure Machine Learning" in pending


def test_a_version_that_was_copied_to_azure_ml_goes_with_the_one_that_it_was_made_of(process):
    versions = process.run(clean_up.clean_copied_versions)
    assert versions["left"] == [["2"], ["2"]] and versions["left_after_force"] == [[], []]
    places = [line[3] for line in versions["cleaned"] if line[2].startswith("Azure ML") and line[0] == "model_versions"]
    assert places[1] == "kept: its model is copied version 2, which stays (the champion, unless force=true)"
