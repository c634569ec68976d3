"""The parts of a Markdown page that are the same in its translation."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FENCE = re.compile(r"^( *)```[^\n]*\n(.*?)^\1```$", re.M | re.S)


@dataclass(frozen=True)
class Page:
    """The parts of a page.

    Attributes
    ----------
    headings : list of int
        The levels, in order.
    blocks : list of str
        The code blocks, in order.
    tables : list of list of list of str
        For each table, row and cell, the sorted code spans.
    links : list of str
        The targets of links and pictures, sorted.
    commands : list of str
        The lines of code blocks without comments; continued lines are joined.
    """

    headings: list[int]
    blocks: list[str]
    tables: list[list[list[str]]]
    links: list[str]
    commands: list[str]


def parse(text: str) -> Page:
    """Split a page into its parts."""
    blocks = [block for _, block in _FENCE.findall(text)]
    prose = _FENCE.sub("", text)
    tables: list[list[list[str]]] = []
    previous = ""
    for line in prose.splitlines():
        if line.startswith("|"):
            if not previous.startswith("|"):
                tables.append([])
            cells = line.strip("|").split("|")
            tables[-1].append([" ".join(sorted(re.findall(r"`([^`]+)`", cell))) for cell in cells])
        previous = line
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return Page(
        headings=[len(marks) for marks in re.findall(r"^(#+) ", prose, re.M)],
        blocks=blocks,
        tables=tables,
        links=sorted(re.findall(r"\]\(([^)\s]+)\)", prose)),
        commands=[command for line in lines if (command := re.sub(r"\s#.*", "", line).strip())],
    )
