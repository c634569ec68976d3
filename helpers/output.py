"""What the reader sees below a cell: tables, pictures, and no irrelevant messages."""

from __future__ import annotations

import contextlib
import html
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

from helpers import runtime


def display(thing: Any, rows: int = 20, links: bool = False) -> None:
    """Show a Spark or pandas DataFrame, or a Matplotlib figure, below the cell.

    Parameters
    ----------
    thing : pyspark.sql.DataFrame, pandas.DataFrame or matplotlib.figure.Figure
    rows : int, default 20
        Rows of a Spark DataFrame to show on a laptop; Databricks pages by itself. All rows of a pandas one are shown.
    links : bool, default False
        Turn the addresses in a pandas DataFrame into links.
    """
    from IPython.display import HTML, Image
    from IPython.display import display as show

    if hasattr(thing, "savefig"):
        picture = io.BytesIO()
        thing.savefig(picture, format="png", bbox_inches="tight", dpi=90)
        show(Image(picture.getvalue()))
        return
    if hasattr(thing, "toPandas"):
        platform_display = runtime.injected("display")
        if platform_display:
            platform_display(thing)
            return
        thing = thing.limit(rows).toPandas()
    import pandas as pd

    with pd.option_context("display.max_colwidth", None, "display.max_rows", None):
        if links:
            # pandas' own links do not escape a quote, so that an address could add a handler to the page.
            formatters = dict.fromkeys(thing.columns, _with_links)
            thing = HTML(thing.to_html(escape=False, formatters=formatters, notebook=True))
        show(thing)


def _with_links(value: object) -> str:
    text = html.escape(str(value))
    is_address = text.startswith(("http://", "https://"))
    return f'<a href="{text}" target="_blank">{text}</a>' if is_address else text


@contextlib.contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Suppress warnings and the messages of the named loggers.

    Use it around single calls whose messages are known to be useless to the reader. Errors are raised as usual.
    """
    levels = {name: logging.getLogger(name).level for name in loggers}
    try:
        for name in loggers:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def quiet_sql_errors() -> Iterator[None]:
    """Suppress what Spark logs when a SQL statement fails, around a call that expects a failure."""
    logger = "SQLQueryContextLogger"
    with contextlib.suppress(ImportError):  # Spark 3.5 logs nothing.
        from pyspark.logger import PySparkLogger

        # Use PySpark's class. A logger made by `logging` would remain, and each later SQL error would become a
        # TypeError, because PySpark logs with arguments that only its own class accepts.
        PySparkLogger.getLogger(logger)
    with quiet(logger):
        yield


@contextlib.contextmanager
def quiet_run_addresses() -> Iterator[None]:
    """Keep MLflow from printing two lines about each run that ends, where there are many."""
    with runtime.environment_variable("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"):
        yield
