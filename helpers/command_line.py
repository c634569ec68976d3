"""Shared code of the commands of this package."""

from __future__ import annotations

import argparse


def assignment(text: str) -> tuple[str, str]:
    """Split ``NAME=VALUE``; for the argument ``type`` of `argparse`.

    Raises
    ------
    argparse.ArgumentTypeError
        If the text has no name or no equals sign.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value
