"""Lists in pages, whose ``nextLink`` a client has to follow."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from flask import Response, request

from tests.stand_ins.azureml.errors import json_answer


def page(url: str, resources: list[dict[str, Any]], size: int = 1) -> Response:
    """Return the page of a list that the current request asks for, to a server's URL."""
    skipped = int(request.args.get("$skip", 0))
    content: dict[str, Any] = {"value": resources[skipped : skipped + size]}
    if skipped + size < len(resources):
        query = urlencode({**request.args, "$skip": skipped + size})
        content["nextLink"] = f"{url}{request.path}?{query}"
    return json_answer(content)
