"""The kinds of endpoint, and the choice among them by the parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers import kinds, parameters, tracking
from helpers.serving.endpoint import Endpoint

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def endpoint_class(kind: str) -> type[Endpoint]:
    """Return the class of a kind of endpoint, which `helpers.kinds.ENDPOINTS` names."""
    return kinds.load(kinds.ENDPOINTS, kind)


def open_endpoint(
    session: tracking.Session, p: parameters.Deploy, version: ModelVersion
) -> tuple[Endpoint, ModelVersion]:
    """Return the endpoint of a model, and the model version in a registry that the endpoint deploys from.

    The endpoint need not exist yet. Azure Machine Learning deploys models of its own registry only, so a version of
    another registry is registered there first.

    Parameters
    ----------
    session : helpers.tracking.Session
    p : helpers.parameters.Deploy
    version : mlflow.entities.model_registry.ModelVersion
        From the session's registry.

    Raises
    ------
    helpers.parameters.ParameterError
        If a parameter is missing or does not fit the kind of endpoint, or if the endpoint cannot serve the model.
    helpers.azureml.rest.AzureError
        If the Azure Machine Learning workspace cannot be used.
    """
    kind = requested_kind(session, p)
    opened = endpoint_class(kind)
    if p.collect_data and not opened.collects_data:
        raise parameters.ParameterError(
            "collect_data", p.collect_data, f"needs a managed, kubernetes or local endpoint; endpoint_target is {kind}"
        )
    if p.collect_data_rate != 1 and not p.collect_data:
        raise parameters.ParameterError(
            "collect_data_rate", str(p.collect_data_rate), "is used with collect_data=true only; set that, too"
        )
    _check_environment(p, kind, opened)
    _check_mirror(p, kind, opened)
    endpoint = opened.open(session, p, version.name)
    endpoint.check(session, version)
    if endpoint.in_azureml:
        version, _ = tracking.in_azureml(session, version)
    return endpoint, version


def _check_environment(p: parameters.Endpoint, kind: str, opened: type[Endpoint]) -> None:
    """Check the parameters of the environment that a deployment gets."""
    if p.endpoint_environment == "own" and not opened.takes_own_environment:
        raise parameters.ParameterError(
            "endpoint_environment",
            "own",
            f"needs endpoint_target=managed, kubernetes or local; endpoint_target is {kind}. Choose one of these, or leave "
            "endpoint_environment=no_code",
        )
    if p.endpoint_environment == "own" and opened.makes_environment:
        return
    problem = "is used with endpoint_environment=own only; set that, too"
    if kind == "local":
        problem = "is not used by a local endpoint, which runs in the environment of this process; leave it out"
    for name in ("endpoint_image", "endpoint_conda_file"):
        value = getattr(p, name)
        if value != parameters.FIELDS[name].default:
            raise parameters.ParameterError(name, value, problem)


def _check_mirror(p: parameters.Deploy, kind: str, opened: type[Endpoint]) -> None:
    """Check the parameters of the mirror."""
    if p.mirror_percent and not opened.mirrors:
        raise parameters.ParameterError(
            "mirror_percent",
            str(p.mirror_percent),
            f"needs endpoint_target=managed or local; endpoint_target is {kind}. Choose one of these, or mirror_percent=0",
        )
    if p.mirror_minutes and not p.mirror_percent:
        raise parameters.ParameterError(
            "mirror_minutes", str(p.mirror_minutes), "is used with mirror_percent only; set that, too"
        )


def requested_kind(session: tracking.Session, p: parameters.Endpoint) -> str:
    """Return the key in `helpers.kinds.ENDPOINTS` that ``endpoint_target`` stands for."""
    if p.endpoint_target != "auto":
        return p.endpoint_target
    return "managed" if session.connection.is_named else "local"
