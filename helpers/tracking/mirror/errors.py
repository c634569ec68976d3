"""Errors of mirroring: their text in one line, and whether a later attempt can succeed."""

from __future__ import annotations

import re

_MOST_CHARACTERS = 300
# The server says that the item does not exist, or that it does not accept the item's name.
_FINAL_CODES = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "ENDPOINT_NOT_FOUND", "INVALID_PARAMETER_VALUE", "BAD_REQUEST")
_FINAL_STATUSES = (400, 404, 410)


class MirrorError(RuntimeError):
    """A run cannot be mirrored now. What was copied stays, and the next call continues from there."""


def one_line(error: BaseException) -> str:
    """Return the text of an error in one line of at most 300 characters.

    A longer text loses its middle: MLflow often names the file, or says what is wrong, at the end.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    # The query of a signed URL gives access to the file.
    text = re.sub(r"\?[\w.~%-]+=[^\s'\")]*", "", text)
    if len(text) <= _MOST_CHARACTERS:
        return text
    half = (_MOST_CHARACTERS - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def unreadable(error: BaseException) -> str:
    """Return why an item of the source can never be read, or an empty string if a later attempt may succeed.

    An item that does not exist, or whose name the server refuses, stays unreadable. A missing permission does not
    count: with an expired sign-in all items would seem unreadable.
    """
    return f"cannot be read from Databricks: {one_line(error)}" if _is_final(error) else ""


def _is_final(error: BaseException) -> bool:
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    cause: BaseException | None = error
    # MLflow wraps the errors of a storage service into its own, which then have no code of their own.
    while isinstance(cause, MlflowException) and cause.error_code == "INTERNAL_ERROR":
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, MlflowException):
        return cause.error_code in _FINAL_CODES
    if isinstance(cause, HTTPError) and cause.response is not None:
        return cause.response.status_code in _FINAL_STATUSES
    return isinstance(cause, FileNotFoundError)
