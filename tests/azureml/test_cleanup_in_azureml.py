"""Clean-up in Azure ML, and of runs in Databricks with their copies there."""

import os
import sqlite3
import textwrap

import pytest

from tests.azureml import both_servers
from tests.azureml.python_process import PythonProcess

HELPERS = """
import os, tempfile
from pathlib import Path

import mlflow
from helpers import cleanup, tracking
from helpers.ownership import MARK, Item
from helpers.parameters import CLEAN_UP_KINDS
from helpers.tracking import dual, made
from tests.azureml import both_servers

ALL = ",".join(CLEAN_UP_KINDS)

class World:
    def __init__(self, name, **mode):
        self.name = name
        self.p = both_servers.parameters(experiment_name=f"/Shared/{name}", **mode)

    def configure(self):
        self.servers = tracking.configure(self.p)
        return self

    def run(self, **tags):
        with mlflow.start_run(tags=tags, run_name="trained") as run, tempfile.TemporaryDirectory() as folder:
            Path(folder, "MLmodel").write_text("flavors: {}")
            mlflow.log_artifacts(folder, "model")
        return mlflow.get_run(run.info.run_id)

    def ours(self):
        return self.run(**{MARK: self.name})

    def plan(self, kinds=ALL, force=False):
        return cleanup.plan(made.items(tracking.configure(self.p, create=False), self.name, self.name, force), kinds)

    def clean(self, kinds=ALL, force=False):
        return lines(cleanup.delete(self.plan(kinds, force)))

    def versions(self):
        return [str(version.version) for version in tracking.versions(self.name)]

def lines(outcomes):
    return [[o.item.kind, o.item.name, o.item.where, o.result] for o in outcomes]

def register(run, name):
    return str(tracking.create_version(run, f"runs:/{run.info.run_id}/model", name, {}).version)

def runs_in(uri, name):
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage != "active":
        return None
    return sorted(run.info.run_id for run in client.search_runs([experiment.experiment_id]))
"""
# Of MLflow's API, what reads only.
READING = {
    "experiments/get", "experiments/get-by-name", "experiments/search", "runs/get", "runs/search",
    "registered-models/get", "model-versions/search", "model-versions/get",
}  # fmt: skip


@pytest.fixture(scope="module")
def process(aml, databricks, tmp_path_factory):
    """A process that is signed in to both, and tries nothing twice."""
    folder = tmp_path_factory.mktemp("clean_up")
    # Older MLflow does not make the folder of its database.
    (folder / "local").mkdir()
    variables = both_servers.environment(aml, databricks) | {"BUNDLE_LOCAL_DIR": str(folder / "local")}
    variables |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_DATABRICKS_ENDPOINT_HTTP_RETRY_TIMEOUT": "1"}
    with PythonProcess.start(folder, os.environ | variables) as running:
        yield running


@pytest.fixture
def run(process, aml):
    """Run a script that uses the helpers."""

    def run_script(code, **environment):
        found = process.run(HELPERS + textwrap.dedent(code), **environment)
        assert "error" not in found, process.output_file.read_text()[-4000:]
        return found

    yield run_script
    aml.faults.clear()


def test_in_azure_ml_the_list_writes_nothing_and_the_bundles_things_go_but_for_the_champion(aml, run):
    made = run(
        """
        world = World("cleaned", tracking_mode="azureml").configure()
        first, best, foreign, other = world.ours(), world.ours(), world.run(), world.run(**{MARK: "another"})
        for each in (first, best):
            register(each, "cleaned")
        tracking.promote("cleaned", "2")
        mlflow.MlflowClient().create_model_version("cleaned", f"{foreign.info.artifact_uri}/model", foreign.info.run_id)
        answer(**{key: run.info.run_id for key, run in
                  {"first": first, "best": best, "foreign": foreign, "other": other}.items()})
        """
    )
    before = len(aml.requests())
    listed = run(
        """
        world = World("cleaned", tracking_mode="azureml")
        none = World("none", tracking_mode="azureml").plan()
        answer(planned=cleanup.overview(world.plan()).to_dict("records"), none=len(none))
        """
    )
    calls = {request.path.split("/mlflow/")[-1] for request in aml.requests()[before:] if "/api/2.0/" in request.path}
    assert calls <= READING and listed["none"] == 0
    assert {line["where"] for line in listed["planned"]} == {"Azure ML workspace ml-workspace"}
    what = {line["name"]: line["what"] for line in listed["planned"]}
    assert what == {
        "cleaned version 1": "delete",
        "cleaned version 2": "keep: the champion, unless force=true",
        "cleaned version 3": "keep: not made by this bundle",
        f"trained ({made['first']})": "delete",
        f"trained ({made['best']})": "keep: its model is cleaned version 2, which stays (the champion, "
        "unless force=true)",
        f"trained ({made['foreign']})": "keep: not made by this bundle",
        f"trained ({made['other']})": "keep: trained another, not cleaned",
        "cleaned": "keep: not known to be made by this bundle: it has other runs, or none",
    }
    found = run(
        """
        world = World("cleaned", tracking_mode="azureml")
        done = [world.clean(), world.clean(), world.clean(force=True)]
        answer(done=[[line[3] for line in lines if not line[3].startswith("kept")] for lines in done],
               versions=world.versions(), runs=runs_in(os.environ["TRACKING_URI"], "cleaned"))
        """
    )
    assert found["done"] == [["deleted", "deleted"], [], ["deleted", "deleted"]]
    assert found["versions"] == ["3"] and found["runs"] == sorted([made["foreign"], made["other"]])
    assert not aml.requests("registered-models/delete")


def test_in_azure_ml_an_experiment_goes_if_all_that_it_ever_held_was_the_bundles(run):
    found = run(
        """
        world = World("owned", tracking_mode="azureml").configure()
        runs = [world.ours(), world.ours()]
        mlflow.MlflowClient().delete_run(runs[0].info.run_id)
        results = [line[3] for line in world.clean("runs")]
        results += [line[3] for line in world.clean("experiments")]
        World("empty", tracking_mode="azureml").configure()
        empty = [line[3] for line in World("empty", tracking_mode="azureml").clean()]
        try:
            world.configure()
        except ValueError as error:
            refused = str(error)
        answer(results=results, left=runs_in(os.environ["TRACKING_URI"], "owned"), empty=empty, refused=refused)
        """
    )
    assert found["results"] == ["deleted", "kept: clean_up does not name experiments", "deleted"]
    assert found["left"] is None
    assert found["empty"] == ["kept: not known to be made by this bundle: it has other runs, or none"]
    assert "experiment_name='owned': was deleted on azureml:" in found["refused"]


def test_what_fails_is_said_in_a_line_and_does_not_stop_the_rest_and_the_next_time_it_is_made_good(run):
    found = run(
        """
        faults = both_servers.stand_in().faults
        world = World("faults", tracking_mode="azureml").configure()
        runs = [world.ours() for _ in range(4)]
        register(runs[0], "faults")
        planned = world.plan()
        mlflow.MlflowClient().delete_run(runs[3].info.run_id)
        faults.add("model-versions/delete", 503, times=1)
        faults.add("runs/delete", 403, times=1)
        outcomes = list(cleanup.delete(planned))
        try:
            cleanup.check(outcomes)
        except cleanup.CleanUpError as error:
            red = str(error)
        answer(first=lines(outcomes), red=red, second=world.clean(), third=len(world.plan()))
        """
    )
    version, first, second, third, gone, experiment = (line[3] for line in found["first"])
    assert version.startswith("failed: ") and "503" in version and "\n" not in version
    assert first.startswith("failed: ") and "403" in first
    assert (second, third, gone, experiment) == ("deleted", "deleted", "already gone", "failed: it has runs")
    assert found["red"].startswith("3 not deleted, model_versions faults version 1 among them: failed: ")
    assert [line[3] for line in found["second"]] == ["deleted"] * 3 and found["third"] == 0


@pytest.mark.parametrize("answer", ["kill", "kill_after"])
def test_a_job_that_is_killed_at_any_deletion_is_finished_by_the_next(run, answer):
    found = run(
        """
        faults = both_servers.stand_in().faults
        name = f"killed_{os.environ['ANSWER']}"
        world = World(name, tracking_mode="azureml").configure()
        for _ in range(2):
            register(world.ours(), name)
        ends = []
        for _ in range(4):
            pid = os.fork()
            if pid == 0:
                # Not of the request that asks whether it is there still.
                deletions = "POST.*runs/delete|DELETE.*model-versions/delete"
                faults.add(deletions, os.environ["ANSWER"], times=1, pid=os.getpid())
                world.clean()
                os._exit(0)
            ends.append(os.waitpid(pid, 0)[1])
            faults.clear()
        answer(ends=ends, left=len(world.plan()), last=[line[3] for line in world.clean()], then=len(world.plan()))
        """,
        ANSWER=answer,
    )
    assert found["ends"] == [9] * 4
    assert found["left"] == (5 if answer == "kill" else 1)
    assert set(found["last"]) == {"deleted"} and found["then"] == 0


DUAL = """
world = World(os.environ["NAME"], tracking_mode="dual", model_registry="azureml").configure()
runs = [world.ours(), world.ours(), world.run()]
print(tracking.mirror_pending(world.p))
for each in runs[:2]:
    register(each, world.name)
tracking.promote(world.name, "2")
copies = [mlflow.get_run(each.info.run_id).data.tags["mirrored_to_run_id"] for each in runs]
"""


def content(databricks):
    """All that is in the server's database."""
    with sqlite3.connect(databricks.store) as store:
        return list(store.iterdump())


def test_in_dual_mode_runs_go_on_both_servers_and_the_champions_stays_on_both(run, databricks):
    found = run(
        DUAL
        + """
ids = [each.info.run_id for each in runs]
answer(first=ids[0], best=ids[1], foreign=ids[2], copies=copies)
""",
        NAME="cleaned_both",
    )
    before = content(databricks)
    run('World("cleaned_both", tracking_mode="dual", model_registry="azureml").plan()')
    run('World("nobodys", tracking_mode="dual", model_registry="azureml").plan()')
    assert content(databricks) == before
    found |= run(
        """
        world = World("cleaned_both", tracking_mode="dual", model_registry="azureml")
        places = ("databricks", "/Shared/cleaned_both"), (os.environ["TRACKING_URI"], "cleaned_both")
        answer(done=world.clean(), left=[runs_in(*place) for place in places],
               force=world.clean(force=True), last=[runs_in(*place) for place in places],
               again=world.clean(force=True))
        """
    )
    best_copy = found["copies"][1]
    deleted = [line[:3] for line in found["done"] if line[3] == "deleted"]
    assert deleted == [
        ["model_versions", "cleaned_both version 1", "Azure ML workspace ml-workspace"],
        ["runs", f"trained ({found['first']})", "Databricks"],
        ["runs", f"trained ({found['copies'][0]})", "Azure ML workspace ml-workspace"],
        ["runs", f"trained ({found['copies'][2]})", "Azure ML workspace ml-workspace"],
    ]
    assert found["left"] == [sorted([found["best"], found["foreign"]]), [best_copy]]
    # The source of the third copy is somebody's own; the copy was this bundle's.
    assert found["last"] == [[found["foreign"]], None]
    foreign = f"trained ({found['foreign']})"
    assert [line[3] for line in found["again"]] == [
        "kept: not made by this bundle",
        f"kept: holds what is kept, {foreign}",
    ]


def test_an_experiment_of_copies_that_was_deleted_is_named_when_the_next_run_is_to_be_mirrored(run):
    found = run(
        DUAL
        + """
world.clean(force=True)
world.ours()
answer(said=tracking.mirror_pending(world.p))
""",
        NAME="mirror_gone",
    )
    assert "Mirroring to Azure ML is pending" in found["said"]
    assert "experiment 'mirror_gone' was deleted in Azure Machine Learning" in found["said"]


def test_a_version_that_was_copied_to_azure_ml_goes_with_the_one_that_it_was_made_of(run):
    found = run(
        """
        world = World("copied", tracking_mode="dual", model_registry="local").configure()
        client = mlflow.MlflowClient()
        client.create_registered_model("copied", tags={MARK: "copied"})
        runs = [world.ours(), world.ours()]
        aml = mlflow.MlflowClient(os.environ["TRACKING_URI"], os.environ["TRACKING_URI"])
        aml.create_registered_model("copied")
        tracking.mirror_pending(world.p)
        for each in runs:
            tags = {MARK: "copied", "run_id": each.info.run_id}
            client.create_model_version("copied", f"file:///{each.info.run_id}", tags=tags)
            copy = aml.get_run(mlflow.get_run(each.info.run_id).data.tags["mirrored_to_run_id"])
            aml.create_model_version("copied", f"{copy.info.artifact_uri}/model", copy.info.run_id, tags=tags)
        tracking.promote("copied", "2")
        def left():
            return [str(version.version) for version in aml.search_model_versions("name = 'copied'")]
        first = world.clean("model_versions")
        answer(first=first, left=[left(), world.versions()])
        world.clean("model_versions", force=True)
        answer(last=[left(), world.versions()])
        """
    )
    assert found["left"] == [["2"], ["2"]] and found["last"] == [[], []]
    kept = [line[3] for line in found["first"] if line[2].startswith("Azure ML") and line[0] == "model_versions"]
    assert kept[1] == "kept: its model is copied version 2, which stays (the champion, unless force=true)"
