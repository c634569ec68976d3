"""The examples of the guide "Your own model" that need no other packages; tests/flavors has the rest."""

import pytest

from tests import guide_examples

NEED_OTHER_PACKAGES = ["PyTorch", "LightGBM", "A scikit-learn pipeline with a step of another package"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in guide_examples.names() if name not in NEED_OTHER_PACKAGES])
def test_the_model_of_an_example_is_registered_and_scored_with_its_own_predictions(
    spark, schema, tracking_parameters, name
):
    outcome = guide_examples.run_and_register(name, spark, tracking_parameters, f"{schema}.predictions")
    assert len(outcome.scored) == 442 and outcome.differing == 0
    assert outcome.metrics["accuracy_score"] > 0.6
