"""Azure ML when the answer to a request gets lost, when tokens are revoked, and when the token service is busy."""

import os

import pytest

from tests.scenarios.azureml import lost_answers
from tests.scenarios.process import ScenarioProcess
from tests.stand_ins.azureml import names
from tests.stand_ins.azureml.blobs import ACCOUNT


@pytest.fixture
def process(azureml_process, aml):
    yield azureml_process
    aml.faults.clear()


@pytest.mark.parametrize(
    ("name", "lost", "statuses"),
    [
        ("lost_version", ["model-versions/create"], ["FINISHED"]),
        ("lost_run", ["POST .*runs/create"], ["FINISHED", "KILLED"]),
        ("lost_upload", ["artifacts/batch/metadata", f"PUT /{ACCOUNT}/", "registered-models/create"], ["FINISHED"]),
    ],
)
def test_a_request_whose_answer_was_lost_is_not_carried_out_twice(process, name, lost, statuses):
    model = process.run(lost_answers.train_and_register, name, lost)
    assert model["lost"] == [1] * len(lost)
    assert model["versions"] == ["1"] and model["new"] == [True, False] and model["same"]
    assert model["champion"] == "1" and model["right"]
    assert model["statuses"] == statuses


def test_another_model_of_the_same_name_in_one_run_is_refused_because_files_cannot_be_replaced(process):
    error = process.run(lost_answers.log_a_model_twice, "twice")
    assert error.startswith("FileExistsError: The run has another file model/") and "Choose another name" in error


def test_after_tokens_were_revoked_configure_signs_in_again_in_the_same_process(aml, tmp_path):
    environment = os.environ | aml.environment() | {"AZURE_CLIENT_ID": names.OTHER_CLIENT_ID}
    with ScenarioProcess.start(tmp_path, environment) as process:
        session = process.run(lost_answers.configure_after_tokens_were_revoked, "revoked")
    assert "401" in session["refused"] and session["runs"] == 2


def test_a_token_service_that_is_busy_is_named_as_that(process, aml):
    aml.faults.add("POST /adfs/oauth2/token", 429)
    error = process.run(lost_answers.configure_while_the_token_service_is_busy)
    assert error.startswith("AzureError: ") and "Microsoft Entra ID answered, but not in JSON" in error
    assert "limited the requests" in error and "Run this again later" in error
