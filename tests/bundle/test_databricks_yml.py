"""``databricks.yml`` in step with the notebooks, the declarations and the requirements."""

import re
from pathlib import Path

import pytest
import yaml

from helpers import parameters
from helpers.bundle import Bundle

ROOT = Path(__file__).parents[2]
TARGETS = ["dev", "azureml", "dual", "staging", "prod"]
JOBS = ["train_and_register", "batch_score", "deploy_endpoint", "clean_up"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("key", JOBS)
def test_each_job_parameter_is_declared_with_an_accepted_default_in_each_target(key, target):
    job = Bundle(ROOT, target).job(key)
    assert job.parameters.keys() <= parameters.FIELDS.keys()
    fixed = {name: value for name, value in job.parameters.items() if "{{" not in value}
    assert len(vars(parameters.parse(fixed))) == len(fixed)


@pytest.mark.parametrize("key", JOBS)
def test_a_notebook_that_is_opened_by_hand_has_the_same_defaults_as_the_job_in_dev(key):
    fixed = {name: value for name, value in Bundle(ROOT).job(key).parameters.items() if "{{" not in value}
    assert fixed == {name: parameters.default_text(name) for name in fixed}


@pytest.mark.parametrize("key", JOBS)
def test_each_parameter_that_a_notebook_asks_for_is_given_by_its_job_and_none_in_vain(key):
    job = Bundle(ROOT).job(key)
    asked, by_task = set(), {name for task in job.tasks for name in task.base_parameters}
    for task in job.tasks:
        if task.condition:
            asked |= set(re.findall(r"job\.parameters\.(\w+)", f"{task.condition}"))
            continue
        call = re.search(r"runtime\.parameters\(.*?\)", task.notebook.read_text(), re.S)[0]
        assert "*parameters.TRACKING" in call
        names = set(re.findall(r'\\"(\w+)\\"', call))
        names |= {name for group in re.findall(r"\*parameters\.(\w+)", call) for name in getattr(parameters, group)}
        given = job.parameters.keys() | task.base_parameters.keys()
        # The champion is what 03_register has promoted just now.
        assert names - given <= ({"model_version"} if task.key == "deploy_endpoint" else set())
        asked |= names & given
    assert job.parameters.keys() == asked - by_task


def test_the_endpoint_is_deployed_after_registering_if_that_is_asked_for():
    tasks = {task.key: task for task in Bundle(ROOT).job("train_and_register").tasks}
    assert tasks["deploy_endpoint"].depends_on == {"asked_to_deploy": "true"}
    assert tasks["asked_to_deploy"].depends_on == {"register": None}
    assert tasks["asked_to_deploy"].condition == {"op": "EQUAL_TO", "left": "{{job.parameters.deploy}}", "right": "true"}


def test_the_targets_are_a_development_default_and_production():
    targets = yaml.safe_load((ROOT / "databricks.yml").read_text())["targets"]
    assert list(targets) == TARGETS
    assert targets["dev"]["default"] and targets["dev"]["mode"] == "development"
    assert targets["prod"]["mode"] == "production"


def test_the_schedule_is_paused_except_in_production():
    paused = {target: Bundle(ROOT, target).variables["score_paused"] for target in TARGETS}
    assert paused == dict.fromkeys(TARGETS, "PAUSED") | {"prod": "UNPAUSED"}


def test_the_cluster_libraries_are_pinned_as_in_the_requirements():
    content = yaml.safe_load((ROOT / "databricks.yml").read_text())
    pins = set(re.findall(r"^([\w.-]+==[\w.]+)", (ROOT / "requirements.txt").read_text(), re.M))
    for job in content["resources"]["jobs"].values():
        for task in job["tasks"]:
            if "condition_task" in task:
                continue
            packages = {library["pypi"]["package"] for library in task["libraries"]}
            assert {"mlflow", "azureml-mlflow"} <= {package.split("==")[0] for package in packages}
            assert packages <= pins
