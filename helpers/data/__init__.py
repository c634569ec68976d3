"""The data: files and tables, their names and checks, the split, the rows that judge a model, and metrics."""

from helpers.data.checks import check_label
from helpers.data.csv_files import CsvOptions
from helpers.data.evaluation import EvaluationRows, evaluation_rows, example_rows
from helpers.data.names import qualified_name
from helpers.data.split import Split, load_for_run, load_split
from helpers.data.summary import column_summary
from helpers.data.tables import make_tables

__all__ = [
    "CsvOptions",
    "EvaluationRows",
    "Split",
    "check_label",
    "column_summary",
    "evaluation_rows",
    "example_rows",
    "load_for_run",
    "load_split",
    "make_tables",
    "qualified_name",
]
