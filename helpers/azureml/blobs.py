"""Blob Storage behind a signed address, which Azure ML hands out for uploads and downloads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from helpers.azureml.rest import AzureError, first_line

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient, ExponentialRetry

# About 1 + 2 + 4 s.
_RETRIES: dict[str, Any] = {"initial_backoff": 1, "increment_base": 2, "retry_total": 3, "random_jitter_range": 0}


def retries() -> ExponentialRetry:
    """Return how often and when a request that failed is repeated."""
    from azure.storage.blob import ExponentialRetry

    return ExponentialRetry(**_RETRIES)


@contextmanager
def signed_container(address: str, failure: str) -> Iterator[ContainerClient]:
    """Open a container in the block.

    Parameters
    ----------
    address : str
        With a signature, which gives access to the container.
    failure : str
        Begins the message of an error, such as ``score.py cannot be uploaded to``.

    Raises
    ------
    helpers.azureml.rest.AzureError
        If a request in the block fails. The message does not have the signature.
    """
    from azure.core.exceptions import AzureError as RequestFailed
    from azure.storage.blob import ContainerClient

    try:
        with ContainerClient.from_container_url(address, retry_policy=retries()) as container:
            yield container
    except RequestFailed as error:
        # Whatever is between here and Azure may quote the address, whose query is the permission.
        reason = re.sub(r"\?\S*", "", first_line(error))
        raise AzureError(
            f"{failure} {urlsplit(address).netloc}: {reason}", getattr(error, "status_code", None)
        ) from None
