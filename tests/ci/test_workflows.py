"""The files for GitHub Actions and Azure Pipelines follow the rules, and each rule finds a file that breaks it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ci import pipeline_rules as rules

ROOT = Path(__file__).parents[2]
RULES = [
    rules.commands_exist,
    rules.both_services_do_the_same,
    rules.the_cli_is_installed_before_it_is_used,
    rules.each_event_has_its_target,
    rules.python_versions_are_the_readmes,
    rules.code_of_others_is_pinned,
    rules.no_secret_is_used,
    rules.permissions_are_the_least,
    rules.databricks_trusts_the_pipeline,
    rules.runs_are_limited,
    rules.the_site_is_published_as_it_was_made,
]
FILES = ("pull-request", "staging", "prod", "site")
PULL_REQUEST, STAGING, PROD, SITE = (f".github/workflows/{name}.yml" for name in FILES)
AZURE_PULL_REQUEST, AZURE_STAGING, AZURE_PROD, AZURE_SITE = (f".azuredevops/{name}.yml" for name in FILES)
# Each rule, with changes of one file that it must find.
BREAKS = [
    (rules.commands_exist, PULL_REQUEST, "make test", "make tests"),
    (rules.commands_exist, AZURE_PULL_REQUEST, "make test", "make test lint"),
    (rules.commands_exist, PULL_REQUEST, "make test", "pytest"),
    (rules.commands_exist, "Makefile", "\ntest:", "\ncheck:"),
    (rules.commands_exist, STAGING, "bundle deploy", "bundles deploy"),
    (rules.commands_exist, STAGING, "bundle deploy", "bundle apply"),
    (rules.commands_exist, STAGING, "deploy --target", "deploy --force-unlock --target"),
    (rules.commands_exist, STAGING, "deploy --target staging", "deploy"),
    (rules.commands_exist, AZURE_PROD, "--target prod", "--target production"),
    (rules.commands_exist, AZURE_STAGING, "run batch_score", "run batch_scores"),
    (rules.commands_exist, "databricks.yml", "    batch_score:", "    score:"),
    (rules.commands_exist, "databricks.yml", "  staging:", "  stage:"),
    (rules.commands_exist, PROD, "BUNDLE_VAR_service_principal", "BUNDLE_VAR_service_principle"),
    (rules.commands_exist, AZURE_PROD, ".ci/install_databricks_cli", "curl https://somebody/install.sh | sh"),
    (rules.both_services_do_the_same, AZURE_STAGING, "databricks bundle run batch_score --target staging", ""),
    (rules.both_services_do_the_same, AZURE_PROD, "            - bash: .ci/install_databricks_cli\n", ""),
    (rules.the_cli_is_installed_before_it_is_used, STAGING, "      - run: .ci/install_databricks_cli\n", ""),
    (rules.the_cli_is_installed_before_it_is_used, AZURE_PULL_REQUEST, ".ci/install_databricks_cli", "make help"),
    (rules.each_event_has_its_target, PROD, "released", "published"),
    (rules.each_event_has_its_target, STAGING, "  push:", "  pull_request:"),
    (rules.each_event_has_its_target, AZURE_PROD, "[v*]", '["*"]'),
    (rules.each_event_has_its_target, AZURE_PULL_REQUEST, "[main]", "[release]"),
    (rules.each_event_has_its_target, STAGING, "deploy --target staging", "deploy --target prod"),
    (rules.each_event_has_its_target, PULL_REQUEST, "bundle validate --target dual", "bundle deploy --target dual"),
    (rules.each_event_has_its_target, PULL_REQUEST, "databricks bundle validate --target dual", ""),
    (rules.python_versions_are_the_readmes, PULL_REQUEST, '"3.10", ', ""),
    (rules.python_versions_are_the_readmes, AZURE_PULL_REQUEST, 'python313: { python: "3.13" }', ""),
    (rules.python_versions_are_the_readmes, "README.md", "3.10 to 3.13", "3.10 to 3.14"),
    (rules.code_of_others_is_pinned, PROD, "@3d3c42e5aac5ba805825da76410c181273ba90b1", "@v7.0.1"),
    (rules.code_of_others_is_pinned, PROD, "@3d3c42e5aac5ba805825da76410c181273ba90b1", "@3d3c42e"),
    (rules.code_of_others_is_pinned, PROD, " # v7.0.1", ""),
    (rules.code_of_others_is_pinned, STAGING, "3d3c42e5", "3d3c42e6"),
    (rules.no_secret_is_used, PROD, "${{ vars.DATABRICKS_CLIENT_ID }}", "${{ secrets.DATABRICKS_CLIENT_ID }}"),
    (rules.no_secret_is_used, PROD, "DATABRICKS_CLIENT_ID:", "DATABRICKS_TOKEN:"),
    (rules.no_secret_is_used, AZURE_PROD, "SYSTEM_ACCESSTOKEN:", "DATABRICKS_CLIENT_SECRET:"),
    (rules.no_secret_is_used, PULL_REQUEST, "persist-credentials: false", "fetch-depth: 0"),
    (rules.no_secret_is_used, AZURE_PROD, "persistCredentials: false", "fetchDepth: 0"),
    (rules.permissions_are_the_least, PROD, "permissions: {}", "permissions: read-all"),
    (rules.permissions_are_the_least, PROD, "permissions: {}\n", ""),
    (rules.permissions_are_the_least, PROD, "contents: read", "contents: write"),
    (rules.permissions_are_the_least, PULL_REQUEST, "contents: read\n    strategy", "id-token: write\n    strategy"),
    (rules.permissions_are_the_least, PROD, "      id-token: write\n", ""),
    (rules.databricks_trusts_the_pipeline, PROD, "github-oidc", "pat"),
    (rules.databricks_trusts_the_pipeline, PROD, "environment: prod", "environment: staging"),
    (rules.databricks_trusts_the_pipeline, PULL_REQUEST, "    environment: pull-request\n", ""),
    (rules.databricks_trusts_the_pipeline, AZURE_PROD, "azure-devops-oidc", "azure-client-secret"),
    (rules.databricks_trusts_the_pipeline, AZURE_PROD, "environment: prod", "environment: staging"),
    (rules.databricks_trusts_the_pipeline, AZURE_PULL_REQUEST, "databricks-pull-request", "databricks-prod"),
    (rules.databricks_trusts_the_pipeline, AZURE_STAGING, "SYSTEM_ACCESSTOKEN: $(System.AccessToken)", "A: b"),
    (rules.runs_are_limited, PULL_REQUEST, "    timeout-minutes: 90\n", ""),
    (rules.runs_are_limited, AZURE_STAGING, "    timeoutInMinutes: 270\n", ""),
    (rules.runs_are_limited, STAGING, "cancel-in-progress: false", "cancel-in-progress: true"),
    (rules.runs_are_limited, PROD, "group: prod", "group: ${{ github.ref }}"),
    (rules.runs_are_limited, AZURE_PROD, "lockBehavior: sequential\n", ""),
    (rules.runs_are_limited, SITE, "cancel-in-progress: false", "cancel-in-progress: true"),
    (rules.permissions_are_the_least, SITE, "      pages: write\n", "      pages: write\n      contents: write\n"),
    (rules.permissions_are_the_least, SITE, "      contents: read\n", "      contents: read\n      pages: write\n"),
    (rules.the_site_is_published_as_it_was_made, SITE, "docs/_build/html", "docs/_build"),
    (rules.the_site_is_published_as_it_was_made, AZURE_SITE, "docs/_build/html", "docs"),
    (rules.the_site_is_published_as_it_was_made, SITE, "    needs: build\n", ""),
    (rules.the_site_is_published_as_it_was_made, "Makefile", "docs/_build/html/index.html", "docs/_site/index.html"),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_pipelines_keep_to_the_rule(rule: Callable[[Path], list[str]]):
    assert rule(ROOT) == []


@pytest.fixture
def copy(tmp_path):
    for folder in (rules.GITHUB, rules.AZURE):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for name in ("Makefile", "README.md", "databricks.yml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_pipeline_may_set_the_mode_by_variables_of_the_bundle(rule, copy):
    for file, line in [(PROD, "      BUNDLE_VAR_service"), (AZURE_PROD, "                BUNDLE_VAR_service")]:
        indent = line.partition("B")[0]
        more = f"{indent}BUNDLE_VAR_tracking_mode: dual\n{indent}BUNDLE_VAR_azureml_secret_scope: azureml\n{line}"
        text = (copy / file).read_text()
        assert line in text
        (copy / file).write_text(text.replace(line, more))
    assert rule(copy) == []


@pytest.mark.parametrize(("rule", "file", "old", "new"), BREAKS, ids=[rule.__name__ for rule, *_ in BREAKS])
def test_a_rule_finds_a_file_that_breaks_it(rule, file, old, new, copy):
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new))
    assert rule(copy) != []


def test_the_cli_that_is_installed_has_the_version_of_the_models(tmp_path):
    for program in ("curl", "sudo", "databricks"):
        (tmp_path / program).write_text(f'#!/bin/sh\necho {program} "$@"\n')
        (tmp_path / program).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [ROOT / rules.CLI_INSTALLER]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    (version,) = re.findall(r"^databricks-bundles==([\d.]+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    archive = f"databricks_cli_{version}_linux_amd64.zip"
    assert done.stdout.splitlines() == [
        f"curl -fsSLO https://github.com/databricks/cli/releases/download/v{version}/{archive}",
        f"sudo unzip -q {archive} databricks -d /usr/local/bin",
        "databricks version",
    ]


def test_every_rule_is_shown_to_find_something():
    assert {rule for rule, *_ in BREAKS} == set(RULES)
