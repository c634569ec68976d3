"""References in double braces."""

from datetime import datetime, timezone

import pytest

from helpers.jobs.references import UnknownReference, resolve, start_time_references

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


def test_the_error_for_a_reference_without_a_value_names_the_references_that_have_one():
    with pytest.raises(UnknownReference, match=r"tasks\.t\.values\.lines.*tasks\.t\.values\.rows"):
        resolve("{{tasks.t.values.lines}}", KNOWN)


def test_the_start_time_has_its_parts():
    parts = start_time_references(datetime(2026, 1, 31, 5, tzinfo=timezone.utc))
    assert parts["job.start_time.iso_date"] == "2026-01-31"
    assert parts["job.start_time.is_weekday"] == "false"
