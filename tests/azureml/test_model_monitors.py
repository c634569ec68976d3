"""Azure ML's own monitor of an endpoint, made through Azure Resource Manager with the bundle's client."""

from __future__ import annotations

import json
import os

import jsonschema
import pytest

from tests.scenarios.azureml import model_monitors
from tests.scenarios.process import ScenarioProcess
from tests.stand_ins import both_servers
from tests.stand_ins.azureml.monitor_schema import NAME, SCHEDULE
from tests.stand_ins.azureml_workspace import AzureMLStandIn

NAMED = model_monitors.SCHEDULE
PLACE = "Azure ML workspace ml-workspace"


@pytest.fixture(scope="module")
def signed_in(aml, databricks, tmp_path_factory):
    """A process that is signed in to Azure ML, with an endpoint whose deployment ``telling`` collects data."""
    folder = tmp_path_factory.mktemp("monitors")
    environment = both_servers.environment(aml, databricks) | {"BUNDLE_LOCAL_DIR": str(folder / "local")}
    with ScenarioProcess.start(folder, os.environ | environment) as process:
        process.run(model_monitors.deploy)
        yield process
        process.run(model_monitors.delete_endpoints)


@pytest.fixture
def process(signed_in, aml):
    signed_in.run(model_monitors.set_traffic, telling=60, silent=40)
    yield signed_in
    aml.faults.clear()
    signed_in.run(model_monitors.delete_schedules)


def written(aml):
    """The bodies of the schedules that were sent and accepted, oldest first."""
    sent = [
        request for request in aml.requests("/schedules/") if request.method == "PUT" and request.status in (200, 201)
    ]
    return [json.loads(request.body) for request in sent]


def test_the_monitor_is_created_once_updated_when_parameters_change_and_shown(process, aml):
    before = len(written(aml))
    (created,) = process.run(model_monitors.schedule)
    assert created.startswith(
        f"{NAMED}: created, enabled; it compares the inputs of deployment telling of endpoint watched-endpoint with those "
        "that were collected before. The first result comes after its first run: https://ml.azure.com/monitoring?wsid="
    )
    (unchanged,) = process.run(model_monitors.schedule)
    assert unchanged.startswith(f"{NAMED}: unchanged, enabled") and len(written(aml)) == before + 1
    (updated,) = process.run(model_monitors.schedule, drift_thresholds="psi=0.3")
    assert updated.startswith(f"{NAMED}: updated, enabled") and len(written(aml)) == before + 2
    found = process.run(model_monitors.read)["properties"]
    assert found["provisioningState"] == "Succeeded" and found["tags"]["azureml_mlflow"] == "watched"


def test_the_request_has_the_parameters_and_the_form_of_the_vendors_specification(process, aml):
    process.run(
        model_monitors.schedule,
        window="week",
        azureml_monitor_emails="ada@example.com, bob@example.com",
        drift_thresholds="psi=0.3, prediction_psi=inf, null_share=0.1, unseen_share=inf",
    )
    body = written(aml)[-1]
    jsonschema.validate(body, SCHEDULE)
    properties = body["properties"]
    assert properties["trigger"] == {
        "triggerType": "Recurrence", "frequency": "Week", "interval": 1, "timeZone": "UTC",
        "schedule": {"hours": [6], "minutes": [0], "weekDays": ["Monday"]},
    }  # fmt: skip
    monitor = properties["action"]["monitorDefinition"]
    workspace = AzureMLStandIn.workspace_resource_id
    assert monitor["monitoringTarget"] == {
        "taskType": "Regression",
        "deploymentId": f"{workspace}/onlineEndpoints/watched-endpoint/deployments/telling",
    }
    assert monitor["alertNotificationSettings"]["emailNotificationSettings"]["emails"] == [
        "ada@example.com", "bob@example.com",
    ]  # fmt: skip
    # `inf` turned the only measure of predictions off.
    assert set(monitor["signals"]) == {"DataDrift", "DataQuality"}
    drift, quality = monitor["signals"]["DataDrift"], monitor["signals"]["DataQuality"]
    assert [(each["dataType"], each["metric"], each["threshold"]["value"]) for each in drift["metricThresholds"]] == [
        ("Numerical", "PopulationStabilityIndex", 0.3), ("Categorical", "PopulationStabilityIndex", 0.3),
    ]  # fmt: skip
    assert [(each["dataType"], each["metric"], each["threshold"]["value"]) for each in quality["metricThresholds"]] == [
        ("Numerical", "NullValueRate", 0.1), ("Categorical", "NullValueRate", 0.1),
        ("Numerical", "OutOfBoundsRate", 0.05),
    ]  # fmt: skip
    assert drift["features"] == {"filterType": "FeatureSubset", "features": ["x", "colour"]}
    assert drift["featureDataTypeOverride"] == {"x": "Numerical", "colour": "Categorical"}
    folder = (
        f"azureml://subscriptions/{AzureMLStandIn.subscription_id}/resourcegroups/{AzureMLStandIn.resource_group}/workspaces/"
        "ml-workspace/datastores/workspaceblobstore/paths/modelDataCollector/watched-endpoint/telling"
    )
    assert drift["productionData"]["uri"] == f"{folder}/model_inputs"
    windows = [(each["windowSize"], each["windowOffset"]) for each in (drift["productionData"], drift["referenceData"])]
    assert windows == [("P7D", "P0D"), ("P28D", "P7D")]


def test_without_a_baseline_all_that_is_collected_is_watched_daily_and_nobody_gets_an_e_mail(process, aml):
    process.run(model_monitors.schedule_without_baseline, model_type="classifier", window="batch")
    body = written(aml)[-1]
    jsonschema.validate(body, SCHEDULE)
    monitor = body["properties"]["action"]["monitorDefinition"]
    assert "alertNotificationSettings" not in monitor and monitor["monitoringTarget"]["taskType"] == "Classification"
    assert body["properties"]["trigger"]["frequency"] == "Day"
    assert set(monitor["signals"]) == {"DataDrift", "PredictionDrift", "DataQuality"}
    assert monitor["signals"]["DataDrift"]["features"] == {"filterType": "AllFeatures"}
    outputs = monitor["signals"]["PredictionDrift"]["productionData"]
    assert outputs["dataContext"] == "model_outputs" and outputs["uri"].endswith("/telling/model_outputs")
    assert all("notificationTypes" not in signal for signal in monitor["signals"].values())


def test_the_baseline_of_a_copied_version_is_that_of_the_version_it_was_copied_from(process, aml):
    for number, watched in (("1", "FeatureSubset"), ("9", "AllFeatures")):
        process.run(model_monitors.copied_from, f"databricks watched/{number}")
        process.run(model_monitors.schedule, model_registry="databricks")
        signals = written(aml)[-1]["properties"]["action"]["monitorDefinition"]["signals"]
        assert signals["DataDrift"]["features"]["filterType"] == watched


def test_a_monitor_that_somebody_has_paused_stays_paused_also_when_it_is_updated(process):
    process.run(model_monitors.schedule)
    assert process.run(model_monitors.put, isEnabled=False, displayName="mine") is None
    (unchanged,) = process.run(model_monitors.schedule)
    assert f"{NAMED}: unchanged, paused" in unchanged and "before you enable it: https://" in unchanged
    assert process.run(model_monitors.read)["properties"]["displayName"] == "mine"
    (updated,) = process.run(model_monitors.schedule, window="week")
    assert f"{NAMED}: updated, paused" in updated
    assert process.run(model_monitors.clean_up) == [[NAMED, PLACE, "deleted"]]


def test_a_schedule_of_somebody_else_is_neither_changed_nor_deleted(process, aml):
    process.run(model_monitors.schedule)
    assert process.run(model_monitors.put, tags={}) is None
    before = len(written(aml))
    refused = process.run(model_monitors.error_of_schedule, window="week")
    assert refused.startswith("ParameterError: azureml_monitor=True: the workspace ml-workspace has a schedule")
    assert "that this bundle did not make for watched" in refused and len(written(aml)) == before
    assert process.run(model_monitors.clean_up) == [[NAMED, PLACE, "kept: not made by this bundle"]]
    assert process.run(model_monitors.put, tags={"azureml_mlflow": "another"}) is None
    kept = "kept: made by this bundle, and not named by these parameters"
    assert process.run(model_monitors.clean_up) == [[NAMED, PLACE, kept]]
    assert process.run(model_monitors.put, tags={"azureml_mlflow": "watched"}) is None


def test_clean_up_deletes_the_models_monitor_if_it_is_asked_to_and_follows_pages(process):
    process.run(model_monitors.schedule)
    assert process.run(model_monitors.put, "of-somebody-else", {}) is None
    kept = ["of-somebody-else", PLACE, "kept: not made by this bundle"]
    not_asked = process.run(model_monitors.clean_up, "endpoints, tables")
    assert not_asked == [[NAMED, PLACE, "kept: clean_up does not name monitors"], kept]
    assert process.run(model_monitors.clean_up) == [[NAMED, PLACE, "deleted"], kept]
    assert process.run(model_monitors.clean_up) == [kept] and process.run(model_monitors.read) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {
                "azureml_workspace": "",
                "tracking_mode": "databricks",
                "model_registry": "databricks",
                "experiment_name": "/Shared/monitors",
            },
            "needs an Azure ML workspace. Give azureml_subscription_id, azureml_resource_group and azureml_workspace",
        ),
        (
            {"model": "unserved"},
            "the Azure ML workspace ml-workspace has no managed endpoint of unserved that this bundle made. Run "
            "05_deploy_endpoint with endpoint_target=managed and collect_data=true",
        ),
        (
            {"drift_thresholds": "psi=inf, prediction_psi=inf, null_share=inf, outside_range=inf, unseen_share=inf"},
            "turns off all that azureml_monitor=true watches",
        ),
    ],
)
def test_a_monitor_that_cannot_be_made_is_refused_with_what_to_do_before_anything_is_written(
    process, aml, changes, reason
):
    before = len(written(aml))
    assert reason in process.run(model_monitors.error_of_schedule, **changes)
    assert len(written(aml)) == before


def test_an_endpoint_without_traffic_or_without_collected_data_is_named(process, aml):
    before = len(written(aml))
    process.run(model_monitors.set_traffic, silent=100)
    silent = process.run(model_monitors.error_of_schedule)
    assert "deployment silent of endpoint watched-endpoint does not collect model_inputs and model_outputs" in silent
    assert silent.endswith("Run 05_deploy_endpoint with collect_data=true")
    process.run(model_monitors.set_traffic)
    assert "endpoint watched-endpoint has no traffic" in process.run(model_monitors.error_of_schedule)
    assert len(written(aml)) == before


def test_a_fault_at_the_write_leaves_one_monitor_after_the_next_run(process, aml):
    aml.faults.add(f"PUT .*/schedules/{NAMED}", 503, times=4)
    assert process.run(model_monitors.error_of_schedule).startswith("AzureError: ")
    assert process.run(model_monitors.clean_up) == []
    aml.faults.add(f"PUT .*/schedules/{NAMED}", "lose_answer", times=1)
    (created,) = process.run(model_monitors.schedule)
    assert created.startswith(f"{NAMED}: created")
    (unchanged,) = process.run(model_monitors.schedule)
    assert unchanged.startswith(f"{NAMED}: unchanged")
    assert process.run(model_monitors.clean_up) == [[NAMED, PLACE, "deleted"]]


def test_inputs_are_compared_with_training_rows_of_the_version_which_are_copied_to_its_run_once(process, aml):
    (rolling,) = process.run(model_monitors.schedule)
    assert "with those that were collected before" in rolling
    aml.faults.add(r"PUT .*DATA\.parquet", 403, times=1)
    assert process.run(model_monitors.error_of_schedule, with_rows=True) is not None
    (updated,) = process.run(model_monitors.schedule, with_rows=True)
    assert updated.startswith(f"{NAMED}: updated") and "with training rows of its version" in updated
    jsonschema.validate(written(aml)[-1], SCHEDULE)
    signals = written(aml)[-1]["properties"]["action"]["monitorDefinition"]["signals"]
    of_inputs = signals["DataDrift"]["referenceData"]
    assert of_inputs == signals["DataQuality"]["referenceData"]
    assert {key: value for key, value in of_inputs.items() if key != "uri"} == {
        "inputDataType": "Fixed", "dataContext": "training", "jobInputType": "mltable",
    }  # fmt: skip
    # The names of the collected outputs are Azure ML's own, so our predictions could not be matched with them.
    assert signals["PredictionDrift"]["referenceData"]["inputDataType"] == "Rolling"
    uploaded = process.run(model_monitors.reference, of_inputs["uri"])
    assert uploaded["files"] == ["DATA.parquet", "MLTable"] and "- file: ./DATA.parquet" in uploaded["mltable"]
    # What is watched, and not the label.
    assert uploaded["rows"] == {"x": [0.5, 1.5], "colour": ["a", None]}
    # The table may be gone by now.
    before = len(aml.requests("DATA.parquet"))
    (unchanged,) = process.run(model_monitors.schedule)
    assert f"{NAMED}: unchanged" in unchanged and "with training rows of its version" in unchanged
    assert len(aml.requests("DATA.parquet")) == before


def test_a_deletion_whose_answer_is_lost_is_a_deletion_and_a_refused_one_is_reported(process, aml):
    process.run(model_monitors.schedule)
    aml.faults.add(f"DELETE .*/schedules/{NAMED}", 403, times=1)
    ((_, _, refused),) = process.run(model_monitors.clean_up)
    assert refused.startswith("failed: ") and "403" in refused
    aml.faults.add(f"DELETE .*/schedules/{NAMED}", "lose_answer", times=1)
    assert process.run(model_monitors.clean_up) == [[NAMED, PLACE, "deleted"]]


def test_the_stand_in_refuses_what_the_specification_does_not_have(process):
    process.run(model_monitors.schedule)
    assert "does not match" in process.run(model_monitors.put, "-no-name")
    for changes, path in (
        ({"trigger": {"triggerType": "Recurrence", "frequency": "Fortnight", "interval": 1}}, "$.properties.trigger"),
        ({"owner": "ada"}, "$.properties"),
    ):
        refused = process.run(model_monitors.put, **changes)
        assert refused.startswith("AzureError: ") and "400 UserError" in refused and path in refused
    assert process.run(model_monitors.read)["name"] == NAMED
    assert jsonschema.Draft202012Validator.check_schema(SCHEDULE) is None and NAME.startswith("^")
