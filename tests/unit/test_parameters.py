"""Declared parameters: conversion, and errors that say what to do."""

import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import kinds, parameters
from helpers.parameters import FIELDS, ParameterError, as_text, canonical_text, parse

ROOT = Path(__file__).parents[2]
AML = (
    "azureml://westeurope.api.azureml.ms/mlflow/v1.0/subscriptions/22222222-bbbb-4bbb-8bbb-000000000001"
    "/resourceGroups/ml-group/providers/Microsoft.MachineLearningServices/workspaces/ml-workspace"
)


def parsed(name, text, sources=None):
    """The value of one parameter, parsed with a group that has it."""
    group = next(group for group in parameters.STAGES if name in parameters.fields_of(group))
    return getattr(parse(group, {name: text}, sources), name)


def test_text_becomes_the_declared_type_and_what_is_not_given_has_its_default():
    p = parse(parameters.Train, {"epochs": "7", "learning_rate": "0.5", "schema": "ml"})
    assert (p.epochs, p.learning_rate, p.schema, p.seed, p.tracking_mode) == (7, 0.5, "ml", 42, "auto")


def test_lists_are_parsed_once_and_written_back_as_text():
    assert parsed("rollout_steps", "1,99, 100") == (1, 99, 100)
    assert parsed("clean_up", "runs, tables") == ("runs", "tables")
    assert canonical_text("rollout_steps", "1,99, 100") == "1, 99, 100"
    assert as_text(("runs", "tables")) == "runs, tables"


@pytest.mark.parametrize(("text", "value"), [("true", True), ("True", True), (" FALSE\n", False), (False, False)])
def test_a_boolean_is_true_or_false_in_any_case(text, value):
    assert parsed("deploy", text) is value
    assert canonical_text("deploy", text) == str(value).lower()


def test_a_group_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse(parameters.Train, {}).epochs = 3


def test_mypy_finds_a_misspelt_parameter_of_a_group(tmp_path):
    program = "from helpers import parameters\n\ndef epochs(p: parameters.Train) -> int:\n    return p.{}\n"
    for name, status in (("epochs", 0), ("epoch", 1)):
        (tmp_path / f"{name}.py").write_text(program.format(name))
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--follow-imports=silent", str(tmp_path / f"{name}.py")],
            cwd=ROOT, env=os.environ | {"MYPYPATH": str(ROOT)}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == status, done.stdout
    assert '"Train" has no attribute "epoch"' in done.stdout


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("azureml_subscription_id", "22222222-BBBB-4bbb-8bbb-000000000001"),
        ("azureml_resource_group", "Größe_(1).x-"),
        ("azureml_workspace", "ml-workspace_1"),
        ("azureml_tracking_uri", AML),
        ("azureml_tracking_uri", AML.replace("westeurope.api.azureml.ms", "1a2b.workspace.westeurope.api.azureml.ms")),
        ("endpoint_name", "breast-cancer-1"),
        ("databricks_resource_id", AML.partition("/mlflow/v1.0")[2].replace("MachineLearningServices", "Databricks")),
    ],
)
def test_what_azure_accepts_is_accepted(name, value):
    assert parsed(name, f" {value}\n") == value


@pytest.mark.parametrize("name", FIELDS)
def test_each_default_is_accepted_and_described(name):
    assert parsed(name, parameters.default_text(name)) == FIELDS[name].default
    assert len(FIELDS[name].description) > 20


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("epochs", "abc", "integer"),
        ("epochs", "-1", "greater than or equal to 0"),
        ("learning_rate", "0", "greater than 0"),
        ("learning_rate", "2", "less than or equal to 1"),
        ("test_fraction", "1", "less than 1"),
        ("sample_data", "iris", "one of diabetes, breast_cancer"),
        ("model_flavor", "prophet", "one of sklearn, xgboost, spark"),
        ("validation_threshold", "high", "empty, or a number"),
        ("split_by", "week", "one of id, time, column"),
        ("tracking_mode", "cloud", "auto, local,"),
        ("training_table", "a.b.c.d", "catalog.schema.table"),
        ("schema", "a`b", "backticks"),
        ("model_version", "latest", "version number"),
        ("model_name", "a/b", "slashes"),
        ("batch_id", "x' OR '1", "letters, digits"),
        ("batch_id", "__HIVE_DEFAULT_PARTITION__", "and not __HIVE_DEFAULT_PARTITION__"),
        ("csv_separator", ",,", "one character, or tab"),
        ("label_column", "", "at least 1"),
        ("endpoint_name", "ab", "3 to 32"),
        ("endpoint_name", "Breast_Cancer", "a-z, 0-9 and single dashes"),
        ("endpoint_name", "two--dashes", "single dashes"),
        ("endpoint_name", "a" * 33, "3 to 32"),
        ("instance_type", "big one", "Standard_DS3_v2"),
        ("instance_count", "0", "greater than or equal to 1"),
        ("rollout_steps", "10, 50", "end with 100"),
        ("rollout_steps", "50, 10, 100", "rising"),
        ("rollout_steps", "all", "percentages"),
        ("deploy", "yes", "true or false"),
        ("deploy", "1", "true or false"),
        ("dry_run", "", "true or false"),
        ("clean_up", "tables, everything", "'everything' is not one of monitors, deployments, endpoints"),
        ("azureml_monitor_emails", "ada", "'ada' is not an e-mail address"),
        ("azureml_monitor_emails", "ada@example.com, " * 32, "up to 499 characters"),
        ("azureml_subscription_id", "my-subscription", "00000000-0000-0000-0000-000000000000"),
        ("azureml_resource_group", "group.", "not ending in a period"),
        ("azureml_resource_group", "a/b", "letters, digits and _ . ( ) -"),
        ("azureml_workspace", "wörkspace", "3 to 33 of a-z"),
        ("azureml_workspace", "x" * 34, "3 to 33 of a-z"),
        ("azureml_region", "West Europe", "such as westeurope"),
        ("azureml_tracking_uri", "https://ml.azure.com", "azureml://<host>/mlflow/v1.0/subscriptions/<id>"),
        ("azureml_tracking_uri", AML.replace("ml-group", "a/b"), "mlflow_tracking_uri"),
        ("azureml_tracking_uri", AML + "?token=x", "mlflow_tracking_uri"),
        ("databricks_resource_id", AML.partition("/mlflow/v1.0")[2], "Microsoft.Databricks/workspaces/<name>"),
        ("azureml_sign_in", "browser", "'unattended' or 'device_code'"),
        ("tracking_mode", "Azureml", "azureml"),
    ],
)
def test_a_bad_value_is_refused_with_name_value_source_and_what_is_accepted(name, value, accepted):
    with pytest.raises(ParameterError) as caught:
        parsed(name, value, {name: "its widget"})
    message = str(caught.value)
    assert message.startswith(f"{name}={value!r} (from its widget): ")
    assert accepted in message


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(ParameterError, match="epoch=.*did you mean 'epochs'"):
        parameters.require_declared(["epoch"])


def test_each_kind_that_a_table_names_is_there():
    for table in (
        kinds.SAMPLES,
        kinds.FLAVORS,
        kinds.SPLITS,
        kinds.ENGINES,
        kinds.ENDPOINTS,
        kinds.SERVERS,
        kinds.CLEAN_UP,
    ):
        assert all(callable(kinds.load(table, name)) for name in table)
    assert {name for servers in kinds.TRACKING_MODES.values() for name in servers} <= kinds.SERVERS.keys()
    assert parameters.choices("tracking_mode") == ("auto", *kinds.TRACKING_MODES)


def test_an_error_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(ParameterError("epochs", 0, "too few", "--param")))
    assert (error.name, error.value, error.problem, error.source) == ("epochs", 0, "too few", "--param")


@pytest.mark.parametrize(
    ("name", "accepted", "refused"),
    [
        ("model_registry", ["azureml", "azureml://registries/shared-models"], ["azureml://registries/x", "", "uc"]),
        (
            "share_with",
            [
                "",
                "azureml://registries/shared-models",
                "azureml://subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/ml/workspaces/prod",
                "azureml://subscriptions/00000000-0000-0000-0000-000000000000/resourcegroups/ml/providers/"
                "Microsoft.MachineLearningServices/workspaces/prod",
                "databricks-uc",
                "databricks-uc/prod.ml",
                "local",
            ],
            ["auto", "azureml://registries/", "azureml://workspaces/prod", "databricks-uc/ml", "databricks-uc/a.b.c"],
        ),
    ],
)
def test_a_registry_is_named_by_its_kind_or_by_an_address(name, accepted, refused):
    assert parameters.accepts_others(name) and not parameters.accepts_others("tracking_mode")
    for value in accepted:
        parameters.check({name: value})
    for value in refused:
        with pytest.raises(parameters.ParameterError, match="azureml://registries/<name>"):
            parameters.check({name: value})
