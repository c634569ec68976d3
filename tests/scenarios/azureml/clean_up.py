"""Clean-up of runs, versions and experiments in Azure ML and Databricks, by `helpers.cleanup`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import mlflow

from helpers import cleanup, kinds, tracking
from helpers.ownership import MARK
from helpers.parameters import CleanUp
from helpers.tracking import inventory
from tests.scenarios.errors import error_of
from tests.stand_ins import both_servers
from tests.stand_ins.azureml_workspace import AzureMLStandIn

ALL = tuple(kinds.CLEAN_UP)


class Project:
    """An experiment and a model of one name, which this bundle and others use.

    Parameters
    ----------
    name : str
    **mode : str
        Parameters of tracking.

    Attributes
    ----------
    session : helpers.tracking.Session
        The one that `configure` or `plan` created last.
    """

    def __init__(self, name: str, **mode: str) -> None:
        self.name = name
        self._parameters = {"experiment_name": f"/Shared/{name}", "model_name": name} | mode

    def configure(self) -> Project:
        """Point MLflow at the servers and create the experiment."""
        self.session = tracking.configure(self._p())
        return self

    def _p(self, force: bool = False) -> CleanUp:
        return both_servers.parameters(CleanUp, force=force, **self._parameters)

    def run(self, **tags: str) -> mlflow.entities.Run:
        """Log a run with a model."""
        with mlflow.start_run(tags=tags, run_name="trained") as run, tempfile.TemporaryDirectory() as folder:
            Path(folder, "MLmodel").write_text("flavors: {}")
            mlflow.log_artifacts(folder, "model")
        return mlflow.get_run(run.info.run_id)

    def own_run(self) -> mlflow.entities.Run:
        """Log a run with the tag of this bundle."""
        return self.run(**{MARK: self.name})

    def register(self, run: mlflow.entities.Run) -> str:
        """Register the model of a run, and return its version."""
        uri = f"runs:/{run.info.run_id}/model"
        return str(tracking.create_version(self.session, run, uri, self.name, {}).version)

    def plan(self, requested: Sequence[str] = ALL, force: bool = False) -> list:
        """List what clean-up would do with runs, versions and experiments, in a session that writes nothing."""
        p = self._p(force)
        self.session = tracking.configure(p, create=False)
        # None of these needs Spark.
        return cleanup.plan(inventory.items(None, self.session, p), requested)

    def clean(self, requested: Sequence[str] = ALL, force: bool = False) -> list[list[str]]:
        """Clean up, and return kind, name, place and result of each item."""
        return lines(cleanup.delete(self.plan(requested, force)))

    def versions(self) -> list[str]:
        """Return the versions that are left."""
        return [str(version.version) for version in tracking.versions(self.session, self.name)]


def lines(outcomes: Iterable[cleanup.Outcome]) -> list[list[str]]:
    """Return kind, name, place and result of each outcome."""
    return [[outcome.item.kind, outcome.item.name, outcome.item.where, outcome.result] for outcome in outcomes]


def results(cleaned: list[list[str]]) -> list[str]:
    """Return the results of a clean-up."""
    return [line[3] for line in cleaned]


def runs_in(uri: str, experiment_name: str) -> list[str] | None:
    """Return the runs of an experiment, or None if it is deleted or missing."""
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(experiment_name)
    if experiment is None or experiment.lifecycle_stage != "active":
        return None
    return sorted(run.info.run_id for run in client.search_runs([experiment.experiment_id]))


def runs_in_azureml(experiment_name: str) -> list[str] | None:
    """Return the runs of an experiment of Azure ML, or None if it is deleted or missing."""
    return runs_in(AzureMLStandIn.from_environment().tracking_uri, experiment_name)


def leave_runs_and_versions(name: str) -> dict[str, str]:
    """Leave runs and versions of this bundle, of another model and of somebody else; return the runs."""
    project = Project(name, tracking_mode="azureml").configure()
    first, best, foreign = project.own_run(), project.own_run(), project.run()
    other = project.run(**{MARK: "another"})
    for run in (first, best):
        project.register(run)
    tracking.promote(project.session, name, "2")
    mlflow.MlflowClient().create_model_version(name, f"{foreign.info.artifact_uri}/model", foreign.info.run_id)
    runs = {"first": first, "best": best, "foreign": foreign, "other": other}
    return {role: run.info.run_id for role, run in runs.items()}


def list_what_is_there(name: str) -> dict[str, Any]:
    """List what clean-up would do, also for a name that nothing has."""
    nothing = Project("none", tracking_mode="azureml").plan()
    planned = Project(name, tracking_mode="azureml").plan()
    return {"planned": cleanup.overview(planned).to_dict("records"), "nothing": len(nothing)}


def clean_twice_and_by_force(name: str) -> dict[str, Any]:
    """Clean up twice, and then with force; return the results except those of kept items, and what is left."""
    project = Project(name, tracking_mode="azureml")
    cleaned = [results(project.clean()), results(project.clean()), results(project.clean(force=True))]
    return {
        "results": [[result for result in once if not result.startswith("kept")] for once in cleaned],
        "versions": project.versions(),
        "runs": runs_in_azureml(name),
    }


def clean_experiments() -> dict[str, Any]:
    """Delete an experiment with only the bundle's runs; try one that never had runs, and use a deleted one again."""
    project = Project("owned", tracking_mode="azureml").configure()
    runs = [project.own_run(), project.own_run()]
    mlflow.MlflowClient().delete_run(runs[0].info.run_id)
    cleaned = results(project.clean(["runs"])) + results(project.clean(["experiments"]))
    empty = Project("empty", tracking_mode="azureml").configure()
    return {
        "results": cleaned,
        "left": runs_in_azureml("owned"),
        "empty": results(empty.clean()),
        "refused": error_of(project.configure),
    }


def clean_while_deletions_fail() -> dict[str, Any]:
    """Clean up while two deletions fail, and again."""
    faults = AzureMLStandIn.from_environment().faults
    project = Project("failing_deletions", tracking_mode="azureml").configure()
    runs = [project.own_run() for _ in range(4)]
    project.register(runs[0])
    planned = project.plan()
    mlflow.MlflowClient().delete_run(runs[3].info.run_id)
    faults.add("model-versions/delete", 503, times=1)
    faults.add("runs/delete", 403, times=1)
    outcomes = list(cleanup.delete(planned))
    return {
        "first": lines(outcomes),
        "check": error_of(cleanup.check, outcomes),
        "second": project.clean(),
        "third": len(project.plan()),
    }


def be_killed_at_each_deletion(answer: str) -> dict[str, Any]:
    """Clean up in processes that are killed at their first deletion, and then in one that is not.

    Parameters
    ----------
    answer : {"kill", "kill_after"}
        Whether the process dies before or after the deletion is carried out.
    """
    faults = AzureMLStandIn.from_environment().faults
    project = Project(f"killed_{answer}", tracking_mode="azureml").configure()
    for _ in range(2):
        project.register(project.own_run())
    ends = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            # Do not count the request that asks whether the item still exists.
            deletions = "POST.*runs/delete|DELETE.*model-versions/delete"
            faults.add(deletions, answer, times=1, pid=os.getpid())
            project.clean()
            os._exit(0)
        ends.append(os.waitpid(pid, 0)[1])
        faults.clear()
    left = len(project.plan())
    return {"ends": ends, "left": left, "last": results(project.clean()), "then": len(project.plan())}


def leave_mirrored_runs(name: str) -> dict[str, Any]:
    """Leave runs in Databricks with copies in Azure ML, and versions of two of them; return runs and copies."""
    project = Project(name, tracking_mode="dual", model_registry="azureml").configure()
    runs = [project.own_run(), project.own_run(), project.run()]
    print(tracking.mirror_pending(project.session))
    for run in runs[:2]:
        project.register(run)
    tracking.promote(project.session, name, "2")
    copies = [mlflow.get_run(run.info.run_id).data.tags["mirrored_to_run_id"] for run in runs]
    return {"first": runs[0].info.run_id, "best": runs[1].info.run_id, "foreign": runs[2].info.run_id, "copies": copies}


def list_on_both_servers(*names: str) -> None:
    """List what clean-up would do in dual mode."""
    for name in names:
        Project(name, tracking_mode="dual", model_registry="azureml").plan()


def clean_on_both_servers(name: str) -> dict[str, Any]:
    """Clean up in dual mode, then twice with force; return what is left on each server."""
    project = Project(name, tracking_mode="dual", model_registry="azureml")

    def left() -> list[list[str] | None]:
        return [runs_in("databricks", f"/Shared/{name}"), runs_in_azureml(name)]

    cleaned = project.clean()
    after_cleaning = left()
    project.clean(force=True)
    after_force = left()
    return {
        "cleaned": cleaned,
        "left": after_cleaning,
        "left_after_force": after_force,
        "again": project.clean(force=True),
    }


def mirror_after_clean_up(name: str) -> dict[str, Any]:
    """Clean up in dual mode with force, and then log a run to mirror."""
    leave_mirrored_runs(name)
    project = Project(name, tracking_mode="dual", model_registry="azureml")
    project.clean(force=True)
    project.own_run()
    return {"pending": tracking.mirror_pending(project.session)}


def clean_copied_versions() -> dict[str, Any]:
    """Clean up versions of the local registry that have copies in Azure ML."""
    uri = AzureMLStandIn.from_environment().tracking_uri
    project = Project("copied", tracking_mode="dual", model_registry="local").configure()
    client, aml = mlflow.MlflowClient(), mlflow.MlflowClient(uri, uri)
    client.create_registered_model("copied", tags={MARK: "copied"})
    aml.create_registered_model("copied")
    runs = [project.own_run(), project.own_run()]
    tracking.mirror_pending(project.session)
    for run in runs:
        run_id = run.info.run_id
        tags = {MARK: "copied", "run_id": run_id}
        client.create_model_version("copied", f"file:///{run_id}", tags=tags)
        copy = aml.get_run(mlflow.get_run(run_id).data.tags["mirrored_to_run_id"])
        aml.create_model_version("copied", f"{copy.info.artifact_uri}/model", copy.info.run_id, tags=tags)
    tracking.promote(project.session, "copied", "2")

    def left() -> list[list[str]]:
        return [[str(version.version) for version in aml.search_model_versions("name = 'copied'")], project.versions()]

    cleaned = project.clean(["model_versions"])
    after_cleaning = left()
    project.clean(["model_versions"], force=True)
    return {"cleaned": cleaned, "left": after_cleaning, "left_after_force": left()}
