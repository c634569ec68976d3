"""Where the notebook runs: Databricks or a laptop.

On Databricks ``spark``, ``dbutils`` and ``display`` are in the notebook's namespace; on a laptop this module provides
replacements that do the same.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from helpers import parameters
from helpers.laptop.dbutils import PARAMETER_PREFIX, TASK_VALUES_FILE, LocalDbutils

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

BUNDLE_ROOT = Path(__file__).resolve().parent.parent
_Group = TypeVar("_Group")


def injected(name: str) -> Any:
    """Return what Databricks put into the notebook's namespace under a name; None elsewhere."""
    from IPython import get_ipython

    shell = get_ipython()
    return shell.user_ns.get(name) if shell else None


@functools.cache
def _local_dbutils() -> LocalDbutils:
    return LocalDbutils()


def in_databricks() -> bool:
    """Return whether this runs in a Databricks notebook or job.

    Only this module, `helpers.storage` and `helpers.volumes` ask.
    """
    return injected("dbutils") is not None


def dbutils() -> Any:
    """Return Databricks' ``dbutils``, or on a laptop its replacement."""
    return injected("dbutils") or _local_dbutils()


def local_dir() -> Path:
    """Return the folder of all local state: MLflow's store, the warehouse, executed notebooks.

    ``.local`` in the bundle, or the environment variable ``BUNDLE_LOCAL_DIR``. On Databricks, where the files of
    a bundle cannot be written, it is a folder of the driver, which is lost when the cluster ends.
    """
    if in_databricks():
        return Path(tempfile.gettempdir(), "azureml_mlflow")
    return Path(os.environ.get("BUNDLE_LOCAL_DIR") or BUNDLE_ROOT / ".local").resolve()


@contextlib.contextmanager
def environment_variable(name: str, value: str) -> Iterator[None]:
    """Set an environment variable of this process during the block; all its threads see it."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def make_local_dir() -> Path:
    """Create the folder of all local state, and return it.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    folder = local_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise OSError(
            f"{folder} cannot be written: {error.strerror}. It has all local state; the environment variable "
            "BUNDLE_LOCAL_DIR names another folder"
        ) from None


def spark() -> SparkSession:
    """Return the Spark session: Databricks' own, the one that is active, or a new local one.

    On a laptop, the environment variable ``SPARK_REMOTE`` names a Spark Connect server to use instead of a new one. It
    has to be on this machine, because tables are files here.
    https://spark.apache.org/docs/latest/spark-connect-overview.html
    """
    if in_databricks() and injected("spark") is not None:
        return injected("spark")
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    from helpers.laptop import spark as local_spark

    return local_spark.connect() if os.environ.get("SPARK_REMOTE") else local_spark.start(make_local_dir())


def read_parameters(group: type[_Group]) -> _Group:
    """Return the parameters of a notebook's stage, checked and converted.

    On Databricks they become widgets, which job parameters of the same names override; on a
    laptop they come from environment variables ``BUNDLE_PARAM_<NAME>``.

    Parameters
    ----------
    group : type
        A group of `helpers.parameters`, such as ``parameters.Train``.

    Returns
    -------
    object
        Of the type `group`, which is frozen.

    Raises
    ------
    helpers.parameters.ParameterError
        If a value is not accepted, or an environment variable names an unknown parameter.
    """
    names = parameters.fields_of(group)
    utils = dbutils()
    sources = dict.fromkeys(names, "its widget")
    if not in_databricks():
        variables = [key for key in os.environ if key.startswith(PARAMETER_PREFIX)]
        for variable in variables:
            name = variable.removeprefix(PARAMETER_PREFIX).lower()
            parameters.require_declared([name], f"environment variable {variable}")
            sources[name] = f"environment variable {variable}"
    for name in names:
        choices = parameters.choices(name)
        if choices and parameters.accepts_others(name):
            utils.widgets.combobox(name, parameters.default_text(name), list(choices), name)
        elif choices:
            utils.widgets.dropdown(name, parameters.default_text(name), list(choices), name)
        else:
            utils.widgets.text(name, parameters.default_text(name), name)
    return parameters.parse(group, {name: utils.widgets.get(name) for name in names}, sources)


def set_task_value(key: str, value: Any) -> None:
    """Pass a result to later tasks of the job; outside a job, do nothing."""
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
    if not in_databricks():
        raise parameters.ParameterError(
            parameter, scope, "secret scopes exist in a Databricks workspace only; here, set environment variables"
        )
    try:
        return dbutils().secrets.get(scope=scope, key=key)
    except Exception as error:  # noqa: BLE001 - py4j's, Spark Connect's or dbutils' own, depending on the compute
        reason = " ".join(" ".join(str(error).splitlines()[:2]).split())[:200]
        raise parameters.ParameterError(
            parameter,
            scope,
            f"its key {key!r} cannot be read ({reason}); this needs READ permission on the scope, and "
            f"`databricks secrets list-secrets {scope}` shows the keys",
        ) from None


def in_job() -> bool:
    """Return whether a job runs this notebook, so that nobody is there to answer a question."""
    if not in_databricks():
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
    if in_databricks():
        return f"https://{spark().conf.get('spark.databricks.workspaceUrl')}"
    return _databricks_client().config.host


@functools.cache
def _databricks_client() -> Any:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.core import Config

    try:
        # The time for which an unreachable host is tried again; the SDK's default is 300 s.
        return WorkspaceClient(config=Config(retry_timeout_seconds=20))
    except ValueError as error:
        raise parameters.ParameterError(
            "tracking_mode",
            "databricks",
            "no Databricks workspace is configured here; run `databricks auth login`, or set DATABRICKS_HOST and "
            f"DATABRICKS_TOKEN, https://learn.microsoft.com/azure/databricks/dev-tools/auth/ ({error})",
        ) from None


def default_tracking_mode() -> str:
    """Return what ``tracking_mode=auto`` means here."""
    return "databricks" if in_databricks() else "local"


def workspace_user() -> str:
    """Return the user's name in the Databricks workspace.

    Raises
    ------
    helpers.parameters.ParameterError
        If no workspace is configured here.
    LookupError
        If the workspace does not say who the user is.
    """
    if in_databricks():
        return spark().sql("SELECT current_user()").collect()[0][0]
    from databricks.sdk.errors import DatabricksError

    try:
        return _databricks_client().current_user.me().user_name
    except (DatabricksError, TimeoutError) as error:
        raise LookupError(f"{workspace_url()} does not say who you are ({error})") from None


def user() -> str:
    """Return who runs this: the user or service principal of Databricks, or on a laptop the user who is logged in."""
    return workspace_user() if in_databricks() else getpass.getuser()


def setting(spark: SparkSession, name: str) -> str | None:
    """Return a setting of the session; None if there is none of that name, or if the platform does not say.

    Serverless compute raises for every setting but a few, with a default, too:
    https://github.com/databricks/databricks-sdk-py/issues/1112
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        return spark.conf.get(name)
    # Spark 3.5 has no exception of its own for it.
    except (PySparkException, Py4JJavaError):
        return None


@contextlib.contextmanager
def spark_setting(spark: SparkSession, name: str, value: str) -> Iterator[None]:
    """Change a setting of the session during the block, where the platform allows it.

    Serverless compute allows only a few, and this bundle only uses settings for speed:
    https://learn.microsoft.com/azure/databricks/spark/conf
    """
    from pyspark.errors import PySparkException

    before = setting(spark, name)
    if before is not None:
        try:
            spark.conf.set(name, value)
        except PySparkException:
            before = None
    try:
        yield
    finally:
        if before is not None:
            spark.conf.set(name, before)


def is_serverless() -> bool:
    """Return whether this is serverless compute of Databricks, by the variables by which MLflow knows it.

    https://github.com/mlflow/mlflow/blob/v3.15.0/mlflow/utils/databricks_utils.py
    """
    version = os.environ.get("DATABRICKS_RUNTIME_VERSION", "")
    return in_databricks() and (version.startswith("client.") or "DATABRICKS_ENV_VERSION" in os.environ)


def uses_spark_connect(rows_or_session: DataFrame | SparkSession) -> bool:
    """Return whether rows, or a session, are Spark Connect's, as on serverless and standard compute of Databricks.

    https://learn.microsoft.com/azure/databricks/spark/connect-vs-classic
    """
    return type(rows_or_session).__module__.startswith("pyspark.sql.connect.")
