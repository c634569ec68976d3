"""References in double braces, and conditions."""

from datetime import datetime, timezone

import pytest

from helpers.jobs.references import UnknownReference, condition_holds, resolve, start_time_references

KNOWN = {"job.parameters.x": "a", "tasks.t.values.rows": 5, "tasks.t.values.promoted": True, "job.run_id": "9"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{job.parameters.x}}", "a"),
        ("{{ job.parameters.`x` }}-{{job.run_id}}", "a-9"),
        ("{{tasks.t.values.rows}}", "5"),
        ("{{tasks.t.values.promoted}}", "true"),
        ("{{mine.own}} stays", "{{mine.own}} stays"),
        ("no reference", "no reference"),
    ],
)
def test_a_reference_is_replaced_by_its_text(text, expected):
    assert resolve(text, KNOWN) == expected


def test_a_reference_without_a_value_is_named_with_what_there_is():
    with pytest.raises(UnknownReference, match=r"tasks\.t\.values\.lines.*tasks\.t\.values\.rows"):
        resolve("{{tasks.t.values.lines}}", KNOWN)


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
    assert condition_holds(op, left, right) is holds


def test_an_order_of_texts_is_refused():
    with pytest.raises(UnknownReference, match="both must be numbers"):
        condition_holds("LESS_THAN", "a", "1")


def test_the_start_time_has_its_parts():
    parts = start_time_references(datetime(2026, 1, 31, 5, tzinfo=timezone.utc))
    assert parts["job.start_time.iso_date"] == "2026-01-31"
    assert parts["job.start_time.is_weekday"] == "false"
