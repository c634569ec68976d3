"""What the Japanese pages of the site need that Sphinx does not do."""

from __future__ import annotations

import re

# Punctuation, kana, ideographs and full-width forms: https://www.unicode.org/reports/tr11/
_WIDE = re.compile("[\u3001-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff01-\uffee]")
_PUNCTUATION = re.compile("[\u3001-\u303f\uff01-\uff0f\uff1a-\uff20]")


def join_lines(texts: list[str]) -> list[str]:
    """Return the texts of a paragraph without the line breaks that must not become spaces.

    A browser shows a line break as a space. Japanese has none between its characters, nor beside its punctuation.
    Between Japanese and Latin letters or code, this site has one.

    Parameters
    ----------
    texts : list of str
        What follows one another in the paragraph, such as text, code, and text again.
    """
    whole, start, joined = "".join(texts), 0, []

    def replaced(match: re.Match[str]) -> str:
        before, after = whole[: start + match.start()].rstrip()[-1:], whole[start + match.end() :].lstrip()[:1]
        between = _WIDE.match(before) and _WIDE.match(after)
        return "" if between or _PUNCTUATION.match(before) or _PUNCTUATION.match(after) else match[0]

    for text in texts:
        joined.append(re.sub(r" *\n *", replaced, text))
        start += len(text)
    return joined
