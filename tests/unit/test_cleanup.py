"""Clean-up on a laptop: what is listed, what is deleted in which order, and what is never touched."""

import dataclasses
import itertools
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from helpers import cleanup, kinds, parameters, storage, tracking
from helpers.laptop import catalog
from helpers.ownership import MARK, NOT_OURS, Item
from helpers.parameters import ParameterError

pytestmark = pytest.mark.slow

ALL = tuple(kinds.CLEAN_UP)
OWN_TABLES = ("training", "scoring", "predictions", "predictions_quarantine", "predictions_shadow")
_numbers = itertools.count()


@pytest.fixture
def world(spark, schema, model_name, tracking_parameters, local_dir):
    """What the bundle and others left in one experiment, under one model name and in one schema."""
    return World(spark, schema, model_name, tracking_parameters(experiment_name=f"clean_{next(_numbers)}"), local_dir)


class World:
    def __init__(self, spark, schema, model_name, p, local_dir):
        self.spark, self.schema, self.model_name, self.p, self.local_dir = spark, schema, model_name, p, local_dir
        self.session, self.client = tracking.configure(p), mlflow.MlflowClient()
        self.client.create_registered_model(model_name, tags={MARK: model_name})
        self.runs = [self.run({MARK: model_name}) for _ in range(2)]
        self.versions = [self.version(run, {MARK: model_name}) for run in self.runs]
        tracking.promote(self.session, model_name, "2")
        for table in OWN_TABLES:
            storage.replace_table(spark.range(3), f"{schema}.{table}", {MARK: "the tests"})
        self.checkpoint = Path(storage.checkpoint_folder(spark, f"{schema}.predictions"))
        (self.checkpoint / "offsets").mkdir(parents=True)

    def run(self, tags):
        return self.client.create_run(self.session.experiment_id, tags=tags, run_name="trained").info.run_id

    def version(self, run_id, tags):
        return self.client.create_model_version(self.model_name, f"file:///{run_id}", run_id, tags=tags).version

    def find(self, **changes):
        names = {"model_name": self.model_name, "schema": self.schema, "prediction_table": "predictions"}
        values = parameters.as_dict(self.p) | names | changes
        session = tracking.configure(self.p, create=False)
        return cleanup.find(self.spark, session, parameters.parse(parameters.CleanUp, values))

    def plan(self, requested=ALL, **changes):
        requested = requested.split(",") if isinstance(requested, str) else requested
        return cleanup.plan(self.find(**changes), requested)

    def clean(self, requested=ALL, **changes):
        return list(cleanup.delete(self.plan(requested, **changes)))

    def left(self):
        """What exists, read without the bundle."""
        experiment = self.client.get_experiment(self.session.experiment_id)
        versions = self.client.search_model_versions(f"name = '{self.model_name}'")
        return {
            "model_versions": sorted(str(version.version) for version in versions),
            "runs": sorted(run.info.run_id for run in self.client.search_runs([self.session.experiment_id])),
            "experiments": [experiment.name] if experiment.lifecycle_stage == "active" else [],
            "tables": sorted(row["tableName"] for row in self.spark.sql(f"SHOW TABLES IN {self.schema}").collect()),
            "checkpoints": [str(self.checkpoint)] if self.checkpoint.exists() else [],
        }

    def state(self):
        """Everything on disk: the database, and the files of tables and checkpoints."""
        with sqlite3.connect(self.local_dir / "mlflow.db") as database:
            rows = list(database.iterdump())
        return rows, sorted(map(str, self.local_dir.rglob("*")))


def shown(frame, kind):
    lines = frame[frame["kind"] == kind]
    return dict(zip(lines["name"], lines["what"], strict=True))


def test_what_was_made_is_listed_with_what_will_happen_and_why_and_nothing_is_written(world):
    foreign = world.run({})
    other = world.run({MARK: "another_model"})
    world.version(foreign, {})
    world.spark.sql(f"CREATE TABLE {world.schema}.somebodys_own (id INT)")
    world.spark.sql(f"CREATE VIEW {world.schema}.a_view AS SELECT * FROM {world.schema}.somebodys_own")
    storage.replace_table(world.spark.range(1), f"{world.schema}.wine_predictions", {MARK: "wine"})
    before = world.state()
    planned = world.plan()
    frame = cleanup.overview(planned)
    assert world.state() == before
    first, champion = world.runs
    kept_champion = f"{world.model_name} version 2"
    assert shown(frame, "model_versions") == {
        f"{world.model_name} version 1": "delete",
        kept_champion: "keep: the champion, unless force=true",
        f"{world.model_name} version 3": f"keep: {NOT_OURS}",
        f"{world.model_name} (the registered model)": f"keep: holds what is kept, {kept_champion} and others",
    }
    assert shown(frame, "runs") == {
        f"trained ({first})": "delete",
        f"trained ({champion})": f"keep: its model is {kept_champion}, which stays (the champion, unless force=true)",
        f"trained ({foreign})": f"keep: {NOT_OURS}",
        f"trained ({other})": f"keep: trained another_model, not {world.model_name}",
    }
    (why,) = shown(frame, "experiments").values()
    assert why.startswith("keep: holds what is kept, trained (")
    assert shown(frame, "tables") == {
        **{f"{world.schema}.{table}": "delete" for table in OWN_TABLES},
        f"{world.schema}.somebodys_own": f"keep: {NOT_OURS}",
        f"{world.schema}.a_view": f"keep: {NOT_OURS}",
        f"{world.schema}.wine_predictions": "keep: made by this bundle, and not named by these parameters",
    }
    assert shown(frame, "checkpoints") == {str(world.checkpoint): "delete"}
    assert [item.kind for item in planned] == sorted((item.kind for item in planned), key=ALL.index)
    assert set(frame["where"]) == {f"sqlite:///{world.local_dir / 'mlflow.db'}", "Spark", "files"}


@pytest.mark.parametrize(
    ("kind", "goes"),
    [
        ("model_versions", ["1", "2"]),
        ("runs", None),
        ("experiments", []),
        ("tables", sorted(OWN_TABLES)),
        ("checkpoints", None),
    ],
)
def test_a_kind_is_deleted_without_the_others(world, kind, goes):
    before = world.left()
    outcomes = world.clean(kind, force=True)
    after = world.left()
    assert {name for name in before if before[name] != after[name]} == ({kind} if goes != [] else set())
    assert [item for item in before[kind] if item not in after[kind]] == (before[kind] if goes is None else goes)
    kept = {outcome.item.kind for outcome in outcomes if outcome.result.startswith("kept: clean_up does not name")}
    assert kept == before.keys() - {kind}


def test_the_champion_its_run_and_their_experiment_stay_until_force_is_said_and_then_nothing_is_left(world):
    world.clean()
    left = world.left()
    assert left == {
        "model_versions": ["2"], "runs": [world.runs[1]], "experiments": [world.p.experiment_name],
        "tables": [], "checkpoints": [],
    }  # fmt: skip
    assert tracking.champion(world.session, world.model_name).run_id == world.runs[1]
    outcomes = world.clean(force=True)
    assert [outcome.result for outcome in outcomes] == ["deleted"] * 4
    assert (
        world.left() == {kind: [] for kind in left}
        and tracking.registered_model(world.session, world.model_name) is None
    )
    assert world.find(force=True) == [] and world.clean(force=True) == []


def test_a_challenger_that_waits_stays_until_force_is_said(world):
    tracking.make_challenger(world.session, world.model_name, "1")
    world.clean("model_versions")
    assert world.left()["model_versions"] == ["1", "2"]
    assert shown(cleanup.overview(world.plan()), "model_versions")[f"{world.model_name} version 1"] == (
        "keep: the challenger, unless force=true"
    )
    world.clean("model_versions", force=True)
    assert world.left()["model_versions"] == []


def test_what_others_made_survives_force_and_what_they_need_of_the_bundles_with_it(world):
    foreign_run = world.run({})
    world.version(world.runs[0], {})
    world.spark.sql(f"CREATE TABLE {world.schema}.somebodys_own (id INT)")
    world.spark.sql(f"DROP TABLE {world.schema}.scoring")
    world.spark.sql(f"CREATE TABLE {world.schema}.scoring (id INT)")
    world.clean(force=True)
    assert world.left() == {
        "model_versions": ["3"], "runs": sorted([world.runs[0], foreign_run]),
        "experiments": [world.p.experiment_name], "tables": ["scoring", "somebodys_own"], "checkpoints": [],
    }  # fmt: skip


def test_an_experiment_and_a_model_that_somebody_else_made_stay_when_they_are_empty(world):
    model_name, name = f"{world.model_name}_foreign", f"{world.p.experiment_name}_foreign"
    world.client.create_experiment(name)
    world.client.create_registered_model(model_name)
    world.p, world.model_name = dataclasses.replace(world.p, experiment_name=name), model_name
    assert {cleanup.overview(world.plan())["what"][i] for i in range(2)} == {f"keep: {NOT_OURS}"}
    world.clean("model_versions,experiments")
    assert world.client.get_experiment_by_name(name).lifecycle_stage == "active"
    assert world.client.get_registered_model(model_name).name == model_name


def test_what_is_gone_in_between_is_said_and_no_error(world):
    planned = world.plan(force=True)
    for number in world.versions:
        world.client.delete_model_version(world.model_name, number)
    world.client.delete_registered_model(world.model_name)
    for run_id in world.runs:
        world.client.delete_run(run_id)
    world.client.delete_experiment(world.session.experiment_id)
    for table in OWN_TABLES:
        storage.drop_table(world.spark, f"{world.schema}.{table}")
    shutil.rmtree(world.checkpoint)
    outcomes = list(cleanup.delete(planned))
    assert {outcome.result for outcome in outcomes} == {"already gone"} and len(outcomes) == 12
    cleanup.check(outcomes)


def test_what_came_in_between_is_not_deleted_with_what_it_is_in(world):
    planned = world.plan(force=True)
    world.client.delete_registered_model_alias(world.model_name, tracking.CHAMPION)
    new_run = world.run({})
    world.version(new_run, {})
    outcomes = list(cleanup.delete(planned))
    failed = {outcome.item.kind: outcome.result for outcome in outcomes if outcome.failed}
    assert failed == {"model_versions": "failed: it has versions: 3", "experiments": "failed: it has runs"}
    left = world.left()
    assert (left["runs"], left["model_versions"]) == ([new_run], ["3"])
    with pytest.raises(cleanup.CleanUpError, match="2 not deleted, model_versions .* has versions: 3"):
        cleanup.check(outcomes)


def test_a_version_that_becomes_the_champion_in_between_stays(world):
    planned = world.plan("model_versions")
    tracking.promote(world.session, world.model_name, "1")
    outcomes = list(cleanup.delete(planned))
    assert outcomes[0].result == "failed: it has become the champion meanwhile"
    assert world.left()["model_versions"] == ["1", "2"]


def test_a_job_that_is_killed_between_any_two_deletions_is_finished_by_the_next(world):
    number = len(world.plan(force=True))
    for done in range(number):
        first = next(cleanup.delete(world.plan(force=True)))
        assert first.result == "deleted" and len(world.plan(force=True)) == number - done - 1
    assert world.left() == {kind: [] for kind in world.left()}


def test_an_experiment_that_was_renamed_and_not_yet_deleted_is_found_again(world):
    world.clean("model_versions,runs", force=True)
    name, experiment_id = world.p.experiment_name, world.session.experiment_id
    world.client.rename_experiment(experiment_id, f"{name} (deleted {experiment_id})")
    deleted = [outcome.item.name for outcome in world.clean("experiments") if outcome.result == "deleted"]
    assert deleted == [f"{name} (deleted {experiment_id})"]
    assert world.client.get_experiment(experiment_id).lifecycle_stage == "deleted"


def test_after_clean_up_the_same_names_can_be_used_again_and_those_of_others_are_not_restored(world):
    world.clean(force=True)
    again = tracking.configure(world.p)
    assert again.experiment_name == world.p.experiment_name and again.experiment_id != world.session.experiment_id
    world.client.delete_experiment(again.experiment_id)
    with pytest.raises(ParameterError, match=r"experiment_name='clean_\d+': was deleted on sqlite.*restore_experiment"):
        tracking.configure(world.p)


def test_mlflow_gc_removes_what_was_deleted_with_its_files(world):
    with mlflow.start_run(tags={MARK: world.model_name}, experiment_id=world.session.experiment_id) as run:
        mlflow.log_text("text", "note.txt")
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    world.clean(force=True)
    assert (folder / "note.txt").exists()
    uri = f"sqlite:///{world.local_dir / 'mlflow.db'}"
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri]
    subprocess.run(command, check=True, capture_output=True, env={"MLFLOW_TRACKING_URI": uri, "PATH": ""})
    assert not folder.exists()
    with pytest.raises(mlflow.MlflowException, match="No Experiment|does not exist"):
        world.client.get_experiment(world.session.experiment_id)


def test_a_table_of_another_schema_that_is_named_is_deleted_there(world):
    world.spark.sql("CREATE SCHEMA IF NOT EXISTS elsewhere")
    name = f"elsewhere.{world.schema}"
    storage.replace_table(world.spark.range(1), name, {MARK: "the tests"})
    folder = catalog.table_folder(world.local_dir / "warehouse", name)
    assert folder.is_dir()
    outcomes = world.clean("tables", prediction_table=name)
    assert {outcome.item.name: outcome.result for outcome in outcomes}[name] == "deleted"
    assert not folder.exists() and not world.spark.catalog.tableExists(name)


_stop_at = None


def _stop(event, _):
    global _stop_at
    if _stop_at is not None and event in ("os.remove", "os.rmdir", "shutil.rmtree"):
        _stop_at -= 1
        if _stop_at < 0:
            _stop_at = None
            raise KeyboardInterrupt


def test_a_table_whose_deletion_ends_at_any_step_is_known_as_the_bundles_until_its_rows_are_gone(
    spark, schema, local_dir
):
    global _stop_at
    sys.addaudithook(_stop)
    folder = catalog.table_folder(local_dir / "warehouse", f"{schema}.t")
    for step in itertools.count():
        empty = spark.createDataFrame([], "id BIGINT, batch_id STRING")
        catalog.replace_table(empty, f"{schema}.t", {MARK: "the tests"}, partitioned_by="batch_id")
        storage.replace_rows(spark.range(3), f"{schema}.t", "batch_id", "one")
        _stop_at = step
        try:
            storage.drop_table(spark, f"{schema}.t")
        except KeyboardInterrupt:
            assert (folder / catalog.STATEMENT).exists() or not any(folder.rglob("*.parquet"))
        else:
            _stop_at = None
            break
    assert step >= 4 and not folder.exists()


def test_a_schema_that_does_not_exist_holds_nothing_and_a_checkpoint_of_ones_own_is_left_to_its_owner(world, tmp_path):
    found = world.plan("tables,checkpoints", schema="no_such_schema", checkpoint=str(tmp_path))
    assert [item.name for item in found if item.kind in ("tables", "checkpoints")] == [str(tmp_path)]
    list(cleanup.delete(found))
    assert tmp_path.is_dir()


def test_one_that_fails_does_not_stop_the_others_but_a_server_that_does_not_answer_is_asked_no_more(monkeypatch):
    asked = []

    def refuse(name):
        asked.append(name)
        raise ValueError(f"403: {name} is not yours\nand a stack trace")

    def deletion(name, where, delete=refuse):
        return Item("runs", name, where, lambda: delete(name))

    def both():
        items = [deletion("a", "x"), deletion("b", "x"), deletion("c", "y", lambda name: True)]
        return [outcome.result for outcome in cleanup.delete(cleanup.plan(items, ["runs"]))]

    assert both() == ["failed: 403: a is not yours", "failed: 403: b is not yours", "deleted"]
    monkeypatch.setattr(cleanup, "PATIENCE", 0)
    asked.clear()
    assert both() == ["failed: 403: a is not yours", "failed: not tried, since a failed there after 0 s", "deleted"]
    assert asked == ["a"]


def test_items_of_other_modules_take_part_in_the_plan():
    deployment = Item("deployments", "blue", "Azure ML", lambda: True, keep_reason="gets 90 % of the traffic")
    endpoint = Item("endpoints", "churn", "Azure ML", lambda: True, delete_first=(deployment,))
    run = Item("runs", "r", "Databricks", lambda: True)
    planned = cleanup.plan([run, deployment, endpoint], ["endpoints", "deployments", "runs"])
    assert [(item.name, item.keep_reason) for item in planned] == [
        ("blue", "gets 90 % of the traffic"), ("churn", "holds what is kept, blue"), ("r", ""),
    ]  # fmt: skip


# Modules that a notebook's kernel has not loaded when it reads its parameters.
IMPORT = "import sys, helpers.cleanup; print({'pandas', 'pyspark', 'mlflow'} & sys.modules.keys())"


def test_importing_it_loads_neither_pandas_nor_spark_nor_mlflow():
    done = subprocess.run([sys.executable, "-c", IMPORT], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
