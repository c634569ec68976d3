"""Declared parameters: conversion, and errors that say what to do."""

import pickle

import pytest

from helpers import parameters
from helpers.parameters import FIELDS, ParameterError, parse

AML = (
    "azureml://westeurope.api.azureml.ms/mlflow/v1.0/subscriptions/22222222-bbbb-4bbb-8bbb-000000000001"
    "/resourceGroups/ml-group/providers/Microsoft.MachineLearningServices/workspaces/ml-workspace"
)


def test_text_becomes_the_declared_type():
    parsed = parse({"epochs": "7", "learning_rate": "0.5", "schema": "ml", "model_version": "3"})
    assert (parsed.epochs, parsed.learning_rate, parsed.schema, parsed.model_version) == (7, 0.5, "ml", "3")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("azureml_subscription_id", "22222222-BBBB-4bbb-8bbb-000000000001"),
        ("azureml_resource_group", "Größe_(1).x-"),
        ("azureml_workspace", "ml-workspace_1"),
        ("azureml_tracking_uri", AML),
        ("azureml_tracking_uri", AML.replace("westeurope.api.azureml.ms", "1a2b.workspace.westeurope.api.azureml.ms")),
        ("endpoint_name", "breast-cancer-1"),
        ("rollout_steps", "1,99, 100"),
        ("clean_up", "runs, tables"),
        ("databricks_resource_id", AML.partition("/mlflow/v1.0")[2].replace("MachineLearningServices", "Databricks")),
    ],
)
def test_what_azure_accepts_is_accepted(name, value):
    assert getattr(parse({name: f" {value}\n"}), name) == value


@pytest.mark.parametrize("name", FIELDS)
def test_each_default_is_accepted_and_described(name):
    assert getattr(parse({name: str(FIELDS[name].default)}), name) == FIELDS[name].default
    assert len(FIELDS[name].description) > 20


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("epochs", "abc", "integer"),
        ("epochs", "0", "greater than or equal to 1"),
        ("learning_rate", "0", "greater than 0"),
        ("learning_rate", "nan", "finite"),
        ("test_fraction", "1", "less than 1"),
        ("model_flavor", "xgboost", "'sklearn' or 'spark'"),
        ("tracking_mode", "cloud", "'local'"),
        ("training_table", "a.b.c.d", "catalog.schema.table"),
        ("schema", "a`b", "backticks"),
        ("model_version", "latest", "version number"),
        ("model_name", "a/b", "slashes"),
        ("batch_id", "x' OR '1", "letters, digits"),
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
        ("clean_up", "tables, everything", "'everything' is none of deployments, endpoints"),
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
        ("tracking_mode", "Azureml", "'azureml'"),
    ],
)
def test_a_bad_value_is_refused_with_name_value_source_and_what_is_accepted(name, value, accepted):
    with pytest.raises(ParameterError) as caught:
        parse({name: value}, {name: "its widget"})
    message = str(caught.value)
    assert message.startswith(f"{name}={value!r} (from its widget): ")
    assert accepted in message


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(ParameterError, match="epoch=.*did you mean 'epochs'"):
        parameters.require_declared(["epoch"])


def test_an_error_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(ParameterError("epochs", 0, "too few", "--param")))
    assert (error.name, error.value, error.problem, error.source) == ("epochs", 0, "too few", "--param")
