"""A process signs in to Azure ML once, whatever it does there."""

import os

from tests.scenarios.azureml import one_sign_in
from tests.scenarios.process import ScenarioProcess


def test_a_process_signs_in_once_for_runs_models_clean_up_endpoints_and_the_link(aml, tmp_path):
    with ScenarioProcess.start(tmp_path, os.environ | aml.environment()) as process:
        steps = process.run(one_sign_in.use_everything)
    # MLflow's plugin adds none of its own: it has the session's credential.
    first, *others = steps
    assert steps[first]["sign_ins"] == 1 and [steps[step]["sign_ins"] for step in others] == [0] * len(others)
    # Each step had to be signed in.
    assert all(requests["others"] for requests in steps.values())
