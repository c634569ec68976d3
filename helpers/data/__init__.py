"""The data: files and tables, their names and checks, the split into training and held-out rows, and metrics."""

from helpers.data.checks import check_label
from helpers.data.names import qualified_name
from helpers.data.split import Split, load_for_run, load_split
from helpers.data.tables import make_tables

__all__ = ["Split", "check_label", "load_for_run", "load_split", "make_tables", "qualified_name"]
