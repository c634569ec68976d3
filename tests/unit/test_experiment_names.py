"""One experiment name, mapped by the rules of each server."""

import pytest

from helpers.azureml import Connection
from helpers.parameters import AzureML, ParameterError
from helpers.tracking.servers.azureml import AzureMLServer
from helpers.tracking.servers.databricks import experiment_path


def me() -> str:
    return "ada@example.com"


def nobody() -> str:
    raise LookupError("https://workspace does not say who you are (no token)")


@pytest.mark.parametrize(
    ("name", "databricks", "azureml"),
    [
        ("churn", "/Users/ada@example.com/churn", "churn"),
        ("/Shared/churn", "/Shared/churn", "churn"),
        ("/Users/bob@example.com/churn_2", "/Users/bob@example.com/churn_2", "churn_2"),
        ("/Workspace/Shared/churn", "/Shared/churn", "churn"),
        ("/Workspace/Users/bob@example.com/churn", "/Users/bob@example.com/churn", "churn"),
        ("/Shared/team/churn", "/Shared/team/churn", None),
        ("/Users/bob@example.com/team/churn", "/Users/bob@example.com/team/churn", None),
        ("/Repos/team/churn", "/Repos/team/churn", None),
        ("customer churn", "/Users/ada@example.com/customer churn", None),
        ("chürn", "/Users/ada@example.com/chürn", None),
        ("_churn", "/Users/ada@example.com/_churn", None),
        ("team/churn", None, None),
        ("/churn", None, None),
        ("/Shared/", None, None),
        ("/Shared//churn", None, None),
        ("/Workspacechurn", None, None),
        ("/Workspace", None, None),
    ],
)
def test_a_name_is_mapped_to_each_server_or_refused_with_the_rule(name, databricks, azureml):
    in_azureml = AzureMLServer(Connection(AzureML())).experiment_name
    rules = {
        "accepts an absolute path such as /Users/<you>/churn or /Shared/churn, or a plain": (
            lambda name: experiment_path(name, me), databricks,
        ),
        "accepts a name of a-z, A-Z, 0-9, _ and -": (in_azureml, azureml),
    }  # fmt: skip
    for rule, (mapped, expected) in rules.items():
        if expected is not None:
            assert mapped(name) == expected
            continue
        with pytest.raises(ParameterError) as caught:
            mapped(name)
        message = str(caught.value)
        assert message.startswith(f"experiment_name={name!r}: ") and rule in message and "\n" not in message


def test_a_plain_name_of_nobody_is_refused_on_databricks_and_a_path_needs_no_user():
    with pytest.raises(ParameterError, match=r"who you are \(no token\); Databricks accepts an absolute path"):
        experiment_path("churn", nobody)
    assert experiment_path("/Shared/churn", nobody) == "/Shared/churn"
