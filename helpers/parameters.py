"""Every parameter of the bundle, declared once: name, type, default, choices, description.

Notebooks ask for the ones they use (``runtime.parameters("epochs", ...)``); the job
runner checks what it is given against this list before it starts anything.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Mapping
from types import SimpleNamespace
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError


class ParameterError(ValueError):
    """A parameter has a value that cannot be used.

    Parameters
    ----------
    name : str
        The parameter.
    value : object
        The value it has.
    problem : str
        What is wrong with it, what is accepted and what to do, in plain words.
    source : str, optional
        Where the value came from (a widget, an environment variable, a command line).
    """

    def __init__(self, name: str, value: Any, problem: str, source: str = "") -> None:
        self.name, self.value, self.problem, self.source = name, value, problem, source
        origin = f" (from {source})" if source else ""
        super().__init__(f"{name}={value!r}{origin}: {problem}")

    def __reduce__(self) -> tuple[type[ParameterError], tuple[Any, ...]]:
        return type(self), (self.name, self.value, self.problem, self.source)


def _matching(pattern: str, accepted: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(accepted)
        return value

    return AfterValidator(check)


def _rising(value: str) -> str:
    steps = [int(step) for step in value.split(",")]
    if steps[0] < 1 or steps[-1] != 100 or any(after <= before for before, after in itertools.pairwise(steps)):
        raise ValueError("rising percentages that end with 100, such as 10, 50, 100")
    return value


def _kinds(value: str) -> str:
    unknown = [kind for kind in value.replace(" ", "").split(",") if kind not in CLEAN_UP_KINDS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(CLEAN_UP_KINDS)}")
    return value


CLEAN_UP_KINDS = ("deployments", "endpoints", "model_versions", "runs", "experiments", "tables", "checkpoints")
"""What ``clean_up`` knows, in the order in which it is safe to delete."""

_PART = r"[^`./\\\s:]+"
Identifier = Annotated[str, _matching(_PART, "one name without dots, spaces, slashes, colons or backticks")]
OptionalIdentifier = Annotated[
    str, _matching(f"({_PART})?", "empty, or one name without dots, spaces, slashes, colons or backticks")
]
TableName = Annotated[
    str, _matching(rf"{_PART}(\.{_PART}){{0,2}}", "`table`, `schema.table` or `catalog.schema.table`")
]
OptionalTableName = Annotated[
    str,
    _matching(rf"({_PART}(\.{_PART}){{0,2}})?", "empty, `table`, `schema.table` or `catalog.schema.table`"),
]
ModelName = Annotated[str, _matching(r"[^/:\"'%]+", "a name without slashes, colons, quotes or percent signs")]
ColumnName = Annotated[str, Field(min_length=1)]
# It becomes a partition value, hence part of a path and of a SQL literal.
BatchId = Annotated[str, _matching(r"[\w.:+-]*", "letters, digits and _ . : + - only")]
Trigger = Annotated[
    str, _matching(r"available_now|[1-9]\d* (second|minute|hour)s?", "available_now, or an interval such as 1 minute")
]
Version = Annotated[str, _matching(r"([1-9]\d*)?", "empty (the champion), or a version number: 1, 2, …")]
# https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules
_SUBSCRIPTION = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_GROUP = r"[\w.()-]{0,89}[\w()-]"
_WORKSPACE = r"[A-Za-z0-9][A-Za-z0-9_-]{2,32}"
_IN_GROUP = rf"/subscriptions/{_SUBSCRIPTION}/resourceGroups/{_GROUP}/providers"
SubscriptionId = Annotated[
    str,
    _matching(
        f"({_SUBSCRIPTION})?",
        "a subscription id such as 00000000-0000-0000-0000-000000000000 (Azure portal, Subscriptions)",
    ),
]
ResourceGroup = Annotated[
    str, _matching(f"({_GROUP})?", "up to 90 letters, digits and _ . ( ) -, not ending in a period")
]
WorkspaceName = Annotated[
    str, _matching(f"({_WORKSPACE})?", "3 to 33 of a-z, A-Z, 0-9, _ and -, starting with a letter or digit")
]
Region = Annotated[str, _matching("[a-z0-9]*", "a region's short name such as westeurope")]
AzureMLTrackingUri = Annotated[
    str,
    _matching(
        rf"(azureml://[^/?]+/mlflow/v[12]\.0{_IN_GROUP}/Microsoft\.MachineLearningServices/workspaces/{_WORKSPACE})?",
        "azureml://<host>/mlflow/v1.0/subscriptions/<id>/resourceGroups/<name>/providers/"
        "Microsoft.MachineLearningServices/workspaces/<name> (`az ml workspace show --query mlflow_tracking_uri`)",
    ),
]
DatabricksResourceId = Annotated[
    str,
    _matching(
        rf"({_IN_GROUP}/Microsoft\.Databricks/workspaces/[^/]+)?",
        "/subscriptions/<id>/resourceGroups/<name>/providers/Microsoft.Databricks/workspaces/<name> "
        "(Azure portal, the workspace's JSON view)",
    ),
]
# https://learn.microsoft.com/azure/machine-learning/how-to-manage-quotas#azure-machine-learning-online-endpoints-and-batch-endpoints
EndpointName = Annotated[
    str,
    _matching(
        r"(?=.{3,32}$)[a-z](-?[a-z0-9])*|",
        "empty, or 3 to 32 of a-z, 0-9 and single dashes, a letter first and no dash last",
    ),
]
InstanceType = Annotated[
    str, _matching(r"Standard_\w+", "a size of virtual machine such as Standard_DS3_v2, https://aka.ms/azureml/vmsize")
]
RolloutSteps = Annotated[str, _matching(r"\d+(, *\d+)*", "percentages such as 10, 50, 100"), AfterValidator(_rising)]
CleanUp = Annotated[str, AfterValidator(_kinds)]
RunId = Annotated[str, _matching(r"[\w-]*", "empty (the newest finished run), or a run id")]


class Parameters(BaseModel):
    """The declarations; each field's description is what users see beside the widget."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, protected_namespaces=())

    tracking_mode: Literal["auto", "local", "databricks", "azureml", "dual"] = Field(
        "auto",
        description="Where runs are tracked. auto: Databricks in a Databricks workspace, a local SQLite file elsewhere. "
        "dual: Databricks, and every run is copied to Azure ML after it has ended",
    )
    model_registry: Literal["auto", "local", "databricks", "databricks-uc", "azureml"] = Field(
        "auto", description="Where models are registered. auto: the registry that goes with tracking_mode"
    )
    azureml_subscription_id: SubscriptionId = Field("", description="Subscription of the Azure ML workspace")
    azureml_resource_group: ResourceGroup = Field("", description="Resource group of the Azure ML workspace")
    azureml_workspace: WorkspaceName = Field("", description="Name of the Azure ML workspace")
    azureml_region: Region = Field(
        "", description="Region of the Azure ML workspace. Empty: its address is asked from Azure Resource Manager"
    )
    azureml_tracking_uri: AzureMLTrackingUri = Field(
        "", description="MLflow tracking URI of the Azure ML workspace, in place of the four parameters above"
    )
    azureml_secret_scope: str = Field(
        "",
        description="Databricks secret scope with the keys azure-tenant-id, azure-client-id and azure-client-secret. "
        "Empty: environment variables, managed identity or Azure CLI",
    )
    azureml_sign_in: Literal["unattended", "device_code"] = Field(
        "unattended",
        description="device_code: somebody at the notebook signs in, if no other credential is found. Never in a job",
    )
    link_workspaces: bool = Field(
        False, description="Link the Databricks workspace to the Azure ML workspace, as the portal's button does"
    )
    databricks_resource_id: DatabricksResourceId = Field(
        "", description="Resource id of the Databricks workspace to link. Empty: found by the workspace's address"
    )
    experiment_name: str = Field(
        "azureml_mlflow",
        min_length=1,
        description="MLflow experiment. A plain name is put under /Users/<you>/ on Databricks",
    )
    catalog: OptionalIdentifier = Field("", description="Catalog of the tables. Empty: the current one")
    schema_: Identifier = Field(
        "azureml_mlflow", alias="schema", description="Schema of the tables, made if it is missing"
    )
    source_path: str = Field(
        "", description="CSV or Parquet file or folder to load. Empty: scikit-learn's breast-cancer data"
    )
    training_table: TableName = Field("training", description="Table with labelled rows")
    scoring_table: TableName = Field("scoring", description="Table with rows to score")
    prediction_table: OptionalTableName = Field(
        "", description="Table that receives the predictions. Empty: <model_name>_predictions"
    )
    label_column: ColumnName = Field("diagnosis", description="Column to predict, with two classes or more")
    id_column: ColumnName = Field("id", description="Column that identifies a row: no nulls, no duplicates")
    scoring_filter: str = Field(
        "", description="SQL condition that picks the rows to score, e.g. `id < 100`. Empty: all rows"
    )
    scoring_engine: Literal["auto", "sql", "udf"] = Field(
        "auto",
        description="What applies a scikit-learn model. sql: Spark's own expressions, for linear pipelines. udf: Python. "
        "auto: sql where it gives the model's answers",
    )
    on_bad_rows: Literal["quarantine", "fail"] = Field(
        "quarantine",
        description="Rows that the model cannot score. quarantine: they go to <prediction_table>_quarantine, with the "
        "reason. fail: nothing is written",
    )
    max_records_per_batch: int = Field(
        0, ge=0, description="Rows that a Python worker gets at once. 0: as many as 16 MB have, at most 100,000"
    )
    env_manager: Literal["local", "virtualenv", "uv"] = Field(
        "local",
        description="Packages that score. local: the cluster's own. virtualenv, uv: those that the model was logged with, "
        "in an environment that each executor makes first, behind a local server: minutes more, and slower",
    )
    mode: Literal["batch", "stream"] = Field(
        "batch", description="batch: all rows of scoring_table. stream: those that it has got since the last time"
    )
    trigger: Trigger = Field(
        "available_now",
        description="Of mode=stream. available_now: end when all rows are scored. An interval: go on, and look that often",
    )
    checkpoint: str = Field(
        "",
        description="Of mode=stream: folder that says which rows are scored. Empty: one beside prediction_table, in a "
        "volume of its schema",
    )
    model_name: ModelName = Field("breast_cancer", description="Name in the model registry")
    model_version: Version = Field("", description="Version to use. Empty: the champion")
    model_flavor: Literal["sklearn", "spark"] = Field(
        "sklearn", description="scikit-learn pipeline (on the driver) or Spark ML pipeline (on the cluster)"
    )
    epochs: int = Field(20, ge=1, le=10_000, description="Passes over the training rows")
    learning_rate: float = Field(
        0.01, gt=0, allow_inf_nan=False, description="Step size of the scikit-learn pipeline (Spark ML chooses its own)"
    )
    test_fraction: float = Field(0.2, gt=0, lt=1, description="Share of the rows held out of training")
    seed: int = Field(42, ge=0, lt=2**32, description="Seed of the split and of the training")
    validation_metric: Literal[
        "accuracy_score", "precision_score", "recall_score", "f1_score", "roc_auc", "log_loss"
    ] = Field("accuracy_score", description="Metric of the gate, on the held-out rows")
    validation_threshold: float = Field(
        0.9, allow_inf_nan=False, description="Least value of the metric that passes (for log_loss: the greatest)"
    )
    run_id: RunId = Field("", description="Run whose model is registered. Empty: the newest finished run of model_name")
    batch_id: BatchId = Field("", description="Names the batch; scoring it again replaces its rows. Empty: today (UTC)")
    deploy: bool = Field(False, description="After registering: deploy the champion to its endpoint")
    endpoint_target: Literal["auto", "managed", "aci", "aks", "local"] = Field(
        "auto",
        description="Where the model is served. managed: Azure ML managed online endpoint. aci, aks: Azure Container "
        "Instances, Kubernetes Service. local: this machine. auto: managed where an Azure ML workspace is named, else local",
    )
    endpoint_name: EndpointName = Field("", description="Endpoint; one a model. Empty: made from model_name")
    instance_type: InstanceType = Field("Standard_DS3_v2", description="Virtual machine of a managed endpoint")
    instance_count: int = Field(
        1, ge=1, le=100, description="Virtual machines (managed) or replicas (aks) of a deployment"
    )
    aks_compute: str = Field(
        "", description="Of endpoint_target=aks: the Kubernetes cluster attached to the Azure ML workspace"
    )
    endpoint_auth: Literal["key", "aad_token"] = Field(
        "key", description="How callers of the endpoint sign in. aad_token: managed endpoints only"
    )
    rollout_steps: RolloutSteps = Field(
        "10, 50, 100", description="Percentage of the requests that the new version gets, step by step"
    )
    health_requests: int = Field(20, ge=1, le=10_000, description="Requests of the health check after each step")
    latency_limit_ms: int = Field(
        2_000, ge=1, description="Greatest 95th percentile of a health check's latencies that passes, in milliseconds"
    )
    clean_up: CleanUp = Field(
        ",".join(CLEAN_UP_KINDS), description=f"What to delete, separated by commas: {', '.join(CLEAN_UP_KINDS)}"
    )
    dry_run: bool = Field(True, description="Only list what would be deleted")
    force: bool = Field(False, description="Delete also what serves: the champion, and endpoints with traffic")


FIELDS = {field.alias or name: field for name, field in Parameters.model_fields.items()}
"""Declaration of each parameter by its public name."""


TRACKING = (
    "tracking_mode", "model_registry", "experiment_name",
    "azureml_subscription_id", "azureml_resource_group", "azureml_workspace", "azureml_region",
    "azureml_tracking_uri", "azureml_secret_scope", "azureml_sign_in",
)  # fmt: skip
"""Parameters that `helpers.tracking.configure` takes; every notebook asks for these."""

ENDPOINT = ("endpoint_target", "endpoint_name", "endpoint_auth", "instance_type", "instance_count", "aks_compute")
"""Parameters that `helpers.serving.open_endpoint` takes beside those of `TRACKING`."""

PATHS = frozenset({"source_path"})
"""Parameters whose value may be a path on the machine where it was typed."""


def choices(name: str) -> tuple[str, ...]:
    """Return the accepted values of a parameter with a fixed set of them, else an empty tuple."""
    annotation = FIELDS[name].annotation
    if annotation is bool:
        return ("false", "true")
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def default_text(name: str) -> str:
    """Return a parameter's default as widgets and ``databricks.yml`` write it."""
    default = FIELDS[name].default
    return str(default).lower() if isinstance(default, bool) else str(default)


def require_declared(names: Iterable[str], source: str = "", declared: Collection[str] = FIELDS) -> None:
    """Refuse names that are not declared.

    Parameters
    ----------
    names : iterable of str
    source : str, optional
        Where they came from, for the error.
    declared : collection of str, optional
        Those of one command; all of the bundle's otherwise.

    Raises
    ------
    ParameterError
        For the first unknown name, with the nearest declared one.
    """
    import difflib

    for name in names:
        if name not in declared:
            near = difflib.get_close_matches(name, declared, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ParameterError(
                name, "", f"unknown parameter; {hint}declared are: {', '.join(sorted(declared))}", source
            )


def parse(values: Mapping[str, Any], sources: Mapping[str, str] | None = None) -> SimpleNamespace:
    """Check values and convert them from the text that widgets and command lines hold.

    Parameters
    ----------
    values : mapping of str to object
        Value by parameter name; only these are in the result.
    sources : mapping of str to str, optional
        Where each value came from, for the error message.

    Returns
    -------
    types.SimpleNamespace
        One attribute a parameter, of the declared type.

    Raises
    ------
    ParameterError
        For the first value that is not accepted.
    """
    sources = sources or {}
    require_declared(values)
    try:
        parsed = Parameters(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        reason = first["msg"].removeprefix("Value error, ")
        default = FIELDS[name].default
        raise ParameterError(
            name,
            values[name],
            f"not accepted: {reason[0].lower()}{reason[1:]}. {FIELDS[name].description} (default: {default!r}).",
            sources.get(name, ""),
        ) from None
    by_alias = parsed.model_dump(by_alias=True)
    return SimpleNamespace(**{name: by_alias[name] for name in values})
