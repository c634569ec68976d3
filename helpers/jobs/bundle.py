"""Read ``databricks.yml``: jobs as one target deploys them, with their variables resolved.

https://learn.microsoft.com/azure/databricks/dev-tools/bundles/settings
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import getpass
import graphlib
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from helpers.jobs.definitions import InvalidTask, Job, Task
from helpers.jobs.scheduling import RUN_IF, RetryPolicy
from helpers.jobs.task_types import TASK_TYPES
from helpers.parameters import as_text

FILE = "databricks.yml"
_JOB_FIELDS = ("name", "parameters", "tasks", "timeout_seconds")
_TASK_FIELDS = (
    "task_key", "depends_on", "run_if", "max_retries", "min_retry_interval_millis", "retry_on_timeout",
    "timeout_seconds",
)  # fmt: skip
# Fields that change what runs, unlike those for clusters, schedules, permissions or notifications.
_NOT_SUPPORTED = ("disabled", "environment_variables", "environment_variables_key", "git_source")
# https://learn.microsoft.com/azure/databricks/jobs/run-job
MAX_NESTED_JOBS = 3
_REFERENCE = re.compile(r"\$\{([A-Za-z][\w.-]*)\}")


class BundleError(ValueError):
    """``databricks.yml`` cannot be read, or asks for something that cannot be run on this machine."""


class Bundle:
    """A bundle as one of its targets deploys it.

    Parameters
    ----------
    root : pathlib.Path
        Folder of ``databricks.yml``.
    target : str, optional
        By default, the target that is marked as default, or the only one.
    variables : mapping of str to str, optional
        Values of variables. They override ``BUNDLE_VAR_<name>`` in the environment, which overrides
        the target's value, which overrides the default.

    Attributes
    ----------
    root : pathlib.Path
    name, target : str
    variables : dict of str to object
        Value of each variable that has one.
    lookups : dict of str to dict
        For each variable without a value that is looked up in the workspace: what it is looked up by.
    settings : dict
        Content of the file with the overrides of the target; references are not resolved.

    Raises
    ------
    BundleError
        If the file is missing or is not a bundle, or if it has no such target or variable.
    """

    def __init__(self, root: Path, target: str | None = None, variables: Mapping[str, str] | None = None) -> None:
        import yaml

        self.root = root.resolve()
        file = self.root / FILE
        try:
            # The loader of libyaml, where PyYAML has it, reads this file ten times as fast as the one in Python.
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            content = yaml.load(file.read_text(encoding="utf-8"), loader)  # noqa: S506
        except FileNotFoundError:
            raise BundleError(f"there is no {FILE} in {self.root}") from None
        except yaml.YAMLError as error:
            raise BundleError(f"{file} is not YAML: {error}") from None
        if not isinstance(content, dict) or "name" not in (content.get("bundle") or {}):
            raise BundleError(f"{file} is not a bundle: it has no bundle.name")
        if content.get("include"):
            raise BundleError(f"{file}: `include` cannot be read here; keep the jobs in {FILE} itself")
        self.name = str(content["bundle"]["name"])
        targets = content.get("targets") or {"default": {}}
        self.target = target or _default_target(targets)
        if self.target not in targets:
            raise BundleError(f"{file} has no target {self.target!r}; it has: {', '.join(targets)}")
        overrides = targets[self.target] or {}
        self.lookups: dict[str, dict] = {}
        self.variables = self._variable_values(content, overrides, variables or {})
        self.settings = _overridden(content, overrides)
        self._jobs = (self.settings.get("resources") or {}).get("jobs") or {}

    @property
    def job_keys(self) -> list[str]:
        """The keys of all jobs."""
        return list(self._jobs)

    def job(self, key: str) -> Job:
        """Return a job, with ``${…}`` resolved and its tasks in order.

        Raises
        ------
        BundleError
            If there is no such job, or if it cannot be run on this machine.
        """
        return self._job(key, ())

    def _job(self, key: str, callers: tuple[str, ...]) -> Job:
        """Return a job that is run by a chain of other jobs, or by none."""
        from databricks.bundles.jobs import Job as JobModel

        if key not in self._jobs:
            raise BundleError(f"{FILE} has no job {key!r}; it has: {', '.join(self._jobs) or 'none'}")
        settings = self._jobs[key]
        where = f"job {key!r}"
        not_used = self._fields_not_used(settings, JobModel, _JOB_FIELDS, where)
        name = self.resolve(settings.get("name", key), where)
        parameters = self.resolve(settings.get("parameters") or [], where)
        tasks = []
        for task in settings.get("tasks") or []:
            task_where = f"{where}, task {task.get('task_key', '?')!r}"
            not_used |= self._task_fields_not_used(task, task_where)
            tasks.append(self._task(task, task_where, (*callers, key)))
        return Job(
            key=key,
            name=str(name),
            parameters={parameter["name"]: as_text(parameter.get("default", "")) for parameter in parameters},
            tasks=_ordered(tasks, where),
            timeout=self._number(settings, "timeout_seconds", where) or None,
            not_used=sorted(not_used),
        )

    def _task_fields_not_used(self, settings: dict, where: str) -> set[str]:
        from databricks.bundles.jobs import Task as TaskModel

        not_used = self._fields_not_used(settings, TaskModel, (*_TASK_FIELDS, *TASK_TYPES), where)
        types = [name for name in settings if name.endswith("_task")]
        if len(types) != 1:
            raise BundleError(f"{where}: a task needs one of {', '.join(TASK_TYPES)}; it has {len(types)} types")
        if types[0] not in TASK_TYPES:
            raise BundleError(f"{where}: {types[0]} cannot be run on this machine; these can: {', '.join(TASK_TYPES)}")
        return not_used

    def _fields_not_used(self, settings: dict, model: type, used: Collection[str], where: str) -> set[str]:
        """Return the fields that have no meaning on this machine; refuse those that Databricks does not know."""
        known = {*used, *(field.name for field in dataclasses.fields(model))}
        for name in settings:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise BundleError(f"{where}: {name!r} is not a field of a {model.__name__.lower()}{hint}")
            if name in _NOT_SUPPORTED and self.resolve(settings[name], where) not in (None, False, "false"):
                raise BundleError(f"{where}: {name} cannot be run on this machine")
        return settings.keys() - set(used)

    def _task(self, settings: dict, where: str, callers: tuple[str, ...]) -> Task:
        (type_name,) = settings.keys() & TASK_TYPES.keys()
        task = self.resolve({name: settings[name] for name in settings if name in (*_TASK_FIELDS, type_name)}, where)
        run_if = task.get("run_if", "ALL_SUCCESS")
        if run_if not in RUN_IF:
            raise BundleError(f"{where}: run_if {run_if!r} is unknown; there are: {', '.join(RUN_IF)}")
        try:
            action = TASK_TYPES[type_name].from_settings(
                task[type_name] or {}, self.root, lambda key: self._called_job(key, callers)
            )
        except InvalidTask as error:
            raise BundleError(f"{where}: {error}") from None
        outcomes = {before["task_key"]: before.get("outcome") for before in task.get("depends_on") or []}
        return Task(
            key=task["task_key"],
            action=action,
            depends_on={key: outcome if outcome is None else as_text(outcome) for key, outcome in outcomes.items()},
            run_if=run_if,
            retries=RetryPolicy(
                # -1 means without a limit, which nobody wants on a laptop.
                max_retries=max(int(self._number(task, "max_retries", where)), 0),
                on_timeout=as_text(task.get("retry_on_timeout", False)) == "true",
                wait=self._number(task, "min_retry_interval_millis", where) / 1000,
            ),
            timeout=self._number(task, "timeout_seconds", where) or None,
        )

    def _called_job(self, key: str, callers: tuple[str, ...]) -> Job:
        """Return the job that a task of the last caller runs."""
        if key not in self._jobs:
            raise InvalidTask(
                f"run_job_task.job_id {key!r} is not a job of {FILE}; write ${{resources.jobs.<key>.id}} with one of: "
                + ", ".join(self._jobs)
            )
        chain = " → ".join([*callers, key])
        if key in callers:
            raise InvalidTask(f"run_job_task: jobs run each other in a circle: {chain}")
        if len(callers) > MAX_NESTED_JOBS:
            raise InvalidTask(
                f"run_job_task: {chain} nests {len(callers)} such tasks; Databricks supports {MAX_NESTED_JOBS}"
            )
        return self._job(key, callers)

    def _number(self, settings: dict, name: str, where: str) -> float:
        """Return the value of a field, or 0 if it is missing."""
        value = self.resolve(settings.get(name) or 0, where)
        try:
            return float(value)
        except ValueError:
            raise BundleError(f"{where}: {name} {value!r} is not a number") from None

    def _variable_values(self, content: dict, settings: dict, overrides: Mapping[str, str]) -> dict[str, Any]:
        declared = content.get("variables") or {}
        unknown = [name for name in [*overrides, *(settings.get("variables") or {})] if name not in declared]
        if unknown:
            raise BundleError(
                f"{FILE} declares no variable {unknown[0]!r}; it declares: {', '.join(declared) or 'none'}"
            )
        values = {}
        for name, declaration in declared.items():
            sources = [declaration, (settings.get("variables") or {}).get(name)]
            for source in sources:
                if isinstance(source, dict) and "default" in source:
                    values[name] = source["default"]
                elif isinstance(source, dict) and "lookup" in source:
                    self.lookups[name] = source["lookup"]
                    values.pop(name, None)
                elif source is not None and not isinstance(source, dict):
                    values[name] = source
            if f"BUNDLE_VAR_{name}" in os.environ:
                values[name] = os.environ[f"BUNDLE_VAR_{name}"]
        values |= overrides
        self.lookups = {name: by for name, by in self.lookups.items() if name not in values}
        return values

    def resolve(self, value: Any, where: str) -> Any:
        """Return a value with each ``${…}`` in it, at any depth, replaced by its value.

        Raises
        ------
        BundleError
            If a reference has no value; the message starts with `where`.
        """
        if isinstance(value, dict):
            return {key: self.resolve(item, where) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item, where) for item in value]
        if not isinstance(value, str):
            return value
        whole = _REFERENCE.fullmatch(value)
        if whole:
            return self.resolve(self._referenced(whole[1], where), where)
        return _REFERENCE.sub(lambda match: as_text(self.resolve(self._referenced(match[1], where), where)), value)

    def _referenced(self, name: str, where: str) -> Any:
        user = getpass.getuser()
        known = {
            "bundle.name": self.name,
            "bundle.target": self.target,
            "bundle.environment": self.target,
            "workspace.current_user.userName": user,
            "workspace.current_user.short_name": re.sub(r"\W", "_", user),
        }
        known |= {f"var.{key}": value for key, value in self.variables.items()}
        known |= {f"resources.jobs.{key}.id": key for key in self._jobs}
        if name not in known:
            hint = f"; give it with --var {name[4:]}=…" if name.startswith("var.") else ""
            raise BundleError(f"{where}: ${{{name}}} has no value here{hint}")
        return known[name]


def _default_target(targets: dict) -> str:
    marked = [name for name, settings in targets.items() if (settings or {}).get("default")]
    if len(marked) == 1 or len(targets) == 1:
        return (marked or list(targets))[0]
    raise BundleError(f"{FILE} marks no default target; name one of: {', '.join(targets)}")


def _overridden(content: dict, overrides: dict) -> dict:
    """Return what a target deploys. Its `run_as` replaces the file's; everything else is merged."""
    base = {key: value for key, value in content.items() if key not in ("targets", "variables")}
    own = {key: value for key, value in overrides.items() if key not in ("default", "variables")}
    return _merged(base, own) | {key: value for key, value in own.items() if key == "run_as"}


def _merged(base: Any, override: Any) -> Any:
    """Merge settings as the Databricks CLI does: maps by key, and tasks, clusters and parameters by their keys."""
    if override is None:
        return base
    if isinstance(base, dict) and isinstance(override, dict):
        merged = {key: _merged(value, override[key]) if key in override else value for key, value in base.items()}
        return merged | {key: value for key, value in override.items() if key not in base}
    if isinstance(base, list) and isinstance(override, list):
        for key in ("task_key", "job_cluster_key", "name"):
            if all(isinstance(item, dict) and key in item for item in base + override):
                by_key = _merged({item[key]: item for item in base}, {item[key]: item for item in override})
                return list(by_key.values())
        return base + override
    return copy.deepcopy(override)


def _ordered(tasks: list[Task], where: str) -> list[Task]:
    by_key = {task.key: task for task in tasks}
    if len(by_key) < len(tasks):
        raise BundleError(f"{where}: two tasks have the same task_key")
    for task in tasks:
        for before in task.depends_on.keys() - by_key.keys():
            raise BundleError(
                f"{where}, task {task.key!r}: depends_on names {before!r}, which is not a task of the job"
            )
    try:
        order = graphlib.TopologicalSorter({task.key: list(task.depends_on) for task in tasks}).static_order()
        return [by_key[key] for key in order]
    except graphlib.CycleError as error:
        raise BundleError(f"{where}: tasks depend on each other in a circle: {' → '.join(error.args[1])}") from None
