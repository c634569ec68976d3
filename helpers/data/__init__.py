"""The data: tables and their checks, which rows are held out, and metrics."""

from helpers.data.split import Split, load_for_run, load_split
from helpers.data.tables import check_label, make_tables, qualified_name

__all__ = ["Split", "check_label", "load_for_run", "load_split", "make_tables", "qualified_name"]
