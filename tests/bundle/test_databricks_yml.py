"""``databricks.yml`` breaks no rule in any target, and has the settings that this project documents."""

from pathlib import Path

import pytest
import yaml

from helpers import parameters
from helpers.jobs.bundle import Bundle
from helpers.jobs.task_types import ConditionTask
from tests.bundle import rules

ROOT = Path(__file__).parents[2]
TARGETS = ["dev", "serverless", "azureml", "dual", "staging", "prod"]
JOBS = ["train_and_register", "register", "batch_score", "deploy_endpoint", "clean_up"]


@pytest.mark.parametrize("target", TARGETS)
def test_no_rule_is_broken(target):
    assert rules.findings(ROOT, target) == []


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("key", JOBS)
def test_each_job_can_be_run_on_a_laptop_too(target, key):
    assert Bundle(ROOT, target).job(key).tasks


@pytest.mark.parametrize("key", JOBS)
def test_a_notebook_that_is_opened_by_hand_has_the_same_defaults_as_the_job_in_dev(key):
    fixed = {name: value for name, value in Bundle(ROOT).job(key).parameters.items() if "{{" not in value}
    assert fixed == {name: parameters.default_text(name) for name in fixed}


def test_the_endpoint_is_deployed_after_registering_if_deploy_is_true():
    tasks = {task.key: task for task in Bundle(ROOT).job("train_and_register").tasks}
    assert tasks["deploy_endpoint"].depends_on == {"asked_to_deploy": "true"}
    assert tasks["asked_to_deploy"].depends_on == {"register": None}
    assert tasks["asked_to_deploy"].action == ConditionTask("EQUAL_TO", "{{tasks.register.values.deploy}}", "true")


def test_the_targets_are_a_development_default_and_production():
    targets = yaml.safe_load((ROOT / "databricks.yml").read_text())["targets"]
    assert list(targets) == TARGETS
    assert targets["dev"]["default"] and targets["dev"]["mode"] == "development"
    assert targets["prod"]["mode"] == "production"


def test_the_schedule_is_paused_except_in_production():
    paused = []
    for target in TARGETS:
        settings = Bundle(ROOT, target).settings
        assert "pause_status" not in settings["resources"]["jobs"]["batch_score"]["schedule"]
        preset = settings.get("presets", {}).get("trigger_pause_status")
        paused.append(settings["mode"] == "development" or preset == "PAUSED")
    assert paused == [target != "prod" for target in TARGETS]


@pytest.mark.parametrize("target", ["staging", "prod"])
def test_production_runs_as_a_service_principal_that_the_other_targets_do_not_need(target):
    assert Bundle(ROOT, target).settings["run_as"] == {"service_principal_name": "${var.service_principal}"}
    assert Bundle(ROOT, target).lookups == {"service_principal": {"service_principal": "azureml_mlflow"}}
    assert Bundle(ROOT, target, {"service_principal": "an-id"}).lookups == {}
    assert Bundle(ROOT).lookups == {}


@pytest.mark.parametrize("target", TARGETS)
def test_tasks_run_on_job_clusters_except_in_the_target_serverless(target):
    jobs = Bundle(ROOT, target).settings["resources"]["jobs"].values()
    compute = {
        (kind, value)
        for job in jobs
        for task in job["tasks"]
        for kind, value in task.items()
        if kind in rules.COMPUTE and "notebook_task" in task
    }
    assert compute == {("environment_key" if target == "serverless" else "job_cluster_key", "ml")}
