"""Names of endpoints and deployments, made from a model's name: valid in Azure, and the same each time."""

from __future__ import annotations

import hashlib
import re

# https://learn.microsoft.com/azure/machine-learning/how-to-manage-quotas
_LONGEST_NAME = 32
_DIGEST_LENGTH = 6


def endpoint_name(model_name: str, where: str) -> str:
    """Return the name of a model's endpoint: valid, and the same each time.

    Parameters
    ----------
    model_name : str
    where : str
        The workspace. Names of endpoints are unique in an Azure region, so two workspaces need two names.
    """
    return _valid(model_name, _LONGEST_NAME - _DIGEST_LENGTH - 1) + "-" + _digest(f"{where} {model_name}")


def deployment_name(model_name: str, version: str) -> str:
    """Return the name of a version's deployment: valid, and the same each time."""
    return _valid(model_name.rpartition(".")[2], _LONGEST_NAME - len(str(version)) - 1) + f"-{version}"


def _valid(text: str, length: int) -> str:
    name = re.sub("[^a-z0-9]+", "-", text.rpartition(".")[2].lower()).strip("-")
    # The first character has to be a letter.
    name = name if name[:1].isalpha() else f"model-{name}"
    return name[:length].strip("-")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]
