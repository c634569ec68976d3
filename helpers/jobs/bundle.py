"""Read ``databricks.yml``: jobs with their variables resolved, as one target deploys them.

https://learn.microsoft.com/azure/databricks/dev-tools/bundles/settings
"""

from __future__ import annotations

import copy
import getpass
import graphlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "databricks.yml"
RUN_IF = ("ALL_SUCCESS", "AT_LEAST_ONE_SUCCESS", "NONE_FAILED", "ALL_DONE", "AT_LEAST_ONE_FAILED", "ALL_FAILED")
OPERATORS = ("EQUAL_TO", "NOT_EQUAL", "GREATER_THAN", "GREATER_THAN_OR_EQUAL", "LESS_THAN", "LESS_THAN_OR_EQUAL")
# What a cluster, a schedule or a notification says has no meaning for a run on this machine.
_TASK_FIELDS_USED = {
    "task_key", "depends_on", "run_if", "notebook_task", "condition_task",
    "max_retries", "min_retry_interval_millis", "retry_on_timeout", "timeout_seconds",
}  # fmt: skip
_JOB_FIELDS_USED = {"name", "parameters", "tasks", "timeout_seconds"}
_FIELDS_WITHOUT_MEANING_HERE = {
    "access_control_list", "budget_policy_id", "description", "disable_auto_optimization", "disabled",
    "edit_mode", "email_notifications", "environment_key", "environments", "existing_cluster_id", "format",
    "health", "job_cluster_key", "job_clusters", "libraries", "lifecycle", "max_concurrent_runs", "new_cluster",
    "notification_settings", "performance_target", "permissions", "queue", "run_as", "schedule", "tags",
    "trigger", "webhook_notifications",
}  # fmt: skip
_REFERENCE = re.compile(r"\$\{([A-Za-z][\w.-]*)\}")


class BundleError(ValueError):
    """``databricks.yml`` cannot be read, or has something that cannot be run here."""


@dataclass(frozen=True)
class Task:
    """One task of a job.

    Attributes
    ----------
    key : str
    notebook : pathlib.Path or None
        For a notebook task.
    base_parameters : dict of str to str
    condition : dict of str to str
        For a condition task: ``op``, ``left`` and ``right``.
    depends_on : dict of str to (str or None)
        Task key, with the outcome that a condition task must have had.
    run_if : str
    max_retries : int
    retry_on_timeout : bool
    retry_wait : float
        Seconds between attempts.
    timeout : float or None
        Seconds for one attempt.
    """

    key: str
    notebook: Path | None
    base_parameters: dict[str, str]
    condition: dict[str, str]
    depends_on: dict[str, str | None]
    run_if: str
    max_retries: int
    retry_on_timeout: bool
    retry_wait: float
    timeout: float | None


@dataclass(frozen=True)
class Job:
    """A job, its tasks in an order in which they can run.

    Attributes
    ----------
    key, name : str
    parameters : dict of str to str
        Defaults by name.
    tasks : list of Task
    timeout : float or None
        Seconds for the whole job.
    not_used : list of str
        Settings that the file has and a run on this machine does without.
    """

    key: str
    name: str
    parameters: dict[str, str]
    tasks: list[Task]
    timeout: float | None
    not_used: list[str]


class Bundle:
    """A bundle as one of its targets deploys it.

    Parameters
    ----------
    root : pathlib.Path
        Folder that has ``databricks.yml``.
    target : str, optional
        Default: the one marked as default, or the only one.
    variables : mapping of str to str, optional
        Values of variables; they win over ``BUNDLE_VAR_<name>`` in the environment, which wins
        over the target, which wins over the default.

    Attributes
    ----------
    root : pathlib.Path
    name, target : str
    variables : dict of str to object
        Value of each variable that has one.
    lookups : dict of str to dict
        What each variable is looked up by in the workspace, where it has no value.
    settings : dict
        What the file says, as the target overrides it; references are not resolved.

    Raises
    ------
    BundleError
        If the file is missing or is no bundle, or if there is no such target or variable.
    """

    def __init__(self, root: Path, target: str | None = None, variables: Mapping[str, str] | None = None) -> None:
        import yaml

        self.root = root.resolve()
        file = self.root / FILE
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BundleError(f"there is no {FILE} in {self.root}") from None
        except yaml.YAMLError as error:
            raise BundleError(f"{file} is not YAML: {error}") from None
        if not isinstance(content, dict) or "name" not in (content.get("bundle") or {}):
            raise BundleError(f"{file} is no bundle: it has no bundle.name")
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
            If there is no such job, or if it has something that cannot be run here.
        """
        if key not in self._jobs:
            raise BundleError(f"{FILE} has no job {key!r}; it has: {', '.join(self._jobs) or 'none'}")
        settings = self._jobs[key]
        where = f"job {key!r}"
        unknown = settings.keys() - _JOB_FIELDS_USED - _FIELDS_WITHOUT_MEANING_HERE
        if unknown:
            raise BundleError(f"{where}: {', '.join(sorted(unknown))} cannot be run here")
        used = self.resolve({name: settings[name] for name in _JOB_FIELDS_USED & settings.keys() - {"tasks"}}, where)
        tasks = [self._task(task, where) for task in settings.get("tasks") or []]
        not_used = settings.keys() & _FIELDS_WITHOUT_MEANING_HERE
        for task in settings.get("tasks") or []:
            not_used |= task.keys() & _FIELDS_WITHOUT_MEANING_HERE
        return Job(
            key=key,
            name=str(used.get("name", key)),
            parameters={item["name"]: as_text(item.get("default", "")) for item in used.get("parameters") or []},
            tasks=_ordered(tasks, where),
            timeout=used.get("timeout_seconds") or None,
            not_used=sorted(not_used),
        )

    def _task(self, settings: dict, job: str) -> Task:
        where = f"{job}, task {settings.get('task_key', '?')!r}"
        unknown = settings.keys() - _TASK_FIELDS_USED - _FIELDS_WITHOUT_MEANING_HERE
        if unknown or len(settings.keys() & {"notebook_task", "condition_task"}) != 1:
            what = ", ".join(sorted(unknown)) or "a task without a type"
            raise BundleError(f"{where}: {what} cannot be run here; notebook_task and condition_task can")
        task = self.resolve({name: settings[name] for name in _TASK_FIELDS_USED & settings.keys()}, where)
        run_if = task.get("run_if", "ALL_SUCCESS")
        if run_if not in RUN_IF:
            raise BundleError(f"{where}: run_if {run_if!r} is unknown; there are: {', '.join(RUN_IF)}")
        notebook, condition = task.get("notebook_task"), task.get("condition_task")
        path = None
        if notebook:
            if notebook.get("source", "WORKSPACE") != "WORKSPACE":
                raise BundleError(f"{where}: notebook_task.source {notebook['source']!r} cannot be run here")
            path = self.root / notebook["notebook_path"]
            path = path if path.suffix else path.with_suffix(".ipynb")
            if path.suffix != ".ipynb" or not path.is_file():
                raise BundleError(f"{where}: {notebook['notebook_path']} is no .ipynb file in {self.root}")
        elif condition.get("op") not in OPERATORS:
            raise BundleError(f"{where}: op {condition.get('op')!r} is unknown; there are: {', '.join(OPERATORS)}")
        return Task(
            key=task["task_key"],
            notebook=path,
            base_parameters={
                name: as_text(value) for name, value in ((notebook or {}).get("base_parameters") or {}).items()
            },
            condition={name: as_text(value) for name, value in (condition or {}).items()},
            depends_on={before["task_key"]: before.get("outcome") for before in task.get("depends_on") or []},
            run_if=run_if,
            # -1 means without end, which nobody at a laptop wants.
            max_retries=max(int(task.get("max_retries", 0)), 0),
            retry_on_timeout=bool(task.get("retry_on_timeout", False)),
            retry_wait=float(task.get("min_retry_interval_millis", 0)) / 1000,
            timeout=task.get("timeout_seconds") or None,
        )

    def _variable_values(self, content: dict, settings: dict, given: Mapping[str, str]) -> dict[str, Any]:
        declared = content.get("variables") or {}
        unknown = [name for name in [*given, *(settings.get("variables") or {})] if name not in declared]
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
        values |= given
        self.lookups = {name: by for name, by in self.lookups.items() if name not in values}
        return values

    def resolve(self, value: Any, where: str) -> Any:
        """Return a value with each ``${…}`` in it, at any depth, replaced by what it stands for.

        Raises
        ------
        BundleError
            If one has no value; the message starts with `where`.
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
        } | {f"var.{key}": value for key, value in self.variables.items()}
        if name not in known:
            hint = f"; give it with --var {name[4:]}=…" if name.startswith("var.") else ""
            raise BundleError(f"{where}: ${{{name}}} has no value here{hint}")
        return known[name]


def as_text(value: Any) -> str:
    """Return a value as job parameters and task values pass it: ``true``, not ``True``."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _default_target(targets: dict) -> str:
    marked = [name for name, settings in targets.items() if (settings or {}).get("default")]
    if len(marked) == 1 or len(targets) == 1:
        return (marked or list(targets))[0]
    raise BundleError(f"{FILE} marks no default target; name one of: {', '.join(targets)}")


def _overridden(content: dict, overrides: dict) -> dict:
    """Return what a target deploys; its `run_as` takes the place of the file's, the rest is merged."""
    base = {key: value for key, value in content.items() if key not in ("targets", "variables")}
    own = {key: value for key, value in overrides.items() if key not in ("default", "variables")}
    return _merged(base, own) | {key: value for key, value in own.items() if key == "run_as"}


def _merged(base: Any, override: Any) -> Any:
    """Overlay settings as the Databricks CLI does: maps by key, and tasks, clusters and parameters by theirs."""
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
            raise BundleError(f"{where}, task {task.key!r}: depends_on names {before!r}, which is no task of the job")
    try:
        order = graphlib.TopologicalSorter({task.key: list(task.depends_on) for task in tasks}).static_order()
        return [by_key[key] for key in order]
    except graphlib.CycleError as error:
        raise BundleError(f"{where}: tasks depend on each other in a circle: {' → '.join(error.args[1])}") from None
