"""A run in Databricks and its copy in Azure ML, compared field by field through plain clients."""

import contextlib
import os

import pytest

from tests.scenarios.azureml import mirror
from tests.scenarios.process import ScenarioProcess
from tests.stand_ins import both_servers


@pytest.fixture(scope="module")
def new_process(aml, databricks, tmp_path_factory):
    """Start a process that is signed in to both."""

    @contextlib.contextmanager
    def start():
        folder = tmp_path_factory.mktemp("mirror")
        environment = both_servers.environment(aml, databricks) | {"BUNDLE_LOCAL_DIR": str(folder / "local")}
        with ScenarioProcess.start(folder, os.environ | environment) as process:
            yield process

    return start


@pytest.fixture(scope="module")
def module_process(new_process):
    with new_process() as process:
        yield process


@pytest.fixture
def process(module_process, aml):
    yield module_process
    aml.faults.clear()


def test_random_runs_have_copies_that_are_equal_in_every_field_and_are_completed_later(process):
    mirrored = process.run(mirror.mirror_random_runs)
    assert mirrored["failures"] == []
    assert mirrored["before"] == [[]] * 6 and mirrored["pending"] == [0, 1]
    assert mirrored["after"] == [[]] * 6 and mirrored["copies"] == 6
    assert mirrored["statuses"] == ["FAILED", "FINISHED", "KILLED"]
    assert mirrored["sent"] == [[0, 0]] * 6
    assert mirrored["omissions"] == []
    # MLflow's tracking URI is unchanged.
    assert mirrored["tracking_uri"] == "sqlite:///elsewhere.db"


def test_a_study_and_its_trials_have_copies_with_the_same_relation(process):
    study = process.run(mirror.mirror_a_study)
    assert study["differences"] == [[], [], []] and study["copies"] == 3 and study["children"] == 2
    assert len(study["losses"]) == 3
    assert "not as in Databricks" not in study["printed"] and "pending" not in study["printed"]


@pytest.fixture(scope="module")
def beyond_the_limits(module_process, aml):
    """A run with more of everything than Azure ML accepts, mirrored by function and by command."""
    # The time limit of requests to Databricks; they take at least a second.
    seconds = {"MLFLOW_DATABRICKS_ENDPOINT_HTTP_RETRY_TIMEOUT": "2"}
    copy = module_process.run(mirror.mirror_a_run_beyond_the_limits, environment=seconds)
    aml.faults.clear()
    return copy


def test_what_azure_ml_does_not_accept_is_cut_or_left_out_and_each_item_is_named(beyond_the_limits):
    copy = beyond_the_limits
    assert copy["same"] and copy["pending"] == 0
    assert "tag long: cut from 3000 to 1000 characters" in copy["items"] and copy["long"] == 1000
    assert f"tag {'k' * 40}…: its name has 120 characters, the limit is 100" in copy["items"]
    assert copy["tags"] <= 50 and copy["params"] == 200 and copy["name"] == 256
    assert len([item for item in copy["items"] if item.startswith("parameter p")]) == 10
    copied = copy["tags"] - 3
    assert len([item for item in copy["items"] if item.endswith("a run can have 50 tags")]) >= 61 - copied
    of_model = [item for item in copy["items"] if item.startswith("logged model model: ")]
    assert [item.rpartition("not the ")[2] for item in of_model] == [
        "tags team",
        "parameters depth",
        "links from metrics auc",
    ]
    assert "run name nnn" in " ".join(copy["items"])
    assert copy["note"].startswith(f"{len(copy['items'])} items: ") and len(copy["note"]) <= 1000


def test_the_command_mirrors_prints_what_differs_and_ends_with_a_line_where_it_cannot_work(beyond_the_limits):
    command = beyond_the_limits
    assert command["statuses"] == {
        "all": 0, "pending only": 0, "no such experiment": 2, "no workspace": 2, "Databricks is down": 2
    }  # fmt: skip
    assert "not as in Databricks: tag long: cut from" in command["printed"]
    assert "1 runs mirrored, 0 pending" in command["printed"]
    assert "no experiment '/Shared/no_such'" in command["refused"]
    assert "azureml_subscription_id" in command["refused"]
    assert "cannot be reached (The stand-in was told to answer 503.)" in command["refused"]


@pytest.fixture(scope="module")
def faulty(new_process):
    """Mirrors that failed or died at some of their requests, in a process that has no open connections yet."""
    with new_process() as process:
        return process.run(mirror.fail_at_some_requests)


def test_any_request_may_fail_or_end_the_process_and_the_next_call_completes_the_copy(faulty):
    outcomes = faulty["outcomes"]
    assert len(outcomes) >= 7
    assert [outcome for outcome in outcomes if outcome["problems"]] == []
    # With fewer failures, the faults would have come too late to have an effect.
    assert sum(outcome["first_failed"] for outcome in outcomes) >= 5


def test_two_mirrors_of_one_run_at_the_same_time_leave_one_copy(faulty):
    assert faulty["race"] == []


def test_training_ends_without_azure_ml_and_a_later_job_mirrors_and_registers_from_the_copy(process, aml, databricks):
    once = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    run = process.run(mirror.train_while_azure_ml_is_away, environment=once)
    assert run["status"] == "FINISHED" and run["differences"] == []
    assert run["away"].startswith(
        "Mirroring to Azure ML is pending; the next job or `python -m helpers.mirror /Shared/dual`"
    )
    assert "503" in run["away"] and "503" in run["cannot_register"]
    assert any(row["what"] == "mirror" and row["where"].startswith("pending: ") for row in run["table"])
    assert run["back"].startswith(f"run {run['run_id']} (FINISHED) is run {run['copy']} in Azure ML")
    assert run["uris"] == ["databricks", aml.tracking_uri]
    assert run["steps"] == run["points"] == run["texts"] > 0 and run["copies"] == 1
    assert run["registered"] == [["1", True], ["1", False]]
    assert run["version_run_id"] == run["copy"]
    assert run["run_id_of_version"] == run["run_id"] == run["version_tags"]["run_id"]
    assert run["version_tags"]["tracking_server"] == databricks.url
    assert run["predictions"] == ["a", "a", "b", "b"]
