"""What ``scoring_filter`` accepts: a condition on the columns of one row, and not any SQL.

Who may set a job's parameters need not be allowed to read what the job can read. Spark's SQL also has queries of other
tables and files, and functions that call Java or return secrets.
"""

from __future__ import annotations

import re

from helpers.parameters import ParameterError

# A literal or a quoted name. In a raw literal, a backslash does not escape.
_QUOTED = re.compile(
    r"""(?<!\w)[rR]'[^']*'|(?<!\w)[rR]"[^"]*"|'(?:\\.|''|[^'\\])*'|"(?:\\.|""|[^"\\])*"|(?P<name>`(?:``|[^`])*`)""",
    re.S,
)
# Each way to begin a query in an expression: https://spark.apache.org/docs/latest/sql-ref-syntax-qry-select.html
_QUERY = re.compile(r"\b(select|table|values|with|using)\b|\(\s*(from|map|reduce)\b(?!\s*\()", re.I)
# https://spark.apache.org/docs/latest/api/sql/#misc-functions and, of Databricks,
# https://learn.microsoft.com/azure/databricks/sql/language-manual/sql-ref-functions-builtin
_FUNCTIONS = re.compile(
    r"\b(java_method|reflect|try_reflect|secret|try_secret|list_secrets|http_request|remote_query|read_files|read_kafka|read_kinesis|read_pubsub|read_pulsar|read_statestore|event_log|"
    r"ai_\w+|vector_search)\s*\(",
    re.I,
)
_NAME = "name_in_backticks"


def check_condition(condition: str) -> None:
    """Check that a condition asks nothing but the columns of its row.

    Parameters
    ----------
    condition : str
        Of the parameter ``scoring_filter``.

    Raises
    ------
    helpers.parameters.ParameterError
        If it has a subquery, a comment, a function of a catalog, or one that runs code or reads something else.
    """
    plain = _QUOTED.sub(lambda quoted: f" {_NAME} " if quoted["name"] else " '' ", condition)
    refused = {
        "a comment": re.search(r"--|/\*", plain),
        "a subquery": _QUERY.search(plain),
        "a function that is not about the row": _FUNCTIONS.search(plain),
        "a function of a catalog": re.search(r"\w\s*\.\s*\w+\s*\(", plain),
        "a function in backticks": re.search(rf"{_NAME}\s+\(", plain),
    }
    for what, found in refused.items():
        if found:
            raise ParameterError(
                "scoring_filter",
                condition,
                f"has {what} ({found[0].strip()!r}). It must be a condition on the columns of scoring_table, with Spark's "
                "ordinary functions. A column with such a name goes in backticks",
            )
