"""What a Markdown page is made of, as far as two languages have it in common."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FENCE = re.compile(r"^( *)```[^\n]*\n(.*?)^\1```$", re.M | re.S)


@dataclass(frozen=True)
class Page:
    """A page, taken apart.

    Attributes
    ----------
    headings : list of int
        Levels, in their order.
    blocks : list of str
        Code blocks, in their order.
    tables : list of list of list of str
        Code spans of each cell, sorted, for each row of each table.
    links : list of str
        Targets of links and pictures, sorted.
    commands : list of str
        Lines of code blocks without their comment, joined where they were continued.
    """

    headings: list[int]
    blocks: list[str]
    tables: list[list[list[str]]]
    links: list[str]
    commands: list[str]


def parse(text: str) -> Page:
    """Take a page apart."""
    blocks = [block for _, block in _FENCE.findall(text)]
    prose = _FENCE.sub("", text)
    tables: list[list[list[str]]] = []
    before = ""
    for line in prose.splitlines():
        if line.startswith("|"):
            if not before.startswith("|"):
                tables.append([])
            cells = line.strip("|").split("|")
            tables[-1].append([" ".join(sorted(re.findall(r"`([^`]+)`", cell))) for cell in cells])
        before = line
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return Page(
        headings=[len(marks) for marks in re.findall(r"^(#+) ", prose, re.M)],
        blocks=blocks,
        tables=tables,
        links=sorted(re.findall(r"\]\(([^)\s]+)\)", prose)),
        commands=[command for line in lines if (command := re.sub(r"\s#.*", "", line).strip())],
    )
