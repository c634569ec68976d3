"""The condition task."""

import pytest

from helpers.jobs.definitions import InvalidTask
from helpers.jobs.references import UnknownReference
from helpers.jobs.task_types import ConditionTask


@pytest.mark.parametrize(
    ("left", "op", "right", "holds"),
    [
        ("12.0", "EQUAL_TO", "12", False),
        ("12.0", "NOT_EQUAL", "12", True),
        ("12.0", "GREATER_THAN_OR_EQUAL", "12", True),
        ("10.0", "GREATER_THAN_OR_EQUAL", "12", False),
        ("9", "LESS_THAN", "12", True),
        ("12", "LESS_THAN_OR_EQUAL", "12", True),
        ("12", "GREATER_THAN", "12", False),
    ],
)
def test_equality_compares_texts_and_order_compares_numbers(left, op, right, holds):
    assert ConditionTask(op, left, right).holds({}) is holds


def test_operands_can_be_references():
    condition = ConditionTask("GREATER_THAN", "{{tasks.t.values.rows}}", "3")
    assert condition.holds({"tasks.t.values.rows": 5}) and not condition.holds({"tasks.t.values.rows": 2})
    with pytest.raises(UnknownReference):
        condition.holds({})


def test_an_order_of_texts_is_refused():
    with pytest.raises(InvalidTask, match="both must be numbers"):
        ConditionTask("LESS_THAN", "a", "1").holds({})
