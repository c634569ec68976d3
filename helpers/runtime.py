"""Where the notebook runs: Databricks or a laptop. Nothing else in the bundle asks.

On Databricks ``spark``, ``dbutils`` and ``display`` are in the notebook's namespace; on a
laptop this module brings stand-ins that do the same.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from helpers import parameters as declared
from helpers.laptop.dbutils import PARAMETER_PREFIX, TASK_VALUES_FILE, LocalDbutils

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

BUNDLE_ROOT = Path(__file__).resolve().parent.parent


def _injected(name: str) -> Any:
    """Return what Databricks put into the notebook's namespace under ``name``, or None."""
    from IPython import get_ipython

    shell = get_ipython()
    return shell.user_ns.get(name) if shell else None


@functools.cache
def _local_dbutils() -> LocalDbutils:
    return LocalDbutils()


def _in_databricks() -> bool:
    return _injected("dbutils") is not None


def dbutils() -> Any:
    """Return Databricks' ``dbutils``, or on a laptop what stands in for it."""
    return _injected("dbutils") or _local_dbutils()


def local_dir() -> Path:
    """Return the folder of all local state: MLflow's store, the warehouse, executed notebooks.

    ``.local`` in the bundle, or the environment variable ``BUNDLE_LOCAL_DIR``. On Databricks, where the files of
    a bundle cannot be written, a folder of the driver, which goes with the cluster.
    """
    if _in_databricks():
        return Path(tempfile.gettempdir(), "azureml_mlflow")
    return Path(os.environ.get("BUNDLE_LOCAL_DIR") or BUNDLE_ROOT / ".local").resolve()


def spark() -> SparkSession:
    """Return the Spark session: Databricks' own, the one that is active, or a new local one."""
    if _in_databricks() and _injected("spark") is not None:
        return _injected("spark")
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    from helpers.laptop import spark as local_spark

    return local_spark.start(local_dir())


def parameters(*names: str) -> SimpleNamespace:
    """Return the notebook's parameters, checked and converted.

    On Databricks they become widgets, which job parameters of the same names override; on a
    laptop they come from environment variables ``BUNDLE_PARAM_<NAME>``.

    Parameters
    ----------
    *names : str
        Names declared in `helpers.parameters`.

    Raises
    ------
    helpers.parameters.ParameterError
        If a name is not declared or a value is not accepted.
    """
    declared.require_declared(names)
    utils = dbutils()
    sources = dict.fromkeys(names, "its widget")
    if not _in_databricks():
        variables = [key for key in os.environ if key.startswith(PARAMETER_PREFIX)]
        for variable in variables:
            name = variable.removeprefix(PARAMETER_PREFIX).lower()
            declared.require_declared([name], f"environment variable {variable}")
            sources[name] = f"environment variable {variable}"
    for name in names:
        choices = declared.choices(name)
        if choices:
            utils.widgets.dropdown(name, declared.default_text(name), list(choices), name)
        else:
            utils.widgets.text(name, declared.default_text(name), name)
    return declared.parse({name: utils.widgets.get(name) for name in names}, sources)


def set_task_value(key: str, value: Any) -> None:
    """Hand a result to the tasks that follow in the job (outside a job: does nothing)."""
    dbutils().jobs.taskValues.set(key=key, value=value)


def secret(scope: str, key: str, parameter: str) -> str:
    """Return a secret from a Databricks secret scope. It must not be shown, logged or stored.

    Parameters
    ----------
    scope, key : str
    parameter : str
        The parameter that named the scope, for the error.

    Raises
    ------
    helpers.parameters.ParameterError
        If this is not Databricks, or if there is no such scope or key, or no permission to read it.
    """
    if not _in_databricks():
        raise declared.ParameterError(
            parameter, scope, "secret scopes exist in a Databricks workspace only; here, set environment variables"
        )
    try:
        return dbutils().secrets.get(scope=scope, key=key)
    except Exception as error:  # noqa: BLE001 - py4j's, Spark Connect's or dbutils' own, depending on the compute
        reason = " ".join(" ".join(str(error).splitlines()[:2]).split())[:200]
        raise declared.ParameterError(
            parameter,
            scope,
            f"its key {key!r} cannot be read ({reason}); it takes READ permission on the scope, and "
            f"`databricks secrets list-secrets {scope}` shows the keys",
        ) from None


def in_job() -> bool:
    """Return whether a job runs this notebook, so that nobody is there to answer a question."""
    if not _in_databricks():
        return TASK_VALUES_FILE in os.environ
    context = json.loads(dbutils().notebook.entry_point.getDbutils().notebook().getContext().safeToJson())
    return bool(context.get("attributes", {}).get("jobId"))


def workspace_url() -> str:
    """Return the address of the Databricks workspace that MLflow's ``databricks`` means.

    Raises
    ------
    helpers.parameters.ParameterError
        If none is configured here.
    """
    if _in_databricks():
        return f"https://{spark().conf.get('spark.databricks.workspaceUrl')}"
    return _databricks_client().config.host


@functools.cache
def _databricks_client() -> Any:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.core import Config

    try:
        # A host that cannot be reached is asked again for that long; the SDK's default is 300 s.
        return WorkspaceClient(config=Config(retry_timeout_seconds=20))
    except ValueError as error:
        raise declared.ParameterError(
            "tracking_mode",
            "databricks",
            "no Databricks workspace is configured here; run `databricks auth login`, or set DATABRICKS_HOST and "
            f"DATABRICKS_TOKEN, https://learn.microsoft.com/azure/databricks/dev-tools/auth/ ({error})",
        ) from None


def default_tracking_mode() -> str:
    """Return what ``tracking_mode=auto`` means here."""
    return "databricks" if _in_databricks() else "local"


@contextlib.contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Hold back warnings, and the named loggers' messages, that tell the reader nothing.

    Used around single calls whose message is known to be beside the point; errors are raised
    as ever.
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


def workspace_user() -> str:
    """Return the user's name in the Databricks workspace.

    Raises
    ------
    helpers.parameters.ParameterError
        If no workspace is configured here.
    LookupError
        If the workspace does not tell.
    """
    if _in_databricks():
        return spark().sql("SELECT current_user()").collect()[0][0]
    from databricks.sdk.errors import DatabricksError

    try:
        return _databricks_client().current_user.me().user_name
    except (DatabricksError, TimeoutError) as error:
        raise LookupError(f"{workspace_url()} does not say who you are ({error})") from None


def display(thing: Any, rows: int = 20, links: bool = False) -> None:
    """Show a Spark or pandas DataFrame, or a Matplotlib figure, below the cell.

    Parameters
    ----------
    thing : pyspark.sql.DataFrame, pandas.DataFrame or matplotlib.figure.Figure
    rows : int, default 20
        Rows of a Spark DataFrame that are shown on a laptop; Databricks pages by itself. Those of pandas are all shown.
    links : bool, default False
        Make the addresses in a pandas DataFrame links. Not for data from elsewhere: pandas writes
        an address into the page as it is.
    """
    from IPython.display import HTML, Image
    from IPython.display import display as show

    if hasattr(thing, "savefig"):
        picture = io.BytesIO()
        thing.savefig(picture, format="png", bbox_inches="tight", dpi=90)
        show(Image(picture.getvalue()))
        return
    if hasattr(thing, "toPandas"):
        if _in_databricks():
            _injected("display")(thing)
            return
        thing = thing.limit(rows).toPandas()
    import pandas as pd

    with pd.option_context("display.max_colwidth", None, "display.max_rows", None):
        show(HTML(thing.to_html(render_links=True, notebook=True)) if links else thing)


@contextlib.contextmanager
def spark_setting(spark: SparkSession, name: str, value: str) -> Iterator[None]:
    """Set a setting of the session for the block, where the platform lets its users.

    Serverless compute takes a few only, and this bundle's are about speed:
    https://learn.microsoft.com/azure/databricks/spark/conf
    """
    from pyspark.errors import PySparkException

    before = spark.conf.get(name)
    try:
        spark.conf.set(name, value)
    except PySparkException:
        yield
        return
    try:
        yield
    finally:
        # None would be the answer only if it had been given for a default.
        spark.conf.set(name, before)  # type: ignore[arg-type]


def uses_spark_connect(rows: DataFrame) -> bool:
    """Return whether rows are Spark Connect's, as on serverless and shared compute of Databricks.

    https://learn.microsoft.com/azure/databricks/spark/connect-vs-classic
    """
    return type(rows).__module__.startswith("pyspark.sql.connect.")


def replace_table(
    rows: DataFrame, table: str, properties: dict[str, str] | None = None, partitioned_by: str | None = None
) -> None:
    """Create a table from ``rows``, in place of one of that name.

    Parameters
    ----------
    rows : pyspark.sql.DataFrame
    table : str
        Qualified name, quoted where needed.
    properties : dict of str to str, optional
        Table properties.
    partitioned_by : str, optional
        Partition column.
    """
    from pyspark.sql import functions as F

    writer = rows.writeTo(table)
    for key, value in (properties or {}).items():
        writer = writer.tableProperty(key, value)
    if partitioned_by:
        writer = writer.partitionedBy(F.col(partitioned_by))
    if _in_databricks():
        # Atomic on Delta, with the old version kept in the table's history.
        writer.createOrReplace()
    else:
        from helpers.laptop import catalog as local_catalog
        from helpers.laptop import progress as local_progress

        with local_catalog.new_table(rows.sparkSession, table), local_progress.of_spark(rows.sparkSession, table):
            writer.create()


def drop_table(spark: SparkSession, table: str) -> None:
    """Drop a table and its files; Unity Catalog keeps those of a managed table for seven days, for ``UNDROP TABLE``."""
    if _in_databricks():
        spark.sql(f"DROP TABLE IF EXISTS {table}")
    else:
        from helpers.laptop import catalog as local_catalog

        local_catalog.drop_table(spark, table)


def checkpoint_folder(spark: SparkSession, table: str, create: bool = True) -> str:
    """Return the folder of the checkpoint of a stream into a table; on Databricks it is in a volume beside the table.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    table : str
        Qualified name.
    create : bool, default True
        Make the volume if it is missing.
    """
    parts = table.replace("`", "").split(".")
    if not _in_databricks():
        return str(local_dir() / "checkpoints" / ".".join(parts))
    catalog = parts[0] if len(parts) == 3 else spark.catalog.currentCatalog()
    if create:
        spark.sql(f"CREATE VOLUME IF NOT EXISTS `{catalog}`.`{parts[-2]}`.checkpoints")
    return f"/Volumes/{catalog}/{parts[-2]}/checkpoints/{parts[-1]}"


def delete_folder(folder: str) -> None:
    """Delete a folder that `checkpoint_folder` named, with all that is in it."""
    if _in_databricks():
        dbutils().fs.rm(folder, True)
    else:
        shutil.rmtree(folder)


def replace_partition(rows: DataFrame, table: str, column: str, value: str) -> None:
    """Replace the rows of one partition of a table, and no others, at once: readers see the old or the new.

    Parameters
    ----------
    rows : pyspark.sql.DataFrame
        The table's columns without the partition's.
    table : str
        Qualified name, quoted where needed.
    column, value : str
        The partition column, of type string, and its value.
    """
    from pyspark.sql import functions as F

    if _in_databricks():
        # One commit of Delta: https://learn.microsoft.com/azure/databricks/delta/selective-overwrite
        rows.withColumn(column, F.lit(value)).writeTo(table).overwrite(F.col(column) == value)
    else:
        from helpers.laptop import catalog as local_catalog
        from helpers.laptop import progress as local_progress

        with local_progress.of_spark(rows.sparkSession, table):
            local_catalog.replace_partition(rows, table, column, value)
