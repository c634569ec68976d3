"""`scoring_filter` is a condition on one row: anything that reads or runs something else is refused."""

import pytest

from helpers.parameters import ParameterError
from helpers.scoring.rows import rows_to_score

ACCEPTED = {
    "id > 1": [2, 3, 4],
    "day >= date_sub(DATE'2026-01-31', 30) AND kind LIKE 'sel%'": [1, 2],
    "kind IN ('select', 'it''s', \"from\") OR id = 4": [1, 3, 4],
    "extract(YEAR FROM day) = 2026 AND id BETWEEN 1 AND 2": [1, 2],
    "exists(array(id, 7), value -> value = 3)": [3],
    "`values` > 10 AND `table` IS NOT NULL": [2, 3, 4],
    r"kind RLIKE r'^sel\w+$' AND id = 1": [1],
    "reduce(array(1, 2), 0, (total, x) -> total + x) = 3 AND coalesce(map('a', id)['a'], 0) = 2": [2],
    "kind = 'java_method(1)' OR kind = '(SELECT 1)' OR id = 3": [3],
}
REFUSED = {
    "id IN (SELECT id FROM secrets)": "a subquery",
    "EXISTS (SELECT 1 FROM text.`/etc/passwd` WHERE value LIKE 'root%')": "a subquery",
    "(FROM secrets |> AGGREGATE count(*)) > 0": "a subquery",
    "id = (TABLE secrets)": "a subquery",
    "id IN (VALUES 1, 2)": "a subquery",
    "id = (WITH t AS (SELECT 1) TABLE t)": "a subquery",
    "java_method('java.lang.System', 'getenv', 'SECRET') = 'x'": "a function that is not about the row",
    "REFLECT ('java.lang.System', 'getenv', 'SECRET') = 'x'": "a function that is not about the row",
    "java_method/**/('java.lang.System', 'getenv', 'SECRET') = 'x'": "a comment",
    "r'\\' = kind OR java_method('java.lang.System', 'getenv', 'SECRET') = 'x'": "a function that is not about the row",
    "'\\'' = kind OR try_reflect('a', 'b', 'c') = 'x'": "a function that is not about the row",
    "`java_method`('java.lang.System', 'getenv', 'SECRET') = 'x'": "a function in backticks",
    "main.other.read_it(id) = 1": "a function of a catalog",
    "secret('scope', 'key') = 'x'": "a function that is not about the row",
    "id = 1 -- AND id = 2": "a comment",
}


@pytest.fixture(scope="module")
def table(spark):
    spark.sql("CREATE SCHEMA IF NOT EXISTS conditions")
    rows = "VALUES (1, 'select', 10, 'a'), (2, 'selected', 11, 'a'), (3, 'it''s', 12, 'b'), (4, 'other', 13, 'b')"
    spark.sql(
        f"SELECT *, DATE'2026-01-15' AS day FROM {rows} AS t (id, kind, `values`, `table`)"
    ).write.mode("overwrite").saveAsTable("conditions.rows")  # fmt: skip
    return "conditions.rows"


@pytest.mark.parametrize("condition", ACCEPTED)
def test_a_condition_on_the_columns_of_the_row_is_accepted(spark, table, condition):
    rows = rows_to_score(spark, table, condition, "id")
    assert sorted(row.id for row in rows.collect()) == ACCEPTED[condition]


@pytest.mark.parametrize("condition", REFUSED)
def test_what_reads_or_runs_something_else_is_refused(spark, table, condition):
    with pytest.raises(ParameterError) as caught:
        rows_to_score(spark, table, condition, "id")
    assert caught.value.name == "scoring_filter" and f"has {REFUSED[condition]} (" in caught.value.problem
