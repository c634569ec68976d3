"""The translations of the site: docs/locales/ja, as sphinx-intl writes them."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

_ENTRY = re.compile(r'((?:^#.*\n)*)^msgid ((?:".*"\n)+)msgstr ((?:".*"(?:\n|\Z))+)', re.M)
_CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")


class Entry(NamedTuple):
    """A text and its translation.

    Attributes
    ----------
    fuzzy : bool
        The English text has changed since it was translated: the site shows it in English.
    english : str
    translated : str
        Empty if the text is not translated.
    """

    fuzzy: bool
    english: str
    translated: str


def read(path: Path) -> list[Entry]:
    """Return the entries of a catalogue, the one without a text, which is about the file, left out."""
    text = path.read_text(encoding="utf-8")
    assert len(re.findall("^msgid ", text, re.M)) == len(_ENTRY.findall(text)), (
        f"{path} is not as sphinx-intl writes it"
    )
    entries = [Entry("#, fuzzy" in flags, *map(_unquoted, texts)) for flags, *texts in _ENTRY.findall(text)]
    return [entry for entry in entries if entry.english]


def _unquoted(lines: str) -> str:
    # What is escaped in a catalogue is in Python's strings, too.
    return "".join(ast.literal_eval(line) for line in lines.splitlines())


def code(text: str) -> list[str]:
    """Return the different code spans of a text."""
    return sorted({span for _, span in _CODE.findall(text)})


def links(text: str) -> list[str]:
    """Return the targets of a text's links and pictures."""
    return sorted(re.findall(r"\]\(([^)\s]+)\)|<(https?://[^>]+)>", _CODE.sub("", text)))
