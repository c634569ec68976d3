"""What this bundle made: the mark that identifies it, and the description of it that clean-up gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

# Tag, or table property, of everything that the bundle makes; the value names the model, or the data. It is a plain
# word, since neither Unity Catalog's tag names nor Azure Machine Learning's search accept dots, dashes or slashes.
# https://learn.microsoft.com/azure/databricks/database-objects/tags#constraints
MARK = "azureml_mlflow"
NOT_OURS = "not made by this bundle"
OTHER_MODEL = "made by this bundle, and not named by these parameters"


def is_marked(tags: Mapping[str, str]) -> bool:
    """Return whether tags, or table properties, show that this bundle made something."""
    return MARK in tags


@dataclass(frozen=True)
class Item:
    """A resource that exists and that clean-up may delete.

    Attributes
    ----------
    kind : str
        One of `helpers.kinds.CLEAN_UP`.
    name : str
        Unique within its kind and place.
    where : str
        The server or place that it is on, in words.
    delete : callable
        Deletes it. Returns False if it no longer exists, and raises an error if it cannot be deleted.
    keep_reason : str, default ""
        Why it is kept; empty if it may be deleted.
    delete_first : tuple of Item
        Items that must be deleted before this one. If one of them is kept, this one is kept, too.
    """

    kind: str
    name: str
    where: str
    delete: Callable[[], bool]
    keep_reason: str = ""
    delete_first: tuple[Item, ...] = ()
