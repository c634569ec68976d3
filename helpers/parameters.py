"""Every parameter of the bundle, declared once: name, type, default, choices, description.

A notebook asks for the group of its stage, ``p = runtime.read_parameters(parameters.Train)``; the job runner checks
what it is given against these declarations before it starts anything.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from helpers import kinds


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


@dataclasses.dataclass(frozen=True)
class _OneOf:
    """Check that a parameter names one of the kinds in a table of `helpers.kinds`, or one of some other words."""

    table: Mapping[str, Any]
    words: tuple[str, ...] = ()

    @property
    def values(self) -> tuple[str, ...]:
        return (*self.words, *self.table)

    def __call__(self, value: str) -> str:
        if value not in self.values:
            raise ValueError(f"one of {', '.join(self.values)}")
        return value


@dataclasses.dataclass(frozen=True)
class _OneOfOrAddress(_OneOf):
    """Check that a parameter names one of the kinds in a table, or is an address of one of some forms."""

    addresses: tuple[str, ...] = ()
    forms: str = ""

    def __call__(self, value: str) -> str:
        if value in self.values or any(re.fullmatch(address, value) for address in self.addresses):
            return value
        raise ValueError(f"one of {', '.join(word for word in self.values if word)}, or {self.forms}")


def _matching(pattern: str, accepted: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(accepted)
        return value

    return AfterValidator(check)


def _true_or_false(value: object) -> bool:
    text = str(value).strip().lower()
    if text not in ("true", "false"):
        raise ValueError("true or false")
    return text == "true"


def _items(value: object) -> list[str]:
    """Return the items of a list, which a widget or a command line separates by commas."""
    return [str(item).strip() for item in (value.split(",") if isinstance(value, str) else value)]  # type: ignore[attr-defined]


def _percentages(value: object) -> tuple[int, ...]:
    accepted = "rising percentages that end with 100, such as 10, 50, 100"
    items = _items(value)
    if not all(re.fullmatch(r"[0-9]{1,3}", item) for item in items):
        raise ValueError(accepted)
    steps = tuple(map(int, items))
    if steps[0] < 1 or steps[-1] != 100 or any(after <= before for before, after in itertools.pairwise(steps)):
        raise ValueError(accepted)
    return steps


def _clean_up_kinds(value: object) -> tuple[str, ...]:
    items = _items(value)
    unknown = [kind for kind in items if kind not in kinds.CLEAN_UP]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not one of {', '.join(kinds.CLEAN_UP)}")
    return tuple(items)


def _thresholds(value: object) -> tuple[tuple[str, float], ...]:
    thresholds = []
    # A default, or a value that was parsed before, is a tuple of pairs.
    pairs = value if isinstance(value, tuple) else [item.partition("=")[::2] for item in _items(value) if item]
    for name, number in ((str(name).strip(), str(number).strip()) for name, number in pairs):
        if name not in kinds.DRIFT_THRESHOLDS:
            raise ValueError(f"{name!r} is not one of {', '.join(kinds.DRIFT_THRESHOLDS)}")
        try:
            threshold = float(number)
        except ValueError:
            threshold = math.nan
        if not threshold >= 0:
            raise ValueError(f"{name}={number}: a number from 0 on is needed, as in psi=0.3")
        thresholds.append((name, threshold))
    return tuple(thresholds)


def _emails(value: object) -> tuple[str, ...]:
    emails = _texts(value)
    for email in emails:
        if not re.fullmatch(r"[^@\s]+@[^@\s]+", email):
            raise ValueError(f"{email!r} is not an e-mail address")
    # https://learn.microsoft.com/azure/templates/microsoft.machinelearningservices/workspaces/schedules
    if len(",".join(emails)) > 499:
        raise ValueError("Azure ML takes up to 499 characters of addresses together; give a list's address")
    return emails


def _number_or_nothing(value: object) -> float | None:
    if value is None or str(value).strip() == "":
        return None
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("empty, or a number")
    return number


def _texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in _items(value) if item)


OptionalNumber = Annotated[float | None, BeforeValidator(_number_or_nothing)]
# Both https://docs.databricks.com/sql/language-manual/sql-ref-names and file systems have this limit.
_PART = r"[^`./\\\s:]{1,255}"
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
RegisteredName = Annotated[str, _matching(r"[^/:\"'%]+", "a name without slashes, colons, quotes or percent signs")]
ColumnName = Annotated[str, Field(min_length=1)]
Separator = Annotated[str, _matching("tab|.", "one character, or tab")]
Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]
# It becomes a partition value, hence part of a path and of a SQL literal.
# Spark takes the name of Hive's default partition for null.
BatchId = Annotated[
    str,
    _matching(
        r"(?!__HIVE_DEFAULT_PARTITION__$)[\w.:+-]*",
        "letters, digits and _ . : + - only, and not __HIVE_DEFAULT_PARTITION__",
    ),
]
Trigger = Annotated[
    str, _matching(r"available_now|[1-9]\d* (second|minute|hour)s?", "available_now, or an interval such as 1 minute")
]
Version = Annotated[str, _matching(r"([1-9]\d*)?", "empty, or a version number: 1, 2, …")]
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
# Names of Kubernetes' custom resources: https://kubernetes.io/docs/concepts/overview/working-with-objects/names
InstanceType = Annotated[
    str,
    _matching(
        r"(Standard_\w+|[a-z0-9]([a-z0-9.-]*[a-z0-9])?)?",
        "empty, a size of virtual machine such as Standard_DS3_v2, https://aka.ms/azureml/vmsize, or the name of an instance "
        "type of a cluster",
    ),
]
ImageName = Annotated[
    str,
    _matching(
        r"[\w][\w./:@-]*", "the name of a Docker image such as mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"
    ),
]
# https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules
ComputeName = Annotated[
    str, _matching(r"([A-Za-z][A-Za-z0-9-]*)?", "empty, or a name of letters, digits and dashes, a letter first")
]
RolloutSteps = Annotated[tuple[int, ...], BeforeValidator(_percentages)]
Thresholds = Annotated[tuple[tuple[str, float], ...], BeforeValidator(_thresholds)]
Emails = Annotated[tuple[str, ...], BeforeValidator(_emails)]
CleanUpKinds = Annotated[tuple[str, ...], BeforeValidator(_clean_up_kinds)]
Flag = Annotated[bool, BeforeValidator(_true_or_false)]
RunId = Annotated[str, _matching(r"[\w-]*", "empty (the newest finished run), or a run id")]


TrackingMode = Annotated[str, AfterValidator(_OneOf(kinds.TRACKING_MODES, ("auto",)))]
# https://learn.microsoft.com/rest/api/azureml/registry-model-versions/create-or-update
REGISTRY_ADDRESS = r"azureml://registries/(?P<registry>[A-Za-z0-9][A-Za-z0-9_-]{2,32})"
"""How ``azure-ai-ml`` and ``az ml`` name a registry."""
WORKSPACE_ADDRESS = (
    rf"azureml://subscriptions/(?P<subscription>{_SUBSCRIPTION})/resource[gG]roups/(?P<group>{_GROUP})"
    rf"(?:/providers/Microsoft\.MachineLearningServices)?/workspaces/(?P<workspace>{_WORKSPACE})"
)
"""How ``azure-ai-ml`` names a workspace."""
_CATALOG_ADDRESS = rf"databricks-uc/{_PART}\.{_PART}"
ModelRegistry = Annotated[
    str,
    AfterValidator(
        _OneOfOrAddress(
            kinds.SERVERS, ("auto",), (REGISTRY_ADDRESS,), "azureml://registries/<name> (3 to 33 characters)"
        )
    ),
]
ShareWith = Annotated[
    str,
    AfterValidator(
        _OneOfOrAddress(
            kinds.SERVERS,
            ("",),
            (REGISTRY_ADDRESS, WORKSPACE_ADDRESS, _CATALOG_ADDRESS),
            "azureml://registries/<name>, azureml://subscriptions/<id>/resourceGroups/<name>/workspaces/<name> or "
            "databricks-uc/<catalog>.<schema>",
        )
    ),
]
SampleData = Annotated[str, AfterValidator(_OneOf(kinds.SAMPLES))]
ModelFlavor = Annotated[str, AfterValidator(_OneOf(kinds.FLAVORS))]
SplitBy = Annotated[str, AfterValidator(_OneOf(kinds.SPLITS))]
ScoringEngine = Annotated[str, AfterValidator(_OneOf(kinds.ENGINES, ("auto",)))]
EndpointTarget = Annotated[str, AfterValidator(_OneOf(kinds.ENDPOINTS, ("auto",)))]

_CONFIG = ConfigDict(str_strip_whitespace=True)


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class AzureML:
    """The Azure Machine Learning workspace, and how to sign in to it."""

    azureml_subscription_id: SubscriptionId = Field(default="", description="Subscription of the Azure ML workspace")
    azureml_resource_group: ResourceGroup = Field(default="", description="Resource group of the Azure ML workspace")
    azureml_workspace: WorkspaceName = Field(default="", description="Name of the Azure ML workspace")
    azureml_region: Region = Field(
        default="",
        description="Region of the Azure ML workspace. Empty: Azure Resource Manager is asked for the workspace's address",
    )
    azureml_tracking_uri: AzureMLTrackingUri = Field(
        default="", description="MLflow tracking URI of the Azure ML workspace. It replaces the four parameters above"
    )
    azureml_secret_scope: str = Field(
        default="",
        description="Databricks secret scope with the keys azure-tenant-id, azure-client-id and azure-client-secret. "
        "Empty: environment variables, a managed identity or the Azure CLI are used",
    )
    azureml_sign_in: Literal["unattended", "device_code"] = Field(
        default="unattended",
        description="device_code: if no other credential is found, you sign in at the notebook. A job never asks",
    )


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Tracking(AzureML):
    """Where runs and models go; every stage has these."""

    tracking_mode: TrackingMode = Field(
        default="auto",
        description="Where runs are tracked. auto: Databricks in a Databricks workspace, a local SQLite file elsewhere. "
        "dual: Databricks, and each run is copied to Azure ML after it has ended",
    )
    model_registry: ModelRegistry = Field(
        default="auto",
        # https://learn.microsoft.com/azure/databricks/machine-learning/manage-model-lifecycle/workspace-model-registry
        description="Where models are registered. auto: the registry that goes with tracking_mode. databricks-uc: Unity "
        "Catalog. databricks: the workspace's own registry, which is off in accounts created since April 2024. "
        "azureml://registries/<name>: an Azure ML registry, which several workspaces share",
    )
    experiment_name: str = Field(
        default="azureml_mlflow",
        min_length=1,
        # mlflow.utils.validation
        max_length=500,
        description="MLflow experiment. On Databricks, a plain name is put under /Users/<you>/",
    )


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Namespace:
    """The schema of tables and models."""

    catalog: OptionalIdentifier = Field(default="", description="Catalog of the tables. Empty: the current one")
    schema: Identifier = Field(
        default="azureml_mlflow", description="Schema of the tables. It is created if it is missing"
    )


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class TrainingTable:
    """The table with labelled rows."""

    training_table: TableName = Field(default="training", description="Table with labelled rows")


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class ScoringTable:
    """The table with rows to score."""

    scoring_table: TableName = Field(default="scoring", description="Table with rows to score")


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class IdColumn:
    """The column that identifies a row."""

    id_column: ColumnName = Field(
        default="id", description="Column that identifies a row. It must have no nulls and no duplicates"
    )


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class LabelColumn:
    """The column to predict."""

    label_column: ColumnName = Field(
        default="outcome", description="Column to predict. It has two or more classes, or numbers"
    )
    model_type: Literal["auto", "classifier", "regressor"] = Field(
        default="auto",
        description="What the label is: classes (classifier) or a quantity (regressor). auto: text, booleans and up to "
        "20 different whole numbers are classes, other numbers are a quantity",
    )


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class ModelName:
    """The model."""

    model_name: RegisteredName = Field(default="diabetes", description="Name in the model registry")


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Share:
    """Who else gets the champion."""

    share_with: ShareWith = Field(
        default="",
        description="Registry that the champion is copied to, and becomes the champion of: azureml://registries/<name>, "
        "azureml://subscriptions/<id>/resourceGroups/<name>/workspaces/<name>, databricks-uc/<catalog>.<schema>, or "
        "azureml, databricks-uc, databricks, local. Empty: none",
    )


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class ChosenVersion(ModelName):
    """A version of the model."""

    model_version: Version = Field(
        default="", description="Version to use. Empty: the champion, or in 08_approve the challenger"
    )


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class ModelVersion(ChosenVersion):
    """A version of the model that is loaded."""

    allow_pickle: Flag = Field(
        default=False,
        description="Load a version that runs code when it is loaded, such as a pickle, even if this bundle did not "
        "register it",
    )


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class PredictionTable:
    """The table of predictions."""

    prediction_table: OptionalTableName = Field(
        default="",
        description="Table for the predictions. Empty: <model_name>_predictions. If the name has other characters than "
        "a-z, A-Z, 0-9 and _, it gets a hash",
    )


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Predictions(PredictionTable):
    """Where predictions go, and how far a stream has come."""

    checkpoint: str = Field(
        default="",
        description="For mode=stream: folder that records which rows are scored. Empty: a folder beside "
        "prediction_table, in a volume of its schema",
    )


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Endpoint:
    """Where a model is served, and by what."""

    endpoint_target: EndpointTarget = Field(
        default="auto",
        # https://learn.microsoft.com/azure/machine-learning/migrate-to-v2-deploy-endpoints
        description="Where the model is served. managed: managed online endpoint of Azure ML. kubernetes: online endpoint of "
        "Azure ML on a cluster that is attached to the workspace. local: this machine. auto: managed if an Azure ML "
        "workspace is named, otherwise local. aci, aks: web services of Azure ML's SDK v1 in Container Instances or "
        "Kubernetes Service. These two are deprecated and without support since 2026-06-30. Use managed or kubernetes instead",
    )
    endpoint_name: EndpointName = Field(
        default="", description="Name of the endpoint. Each model has its own. Empty: made from model_name"
    )
    endpoint_auth: Literal["key", "aad_token"] = Field(
        default="key", description="How callers of the endpoint sign in. Only managed endpoints accept aad_token"
    )
    instance_type: InstanceType = Field(
        default="",
        description="managed: size of virtual machine; empty: Standard_DS3_v2. kubernetes: an instance type of the cluster; "
        "empty: its default",
    )
    endpoint_environment: Literal["no_code", "own"] = Field(
        default="no_code",
        description="What a managed or kubernetes endpoint runs. no_code: Azure ML's image and scoring script. own: this "
        "bundle's script, in an environment of the model's conda file. A local endpoint always runs this bundle's script",
    )
    endpoint_image: ImageName = Field(
        # https://learn.microsoft.com/azure/machine-learning/how-to-manage-environments-v2
        default="mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04",
        description="Of endpoint_environment=own: the base image, on which conda makes the environment",
    )
    endpoint_conda_file: str = Field(
        default="",
        description="Of endpoint_environment=own: a conda file in place of the model's own, for other packages, another Python "
        "or a private feed",
    )
    endpoint_compute: ComputeName = Field(
        default="", description="Of endpoint_target=kubernetes: the cluster attached to the Azure ML workspace"
    )
    collect_data: Flag = Field(
        default=False,
        description="Keep the inputs and the answer of each request, for 06_monitor. Only managed, kubernetes and local "
        "endpoints can",
    )
    collect_data_rate: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="For collect_data: the share of the requests whose inputs are kept, drawn by chance. 0.1: every tenth. "
        "The answers are kept of all requests",
    )
    instance_count: int = Field(
        default=1,
        ge=1,
        le=100,
        description="Number of virtual machines (managed) or replicas (kubernetes, aks) of a deployment",
    )
    public_network_access: Literal["enabled", "disabled"] = Field(
        default="enabled",
        description="disabled: a managed endpoint can be called only through the workspace's private network, and its "
        "containers reach other services only through that network",
    )
    start_timeout_s: int = Field(
        default=600,
        ge=10,
        le=3_600,
        description="Seconds that a managed deployment's container may take to start",
    )
    request_timeout_s: int = Field(
        # Azure's default is 5 s, and 180 s is its limit:
        # https://learn.microsoft.com/azure/machine-learning/reference-yaml-deployment-managed-online
        default=60,
        ge=1,
        le=180,
        description="Seconds after which a managed endpoint gives up a request",
    )
    max_concurrent_requests: int = Field(
        default=1,
        ge=1,
        le=1_000,
        description="Number of requests that each instance of a managed, kubernetes or local deployment answers at once. Each "
        "takes a process (WORKER_COUNT) with a copy of the model in memory",
    )
    aks_compute: str = Field(
        default="",
        description="For endpoint_target=aks, which is deprecated: name of the Kubernetes cluster that is attached to "
        "the Azure ML workspace",
    )


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class SetUp(Tracking, Namespace, TrainingTable, ScoringTable, LabelColumn, IdColumn):
    """Parameters of 01_setup."""

    link_workspaces: Flag = Field(
        default=False,
        description="Link the Databricks workspace to the Azure ML workspace, as the portal's button does",
    )
    databricks_resource_id: DatabricksResourceId = Field(
        default="",
        description="Resource id of the Databricks workspace to link. Empty: the workspace is found by its address",
    )
    source_path: str = Field(default="", description="CSV or Parquet file or folder to load. Empty: sample_data")
    sample_data: SampleData = Field(
        default="diabetes",
        # https://scikit-learn.org/stable/datasets/toy_dataset.html
        description="Data of scikit-learn to load if source_path is empty. The label of each is the column outcome. diabetes: "
        "442 patients, whose disease progressed more (worse) or less (better) than the median within a year. breast_cancer: "
        "569 biopsies, malignant or benign, which are easy to tell apart",
    )
    csv_separator: Separator = Field(default=",", description="Character between the fields of CSV files, or tab")
    csv_encoding: str = Field(default="UTF-8", description="Encoding of CSV files, such as ISO-8859-1 or windows-1252")
    csv_nulls: Texts = Field(
        default=(), description="Texts that stand for a missing value in CSV files, separated by commas, such as NA, ?"
    )


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Fit:
    """How a model is trained."""

    model_flavor: ModelFlavor = Field(
        default="sklearn",
        description="Kind of model. sklearn: linear model, trained on the driver. xgboost: boosted trees. spark: linear "
        "Spark ML pipeline, trained on the cluster",
    )
    epochs: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="Highest number of passes over the training rows, or for xgboost of trees per class. 0: the flavor's "
        "default (sklearn 20, xgboost 100, spark 50)",
    )
    learning_rate: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="For model_flavor=xgboost: the share of each tree that is added. Linear models choose their own step "
        "size",
    )
    class_weight: Literal["none", "balanced"] = Field(
        default="none",
        description="For a classifier. balanced: rows of a rare class weigh more, so that all classes weigh the same",
    )
    training_on: Literal["auto", "driver", "cluster"] = Field(
        default="auto",
        description="For model_flavor=xgboost: where it trains. auto: on the driver if the table fits into its memory",
    )
    seed: int = Field(default=42, ge=0, lt=2**32, description="Seed of the split and of the training")
    tuning_trials: int = Field(
        default=0,
        ge=0,
        le=1_000,
        description="Number of models that are trained with different hyperparameters, to find the best ones. 0: the "
        "flavor's default hyperparameters are used",
    )
    tuning_parallel: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Number of trials that run at the same time on Spark. 0: one for each processor, at most 8. 1: one "
        "after the other, which gives the same result for the same seed",
    )


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Train(Tracking, Namespace, TrainingTable, LabelColumn, IdColumn, ModelName, Fit):
    """Parameters of 02_train."""

    split_by: SplitBy = Field(
        default="id",
        description="Rule that chooses the held-out rows. id: a hash of id_column. time: the newest rows by "
        "split_column. column: split_column says train, validation or test, and test_fraction has no effect",
    )
    split_column: str = Field(
        default="",
        description="For split_by=time: column of dates, timestamps or numbers. For split_by=column: column of text. It "
        "does not become a feature. Empty for split_by=id",
    )
    test_fraction: float = Field(default=0.2, gt=0, lt=1, description="Share of the rows held out of training")


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Register(Tracking, Namespace, LabelColumn, IdColumn, ModelName, Share):
    """Parameters of 03_register; it needs the columns of label and id only with `evaluation_table`."""

    run_id: RunId = Field(
        default="",
        description="Run whose model is registered. Empty: the run of model_uri, or if that is empty, the newest "
        "finished run of model_name",
    )
    model_uri: str = Field(
        default="",
        description="Model of that run, as log_model returned it. Empty: the run's model, if it logged only one",
    )
    evaluation_table: OptionalTableName = Field(
        default="",
        description="Table of labelled rows that the model has not seen. All of them are used to evaluate it. Empty: the "
        "held-out rows that the run recorded",
    )
    validation_metric: Literal[
        "auto",
        "accuracy_score",
        "balanced_accuracy_score",
        "precision_score",
        "recall_score",
        "f1_score",
        "roc_auc",
        "average_precision_score",
        "log_loss",
        "r2_score",
        "root_mean_squared_error",
        "mean_squared_error",
        "mean_absolute_error",
        "mean_absolute_percentage_error",
        "max_error",
    ] = Field(
        default="auto",
        description="Metric of the gate, measured on the evaluation rows. auto: accuracy_score, or r2_score for a "
        "regressor",
    )
    validation_threshold: OptionalNumber = Field(
        default=None,
        description="Lowest value of the metric that passes, or for a loss or an error the highest. Empty: 0.6 for "
        "metrics of classes from 0 to 1, no threshold for others",
    )
    validation_margin: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Lowest share of the way from a constant prediction (0) to a perfect model (1) that passes, in "
        "balanced accuracy or R². 0: a model that is as good as a constant prediction passes",
    )
    promote: Literal["auto", "challenger"] = Field(
        default="auto",
        description="What a version becomes when it passes the gate. auto: the champion. challenger: the challenger, "
        "which waits until somebody approves it with 08_approve",
    )
    deploy: Flag = Field(default=False, description="After registering, deploy the champion to its endpoint")


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Score(Tracking, Namespace, ScoringTable, IdColumn, ModelVersion, Predictions):
    """Parameters of 04_batch_score."""

    scoring_filter: str = Field(
        default="", description="SQL condition that selects the rows to score, such as `id < 100`. Empty: all rows"
    )
    scoring_engine: ScoringEngine = Field(
        default="auto",
        description="How a scikit-learn model is applied. sql: Spark's own expressions, for linear pipelines. udf: "
        "Python. auto: sql if it gives the model's answers, otherwise udf",
    )
    on_bad_rows: Literal["quarantine", "fail"] = Field(
        default="quarantine",
        description="What happens to rows that the model cannot score. quarantine: they go to "
        "<prediction_table>_quarantine, with the reason. fail: nothing is written",
    )
    keep_inputs: Flag = Field(
        default=True,
        description="Write the model's inputs from scoring_table beside each prediction. Monitoring then compares them "
        "with the training data",
    )
    max_records_per_batch: int = Field(
        default=0,
        ge=0,
        description="Number of rows that a Python worker gets at once. 0: as many as fit into 16 MB, at most 100,000",
    )
    env_manager: Literal["local", "virtualenv", "uv"] = Field(
        default="local",
        description="Packages that the model scores with. local: the cluster's own. virtualenv, uv: those that the model "
        "was logged with. Each executor first makes an environment and starts a local server in it, which "
        "takes minutes and scores more slowly",
    )
    mode: Literal["batch", "stream"] = Field(
        default="batch",
        description="Which rows are scored. batch: all rows of scoring_table. stream: those added since the last run",
    )
    trigger: Trigger = Field(
        default="available_now",
        description="For mode=stream. available_now: the job ends when all rows are scored. An interval such as 1 "
        "minute: the job keeps running and looks for new rows at that interval",
    )
    shadow: Literal["none", "challenger"] = Field(
        default="none",
        description="challenger: the version that waits for approval also scores the same rows. Its predictions go to "
        "<prediction_table>_shadow",
    )
    batch_id: BatchId = Field(
        default="", description="Name of the batch. If you score it again, its rows are replaced. Empty: today (UTC)"
    )


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Deploy(Tracking, Namespace, ModelVersion, Endpoint):
    """Parameters of 05_deploy_endpoint."""

    rollout_steps: RolloutSteps = Field(
        default=(10, 50, 100), description="Percentage of the requests that the new version gets in each step"
    )
    health_requests: int = Field(
        default=20, ge=1, le=10_000, description="Number of requests that the health check sends after each step"
    )
    latency_limit_ms: int = Field(
        default=2_000,
        ge=1,
        description="Highest 95th percentile of the latencies, in milliseconds, that passes a health check",
    )
    mirror_percent: int = Field(
        # https://learn.microsoft.com/azure/machine-learning/how-to-safely-rollout-online-endpoints
        default=0,
        ge=0,
        le=50,
        description="Percentage of the requests of which the new version gets a copy before it gets any itself. Only managed "
        "and local endpoints can. 0: none",
    )
    mirror_minutes: int = Field(
        default=0,
        ge=0,
        le=1_440,
        description="For mirror_percent: minutes for which requests are mirrored. 0: only while the health check of this step "
        "sends its requests",
    )


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Monitor(Tracking, Namespace, TrainingTable, ScoringTable, LabelColumn, IdColumn, ModelName, PredictionTable):
    """Parameters of 06_monitor."""

    window: Literal["day", "week", "batch"] = Field(
        default="day",
        description="Predictions that are measured together: those of a day or a week (UTC), or those of a batch",
    )
    labels_table: OptionalTableName = Field(
        default="",
        description="Table with the labels that have arrived, with id_column and label_column. Empty: quality is not "
        "measured",
    )
    collected_data: str = Field(
        default="",
        description="Folder in which an endpoint with collect_data=true keeps its requests. They are watched in place of "
        "the table of predictions",
    )
    fewest_rows: int = Field(default=50, ge=1, description="A measure of fewer rows is shown but not judged")
    drift_thresholds: Thresholds = Field(
        default=(),
        description="Thresholds in place of the defaults, such as psi=0.3, null_share=0.1. Measures: "
        + ", ".join(f"{name} {value:g}" for name, value in kinds.DRIFT_THRESHOLDS.items()),
    )
    drift_significance: float = Field(
        default=0.001,
        gt=0,
        lt=1,
        description="A difference is not a breach if chance makes it more often than this in windows without drift",
    )
    alert_breaches: int = Field(
        default=2,
        ge=1,
        description="An alert needs this many breaches among the last alert_windows. The newest window must be one of "
        "them",
    )
    alert_windows: int = Field(
        default=3, ge=1, description="Number of the last windows in which an alert looks for breaches"
    )
    on_drift: Literal["report", "notify", "retrain"] = Field(
        default="report",
        description="What happens on an alert. report: it is shown. notify: the job fails, so that the addresses in "
        "notified get an e-mail. retrain: the job train_and_register runs on the newest labelled rows",
    )
    cool_down_days: int = Field(
        default=7, ge=0, description="Number of days after a retraining in which no other retraining starts"
    )
    azureml_monitor: Flag = Field(
        default=False,
        description="Let Azure ML's own monitor watch the model's managed endpoint, too. The endpoint needs "
        "collect_data=true. Up to 10,000 training rows are copied to the version's run in Azure ML. You pay "
        "for each run of the monitor",
    )
    azureml_monitor_emails: Emails = Field(
        default=(),
        description="Addresses that get Azure ML's e-mails about its monitor, separated by commas. Empty: nobody",
    )


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Approve(Tracking, Namespace, ChosenVersion, Share):
    """Parameters of 08_approve."""

    decision: Literal["wait", "approve", "refuse"] = Field(
        default="wait",
        description="approve: the version becomes the champion. refuse: it never becomes the champion. wait: the "
        "version's tag `approval` decides, and the notebook stops with an error if the tag is not set",
    )
    approved_by: str = Field(
        default="",
        max_length=1_000,
        description="Name of the person who decides, for the version's tags. Empty: the user who runs the job",
    )
    # Azure ML's limit of a tag's value: https://learn.microsoft.com/azure/machine-learning/resource-limits-capacity
    reason: str = Field(
        default="",
        max_length=1_000,
        description="Reason for the decision, for the version's tags, in up to 1,000 characters",
    )


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class CleanUp(Tracking, Namespace, TrainingTable, ScoringTable, ModelName, Predictions):
    """Parameters of 07_clean_up."""

    clean_up: CleanUpKinds = Field(
        default=tuple(kinds.CLEAN_UP), description=f"What to delete, separated by commas: {', '.join(kinds.CLEAN_UP)}"
    )
    dry_run: Flag = Field(default=True, description="Only list what would be deleted")
    force: Flag = Field(
        default=False, description="Also delete what is in use: the champion, a challenger, and endpoints with traffic"
    )


STAGES = (SetUp, Train, Register, Score, Deploy, Monitor, CleanUp, Approve)
"""The groups that the notebooks ask for."""


def fields_of(group: type) -> dict[str, FieldInfo]:
    """Return the declarations of a group's parameters by name."""
    return dict(group.__pydantic_fields__)  # type: ignore[attr-defined]


FIELDS = {name: field for group in STAGES for name, field in fields_of(group).items()}
"""The declaration of each parameter by its name."""

_GROUP_OF = {name: group for group in STAGES for name in fields_of(group)}

PATHS = frozenset({"source_path", "collected_data", "endpoint_conda_file"})
"""Parameters whose value may be a path on the machine where it was typed."""

_Group = TypeVar("_Group")


def choices(name: str) -> tuple[str, ...]:
    """Return the accepted values of a parameter with a fixed set of them, else an empty tuple; see `accepts_others`."""
    field = FIELDS[name]
    if field.annotation is bool:
        return ("false", "true")
    for item in field.metadata:
        if isinstance(getattr(item, "func", None), _OneOf):
            return item.func.values
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def accepts_others(name: str) -> bool:
    """Return whether a parameter with a set of values also accepts addresses."""
    return any(isinstance(getattr(item, "func", None), _OneOfOrAddress) for item in FIELDS[name].metadata)


def as_text(value: Any) -> str:
    """Return a value as widgets, job parameters and task values write it: ``true``, not ``True``."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, (tuple, list)):
        return str(value)
    # Pairs, such as thresholds, are written as they are read.
    return ", ".join("=".join(map(as_text, item)) if isinstance(item, tuple) else as_text(item) for item in value)


def default_text(name: str) -> str:
    """Return a parameter's default as widgets and ``databricks.yml`` write it."""
    return as_text(FIELDS[name].default)


def require_declared(names: Iterable[str], source: str = "", declared: Collection[str] = FIELDS) -> None:
    """Check that names are declared.

    Parameters
    ----------
    names : iterable of str
    source : str, optional
        Where they came from, for the error.
    declared : collection of str, optional
        Those of one command. Default: all parameters of the bundle.

    Raises
    ------
    ParameterError
        For the first unknown name, with the nearest declared one.
    """
    for name in names:
        if name not in declared:
            near = difflib.get_close_matches(name, declared, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ParameterError(
                name, "", f"unknown parameter; {hint}declared are: {', '.join(sorted(declared))}", source
            )


def parse(group: type[_Group], values: Mapping[str, Any], sources: Mapping[str, str] | None = None) -> _Group:
    """Check values and convert them from the text that widgets and command lines hold.

    Parameters
    ----------
    group : type
        A group of parameters, such as `Train`.
    values : mapping of str to object
        Value by parameter name; a parameter without one has its default.
    sources : mapping of str to str, optional
        Where each value came from, for the error message.

    Returns
    -------
    object
        Of the type `group`, which is frozen.

    Raises
    ------
    ParameterError
        For the first value that is not accepted, or a name that the group does not have.
    """
    require_declared(values, declared=fields_of(group))
    try:
        return group(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        reason = first["msg"].removeprefix("Value error, ")
        raise ParameterError(
            name,
            values[name],
            f"not accepted: {reason[0].lower()}{reason[1:]}. {FIELDS[name].description} "
            f"(default: {default_text(name) or 'empty'}).",
            (sources or {}).get(name, ""),
        ) from None


def check(values: Mapping[str, Any], sources: Mapping[str, str] | None = None) -> None:
    """Check values of any declared parameters, whatever their group.

    Raises
    ------
    ParameterError
        For the first value that is not accepted, or a name that is not declared.
    """
    require_declared(values)
    for name, value in values.items():
        parse(_GROUP_OF[name], {name: value}, sources)


def canonical_text(name: str, text: str) -> str:
    """Return a declared parameter's value as it is compared and handed on: ``true`` for ``True``.

    Raises
    ------
    ParameterError
        If the value is not accepted.
    """
    return as_text(getattr(parse(_GROUP_OF[name], {name: text}), name))


def as_dict(p: Any, without: type | None = None) -> dict[str, Any]:
    """Return the values of a group by parameter name.

    Parameters
    ----------
    p : object
        A group of parameters.
    without : type, optional
        A group whose parameters are left out.
    """
    left_out = fields_of(without) if without else {}
    return {name: getattr(p, name) for name in fields_of(type(p)) if name not in left_out}
