"""Runs the jobs of ``databricks.yml`` with the notebooks of a deployed bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.jobs.bundle import Bundle
from helpers.jobs.references import resolve
from helpers.jobs.task_types import ConditionTask, RunJobTask
from tests.stand_ins.databricks_workspace.cluster import Cluster, Executed
from tests.stand_ins.databricks_workspace.layouts import ROOT

RUN_ID = "407"
# Not in the ML runtime, or in another version than the notebooks need.
NOT_IN_RUNTIME = ("mlflow", "azureml-mlflow", "tqdm")


def run(cluster: Cluster, root: Path, key: str, **given: str) -> dict[str, Executed]:
    """Run a job, one task after the other.

    Parameters
    ----------
    cluster : tests.stand_ins.databricks_workspace.cluster.Cluster
    root : pathlib.Path
        Of the bundle's files in the workspace. The Jobs service has the definition of the job from its deployment.
    key : str
        Of the job.
    **given : str
        Job parameters.

    Returns
    -------
    dict of str to Executed
        By task, for the tasks whose condition is met; ``<task>/<task of the job>`` for those of a job that a task runs.
    """
    bundle = Bundle(ROOT)
    job, libraries = bundle.job(key), bundle.variables["cluster_libraries"]
    unknown = given.keys() - job.parameters.keys()
    if unknown:
        raise ValueError(f"{key} has no parameters {unknown}")
    known = {"job.run_id": RUN_ID}
    parameters = {name: resolve(value, known) for name, value in (job.parameters | given).items()}
    known |= {f"job.parameters.{name}": value for name, value in parameters.items()}
    executed: dict[str, Executed] = {}
    task_values: dict[str, dict[str, Any]] = {}
    outcomes: dict[str, str] = {}
    for task in job.tasks:
        if any(outcome and outcomes.get(before) != outcome for before, outcome in task.depends_on.items()):
            continue
        if isinstance(task.action, ConditionTask):
            outcomes[task.key] = str(task.action.holds(known)).lower()
            continue
        if isinstance(task.action, RunJobTask):
            values = {name: resolve(value, known) for name, value in task.action.job_parameters.items()}
            of_job = run(cluster, root, task.action.job.key, **values)
            executed |= {f"{task.key}/{name}": notebook for name, notebook in of_job.items()}
            continue
        # Job parameters win over a task's own.
        values = {name: resolve(value, known) for name, value in task.action.base_parameters.items()} | parameters
        notebook = root / task.action.path.relative_to(ROOT)
        installed = [library["pypi"]["package"].partition("==")[0] for library in libraries]
        missing = [name for name in NOT_IN_RUNTIME if name not in installed]
        executed[task.key] = cluster.run(notebook, values, task.key, task_values, missing=missing)
        task_values[task.key] = executed[task.key].task_values
        known |= {f"tasks.{task.key}.values.{name}": value for name, value in task_values[task.key].items()}
    return executed
