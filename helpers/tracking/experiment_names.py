"""One experiment name, as each tracking server wants it."""

from __future__ import annotations

import re
from collections.abc import Callable

from helpers.parameters import ParameterError


def on_databricks(experiment_name: str, user: Callable[[], str]) -> str:
    """Return the absolute workspace path of an experiment.

    A plain name goes to the user's folder. ``/Workspace`` in front is taken off: Databricks finds
    such an experiment the first time only (https://github.com/mlflow/mlflow/issues/11077).

    Parameters
    ----------
    experiment_name : str
    user : callable
        Returns the user's name in the workspace, or raises LookupError; called if it is needed.

    Raises
    ------
    ParameterError
        If it is neither an absolute path nor a plain name of a user who is known.
    """
    path = re.sub("^/Workspace(?=/)", "", experiment_name)
    reason = ""
    if "/" not in path:
        try:
            return f"/Users/{user()}/{path}"
        except LookupError as error:
            reason = f"{error}; "
    elif re.fullmatch(r"(/[^/]+){2,}", path):
        return path
    raise ParameterError(
        "experiment_name",
        experiment_name,
        f"{reason}Databricks takes an absolute path such as /Users/<you>/churn or /Shared/churn, or a plain name "
        "such as churn, which is put under /Users/<you>/",
    )


def on_azureml(experiment_name: str) -> str:
    """Return the name of an experiment in Azure Machine Learning, which has no folders.

    ``/Users/<user>/churn`` and ``/Shared/churn`` are called ``churn`` there. A name with a slash
    would be created, but not found again by its name
    (https://github.com/Azure/azure-sdk-for-python/issues/45209). Which characters a name may have:
    https://learn.microsoft.com/python/api/azureml-core/azureml.core.experiment(class)

    Raises
    ------
    ParameterError
        If nothing is left that the server takes, or if the name has more folders: two experiments
        of the same name in two folders would become one.
    """
    name = re.sub(r"^(/Workspace)?(/Users/[^/]+|/Shared)/", "", experiment_name)
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]{0,254}", name):
        raise ParameterError(
            "experiment_name",
            experiment_name,
            "Azure Machine Learning has no folders, and takes a name of a-z, A-Z, 0-9, _ and - that starts with a "
            "letter or digit, such as churn; /Users/<you>/churn and /Shared/churn are churn there, deeper folders are "
            "not mapped",
        )
    return name
