"""What this bundle made: the mark by which it is known again, and how clean-up is told of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

# Tag, or property of a table, of all that the bundle makes; the value says for which model, or of which data. A plain
# word, since Unity Catalog takes no dots, dashes or slashes in a tag's name, and Azure Machine Learning's search none.
# https://learn.microsoft.com/azure/databricks/database-objects/tags#constraints
MARK = "azureml_mlflow"
NOT_OURS = "not made by this bundle"


def is_marked(tags: Mapping[str, str]) -> bool:
    """Return whether the tags, or table properties, of something say that this bundle made it."""
    return MARK in tags


@dataclass(frozen=True)
class Item:
    """Something that is there, and may be cleaned up.

    Attributes
    ----------
    kind : str
        One of `helpers.parameters.CLEAN_UP_KINDS`.
    name : str
        Unmistakable within its kind and place.
    where : str
        The server or place that it is on, in words.
    delete : callable
        Deletes it; returns False if it was not there any more, and raises what went wrong.
    kept : str, default ""
        Why it is not deleted; empty if it may be.
    inside : tuple of Item
        What has to be deleted first: if one of them is kept, this is kept.
    """

    kind: str
    name: str
    where: str
    delete: Callable[[], bool]
    kept: str = ""
    inside: tuple[Item, ...] = ()
