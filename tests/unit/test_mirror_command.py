"""The command `python -m helpers.mirror`: arguments that it does not accept."""

import pytest

from helpers import mirror


@pytest.mark.parametrize("assignment", ["epochs=3", "experiment_name=/Shared/other", "azureml_worspace=ml"])
def test_a_parameter_that_mirroring_does_not_have_is_refused_before_any_server_is_asked(assignment, capsys):
    assert mirror.main(["/Shared/churn", "--param", assignment]) == 2
    printed = capsys.readouterr().err
    assert assignment.split("=")[0] in printed and "--param" in printed
    assert "unknown parameter" in printed and "azureml_workspace" in printed
