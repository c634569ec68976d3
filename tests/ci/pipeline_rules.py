"""Rules for the files of GitHub Actions and Azure Pipelines. Each returns its findings, one line per finding."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

GITHUB, AZURE = ".github/workflows", ".azuredevops"
SCRIPTS = ("run", "bash", "script", "pwsh", "powershell")

# https://learn.microsoft.com/azure/databricks/dev-tools/cli/bundle-commands
CLI_FLAGS = {
    "validate": ["--strict"],
    "deploy": ["--auto-approve", "--fail-on-active-runs", "--force-lock"],
    "run": ["--restart"],
}
CLI_INSTALLER = ".ci/install_databricks_cli"
PROGRAMS = ("make", "databricks", CLI_INSTALLER)

# https://docs.github.com/actions/reference/workflows-and-actions/events-that-trigger-workflows
GITHUB_EVENTS = {
    "pull-request": {"pull_request": {"branches": ["main"]}},
    "staging": {"push": {"branches": ["main"]}},
    "prod": {"release": {"types": ["released"]}},
    "site": {"push": {"branches": ["main"]}},
}
# https://learn.microsoft.com/azure/devops/pipelines/repos/azure-repos-git
AZURE_EVENTS = {
    "pull-request": ("none", {"branches": {"include": ["main"]}}),
    "staging": ({"branches": {"include": ["main"]}}, "none"),
    "prod": ({"branches": {"exclude": ["*"]}, "tags": {"include": ["v*"]}}, "none"),
    "site": ({"branches": {"include": ["main"]}}, "none"),
}

# https://learn.microsoft.com/azure/databricks/dev-tools/auth/provider-github
GITHUB_SIGN_IN = {
    "DATABRICKS_AUTH_TYPE": "github-oidc",
    "DATABRICKS_HOST": "${{ vars.DATABRICKS_HOST }}",
    "DATABRICKS_CLIENT_ID": "${{ vars.DATABRICKS_CLIENT_ID }}",
    "BUNDLE_VAR_service_principal": "${{ vars.DATABRICKS_CLIENT_ID }}",
}
# https://learn.microsoft.com/azure/databricks/dev-tools/auth/provider-azure-devops
AZURE_SIGN_IN = {"name": "DATABRICKS_AUTH_TYPE", "value": "azure-devops-oidc"}
AZURE_STEP = {
    "SYSTEM_ACCESSTOKEN": "$(System.AccessToken)",
    "BUNDLE_VAR_service_principal": "$(DATABRICKS_CLIENT_ID)",
}
HARMLESS = [
    "BUNDLE_VAR_azureml_secret_scope: ",
    "id-token: write",
    "SYSTEM_ACCESSTOKEN: $(System.AccessToken)",
    "persist-credentials: false",
    "persistCredentials: false",
]


class Cli(argparse.ArgumentParser):
    """The part of the Databricks CLI that the pipelines may use."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def texts(root: Path, folder: str) -> dict[str, str]:
    return {path.stem: path.read_text() for path in sorted((root / folder).iterdir())}


def parsed(root: Path, folder: str) -> dict[str, Any]:
    """Return the content of each file. Scalars stay text; otherwise ``on`` would become True, and 3.10 the number 3.1."""
    return {name: yaml.load(text, yaml.BaseLoader) for name, text in texts(root, folder).items()}


def every_file(root: Path) -> Iterator[tuple[str, str, Any]]:
    """Return path, text and content of each file."""
    for folder in (GITHUB, AZURE):
        for name, document in parsed(root, folder).items():
            yield f"{folder}/{name}.yml", texts(root, folder)[name], document


def mappings(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from mappings(child)


def scripts(node: Any) -> list[dict[str, Any]]:
    """Return the steps that run a script."""
    return [step for step in mappings(node) if any(isinstance(step.get(key), str) for key in SCRIPTS)]


def commands(node: Any) -> list[list[str]]:
    """Return the words of each line of each script."""
    lines = [line for step in scripts(node) for key in SCRIPTS for line in step.get(key, "").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def calls(node: Any, *programs: str) -> list[list[str]]:
    return [words for words in commands(node) if words[0] in programs]


def uses(node: Any, action: str) -> bool:
    return any(step.get("uses", "").startswith(f"{action}@") for step in mappings(node))


def target_of(words: list[str]) -> str | None:
    named = re.search(r"--target[ =](\S+)", shlex.join(words))
    return named and named[1]


def jobs(document: Any) -> dict[str, Any]:
    if isinstance(document["jobs"], dict):
        return document["jobs"]
    return {job.get("job") or job["deployment"]: job for job in document["jobs"]}


def bundle_of(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "databricks.yml").read_text())


def databricks_cli(bundle: dict[str, Any]) -> Cli:
    cli = Cli(allow_abbrev=False)
    of_bundles = cli.add_subparsers(required=True).add_parser("bundle").add_subparsers(required=True)
    for name, flags in CLI_FLAGS.items():
        command = of_bundles.add_parser(name, allow_abbrev=False)
        command.add_argument("--target", required=True, choices=list(bundle["targets"]))
        for flag in flags:
            command.add_argument(flag, action="store_true")
        if name == "run":
            command.add_argument("job", choices=list(bundle["resources"]["jobs"]))
    return cli


def commands_exist(root: Path) -> list[str]:
    """Each command is a target of the Makefile, the Databricks CLI with an existing target and job, or its installer."""
    make_targets = re.findall(r"^([\w-]+):(?!=)", (root / "Makefile").read_text(), re.MULTILINE)
    bundle, findings = bundle_of(root), []
    cli = databricks_cli(bundle)
    # https://learn.microsoft.com/azure/databricks/dev-tools/bundles/variables
    variables = {f"BUNDLE_VAR_{name}" for name in bundle["variables"]}
    for file, text, document in every_file(root):
        named = sorted(set(re.findall(r"BUNDLE_VAR_\w+", text)) - variables)
        findings += [f"{file}: the bundle has no variable for {name}" for name in named]
        for program, *arguments in commands(document):
            command = shlex.join([program, *arguments])
            if program == "make":
                findings += [f"{file}: make has no {word}" for word in arguments if word not in make_targets]
            elif program == "databricks":
                try:
                    cli.parse_args(arguments)
                except ValueError as error:
                    findings.append(f"{file}: {command}: {error}")
            elif command not in ("set -e", CLI_INSTALLER):
                findings.append(f"{file}: {command}: neither make nor databricks")
    return findings


def both_services_do_the_same(root: Path) -> list[str]:
    github, azure = parsed(root, GITHUB), parsed(root, AZURE)
    findings = [f"{name}: only for one of the two services" for name in sorted(github.keys() ^ azure.keys())]
    return findings + [
        f"{name}: the services run different commands"
        for name in sorted(github.keys() & azure.keys())
        if calls(github[name], *PROGRAMS) != calls(azure[name], *PROGRAMS)
    ]


def the_cli_is_installed_before_it_is_used(root: Path) -> list[str]:
    return [
        f"{file}: {name} uses the CLI of the machine"
        for file, _, document in every_file(root)
        for name, job in jobs(document).items()
        if calls(job, "databricks") and calls(job, *PROGRAMS)[0] != [CLI_INSTALLER]
    ]


def each_event_has_its_target(root: Path) -> list[str]:
    """Pull requests validate every target and deploy nothing, merges deploy to staging, releases to prod."""
    findings = []
    for name, document in parsed(root, GITHUB).items():
        if document["on"] != GITHUB_EVENTS.get(name):
            findings.append(f"{GITHUB}/{name}.yml: runs on {document['on']}")
    for name, document in parsed(root, AZURE).items():
        if (document["trigger"], document["pr"]) != AZURE_EVENTS.get(name):
            findings.append(f"{AZURE}/{name}.yml: runs on {document['trigger']} and {document['pr']}")
    for file, _, document in every_file(root):
        changing = [words for words in calls(document, "databricks") if words[1:3] != ["bundle", "validate"]]
        findings += [f"{file}: {shlex.join(words)}" for words in changing if target_of(words) != Path(file).stem]
    validated = [target_of(words) for words in calls(parsed(root, GITHUB)["pull-request"], "databricks")]
    return findings + [f"{target} is not validated" for target in bundle_of(root)["targets"] if target not in validated]


def python_versions_are_the_readmes(root: Path) -> list[str]:
    first, last = re.search(r"Python 3\.(\d+) to 3\.(\d+)", (root / "README.md").read_text()).groups()
    named = [f"3.{minor}" for minor in range(int(first), int(last) + 1)]
    github = jobs(parsed(root, GITHUB)["pull-request"])["tests"]["strategy"]["matrix"]["python"]
    matrix = jobs(parsed(root, AZURE)["pull-request"])["tests"]["strategy"]["matrix"]
    tested = {GITHUB: github, AZURE: [entry["python"] for entry in matrix.values()]}
    return [f"{folder}: tests on {versions}" for folder, versions in tested.items() if versions != named]


def code_of_others_is_pinned(root: Path) -> list[str]:
    """Third-party actions are pinned by commit, with the version in a comment, and to the same version everywhere."""
    pins: dict[str, set[str]] = {}
    findings = []
    for file, text, document in every_file(root):
        used = [step["uses"] for step in mappings(document) if "uses" in step]
        for action in used:
            name, _, commit = action.partition("@")
            pins.setdefault(name, set()).add(commit)
            if not re.search(rf"@{re.escape(commit)} # v\d+\.\d+\.\d+$", text, re.MULTILINE):
                findings.append(f"{file}: {action} without its version")
            if not re.fullmatch("[0-9a-f]{40}", commit):
                findings.append(f"{file}: {action} is not a commit")
    return findings + [f"{name}: several versions" for name, commits in pins.items() if len(commits) > 1]


def no_secret_is_used(root: Path) -> list[str]:
    findings = []
    for file, text, document in every_file(root):
        for harmless in HARMLESS:
            text = text.replace(harmless, "")
        findings += [f"{file}: {word}" for word in re.findall(r"\S*(?:secret|token|password|credential).*", text, re.I)]
        for step in mappings(document):
            github = "/checkout@" in step.get("uses", "") and step.get("with", {}).get("persist-credentials") != "false"
            azure = "checkout" in step and step.get("persistCredentials") != "false"
            findings += [f"{file}: a checkout leaves its token behind"] * (github or azure)
    return findings


def permissions_are_the_least(root: Path) -> list[str]:
    findings = []
    for name, document in parsed(root, GITHUB).items():
        if document.get("permissions") != {}:
            findings.append(f"{name}: every job may {document.get('permissions')}")
        for job, content in jobs(document).items():
            # https://github.com/actions/deploy-pages#usage
            publishes = {"pages": "write", "id-token": "write"} if uses(content, "actions/deploy-pages") else {}
            reads = {"contents": "read"} if uses(content, "actions/checkout") else {}
            signs_in = {"id-token": "write"} if calls(content, "databricks") else {}
            if content.get("permissions") != reads | signs_in | publishes:
                findings.append(f"{name}: {job} may {content.get('permissions')}")
    return findings


def databricks_trusts_the_pipeline(root: Path) -> list[str]:
    """Each job that calls Databricks signs in by workload identity federation, as the identity of its file."""
    findings = []
    for file, _, document in every_file(root):
        name = Path(file).stem
        for job, content in jobs(document).items():
            if not calls(content, "databricks"):
                continue
            if file.startswith(GITHUB):
                right = _sign_in(content, GITHUB_SIGN_IN) == GITHUB_SIGN_IN and content.get("environment") == name
            else:
                signing_in = [step for step in scripts(content) if calls(step, "databricks")]
                right = content.get("variables") == [{"group": f"databricks-{name}"}, AZURE_SIGN_IN]
                right &= all(_sign_in(step, AZURE_STEP) == AZURE_STEP for step in signing_in)
                right &= content.get("environment", "pull-request") == name
            if not right:
                findings.append(f"{file}: {job} signs in another way")
    return findings


def _sign_in(step: dict[str, Any], expected: dict[str, str]) -> dict[str, str]:
    """Return the environment without variables of the bundle, such as the mode, that are not part of the sign-in."""
    environment = step.get("env") or {}
    return {name: environment[name] for name in environment if name in expected or "BUNDLE_VAR_" not in name}


def the_site_is_published_as_it_was_made(root: Path) -> list[str]:
    """GitHub Pages and Azure DevOps' artifact have the folder that ``make docs`` names."""
    made = re.search(r'"The site: (.+)/index.html"', (root / "Makefile").read_text())[1]
    github, azure = parsed(root, GITHUB)["site"], parsed(root, AZURE)["site"]
    uploaded = [step["with"]["path"] for step in mappings(github) if "upload-pages-artifact@" in step.get("uses", "")]
    published = [step["publish"] for step in mappings(azure) if "publish" in step]
    findings = [f"site: publishes {folders}" for folders in (uploaded, published) if folders != [made]]
    publishing = [job for job in jobs(github).values() if uses(job, "actions/deploy-pages")]
    right = [job.get("needs") == "build" and job["environment"]["name"] == "github-pages" for job in publishing]
    return findings + (["site: not published by one job after `build`, as github-pages"] if right != [True] else [])


def runs_are_limited(root: Path) -> list[str]:
    """Each job has a time limit, and each target has one run at a time."""
    findings = []
    for file, _, document in every_file(root):
        timeout = "timeout-minutes" if file.startswith(GITHUB) else "timeoutInMinutes"
        findings += [f"{file}: {name} has no {timeout}" for name, job in jobs(document).items() if timeout not in job]
    for name in ("staging", "prod", "site"):
        if parsed(root, GITHUB)[name].get("concurrency") != {"group": name, "cancel-in-progress": "false"}:
            findings.append(f"{GITHUB}/{name}.yml: runs more than once at a time, or is cancelled half-way")
        if parsed(root, AZURE)[name].get("lockBehavior") != "sequential":
            findings.append(f"{AZURE}/{name}.yml: skips a waiting run")
    return findings
