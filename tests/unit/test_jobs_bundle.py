"""Reading ``databricks.yml``: targets, variables, tasks, and jobs that cannot be run on this machine."""

import itertools

import nbformat
import pytest
import yaml

from helpers.jobs.bundle import Bundle, BundleError
from helpers.jobs.scheduling import RetryPolicy


@pytest.fixture
def write(tmp_path):
    def write_bundle(tasks=(), **content):
        for name in ("a", "b"):
            nbformat.write(nbformat.v4.new_notebook(), tmp_path / f"{name}.ipynb")
        jobs = {"j": {"name": "the job", "tasks": list(tasks)}}
        content = {"bundle": {"name": "small"}, "resources": {"jobs": jobs}} | content
        (tmp_path / "databricks.yml").write_text(yaml.safe_dump(content))
        return tmp_path

    return write_bundle


def task(key, *before, **settings):
    settings = settings or {"notebook_task": {"notebook_path": "a.ipynb"}}
    return {"task_key": key, "depends_on": [{"task_key": name} for name in before], **settings}


def test_variables_come_from_the_default_the_target_the_environment_and_the_command_line_in_that_order(
    write, monkeypatch
):
    root = write(
        variables={name: {"default": "default"} for name in ("w", "x", "y", "z")},
        targets={"dev": {"variables": {"x": "target", "y": "target", "z": {"default": "target"}}}},
    )
    monkeypatch.setenv("BUNDLE_VAR_y", "environment")
    monkeypatch.setenv("BUNDLE_VAR_z", "environment")
    assert Bundle(root, variables={"z": "given"}).variables == {
        "w": "default", "x": "target", "y": "environment", "z": "given"
    }  # fmt: skip


def test_references_are_resolved_within_variables_and_texts(write):
    parameters = [{"name": "p", "default": "${var.b}/${bundle.name}/${bundle.target}"}]
    root = write(
        variables={"a": {"default": "1"}, "b": {"default": "b${var.a}"}},
        targets={"dev": {}},
        resources={"jobs": {"j": {"parameters": parameters, "tasks": []}}},
    )
    assert Bundle(root).job("j").parameters == {"p": "b1/small/dev"}


def test_a_target_overrides_one_task_and_leaves_the_others(write):
    override = {"resources": {"jobs": {"j": {"tasks": [{"task_key": "two", "max_retries": 3}]}}}}
    root = write([task("one"), task("two", "one")], targets={"dev": {"default": True}, "prod": override})
    assert [t.retries.max_retries for t in Bundle(root, "dev").job("j").tasks] == [0, 0]
    assert [(t.key, t.retries.max_retries) for t in Bundle(root, "prod").job("j").tasks] == [("one", 0), ("two", 3)]


def test_a_target_changes_what_it_names_and_puts_its_identity_in_place_of_another(write):
    target = {"mode": "production", "workspace": {"root_path": "/b"}, "sync": None, "run_as": {"user_name": "b"}}
    root = write(
        targets={"dev": {"default": True}, "prod": target},
        workspace={"host": "h", "root_path": "/a"},
        sync={"paths": ["a"]},
        run_as={"service_principal_name": "a"},
    )
    settings = Bundle(root, "prod").settings
    assert settings["workspace"] == {"host": "h", "root_path": "/b"}
    assert settings["sync"] == {"paths": ["a"]}
    assert settings["run_as"] == {"user_name": "b"}
    assert settings["mode"] == "production" and "mode" not in Bundle(root, "dev").settings


def test_a_variable_that_is_looked_up_has_a_value_only_if_one_is_given(write):
    lookup = {"lookup": {"service_principal": "name"}}
    root = write(
        [task("t", notebook_task={"notebook_path": "a.ipynb", "base_parameters": {"p": "${var.x}"}})],
        variables={"x": {"default": "default"}},
        targets={"dev": {"default": True}, "prod": {"variables": {"x": lookup}}},
    )
    assert Bundle(root).lookups == {}
    assert Bundle(root, "prod").lookups == {"x": {"service_principal": "name"}}
    with pytest.raises(BundleError, match=r"\$\{var.x\} has no value here; give it with --var x=…"):
        Bundle(root, "prod").job("j")
    given = Bundle(root, "prod", {"x": "id"})
    assert given.lookups == {} and given.job("j").tasks[0].action.base_parameters == {"p": "id"}


def test_tasks_are_ordered_by_what_they_depend_on(write):
    root = write([task("last", "middle"), task("middle", "first"), task("first")])
    assert [t.key for t in Bundle(root).job("j").tasks] == ["first", "middle", "last"]


def test_the_leaves_are_the_tasks_that_no_other_task_depends_on(write):
    root = write([task("last", "first"), task("first"), task("alone")])
    assert Bundle(root).job("j").leaves == {"last", "alone"}


def test_fields_for_clusters_and_schedules_are_listed_as_not_used(write):
    settings = {"notebook_task": {"notebook_path": "a.ipynb"}, "libraries": [], "job_cluster_key": "k"}
    jobs = {"j": {"tasks": [task("t", **settings, disabled=False)], "queue": {"enabled": True}, "continuous": {}}}
    job = Bundle(write(resources={"jobs": jobs})).job("j")
    assert job.not_used == ["continuous", "disabled", "job_cluster_key", "libraries", "queue"]


def test_time_limits_and_retries_are_read_with_their_variables(write):
    settings = {
        "max_retries": "${var.retries}",
        "min_retry_interval_millis": 1500,
        "retry_on_timeout": "${var.again}",
        "timeout_seconds": "60",
    }
    jobs = {"j": {"tasks": [{**task("t"), **settings}, {**task("endless"), "max_retries": -1}], "timeout_seconds": 90}}
    variables = {"retries": {"default": 2}, "again": {"default": "true"}}
    job = Bundle(write(variables=variables, resources={"jobs": jobs})).job("j")
    assert job.timeout == 90
    assert [t.timeout for t in job.tasks] == [60, None]
    assert [t.retries for t in job.tasks] == [RetryPolicy(2, on_timeout=True, wait=1.5), RetryPolicy(0)]


def test_an_outcome_may_be_written_as_a_boolean(write):
    tasks = [
        task("asked", condition_task={"op": "EQUAL_TO", "left": "1", "right": "1"}),
        {**task("t"), "depends_on": [{"task_key": "asked", "outcome": True}]},
    ]
    assert Bundle(write(tasks)).job("j").tasks[1].depends_on == {"asked": "true"}


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([task("t", spark_jar_task={})], "task 't': spark_jar_task cannot be run on this machine; these can: "),
        ([task("t", for_each_task={})], "task 't': for_each_task cannot be run on this machine"),
        (
            [task("t", run_if="ALL_DONE")],
            "a task needs one of notebook_task, condition_task, run_job_task; it has 0 types",
        ),
        ([task("t", notebook_task={}, condition_task={})], "a task needs one of .*; it has 2 types"),
        ([task("t", disabled=True)], "task 't': disabled cannot be run on this machine"),
        ([task("t", notbook_task={})], "'notbook_task' is not a field of a task; did you mean 'notebook_task'"),
        ([task("t", max_retrys=1)], "'max_retrys' is not a field of a task; did you mean 'max_retries'"),
        ([{**task("t"), "max_retries": "twice"}], "task 't': max_retries 'twice' is not a number"),
        ([task("t", notebook_task={"notebook_path": "gone.ipynb"})], "'gone.ipynb' is not an .ipynb file in"),
        ([task("t", notebook_task={"notebook_path": "a", "source": "GIT"})], "notebook_task.source 'GIT' cannot be"),
        ([task("t", condition_task={"op": "LIKE", "left": "1", "right": "1"})], "op 'LIKE' is unknown"),
        ([task("t", condition_task={"op": "EQUAL_TO"})], "condition_task needs left and right"),
        ([task("t", notebook_task={"notebook_path": "a.ipynb"}, run_if="NEVER")], "run_if 'NEVER' is unknown"),
        ([task("t", notebook_task={"notebook_path": "${var.none}"})], r"\$\{var.none\} has no value here"),
        ([task("t", "nobody")], "depends_on names 'nobody'"),
        ([task("a", "b"), task("b", "a")], "in a circle"),
        ([task("t"), task("t")], "same task_key"),
    ],
)
def test_the_error_for_a_task_that_cannot_be_run_names_its_job(write, tasks, message):
    with pytest.raises(BundleError, match=message) as caught:
        Bundle(write(tasks)).job("j")
    assert "job 'j'" in str(caught.value)


def chain(*keys, **settings):
    """Return jobs, each of which runs the next."""
    jobs = {}
    for key, other in itertools.pairwise(keys):
        jobs[key] = {"tasks": [task("t", run_job_task={"job_id": f"${{resources.jobs.{other}.id}}", **settings})]}
    return {keys[-1]: {"tasks": [task("t")], "parameters": [{"name": "p", "default": "1"}]}} | jobs


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        (chain("j", "j"), "jobs run each other in a circle: j → j"),
        (chain("j", "b", "c", "j"), "jobs run each other in a circle: j → b → c → j"),
        (chain("j", "b", "c", "d", "e"), "j → b → c → d → e nests 4 such tasks; Databricks supports 3"),
        (chain("j", "b", job_id="b-job"), r"job_id 'b-job' is not a job of databricks.yml; write \$\{resources.jobs"),
        (chain("j", "b", job_parameters={"q": 1}), "job 'b' does not declare 'q'; it has: p"),
        (chain("j", "b", pipeline_params={}), "run_job_task.pipeline_params cannot be run on this machine"),
        (chain("j", "b") | {"b": {"tasks": [task("t", sql_task={})]}}, "job 'b', task 't': sql_task cannot be run"),
    ],
)
def test_a_job_that_cannot_run_another_is_refused(write, jobs, message):
    with pytest.raises(BundleError, match=message):
        Bundle(write(resources={"jobs": jobs})).job("j")


def test_a_job_may_run_a_chain_of_as_many_jobs_as_databricks_supports(write):
    job = Bundle(write(resources={"jobs": chain("j", "b", "c", "d")})).job("j")
    for key in ("b", "c", "d"):
        job = job.tasks[0].action.job
        assert job.key == key


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schedul": {}}, "job 'j': 'schedul' is not a field of a job; did you mean 'schedule'"),
        ({"git_source": {"git_url": "u"}}, "job 'j': git_source cannot be run on this machine"),
    ],
)
def test_a_job_with_fields_that_cannot_be_run_is_refused(write, fields, message):
    with pytest.raises(BundleError, match=message):
        Bundle(write(resources={"jobs": {"j": {"tasks": [task("t")], **fields}}})).job("j")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"targets": {"dev": {}, "prod": {}}}, "marks no default target"),
        ({"targets": {"dev": {"variables": {"nobody": 1}}}}, "declares no variable 'nobody'"),
        ({"include": ["more.yml"]}, "`include`"),
        ({"bundle": {}}, "no bundle.name"),
    ],
)
def test_a_bundle_that_cannot_be_read_says_why(write, content, message):
    with pytest.raises(BundleError, match=message):
        Bundle(write(**content))


def test_the_error_for_an_unknown_target_or_job_names_those_of_the_file(write, tmp_path):
    root = write(targets={"dev": {}})
    with pytest.raises(BundleError, match="no target 'qa'; it has: dev"):
        Bundle(root, "qa")
    with pytest.raises(BundleError, match="no job 'k'; it has: j"):
        Bundle(root).job("k")
    with pytest.raises(BundleError, match="there is no databricks.yml"):
        Bundle(tmp_path / "elsewhere")
