"""Each rule applied to copies of the bundle with one thing broken, and its first finding."""

import shutil
from pathlib import Path

import pytest

from helpers.jobs.bundle import FILE, BundleError
from tests.bundle import rules

ROOT = Path(__file__).parents[2]
TRAIN, REGISTER = "notebooks/02_train.ipynb", "notebooks/03_register.ipynb"
CLEAN_UP = "notebooks/07_clean_up.ipynb"
SERVICE_PRINCIPAL = "that deploys, and that jobs run as, in staging and prod.\n"
ALL_COMPUTE = "job_cluster_key, environment_key, existing_cluster_id, new_cluster"
SETUP = "job 'train_and_register', task 'setup'"
NO_SIGN_IN = "need a sign-in to Azure; give azureml_secret_scope, or on a job cluster cluster_environment"
SCORE = "job 'batch_score', task 'score'"
SCORING = "notebook_task: { notebook_path: notebooks/04_batch_score.ipynb }"
RUNS_JOB = "run_job_task: {{ job_id: '${{resources.jobs.{}.id}}', job_parameters: {{ {} }} }}"
RUN_ID = "job 'train_and_register', task 'register', run_id: {{tasks.train.values.run_id}} has no value"

# By rule: the file, the old text, the new text, the target, and the first finding; LINE is the line of the old text.
BROKEN = {
    rules.yaml_is_what_the_cli_reads: [
        (
            FILE, "- <<: *task\n          task_key: train\n", "- <<: { max_retries: 1 }\n", "dev",
            "databricks.yml, line LINE: `<<` accepts an alias such as *name, not a map that is written in its place",
        ),
        (
            FILE, "queue: { enabled: true }", "queue: { enabled: true, enabled: false }", "dev",
            "databricks.yml, line LINE: 'enabled' occurs 2 times in one map",
        ),
    ],
    rules.sections_have_known_fields: [
        (
            FILE, "\nvariables:\n", "\nvariable: {}\nvariables:\n", "dev",
            "the top level: unknown field 'variable'; did you mean variables?",
        ),
        (
            FILE, "    permissions: *permissions", "    permission: *permissions", "prod",
            "target 'prod': unknown field 'permission'; did you mean permissions?",
        ),
        (
            FILE, "trigger_pause_status:", "pause_status:", "staging",
            "target 'staging', presets: unknown field 'pause_status'; did you mean trigger_pause_status?",
        ),
    ],
    rules.variables_have_a_description_and_a_value: [
        (
            FILE, "    description: Virtual machine of the job cluster.\n", "", "dev",
            "variable 'node_type_id' has no description",
        ),
        (
            FILE, f'{SERVICE_PRINCIPAL}    default: ""\n', SERVICE_PRINCIPAL, "dev",
            "variable 'service_principal' has no value in target 'dev': give it a default",
        ),
    ],
    rules.variables_do_not_refer_to_variables: [
        (
            FILE, "default: diabetes\n", "default: ${var.schema}_model\n", "dev",
            "variable 'model_name': its value refers to ${var.schema}; write that variable's value",
        ),
        (
            FILE, "{ service_principal: azureml_mlflow }", '{ service_principal: "${var.schema}" }', "prod_serverless",
            "variable 'service_principal': its value refers to ${var.schema}; write that variable's value",
        ),
    ],
    rules.the_models_are_of_a_cli_that_may_deploy: [
        (
            FILE, ">= 1.20.0", ">= 1.23.0", "dev",
            "databricks.yml requires the Databricks CLI >= 1.23.0, but its tests use databricks-bundles==1.22.1",
        ),
    ],
    rules.references_resolve: [
        (
            FILE, "${var.spark_version}", "${var.spark_versoin}", "dev",
            "job 'train_and_register', job_clusters, new_cluster, spark_version: ${var.spark_versoin} refers to "
            "nothing; did you mean var.spark_version?",
        ),
        (
            FILE, "description: Deploy the champion to an", "description: After ${resources.jobs.batch_scor.id}, have an", "dev",
            "job 'deploy_endpoint', description: ${resources.jobs.batch_scor.id} refers to nothing; "
            "did you mean resources.jobs.batch_score?",
        ),
        (
            FILE, "Users/${var.service_principal}", "Users/${var.principal}", "prod",
            "target 'prod', workspace, root_path: ${var.principal} refers to nothing; "
            "did you mean var.service_principal?",
        ),
        (
            FILE, "${bundle.name} batch_score", "${bundle.name batch_score", "dev",
            "job 'batch_score', name: ${bundle.name batch_score refers to nothing; did you mean bundle.name?",
        ),
    ],
    rules.targets_have_what_their_mode_asks_for: [
        (
            FILE, "      root_path: /Workspace/Users", "      state_path: /Workspace/Users", "staging",
            "target 'staging': mode production without workspace.root_path; each user who deploys would get a copy",
        ),
        (
            FILE, '&run_as { service_principal_name: "${var.service_principal}" }', "&run_as {}", "prod",
            "target 'prod': run_as needs one of service_principal_name and user_name; it has neither",
        ),
        (
            FILE, "    default: true\n", "    default: true\n    workspace: { root_path: /Shared/ml }\n", "dev",
            "target 'dev': mode development, but root_path /Shared/ml is the same for all users",
        ),
        (
            FILE, "    default: true\n", "    default: true\n    presets: { trigger_pause_status: UNPAUSED }\n", "dev",
            "target 'dev': mode development cannot have trigger_pause_status UNPAUSED",
        ),
        (
            FILE, "mode: development", "mode: developement", "dev",
            "target 'dev': mode 'developement' is neither development nor production",
        ),
    ],
    rules.jobs_are_accepted_by_databricks_bundles: [
        (FILE, "max_retries", "max_retrys", "dev", f"{SETUP}: Unexpected field 'max_retrys' for class Task"),
        (FILE, " schedule:", " schedul:", "dev", "job 'batch_score': Unexpected field 'schedul' for class Job"),
        (
            FILE, "timeout_seconds: 7200", "timeout_seconds: 2h", "dev",
            "job 'train_and_register': invalid literal for int() with base 10: '2h'",
        ),
        (
            FILE, "SINGLE_USER", "SINGLE", "dev",
            "job 'train_and_register': 'SINGLE' is not a valid DataSecurityMode",
        ),
        (
            FILE, "CAN_VIEW", "CAN_LOOK", "prod",
            "job 'train_and_register': 'CAN_LOOK' is not a valid JobPermissionLevel",
        ),
    ],
    rules.notebooks_exist: [
        (
            FILE, "notebooks/02_train.ipynb", "notebooks/02_trian.ipynb", "dev",
            "job 'train_and_register', task 'train': there is no file notebooks/02_trian.ipynb; "
            "did you mean notebooks/02_train.ipynb?",
        ),
        (
            TRAIN, '"cells": [', '"cells": ', "dev",
            "job 'train_and_register', task 'train': notebooks/02_train.ipynb is not a notebook",
        ),
        (
            FILE, "paths: [notebooks, helpers]", "paths: [notebooks, helpers]\n  exclude: [07_*.ipynb]", "dev",
            "job 'clean_up', task 'clean_up': notebooks/07_clean_up.ipynb is not synced",
        ),
    ],
    rules.tasks_run_on_one_compute_that_is_there: [
        (
            FILE, "            - job_cluster_key: ml\n", "            - job_cluster_key: large\n", "dev",
            f"{SETUP}: job_cluster_key 'ml' is not defined; job_clusters of the job: large",
        ),
        (
            FILE, "- environment_key: ml\n", "- environment_key: default\n", "serverless",
            f"{SETUP}: environment_key 'ml' is not defined; environments of the job: default",
        ),
        (
            FILE, "            - { <<: *on_cluster, task_key: register }\n", "", "dev",
            f"job 'train_and_register', task 'register': needs one of {ALL_COMPUTE}; it has none",
        ),
        (
            FILE, "- &on_cluster\n", "- &on_cluster\n              existing_cluster_id: a\n", "dev",
            f"{SETUP}: needs one of {ALL_COMPUTE}; it has job_cluster_key and existing_cluster_id",
        ),
        (
            FILE, "setup, environment_key: ml", "setup, environment_key: ml, libraries: [{ jar: a }]", "serverless",
            f"{SETUP}: serverless compute does not accept `libraries`; use the dependencies of its environment",
        ),
    ],
    rules.compute_has_what_ml_runtimes_have: [
        (
            FILE, "spark_version: 18.x-scala2.13", "spark_version: 18.x-cpu-ml-scala2.13", "standard",
            f"{SETUP}: 18.x-cpu-ml-scala2.13 does not run in the access mode USER_ISOLATION; see target standard",
        ),
        (
            FILE, "          - pypi: { package: xgboost-cpu==3.2.0 }\n", "", "standard",
            f"{SETUP}: xgboost is not installed, and 18.x-scala2.13 does not have it",
        ),
        (
            FILE, "                  - optuna==3.6.1\n", "", "prod_serverless",
            f"{SETUP}: optuna is not installed, and serverless compute does not have it",
        ),
    ],
    rules.jobs_can_sign_in_to_azure: [
        (
            FILE, "      cluster_environment: *azureml_environment\n", "", "dual",
            f"job 'train_and_register': tracking_mode=dual and model_registry=azureml {NO_SIGN_IN}",
        ),
        (
            FILE, "AZURE_CLIENT_SECRET:", "AZURE_SECRET:", "azureml",
            f"job 'train_and_register': tracking_mode=azureml and model_registry=auto {NO_SIGN_IN}",
        ),
        (
            FILE, "or dual (helpers/parameters.py).\n    default: auto", "or dual.\n    default: azureml", "serverless",
            f"job 'train_and_register': tracking_mode=azureml and model_registry=auto {NO_SIGN_IN}",
        ),
    ],
    rules.tasks_depend_on_tasks: [
        (
            FILE, "depends_on: [{ task_key: setup }]", "depends_on: [{ task_key: set_up }]", "dev",
            "job 'train_and_register', task 'train': depends_on 'set_up', which is not a task of the job",
        ),
        (
            FILE, "depends_on: [{ task_key: setup }]", "depends_on: [{ task_key: register }]", "dev",
            "job 'train_and_register': tasks depend on each other in a circle: train → register → train",
        ),
        (
            FILE, "depends_on: [{ task_key: asked_to_deploy,", "depends_on: [{ task_key: register,", "dev",
            "job 'train_and_register', task 'deploy_endpoint': depends_on an outcome of 'register', "
            "which is not a condition",
        ),
    ],
    rules.tasks_run_jobs_of_the_bundle: [
        (FILE, SCORING, RUNS_JOB.format("batch_scor", "model_name: m"), "dev", f"{SCORE}: job_id "
            "'${resources.jobs.batch_scor.id}' is not ${resources.jobs.<key>.id} of a job here"),
        (FILE, SCORING, RUNS_JOB.format("clean_up", "dryrun: 'true'"), "dev",
            f"{SCORE}: job 'clean_up' has no parameter 'dryrun'; did you mean dry_run?"),
        (FILE, SCORING, RUNS_JOB.format("clean_up", "dry_run: maybe"), "dev",
            f"{SCORE}: dry_run='maybe': not accepted: true or false. Only list what would be deleted (default: true)."),
        (FILE, SCORING, RUNS_JOB.format("batch_score", "model_name: m"), "dev",
            "job 'batch_score': jobs run each other in a circle: batch_score → batch_score"),
    ],
    rules.values_are_known_when_a_job_runs: [
        (
            FILE, SCORING, RUNS_JOB.format("clean_up", "model_name: '{{tasks.train.values.name}}'"), "dev",
            "job 'batch_score', task 'score', model_name: {{tasks.train.values.name}} has no value; "
            "no task that ran before has set it",
        ),
        (
            FILE, "tasks.train.values.run_id", "tasks.train.values.run", "dev",
            "job 'train_and_register', task 'register', run_id: {{tasks.train.values.run}} has no value; "
            "there are: tasks.train.values.model_uri, tasks.train.values.run_id, tasks.train.values.run_page",
        ),
        (
            TRAIN, 'runtime.set_task_value(\\"run_id\\"', 'print(\\"run_id\\"', "dev",
            f"{RUN_ID}; there are: tasks.train.values.model_uri, tasks.train.values.run_page",
        ),
        (
            FILE, "depends_on: [{ task_key: train }]", "depends_on: [{ task_key: setup }]", "dev",
            f"{RUN_ID}; no task that ran before has set it",
        ),
        (
            FILE, "{{job.run_id}}", "{{job.runid}}", "dev",
            "job 'batch_score', parameter 'batch_id': {{job.runid}} has no value; "
            "there are: job.id, job.name, job.run_id, job.repair_count",
        ),
        (
            FILE, "{{job.run_id}}", "{{run_id}}", "dev",
            "job 'batch_score', parameter 'batch_id': {{run_id}} is not a reference that Databricks knows",
        ),
        (
            FILE, "{{secrets/azureml/azure-tenant-id}}", "{{secret/azureml/azure-tenant-id}}", "azureml",
            "job 'train_and_register', spark_env_vars AZURE_TENANT_ID: {{secret/azureml/azure-tenant-id}} is not "
            "{{secrets/<scope>/<key>}}",
        ),
    ],
    rules.parameters_are_those_of_the_notebooks: [
        (
            FILE, "{ name: scoring_filter,", "{ name: scoring_filte,", "dev",
            "job 'batch_score', task 'score': 04_batch_score.ipynb asks for 'scoring_filter', which neither the job nor the task sets",
        ),
        (
            FILE, "        { name: env_manager,", "        *training_table, { name: env_manager,", "dev",
            "job 'batch_score': no notebook of the job asks for 'training_table'",
        ),
        (
            FILE, '        - { name: seed, default: "42" }\n', "", "dev",
            "job 'train_and_register', task 'train': 02_train.ipynb asks for 'seed', which neither the job nor the task sets",
        ),
        (
            CLEAN_UP, "parameters.CleanUp", "parameters.Register", "dev",
            "job 'clean_up', task 'clean_up': 07_clean_up.ipynb asks for 'deploy', which neither the job nor the task sets",
        ),
        (
            FILE, '- { name: deploy, default: "false" }', '- { name: deploy_it, default: "false" }', "dev",
            "job 'train_and_register', task 'register': 03_register.ipynb asks for 'deploy', which neither the job nor the task sets",
        ),
        (
            FILE, "        { name: env_manager,", "        *id_column, { name: env_manager,", "dev",
            "job 'batch_score': parameter 'id_column' is listed twice",
        ),
        (
            FILE, '{ model_version: "" }', '{ model_version: "", seed: "1" }', "dev",
            "job 'train_and_register', task 'deploy_endpoint': 05_deploy_endpoint.ipynb does not ask for 'seed'",
        ),
        (
            FILE, '              run_id: "', '              model_name: other\n              run_id: "', "dev",
            "job 'train_and_register', task 'register': the job's parameter 'model_name' wins over the task's",
        ),
        (
            FILE, '{ name: test_fraction, default: "0.2" }', '{ name: test_fraction, default: "1.2" }', "dev",
            "job 'train_and_register': test_fraction='1.2': not accepted: input should be less than 1. "
            "Share of the rows held out of training (default: 0.2).",
        ),
        (
            FILE, "model_registry: azureml\n", "model_registry: azure\n", "dual",
            "job 'train_and_register': model_registry='azure': not accepted: one of auto, local, databricks, databricks-uc, "
            "azureml, or azureml://registries/<name> (3 to 33 characters). Where models are registered. auto: the registry that goes with tracking_mode. databricks-uc: Unity "
            "Catalog. databricks: the workspace's own registry, which is off in accounts created since April 2024. "
            "azureml://registries/<name>: an Azure ML registry, which several workspaces share (default: auto).",
        ),
    ],
    rules.packages_are_pinned_as_in_the_requirements: [
        (
            FILE, "{ package: mlflow==3.15.0 }", "{ package: mlflow==3.14.0 }", "dev",
            f"{SETUP}: mlflow==3.14.0 is installed, but requirements.txt has mlflow==3.15.0",
        ),
        (
            FILE, "- optuna==3.6.1", "- optuna", "serverless",
            f"{SETUP}: optuna is installed, but requirements.txt has optuna==3.6.1",
        ),
        (
            REGISTER, "mlflow==3.15.0 azureml", "mlflow==3.15.1 azureml", "dev",
            "03_register.ipynb: mlflow==3.15.1 is installed, but requirements.txt has mlflow==3.15.0",
        ),
        (
            FILE, "      - pypi: { package: mlflow==3.15.0 }\n      - pypi: { package: azureml-mlflow==1.62.0.post6 }\n",
            "      - pypi: { package: mlflow==3.15.0 }\n", "dev",
            f"{SETUP}: azureml-mlflow==1.62.0.post6 is installed by 01_setup.ipynb, but not for this task; "
            "it gets mlflow==3.15.0, tqdm==4.70.1",
        ),
        (
            "requirements.txt", "mlflow==3.15.0\nazureml", "azureml", "prod",
            f"{SETUP}: mlflow==3.15.0 is installed, but requirements.txt has no pin of mlflow",
        ),
    ],
    rules.imported_files_are_synced: [
        (
            FILE, "paths: [notebooks, helpers]", "paths: [notebooks, helpers/tracking]", "dev",
            "notebooks/01_setup.ipynb imports helpers/__init__.py, which is not synced",
        ),
        (
            FILE, "paths: [notebooks, helpers]", "paths: [notebooks, helpers]\n  exclude: [limits.py]", "dev",
            "helpers/tracking/mirror/__init__.py imports helpers/tracking/mirror/limits.py, which is not synced",
        ),
        (
            ".gitignore", ".venv\n", ".venv\nrollout_log.py\n", "dev",
            "helpers/serving/__init__.py imports helpers/serving/rollout_log.py, which is not synced",
        ),
        (
            "helpers/data/tables.py", None, None, "dev",
            "helpers/data/__init__.py imports helpers.data.tables, which does not exist",
        ),
        (
            TRAIN, "from helpers import data", "from helpers import parametres, data", "dev",
            "notebooks/02_train.ipynb imports helpers.parametres, which does not exist",
        ),
    ],
    rules.pictures_are_synced: [
        (
            FILE, "paths: [notebooks, helpers]", "paths: [notebooks, helpers]\n  exclude: ['*.svg']", "dev",
            "notebooks/01_setup.ipynb shows notebooks/images/01_setup.svg, which is not synced",
        ),
        (
            "notebooks/images/02_train.svg", None, None, "dev",
            "notebooks/02_train.ipynb shows notebooks/images/02_train.svg, which does not exist",
        ),
    ],
    rules.schedules_can_be_read: [
        (
            FILE, "0 0 5 * * ?", "0 5 * * *", "dev",
            "job 'batch_score': schedule '0 5 * * *' does not have the form second minute hour day month weekday, with `?` for one day",
        ),
        (FILE, "timezone_id: UTC", "timezone_id: Berlin", "dev", "job 'batch_score': there is no time zone 'Berlin'"),
    ],
    rules.jobs_start_in_one_way: [
        (
            FILE, "      schedule:", "      continuous: { pause_status: UNPAUSED }\n      schedule:", "prod",
            "job 'batch_score': has schedule and continuous; a job has one of them",
        ),
        (
            FILE, "    clean_up:\n      <<: *job\n",
            "    clean_up:\n      <<: *job\n      trigger: { table_update: { table_names: [scoring] } }\n", "dev",
            "job 'clean_up', trigger: 'scoring' is not catalog.schema.name",
        ),
    ],
}  # fmt: skip


@pytest.fixture
def copy(tmp_path):
    for folder in ("notebooks", "helpers"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (FILE, "requirements.txt", ".gitignore"):
        shutil.copy(ROOT / file, tmp_path)
    return tmp_path


def test_there_is_a_broken_copy_for_each_rule():
    assert set(BROKEN) == set(rules.RULES)


@pytest.mark.parametrize(
    ("rule", "file", "old", "new", "target", "message"),
    [
        pytest.param(rule, *case, id=f"{rule.__name__}-{number}")
        for rule, cases in BROKEN.items()
        for number, case in enumerate(cases)
    ],
)
def test_a_broken_copy_is_found_by(copy, rule, file, old, new, target, message):
    if old is None:
        (copy / file).unlink()
    else:
        text = (copy / file).read_text(encoding="utf-8")
        assert old in text
        message = message.replace("LINE", str(text[: text.index(old)].count("\n") + 1))
        (copy / file).write_text(text.replace(old, new), encoding="utf-8")
    assert rule(rules.deployed(copy, target))[0] == message


def test_a_target_that_sets_an_undeclared_variable_is_found(copy):
    content = (copy / FILE).read_text().replace("schema: azureml_mlflow_prod", "shema: azureml_mlflow_prod")
    (copy / FILE).write_text(content)
    with pytest.raises(BundleError):
        rules.deployed(copy, "prod")
    (message,) = rules.findings(copy, "prod")
    assert message.startswith("databricks.yml declares no variable 'shema'; it declares: catalog, schema,")


def test_a_copy_with_nothing_broken_has_no_findings(copy):
    assert rules.findings(copy, "dev") == []
