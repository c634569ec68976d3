"""The ``dbutils`` of these tests refuses what Databricks refuses."""

import json
import math

import pytest
from py4j.protocol import Py4JError

from tests.stand_ins.databricks_workspace.strict_dbutils import JavaError, NotebookRun, StrictDbutils


def by_hand(**typed):
    run = NotebookRun("/Workspace/one", given=typed, secrets={"azureml": {"azure-client-secret": "s3cret"}})
    return StrictDbutils(run, lambda: None)


def in_job(**parameters):
    run = NotebookRun("/Workspace/one", "train", parameters, {"setup": {"training_table": "a.b"}})
    return StrictDbutils(run, lambda: None)


def test_a_widget_that_is_not_declared_cannot_be_read_or_removed():
    for method in ("get", "remove"):
        with pytest.raises(JavaError, match="InputWidgetNotDefined: No input widget named epochs is defined"):
            getattr(by_hand(epochs="3").widgets, method)("epochs")


def test_a_widget_has_what_was_typed_and_keeps_it_when_it_is_declared_again():
    widgets = by_hand(epochs="3").widgets
    widgets.text("epochs", "20", "epochs")
    widgets.text("seed", "42")
    widgets.text("seed", "43")
    assert widgets.getAll() == {"epochs": "3", "seed": "42"}
    widgets.remove("seed")
    widgets.removeAll()
    assert widgets.getAll() == {}


def test_a_parameter_of_a_job_is_there_undeclared_and_wins_over_a_default():
    widgets = in_job(epochs="3").widgets
    assert widgets.get("epochs") == "3"
    widgets.text("epochs", "20")
    assert widgets.get("epochs") == "3"
    with pytest.raises(JavaError, match="InputWidgetNotDefined"):
        widgets.get("seed")


@pytest.mark.parametrize("kind", ["dropdown", "multiselect"])
def test_a_default_has_to_be_one_of_the_choices_and_so_has_what_somebody_picks(kind):
    for widgets, default in ((by_hand().widgets, "xgboost"), (by_hand(flavor="xgboost").widgets, "sklearn")):
        with pytest.raises(JavaError, match="'xgboost' of flavor must be one of its choices"):
            getattr(widgets, kind)("flavor", default, ["sklearn", "spark"])
    combobox = by_hand(flavor="xgboost").widgets
    combobox.combobox("flavor", "sklearn", ["sklearn", "spark"])
    assert combobox.get("flavor") == "xgboost"


def test_a_widget_takes_nothing_but_text():
    with pytest.raises(Py4JError, match=r"Method text\(\[class str, class int\]\)"):
        by_hand().widgets.text("epochs", 20)


def test_a_task_value_is_of_a_task_that_ran_and_of_a_key_that_it_set():
    values = in_job().jobs.taskValues
    assert values.get("setup", "training_table") == "a.b"
    assert values.get(taskKey="setup", key="rows", default=0, debugValue=1) == 0
    with pytest.raises(ValueError, match="Task key does not exist in run: register"):
        values.get("register", "model_version", default="1")
    with pytest.raises(ValueError, match="Task setup has no value of key rows"):
        values.get("setup", "rows", debugValue=1)


def test_outside_of_a_job_there_is_a_value_for_debugging_or_none():
    values = by_hand().jobs.taskValues
    assert values.get("setup", "training_table", debugValue="c.d") == "c.d"
    with pytest.raises(TypeError, match="Must pass debugValue when calling get outside of a job context"):
        values.get("setup", "training_table", default="c.d")


def test_a_task_value_is_json_of_48_kib_at_most_also_outside_of_a_job():
    for values in (in_job().jobs.taskValues, by_hand().jobs.taskValues):
        values.set("rows", "x" * (48 * 1024 - 2))
        for key, value, error in (("a", {1, 2}, TypeError), ("a", math.nan, ValueError), (1, "a", TypeError)):
            with pytest.raises(error):
                values.set(key, value)
        with pytest.raises(ValueError, match="49153 bytes, more than 49152"):
            values.set("rows", "x" * (48 * 1024 - 1))


def test_a_secret_is_of_a_scope_and_a_key_that_are_there():
    secrets = by_hand().secrets
    assert secrets.get("azureml", "azure-client-secret") == "s3cret"
    for scope, key in (("azureml", "azure-tenant-id"), ("other", "azure-client-secret")):
        with pytest.raises(JavaError, match=f"IllegalArgumentException: Secret does not exist with scope: {scope} and"):
            secrets.get(scope=scope, key=key)


def test_only_the_context_of_a_job_names_a_job():
    for dbutils, named in ((in_job(), True), (by_hand(), False)):
        context = dbutils.notebook.entry_point.getDbutils().notebook().getContext()
        assert ("jobId" in json.loads(context.safeToJson())["attributes"]) == named


def test_a_folder_with_something_in_it_is_removed_only_if_that_is_said(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    files = by_hand().fs
    with pytest.raises(JavaError, match="is not empty"):
        files.rm(str(tmp_path / "folder"))
    assert files.rm(str(tmp_path / "folder"), True) and not files.rm(str(tmp_path / "folder"), True)
    assert list(tmp_path.iterdir()) == []


def test_what_the_bundle_does_not_use_is_not_there():
    for part, name in (("widgets", "getArgument"), ("secrets", "put"), ("fs", "mount"), ("jobs", "submit")):
        with pytest.raises(AttributeError):
            getattr(getattr(by_hand(), part), name)
    with pytest.raises(AttributeError):
        by_hand().credentials  # noqa: B018
