"""The other end of `tests.scenarios.process`: reads calls as lines of JSON, and writes what they return."""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Answer calls until standard input ends."""
    # Replaces this file's folder.
    sys.path[0] = str(ROOT)
    # Scenarios print to standard error, so that only answers go to standard output.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        answer = _answer(json.loads(line))
        sys.stdout.flush()
        print(answer, file=answers, flush=True)


def _answer(call: dict) -> str:
    os.environ.clear()
    os.environ.update(call["environment"])
    try:
        function = getattr(importlib.import_module(call["module"]), call["function"])
        return json.dumps({"returned": function(*call["arguments"], **call["named"])})
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        return json.dumps({"raised": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
