"""Compare the answers of two versions to the same rows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from helpers.serving.health import is_equal


@dataclass(frozen=True)
class Comparison:
    """How the answers of two versions to the same rows differ in one output.

    Attributes
    ----------
    output : str
        Name of the output; empty if the model has only one.
    rows, different : int
        Number of rows, and of those with another answer. Numbers count as equal within ``helpers.serving.health.TOLERANCE``.
    share : float
        ``different`` divided by ``rows``.
    largest, mean : float
        Largest and mean absolute difference of the numbers; NaN if the answers are not numbers.
    example : str
        The first two answers that differ, as ``old → new``; empty if there are none.
    """

    output: str
    rows: int
    different: int
    share: float
    largest: float
    mean: float
    example: str

    def __str__(self) -> str:
        text = f"{self.different} of {self.rows} answers differ ({self.share:.1%})"
        if not math.isnan(self.largest):
            text += f", by {self.largest:.6g} at most and {self.mean:.6g} on average"
        if self.example:
            text += f", for instance {self.example}"
        return f"{self.output}: {text}" if self.output else text


def compare(old: Sequence[Any], new: Sequence[Any]) -> list[Comparison]:
    """Compare answers row by row, each output on its own.

    Parameters
    ----------
    old, new : sequence
        One value per row, or one dict per row if the model has several outputs; in the same order of rows.

    Returns
    -------
    list of Comparison
        One for each output, an output of only one of the versions included. Empty if there are no rows.
    """
    outputs: dict[str, list[tuple[Any, Any]]] = {}
    for before, after in zip(old, new, strict=True):
        if isinstance(before, dict) and isinstance(after, dict):
            for name in before | after:
                outputs.setdefault(str(name), []).append((before.get(name), after.get(name)))
        else:
            outputs.setdefault("", []).append((before, after))
    return [_of_output(name, pairs) for name, pairs in outputs.items()]


def _of_output(name: str, pairs: list[tuple[Any, Any]]) -> Comparison:
    different = [(before, after) for before, after in pairs if not is_equal(after, before)]
    distances = [distance for before, after in pairs for distance in _distances(before, after)]
    return Comparison(
        name,
        len(pairs),
        len(different),
        len(different) / len(pairs),
        max(distances, default=math.nan),
        statistics.fmean(distances) if distances else math.nan,
        f"{different[0][0]} → {different[0][1]}" if different else "",
    )


def _distances(before: Any, after: Any) -> Iterator[float]:
    """Return the absolute differences of the numbers in two answers; an answer can be a list, such as of probabilities."""
    if isinstance(before, list) and isinstance(after, list):
        for pair in zip(before, after, strict=False):
            yield from _distances(*pair)
    elif _is_number(before) and _is_number(after):
        yield abs(float(after) - float(before))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
