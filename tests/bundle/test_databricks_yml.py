"""``databricks.yml`` breaks no rule in any target, and has the settings that this project documents."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from helpers import parameters
from helpers.jobs.bundle import FILE, Bundle
from helpers.jobs.task_types import ConditionTask, RunJobTask
from tests.bundle import rules

ROOT = Path(__file__).parents[2]
# For each stage, its targets by the compute that their jobs run on.
STAGES = {
    "development": {"ml": "dev", "serverless": "serverless", "standard": "standard"},
    "staging": {"ml": "staging", "serverless": "staging_serverless", "standard": "staging"},
    "prod": {"ml": "prod", "serverless": "prod_serverless", "standard": "prod"},
}
PRODUCTION = ["staging", "staging_serverless", "prod", "prod_serverless"]
TARGETS = ["dev", "serverless", "standard", "azureml", "dual", *PRODUCTION]
JOBS = ["train_and_register", "register", "batch_score", "monitor", "deploy_endpoint", "approve", "clean_up"]
STANDARD = ("spark_version", "data_security_mode", "cluster_libraries")
SIGN_IN = {
    "azureml_secret_scope": "azureml",
    "azureml_subscription_id": "00000000-0000-0000-0000-000000000000",
    "azureml_resource_group": "ml",
    "azureml_workspace": "ml-workspace",
}
MODES = {
    "databricks": {"tracking_mode": "databricks"},
    "databricks, models in Azure ML": {"tracking_mode": "databricks", "model_registry": "azureml"} | SIGN_IN,
    "azureml": {"tracking_mode": "azureml"} | SIGN_IN,
    "dual": {"tracking_mode": "dual"} | SIGN_IN,
    "dual, models in Azure ML": {"tracking_mode": "dual", "model_registry": "azureml"} | SIGN_IN,
}


@pytest.mark.parametrize("target", TARGETS)
def test_no_rule_is_broken(target):
    assert rules.findings(ROOT, target) == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("compute", ["ml", "serverless", "standard"])
@pytest.mark.parametrize("stage", STAGES)
def test_every_mode_can_be_deployed_on_every_compute_to_every_stage(mode, compute, stage):
    target, variables = STAGES[stage][compute], MODES[mode]
    if compute == "standard":
        # Staging and prod get what the target `standard` sets, in the same way.
        own = Bundle(ROOT, "standard").variables
        variables = variables | {name: own[name] for name in STANDARD}
    assert rules.findings(ROOT, target, variables) == []
    bundle = rules.deployed(ROOT, target, variables)
    assert bundle.settings["mode"] == ("development" if stage == "development" else "production")
    for key in JOBS:
        assert bundle.job(key).parameters.items() >= MODES[mode].items()


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


def test_an_alert_retrains_where_the_monitor_says_so_with_its_names_and_servers_and_is_not_tried_again():
    bundle = Bundle(ROOT)
    tasks = {task.key: task for task in bundle.job("monitor").tasks}
    assert tasks["monitor"].retries.max_retries == 0
    assert tasks["asked_to_retrain"].depends_on == {"monitor": None}
    assert tasks["asked_to_retrain"].action == ConditionTask("EQUAL_TO", "{{tasks.monitor.values.retrain}}", "true")
    assert tasks["retrain"].depends_on == {"asked_to_retrain": "true"}
    action = tasks["retrain"].action
    assert isinstance(action, RunJobTask) and action.job.key == "train_and_register"
    shared = bundle.job("monitor").parameters.keys() & action.job.parameters.keys()
    # Nobody is at a job to sign in.
    passed = {name: f"{{{{job.parameters.{name}}}}}" for name in shared - {"azureml_sign_in"}}
    new = {"training_table": "{{tasks.monitor.values.retraining_table}}", "source_path": ""}
    assert action.job_parameters == passed | new


def test_the_job_approve_has_what_a_deployment_job_of_unity_catalog_passes_and_decides_nothing_by_itself():
    job = Bundle(ROOT).job("approve")
    assert job.parameters.keys() >= {"model_name", "model_version"} and job.parameters["decision"] == "wait"
    assert [(task.key, task.retries.max_retries) for task in job.tasks] == [("approval", 0)]


def test_the_targets_are_a_development_default_and_production():
    targets = yaml.safe_load((ROOT / "databricks.yml").read_text())["targets"]
    assert sorted(targets) == sorted(TARGETS)
    assert targets["dev"]["default"] and targets["dev"]["mode"] == "development"
    assert targets["prod"]["mode"] == "production"


def test_the_schedules_are_paused_except_in_production():
    paused = []
    for target in TARGETS:
        settings = Bundle(ROOT, target).settings
        schedules = {key: job["schedule"] for key, job in settings["resources"]["jobs"].items() if "schedule" in job}
        assert schedules.keys() == {"batch_score", "monitor"}
        assert not any("pause_status" in schedule for schedule in schedules.values())
        preset = settings.get("presets", {}).get("trigger_pause_status")
        paused.append(settings["mode"] == "development" or preset == "PAUSED")
    assert paused == [not target.startswith("prod") for target in TARGETS]


@pytest.mark.parametrize("target", PRODUCTION)
def test_production_runs_as_a_service_principal_that_the_other_targets_do_not_need(target):
    assert Bundle(ROOT, target).settings["run_as"] == {"service_principal_name": "${var.service_principal}"}
    assert Bundle(ROOT, target).lookups == {"service_principal": {"service_principal": "azureml_mlflow"}}
    assert Bundle(ROOT, target, {"service_principal": "an-id"}).lookups == {}
    assert Bundle(ROOT).lookups == {}


@pytest.mark.parametrize("target", TARGETS)
def test_tasks_run_on_job_clusters_except_in_targets_that_say_serverless(target):
    jobs = Bundle(ROOT, target).settings["resources"]["jobs"].values()
    compute = {
        (kind, value)
        for job in jobs
        for task in job["tasks"]
        for kind, value in task.items()
        if kind in rules.COMPUTE and "notebook_task" in task
    }
    assert compute == {("environment_key" if "serverless" in target else "job_cluster_key", "ml")}


def test_the_runtimes_in_the_guide_and_the_default_are_those_whose_packages_are_tested():
    (line,) = re.findall(r"^RUNTIMES := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    runtimes = line.split()
    pins = {
        path.stem: dict(re.findall(r"^([\w-]+)==(\S+)", path.read_text(), re.MULTILINE))
        for path in (ROOT / "tests/runtimes").glob("*.txt")
        # The others are for imports only.
        if "-" not in path.stem
    }
    assert sorted(pins) == sorted(runtimes)
    models = re.findall(r"^databricks-bundles==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert [of_runtime["databricks-bundles"] for of_runtime in pins.values()] == models * len(pins)
    assert Bundle(ROOT).variables["spark_version"].partition(".x-cpu-ml-")[0] in runtimes
    mlflow, spark = (", ".join(pins[name][package] for name in runtimes) for package in ("mlflow-skinny", "pyspark"))
    guide = " ".join((ROOT / "docs/guide/databricks.md").read_text(encoding="utf-8").split())
    assert f"(MLflow {mlflow}; Spark {spark})" in guide


def test_the_target_standard_sets_only_what_its_compute_needs():
    assert yaml.safe_load((ROOT / FILE).read_text())["targets"]["standard"]["variables"].keys() == set(STANDARD)


TRIGGERS = re.findall(r"^ {6}# trigger:\n(?:^ {6}#   .*\n)+", (ROOT / FILE).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize(("comment", "kind"), [*zip(TRIGGERS, ["table_update", "model"], strict=True)])
def test_a_trigger_in_a_comment_can_take_the_place_of_the_schedule(tmp_path, comment, kind):
    for folder in ("notebooks", "helpers"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    for file in ("requirements.txt", ".gitignore"):
        shutil.copy(ROOT / file, tmp_path)
    text = (ROOT / FILE).read_text(encoding="utf-8")
    both = text.replace(comment, re.sub("^( {6})# ", r"\1", comment, flags=re.MULTILINE))
    one = re.sub(r"^ {6}schedule:.*\n(?: {8}\w.*\n)+", "", both, flags=re.MULTILINE)
    findings = []
    for content, variables in [(both, {"catalog": "main"}), (one, {}), (one, {"catalog": "main"})]:
        (tmp_path / FILE).write_text(content, encoding="utf-8")
        findings.append(rules.jobs_start_in_one_way(rules.deployed(tmp_path, "prod", variables)))
    assert findings[0] == ["job 'batch_score': has schedule and trigger; a job has one of them"]
    assert findings[1][0].endswith("is not catalog.schema.name")
    assert findings[2] == rules.jobs_are_accepted_by_databricks_bundles(rules.deployed(tmp_path, "prod")) == []
    assert set(rules.deployed(tmp_path, "prod").settings["resources"]["jobs"]["batch_score"]["trigger"]) == {kind}


def test_the_command_of_the_guide_that_deploys_to_production_breaks_no_rule():
    guide = (ROOT / "docs/guide/databricks.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"databricks bundle deploy --target prod(?:.*\\\n)+.*", guide)
    words = shlex.split(command.replace("\\\n", " ").replace("…", "an-example"))
    assert words[:5] == ["databricks", "bundle", "deploy", "--target", "prod"] and set(words[5::2]) == {"--var"}
    variables = dict(word.split("=") for word in words[6::2])
    assert variables.keys() == MODES["dual, models in Azure ML"].keys()
    variables["azureml_subscription_id"] = SIGN_IN["azureml_subscription_id"]
    assert rules.findings(ROOT, "prod", variables) == []
