"""The comparison of the answers of two versions."""

import math

import pytest

from helpers.serving.comparison import compare


def of(old, new):
    (comparison,) = compare(old, new)
    return comparison


def test_of_classes_the_share_that_differs_is_given_with_an_example():
    found = of(["a", "b", "b", None], ["a", "c", "b", None])
    assert (found.output, found.rows, found.different, found.share) == ("", 4, 1, 0.25)
    assert math.isnan(found.largest) and math.isnan(found.mean)
    assert str(found) == "1 of 4 answers differ (25.0%), for instance b → c"


def test_of_numbers_the_largest_and_the_mean_difference_are_given_as_well():
    found = of([1.0, 2.0, 3, 4.0], [1.0, 2.5, 1, 4.0000000001])
    assert (found.different, found.largest, found.mean) == (2, 2, pytest.approx(0.625))
    assert "by 2 at most and 0.625 on average, for instance 2.0 → 2.5" in str(found)
    # Booleans are classes, and what is not a number has no distance.
    assert math.isnan(of([True, math.nan], [False, 1.0]).largest)


def test_lists_such_as_probabilities_are_compared_number_by_number():
    found = of([[0.25, 0.75], [0.5, 0.5]], [[0.25, 0.75], [0.0, 1.0]])
    assert (found.different, found.largest, found.mean) == (1, 0.5, 0.25)
    assert of([[1.0]], [[1.0, 2.0]]).different == 1


def test_each_output_is_compared_on_its_own_also_one_that_only_one_version_has():
    label, score, reason = compare(
        [{"label": "a", "score": 0.5}, {"label": "b", "score": 0.5}],
        [{"label": "a", "score": 0.75, "reason": "x"}, {"label": "a", "score": 0.5, "reason": "y"}],
    )
    assert (label.output, label.different) == ("label", 1) and str(label).startswith("label: 1 of 2")
    assert (score.output, score.different, score.largest) == ("score", 1, 0.25)
    assert (reason.output, reason.different, reason.share) == ("reason", 2, 1.0)


def test_without_answers_there_is_nothing_to_compare():
    assert compare([], []) == []
    with pytest.raises(ValueError, match="shorter"):
        compare([1], [])
