"""Names in SQL: how identifiers are quoted, how table names are completed, and which column names are reserved."""

from __future__ import annotations

import hashlib
import re

# The columns that a model adds to the rows it scores. A Spark ML pipeline adds them to the features, so a feature
# with such a name would be overwritten or ambiguous.
MODEL_OUTPUT_COLUMNS = ("prediction", "probability")
# The columns that scoring adds to the id, in the tables of predictions and of quarantined rows and while a model is
# evaluated. The id, or a label that is compared with the predictions, cannot have such a name.
RESERVED_COLUMNS = (
    *MODEL_OUTPUT_COLUMNS, "probabilities", "problem", "row", "model_name", "model_version", "scored_at", "batch_id",
)  # fmt: skip
# The rest of the 255 that a name may have is for what the table has.
_MOST_CHARACTERS_OF_MODEL = 200


def plain_name(name: str, most_characters: int) -> str:
    """Return a name of ASCII letters, digits and underscores for a table or a folder; different names stay different.

    Parameters
    ----------
    name : str
    most_characters : int
        A longer name, or one with other characters, is shortened, gets underscores, and ends in a hash of 8 characters.
    """
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)[:most_characters]
    return plain if plain == name else f"{plain}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def model_table(model_name: str, what: str) -> str:
    """Return the name of a table that belongs to a model, such as ``churn_predictions``; see `plain_name`."""
    return f"{plain_name(model_name, _MOST_CHARACTERS_OF_MODEL)}_{what}"


def quoted(name: str) -> str:
    """Return a column or a part of a table name as a SQL identifier, whatever characters it has."""
    return "`" + name.replace("`", "``") + "`"


def qualified_name(table: str, catalog: str, schema: str) -> str:
    """Complete a table name with the schema and the catalog that it lacks.

    Parameters
    ----------
    table : str
        ``table``, ``schema.table`` or ``catalog.schema.table``.
    catalog, schema : str
        Added if `table` does not name them. An empty catalog is left out.

    Returns
    -------
    str
        The name, quoted where SQL requires it.
    """
    parts = table.split(".")
    if len(parts) == 1:
        parts = [schema, *parts]
    if len(parts) == 2 and catalog:
        parts = [catalog, *parts]
    return ".".join(part if re.fullmatch(r"[A-Za-z_]\w*", part, re.ASCII) else quoted(part) for part in parts)


def qualified_schema(catalog: str, schema: str) -> str:
    """Return the quoted name of a schema, without the catalog if that is empty."""
    return f"{quoted(catalog)}.{quoted(schema)}" if catalog else quoted(schema)
