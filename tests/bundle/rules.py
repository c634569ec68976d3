"""Rules for errors with which ``databricks bundle deploy``, or the first run of a job, would fail.

A rule gets the bundle as one target deploys it, and returns findings: sentences that say where the problem is, what
is wrong, and what would be right.
"""

from __future__ import annotations

import difflib
import functools
import graphlib
import re
import zoneinfo
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from databricks.bundles.jobs import Job, Task
from packaging.specifiers import SpecifierSet

from helpers import parameters
from helpers.azureml import credentials
from helpers.jobs.bundle import FILE, MAX_NESTED_JOBS, Bundle, BundleError
from helpers.jobs.references import UnknownReference, resolve, start_time_references
from tests.bundle import notebook_code, synced_files

# https://learn.microsoft.com/azure/databricks/dev-tools/bundles/reference
TOP_FIELDS = {
    "artifacts", "bundle", "environments", "experimental", "include", "permissions", "presets", "python",
    "resources", "run_as", "scripts", "sync", "targets", "variables", "workspace",
}  # fmt: skip
TARGET_FIELDS = {
    "artifacts", "bundle", "cluster_id", "compute_id", "default", "git", "mode", "permissions", "presets",
    "resources", "run_as", "sync", "variables", "workspace",
}  # fmt: skip
SECTION_FIELDS = {
    "sync": {"exclude", "include", "paths"},
    "presets": {
        "artifacts_dynamic_version", "jobs_max_concurrent_runs", "name_prefix", "pipelines_development",
        "source_linked_deployment", "tags", "trigger_pause_status",
    },
    "workspace": {
        "artifact_path", "auth_type", "azure_client_id", "azure_tenant_id", "azure_workspace_resource_id", "client_id",
        "file_path", "host", "profile", "resource_path", "root_path", "state_path",
    },
    "run_as": {"service_principal_name", "user_name"},
}  # fmt: skip
COMPUTE = ("job_cluster_key", "environment_key", "existing_cluster_id", "new_cluster")
# What the flavors and the tuning need, and only ML runtimes have: https://github.com/databricks/environments
ONLY_IN_ML_RUNTIMES = ("optuna", "xgboost")
STARTED_BY = ("schedule", "trigger", "continuous")
# https://learn.microsoft.com/azure/databricks/dev-tools/bundles/variables#substitutions
BUNDLE_FIELDS = ("name", "target", "environment", "mode", "git.branch", "git.commit", "git.origin_url")
WORKSPACE_FIELDS = (
    "current_user.userName", "current_user.short_name", "current_user.domain_friendly_name",
    "host", "root_path", "file_path", "artifact_path", "resource_path", "state_path",
)  # fmt: skip
# https://learn.microsoft.com/azure/databricks/jobs/dynamic-value-references
JOB_REFERENCES = (
    "job.id", "job.name", "job.run_id", "job.repair_count", "job.trigger.type", "workspace.id", "workspace.url",
    *start_time_references(datetime.now()),
)  # fmt: skip
TASK_REFERENCES = ("task.name", "task.run_id", "task.execution_count", "task.notebook_path")
TASK_RESULTS = ("run_id", "result_state", "error_code", "execution_count")
SECRET = re.compile(r"\{\{secrets/[\w.@-]+/[\w.-]+\}\}")
# The permission level of jobs for each level of the bundle, as the CLI applies them.
JOB_LEVELS = {"CAN_VIEW": "CAN_VIEW", "CAN_RUN": "CAN_MANAGE_RUN", "CAN_MANAGE": "CAN_MANAGE"}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def findings(root: Path, target: str, variables: Mapping[str, Any] | None = None) -> list[str]:
    """Return the findings of all rules for a bundle as a target deploys it with these variables, without repetitions."""
    try:
        bundle = deployed(root, target, variables)
    except BundleError as error:
        return [str(error)]
    problems: list[str] = []
    for rule in RULES:
        of_rule = rule(bundle)
        problems += of_rule
        if of_rule and rule is jobs_are_accepted_by_databricks_bundles:
            break  # The rules after it rely on the shape of jobs.
    return list(dict.fromkeys(problems))


def deployed(root: Path, target: str, variables: Mapping[str, Any] | None = None) -> Bundle:
    """Return the bundle as a target deploys it, with a placeholder for each id that only a workspace knows."""
    ids = {name: f"id-of-{name}" for name in Bundle(root, target).lookups}
    return Bundle(root, target, ids | dict(variables or {}))


def yaml_is_what_the_cli_reads(bundle: Bundle) -> list[str]:
    """The CLI accepts only an alias after ``<<``, and one per map; if a key is repeated, it keeps one value."""

    def visit(node: yaml.Node) -> Iterator[str]:
        if id(node) in seen:
            return
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                yield from visit(item)
        elif isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            for key, value in node.value:
                where = f"{FILE}, line {key.start_mark.line + 1}"
                if keys.count(key.value) > 1:
                    yield f"{where}: {key.value!r} occurs {keys.count(key.value)} times in one map"
                # An alias refers to an earlier node.
                written_here = value.start_mark.index > key.start_mark.index
                if key.value == "<<" and written_here and not isinstance(value, yaml.SequenceNode):
                    yield f"{where}: `<<` accepts an alias such as *name, not a map that is written in its place"
                yield from visit(value)

    seen: set[int] = set()
    return list(visit(yaml.compose((bundle.root / FILE).read_text(encoding="utf-8"), _LOADER)))


def sections_have_known_fields(bundle: Bundle) -> list[str]:
    """The CLI only warns about a field that it does not know, and deploys without it."""
    content = _content(bundle)
    parts = [("the top level", content, TOP_FIELDS)]
    parts.append((f"target {bundle.target!r}", content["targets"][bundle.target], TARGET_FIELDS))
    for section, known in SECTION_FIELDS.items():
        parts.append((f"target {bundle.target!r}, {section}", bundle.settings.get(section) or {}, known))
    return [
        f"{where}: unknown field {field!r}{_nearest(field, known)}"
        for where, fields, known in parts
        for field in fields
        if field not in known
    ]


def variables_have_a_description_and_a_value(bundle: Bundle) -> list[str]:
    """A variable without a value stops the deployment of each target, even if the target does not use it."""
    declared = _content(bundle).get("variables") or {}
    problems = []
    for name, declaration in declared.items():
        if not declaration.get("description"):
            problems.append(f"variable {name!r} has no description")
        if name not in bundle.variables:
            problems.append(f"variable {name!r} has no value in target {bundle.target!r}: give it a default")
    return problems


def variables_do_not_refer_to_variables(bundle: Bundle) -> list[str]:
    """The CLI resolves such a variable in several rounds, and does not promise to.

    https://github.com/databricks/cli/issues/3039 and https://github.com/databricks/cli/pull/3375
    """
    values = bundle.variables | Bundle(bundle.root, bundle.target).lookups
    return [
        f"variable {name!r}: its value refers to {reference}; write that variable's value"
        for name, value in values.items()
        for reference in re.findall(r"\$\{var\.[^}]*\}", str(value))
    ]


def the_models_are_of_a_cli_that_may_deploy(bundle: Bundle) -> list[str]:
    """The package ``databricks-bundles`` has the version of the CLI that it was released with."""
    required = (_content(bundle)["bundle"] or {}).get("databricks_cli_version") or ""
    version = _pins(bundle)["databricks-bundles"]
    if SpecifierSet(required).contains(version):
        return []
    return [f"{FILE} requires the Databricks CLI {required}, but its tests use databricks-bundles=={version}"]


def references_resolve(bundle: Bundle) -> list[str]:
    """Each ``${…}`` names a variable, a setting or a resource that exists."""
    resources = bundle.settings.get("resources") or {}
    known = [f"var.{name}" for name in bundle.variables]
    known += [f"bundle.{name}" for name in BUNDLE_FIELDS] + [f"workspace.{name}" for name in WORKSPACE_FIELDS]
    known += [f"resources.{kind}.{key}" for kind, of_kind in resources.items() for key in of_kind]
    problems = []
    for where, text in _texts(bundle):
        for reference in re.findall(r"\$\{[^}]*\}?", text):
            name = reference.removeprefix("${").removesuffix("}")
            if reference.endswith("}") and any(name == key or name.startswith(f"{key}.") for key in known):
                continue
            problems.append(f"{where}: {reference} refers to nothing{_nearest(name, known)}")
    return problems


def targets_have_what_their_mode_asks_for(bundle: Bundle) -> list[str]:
    """Production has one copy, in its own folder, which runs as a named identity; development has one per user."""
    settings, where = bundle.settings, f"target {bundle.target!r}"
    root_path = (settings.get("workspace") or {}).get("root_path", "")
    run_as = {kind: name for kind, name in _resolved(bundle, settings.get("run_as") or {}).items() if name}
    problems = []
    if settings.get("mode") == "production":
        if not root_path:
            problems.append(
                f"{where}: mode production without workspace.root_path; each user who deploys would get a copy"
            )
        if len(run_as) != 1:
            names = " and ".join(run_as) or "neither"
            problems.append(f"{where}: run_as needs one of service_principal_name and user_name; it has {names}")
    elif settings.get("mode") == "development":
        if root_path and "${workspace.current_user." not in root_path:
            problems.append(f"{where}: mode development, but root_path {root_path} is the same for all users")
        if (settings.get("presets") or {}).get("trigger_pause_status") == "UNPAUSED":
            problems.append(f"{where}: mode development cannot have trigger_pause_status UNPAUSED")
    else:
        problems.append(f"{where}: mode {settings.get('mode')!r} is neither development nor production")
    return problems


def jobs_are_accepted_by_databricks_bundles(bundle: Bundle) -> list[str]:
    """Fields, types and choices are those of the models in the package ``databricks-bundles``."""
    problems = []
    for key, job in _jobs(bundle).items():
        permissions = [
            {**entry, "level": JOB_LEVELS.get(entry.get("level"), entry.get("level"))}
            for entry in _resolved(bundle, bundle.settings.get("permissions") or [])
        ]
        as_deployed = {"permissions": permissions, "run_as": _resolved(bundle, bundle.settings.get("run_as"))} | job
        parts = [(f"job {key!r}", Job, {**as_deployed, "tasks": []})]
        parts += [(_where(key, task), Task, task) for task in job.get("tasks") or []]
        for where, model, part in parts:
            if "run_job_task" in part and part["run_job_task"].get("job_id") in _jobs(bundle):
                # A number, which only the workspace knows.
                part = {**part, "run_job_task": {**part["run_job_task"], "job_id": 1}}
            try:
                model.from_dict(part)
            except (TypeError, ValueError) as error:
                problems.append(f"{where}: {error}")
    return problems


def notebooks_exist(bundle: Bundle) -> list[str]:
    """Each path of a notebook task leads to a notebook that is deployed with the bundle."""
    files = _synced(bundle)
    problems = []
    for where, _, task in _tasks(bundle):
        path = Path((task.get("notebook_task") or {}).get("notebook_path", ""))
        if "notebook_task" not in task:
            continue
        if not (bundle.root / path).is_file():
            near = _nearest(str(path), [str(file) for file in files if file.suffix == ".ipynb"])
            problems.append(f"{where}: there is no file {path}{near}")
        elif path not in files:
            problems.append(f"{where}: {path} is not synced")
        elif not notebook_code.is_notebook(bundle.root / path):
            problems.append(f"{where}: {path} is not a notebook")
    return problems


def tasks_run_on_one_compute_that_is_there(bundle: Bundle) -> list[str]:
    """Each notebook task has one kind of compute, which its job defines; only clusters install libraries."""
    problems = []
    for where, job, task in _tasks(bundle):
        named = [kind for kind in COMPUTE if task.get(kind)]
        if "notebook_task" in task and len(named) != 1:
            problems.append(f"{where}: needs one of {', '.join(COMPUTE)}; it has {' and '.join(named) or 'none'}")
        for kind, defined_in in (("job_cluster_key", "job_clusters"), ("environment_key", "environments")):
            keys = [entry.get(kind) for entry in job.get(defined_in) or []]
            if kind in task and task[kind] not in keys:
                defined = ", ".join(map(str, keys)) or "none"
                problems.append(f"{where}: {kind} {task[kind]!r} is not defined; {defined_in} of the job: {defined}")
        if "environment_key" in task and task.get("libraries"):
            problems.append(
                f"{where}: serverless compute does not accept `libraries`; use the dependencies of its environment"
            )
    return problems


def compute_has_what_ml_runtimes_have(bundle: Bundle) -> list[str]:
    """Standard access mode has no ML runtimes, nor has serverless compute; packages that only those have are added there.

    https://learn.microsoft.com/azure/databricks/compute/standard-limitations
    """
    problems = []
    for where, job, task in _tasks(bundle):
        clusters = {it["job_cluster_key"]: it["new_cluster"] for it in job.get("job_clusters") or []}
        cluster = clusters.get(task.get("job_cluster_key")) or {}
        runtime = str(cluster.get("spark_version", ""))
        if "-ml-" in runtime:
            if cluster.get("data_security_mode") == "USER_ISOLATION":
                problems.append(
                    f"{where}: {runtime} does not run in the access mode USER_ISOLATION; see target standard"
                )
            continue
        names = [package.partition("==")[0].removesuffix("-cpu") for package in _packages(job, task)]
        problems += [
            f"{where}: {package} is not installed, and {runtime or 'serverless compute'} does not have it"
            for package in ONLY_IN_ML_RUNTIMES
            if "notebook_task" in task and package not in names
        ]
    return problems


def jobs_can_sign_in_to_azure(bundle: Bundle) -> list[str]:
    """A job whose runs or models go to Azure ML has a secret scope, or clusters with a service principal."""
    problems = []
    for key, job in _jobs(bundle).items():
        given = {entry["name"]: entry.get("default") for entry in job.get("parameters") or []}
        mode, registry = given.get("tracking_mode"), given.get("model_registry")
        places = (mode, registry or "", given.get("share_with") or "")
        needs_azure = mode == "dual" or any(place.startswith("azureml") for place in places if place)
        environments = [set(it["new_cluster"].get("spark_env_vars") or {}) for it in job.get("job_clusters") or []]
        by_environment = environments and all(set(credentials.VARIABLES) <= names for names in environments)
        if needs_azure and not given.get("azureml_secret_scope") and not by_environment:
            problems.append(
                f"job {key!r}: tracking_mode={mode} and model_registry={registry} need a sign-in to Azure; give "
                "azureml_secret_scope, or on a job cluster cluster_environment"
            )
    return problems


def tasks_depend_on_tasks(bundle: Bundle) -> list[str]:
    """Each ``depends_on`` names another task of the job, with an outcome only for a condition; there is no circle."""
    problems = []
    for key, job in _jobs(bundle).items():
        tasks = {task.get("task_key"): task for task in job.get("tasks") or []}
        for task in job.get("tasks") or []:
            for before in task.get("depends_on") or []:
                where, other = _where(key, task), tasks.get(before["task_key"])
                if other is None:
                    problems.append(f"{where}: depends_on {before['task_key']!r}, which is not a task of the job")
                elif "outcome" in before and "condition_task" not in other:
                    problems.append(
                        f"{where}: depends_on an outcome of {before['task_key']!r}, which is not a condition"
                    )
        try:
            graphlib.TopologicalSorter(_edges(job)).prepare()
        except graphlib.CycleError as error:
            problems.append(f"job {key!r}: tasks depend on each other in a circle: {' → '.join(error.args[1])}")
    return problems


def tasks_run_jobs_of_the_bundle(bundle: Bundle) -> list[str]:
    """A run-job task names a job of the bundle and sets parameters that the job has; jobs do not run each other in a circle.

    https://learn.microsoft.com/azure/databricks/jobs/run-job
    """
    problems = []
    for where, _, task in _tasks(bundle):
        settings = task.get("run_job_task")
        if not settings:
            continue
        target = _jobs(bundle).get(settings["job_id"])
        if target is None:
            problems.append(f"{where}: job_id {settings['job_id']!r} is not ${{resources.jobs.<key>.id}} of a job here")
            continue
        given, declared = (
            settings.get("job_parameters") or {},
            [entry["name"] for entry in target.get("parameters") or []],
        )
        problems += [
            f"{where}: job {settings['job_id']!r} has no parameter {name!r}{_nearest(name, declared)}"
            for name in given
            if name not in declared
        ]
        problems += _refused(where, given)
    for key in _jobs(bundle):
        problems += [f"job {key!r}: {problem}" for problem in _chains(bundle, [key])]
    return problems


def values_are_known_when_a_job_runs(bundle: Bundle) -> list[str]:
    """Each ``{{…}}`` is a job parameter, a reference of Databricks, or a value that an earlier task has set."""
    problems = []
    for key, job in _jobs(bundle).items():
        for entry in job.get("parameters") or []:
            problems += _unknown(f"job {key!r}, parameter {entry['name']!r}", entry.get("default"), JOB_REFERENCES)
        for cluster in job.get("job_clusters") or []:
            for name, text in (cluster["new_cluster"].get("spark_env_vars") or {}).items():
                if "{{" in str(text) and not SECRET.fullmatch(text):
                    problems.append(f"job {key!r}, spark_env_vars {name}: {text} is not {{{{secrets/<scope>/<key>}}}}")
        of_job = [*JOB_REFERENCES, *(f"job.parameters.{entry['name']}" for entry in job.get("parameters") or [])]
        for task in job.get("tasks") or []:
            known = [*of_job, *TASK_REFERENCES, *_results_before(bundle, job, task)]
            texts = (
                (task.get("notebook_task") or {}).get("base_parameters")
                or (task.get("run_job_task") or {}).get("job_parameters")
                or task.get("condition_task")
                or {}
            )
            for name, text in texts.items():
                problems += _unknown(f"{_where(key, task)}, {name}", text, known)
    return problems


def parameters_are_those_of_the_notebooks(bundle: Bundle) -> list[str]:
    """A job has exactly the parameters that its notebooks read, each with an accepted value."""
    problems = []
    for key, job in _jobs(bundle).items():
        entries = job.get("parameters") or []
        given = [entry["name"] for entry in entries]
        problems += [f"job {key!r}: parameter {name!r} is listed twice" for name in set(given) if given.count(name) > 1]
        asked: set[str] = set()
        for task in job.get("tasks") or []:
            where, own = _where(key, task), (task.get("notebook_task") or {}).get("base_parameters") or {}
            asked |= set(re.findall(r"job\.parameters\.(\w+)", str(task)))
            notebook = _notebook(bundle, task)
            if not notebook:
                continue
            names = notebook_code.asked_parameters(notebook)
            asked |= names
            missing = sorted(names - {*given, *own})
            problems += [
                f"{where}: {notebook.name} asks for {name!r}, which neither the job nor the task sets"
                for name in missing
            ]
            problems += [f"{where}: {notebook.name} does not ask for {name!r}" for name in own if name not in names]
            problems += [f"{where}: the job's parameter {name!r} wins over the task's" for name in own if name in given]
            problems += _refused(where, own)
        not_given = [name for name in asked if name not in given]
        problems += [
            f"job {key!r}: no notebook of the job asks for {name!r}{_nearest(name, not_given)}"
            for name in given
            if name not in asked
        ]
        problems += _refused(f"job {key!r}", {entry["name"]: entry["default"] for entry in entries})
    return problems


def packages_are_pinned_as_in_the_requirements(bundle: Bundle) -> list[str]:
    """A task gets the packages of its notebook's ``%pip`` cell, with the pins of ``requirements.txt``."""
    pins = _pins(bundle)
    problems = []
    for where, job, task in _tasks(bundle):
        notebook = _notebook(bundle, task)
        if not notebook:
            continue
        packages = _packages(job, task)
        installed = notebook_code.installed_packages(notebook)
        for source, package in [(where, it) for it in packages] + [(notebook.name, it) for it in installed]:
            name, _, version = package.partition("==")
            if version != pins.get(name):
                pin = f"{name}=={pins[name]}" if name in pins else f"no pin of {name}"
                problems.append(f"{source}: {package} is installed, but requirements.txt has {pin}")
        names, listed = [package.partition("==")[0] for package in packages], ", ".join(packages) or "none"
        problems += [
            f"{where}: {package} is installed by {notebook.name}, but not for this task; it gets {listed}"
            for package in installed
            if package.partition("==")[0] not in names
        ]
    return problems


def imported_files_are_synced(bundle: Bundle) -> list[str]:
    """The files that notebooks import from the bundle, directly or not, are deployed."""
    files = _synced(bundle)
    notebooks = {notebook for _, _, task in _tasks(bundle) if (notebook := _notebook(bundle, task))}
    return synced_files.missing_imports(bundle.root, sorted(it.relative_to(bundle.root) for it in notebooks), files)


def pictures_are_synced(bundle: Bundle) -> list[str]:
    """The pictures that notebooks show from files are deployed with them."""
    notebooks = {notebook for _, _, task in _tasks(bundle) if (notebook := _notebook(bundle, task))}
    relative = sorted(it.relative_to(bundle.root) for it in notebooks)
    return synced_files.missing_pictures(bundle.root, relative, _synced(bundle))


def schedules_can_be_read(bundle: Bundle) -> list[str]:
    """A schedule is a Quartz expression, which has seconds and one ``?``, in an existing time zone."""
    problems = []
    for key, job in _jobs(bundle).items():
        schedule = job.get("schedule")
        if not schedule:
            continue
        fields = schedule["quartz_cron_expression"].split()
        if len(fields) not in (6, 7) or [fields[3], fields[5]].count("?") != 1:
            text = schedule["quartz_cron_expression"]
            problems.append(
                f"job {key!r}: schedule {text!r} does not have the form second minute hour day month weekday, with `?` for one day"
            )
        if schedule["timezone_id"] not in zoneinfo.available_timezones():
            problems.append(f"job {key!r}: there is no time zone {schedule['timezone_id']!r}")
    return problems


def jobs_start_in_one_way(bundle: Bundle) -> list[str]:
    """A job has a schedule or a trigger, and a trigger names its tables and model in full.

    https://learn.microsoft.com/azure/databricks/jobs/triggers
    """
    problems = []
    for key, job in _jobs(bundle).items():
        ways = [way for way in STARTED_BY if job.get(way)]
        if len(ways) > 1:
            problems.append(f"job {key!r}: has {' and '.join(ways)}; a job has one of them")
        trigger = job.get("trigger") or {}
        names = [*((trigger.get("table_update") or {}).get("table_names") or [])]
        names += [trigger["model"]["securable_name"]] if trigger.get("model") else []
        problems += [
            f"job {key!r}, trigger: {name!r} is not catalog.schema.name"
            for name in names
            if not re.fullmatch(r"[^.]+\.[^.]+\.[^.]+", name)
        ]
    return problems


RULES = (
    yaml_is_what_the_cli_reads,
    sections_have_known_fields,
    variables_have_a_description_and_a_value,
    variables_do_not_refer_to_variables,
    the_models_are_of_a_cli_that_may_deploy,
    references_resolve,
    targets_have_what_their_mode_asks_for,
    jobs_are_accepted_by_databricks_bundles,
    notebooks_exist,
    tasks_run_on_one_compute_that_is_there,
    compute_has_what_ml_runtimes_have,
    jobs_can_sign_in_to_azure,
    tasks_depend_on_tasks,
    tasks_run_jobs_of_the_bundle,
    values_are_known_when_a_job_runs,
    parameters_are_those_of_the_notebooks,
    packages_are_pinned_as_in_the_requirements,
    imported_files_are_synced,
    pictures_are_synced,
    schedules_can_be_read,
    jobs_start_in_one_way,
)


# The rules look at one bundle after the other, and all of them ask for these.
_once = functools.lru_cache(maxsize=1)


@_once
def _content(bundle: Bundle) -> dict:
    return yaml.load((bundle.root / FILE).read_text(encoding="utf-8"), _LOADER)


def _pins(bundle: Bundle) -> dict[str, str]:
    lines = (bundle.root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ")[0].split("==") for line in lines if re.match(r"[\w.-]+==", line))


def _packages(job: dict, task: dict) -> list[str]:
    """Return the requirements that are installed for a task, as written."""
    packages = [library["pypi"]["package"] for library in task.get("libraries") or [] if "pypi" in library]
    for environment in job.get("environments") or []:
        if environment["environment_key"] == task.get("environment_key"):
            packages += environment["spec"].get("dependencies") or []
    return packages


@_once
def _jobs(bundle: Bundle) -> dict[str, dict]:
    return _resolved(bundle, (bundle.settings.get("resources") or {}).get("jobs") or {})


def _tasks(bundle: Bundle) -> list[tuple[str, dict, dict]]:
    jobs = _jobs(bundle).items()
    return [(_where(key, task), job, task) for key, job in jobs for task in job.get("tasks") or []]


def _chains(bundle: Bundle, chain: list[str]) -> list[str]:
    """Return what is wrong with the chains of jobs that run each other and begin so."""
    problems = []
    for task in _jobs(bundle)[chain[-1]].get("tasks") or []:
        other = (task.get("run_job_task") or {}).get("job_id")
        longer = [*chain, other]
        if other in chain:
            problems.append(f"jobs run each other in a circle: {' → '.join(longer)}")
        elif other in _jobs(bundle) and len(chain) > MAX_NESTED_JOBS:
            problems.append(
                f"{' → '.join(longer)} nests {len(chain)} run-job tasks; Databricks supports {MAX_NESTED_JOBS}"
            )
        elif other in _jobs(bundle):
            problems += _chains(bundle, longer)
    return problems


def _where(job: str, task: dict) -> str:
    return f"job {job!r}, task {task.get('task_key', '?')!r}"


def _resolved(bundle: Bundle, value: Any) -> Any:
    """Resolve the references that have a value; leave the others for the rule that looks for them."""
    if isinstance(value, dict):
        return {key: _resolved(bundle, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(bundle, item) for item in value]
    try:
        return bundle.resolve(value, "")
    except BundleError:
        return value


def _texts(bundle: Bundle) -> list[tuple[str, str]]:
    """Return all texts of a target's settings and variables, each with its position."""

    def visit(where: str, value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for key, item in value.items():
                yield from visit(f"{where}, {key}", item)
        elif isinstance(value, list):
            for item in value:
                yield from visit(where, item)
        elif isinstance(value, str):
            yield where, value

    problems = [text for name, value in bundle.variables.items() for text in visit(f"variable {name!r}", value)]
    for section, value in bundle.settings.items():
        if section != "resources":
            problems += visit(f"target {bundle.target!r}, {section}", value)
    for kind, of_kind in (bundle.settings.get("resources") or {}).items():
        for key, resource in of_kind.items():
            where = f"{kind.removesuffix('s')} {key!r}"
            problems += visit(where, {name: value for name, value in resource.items() if name != "tasks"})
            problems += [text for task in resource.get("tasks") or [] for text in visit(_where(key, task), task)]
    return problems


def _nearest(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _notebook(bundle: Bundle, task: dict) -> Path | None:
    """Return a task's notebook, or None if it cannot be read; another rule reports that."""
    path = bundle.root / (task.get("notebook_task") or {}).get("notebook_path", "")
    return path if path.is_file() and notebook_code.is_notebook(path) else None


@_once
def _synced(bundle: Bundle) -> set[Path]:
    return synced_files.synced(bundle.root, bundle.settings.get("sync") or {})


def _edges(job: dict) -> dict[str, list[str]]:
    tasks = job.get("tasks") or []
    return {task["task_key"]: [before["task_key"] for before in task.get("depends_on") or []] for task in tasks}


def _results_before(bundle: Bundle, job: dict, task: dict) -> list[str]:
    """Return the references set by tasks that always run before a task."""
    edges, by_key = _edges(job), {it["task_key"]: it for it in job["tasks"]}
    before: set[str] = set()
    todo = list(edges[task["task_key"]])
    while todo:
        key = todo.pop()
        if key in by_key and key not in before:
            before.add(key)
            todo += edges[key]
    problems = []
    for key in sorted(before):
        problems += [f"tasks.{key}.{name}" for name in TASK_RESULTS]
        notebook = _notebook(bundle, by_key[key])
        if notebook:
            problems += [f"tasks.{key}.values.{name}" for name in sorted(notebook_code.task_values(notebook))]
        if "condition_task" in by_key[key]:
            problems.append(f"tasks.{key}.outcome")
    return problems


def _unknown(where: str, text: Any, known: Collection[str]) -> list[str]:
    try:
        left = resolve(str(text), dict.fromkeys(known, ""))
    except UnknownReference as error:
        return [f"{where}: {error}"]
    return [f"{where}: {text} is not a reference that Databricks knows"] if "{{" in left else []


def _refused(where: str, values: dict[str, Any]) -> list[str]:
    """Return why values are not accepted; values that are known only when the job runs are skipped."""
    problems = []
    for name, value in values.items():
        if name not in parameters.FIELDS or "{{" in str(value) or "${" in str(value):
            continue
        try:
            parameters.check({name: value})
        except parameters.ParameterError as error:
            problems.append(f"{where}: {error}")
    return problems
