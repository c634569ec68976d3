"""A Python process that runs what a test sends it, each piece with an environment of its own.

The clients read the cloud's addresses once a process, and importing them takes longer than most tests.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.azureml.stand_in import ROOT

# Against hanging only: nothing takes as long, on a busy machine neither.
_SECONDS_PER_PIECE = 300
_LOOP = """
import json, os, sys, traceback
sys.path.insert(0, sys.argv[1])
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    piece = json.loads(line)
    os.environ.clear()
    os.environ.update(piece["environment"])
    found = {}
    try:
        exec(piece["code"], {"answer": found.update})
    except Exception as error:
        traceback.print_exc()
        found["error"] = f"{type(error).__name__}: {error}"
    sys.stdout.flush()
    print(json.dumps(found), file=answers, flush=True)
"""


@dataclass(frozen=True)
class PythonProcess:
    """A running process.

    Attributes
    ----------
    environment : dict of str to str
        What each piece gets, unless it says otherwise.
    output_file : pathlib.Path
        Everything printed, warned or logged, and the tracebacks of what failed.
    """

    environment: dict[str, str]
    output_file: Path
    _process: subprocess.Popen[str] = field(repr=False)

    @classmethod
    @contextmanager
    def start(cls, folder: Path, environment: Mapping[str, str]) -> Iterator[PythonProcess]:
        """Start a process whose working directory is ``folder``, and end it after the block."""
        folder.mkdir(parents=True, exist_ok=True)
        output_file = folder / "output.txt"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with output_file.open("wb") as output:
            command = [sys.executable, "-c", _LOOP, str(ROOT)]
            process = subprocess.Popen(
                command, cwd=folder, env=dict(environment), stderr=output, start_new_session=True, **pipes
            )
        with process:
            yield cls(dict(environment), output_file, process)

    def run(self, code: str, **environment: str | None) -> dict[str, Any]:
        """Return what the code gave to ``answer(name=value)``, and ``error`` if it raised one.

        Parameters
        ----------
        code : str
        **environment
            Changes for this piece; None removes a variable.
        """
        changed = self.environment | environment
        piece = {
            "code": textwrap.dedent(code),
            "environment": {name: value for name, value in changed.items() if value is not None},
        }
        # With its forks, which hold its output open.
        timer = threading.Timer(_SECONDS_PER_PIECE, os.killpg, [self._process.pid, signal.SIGKILL])
        timer.start()
        try:
            print(json.dumps(piece), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        finally:
            timer.cancel()
        assert answer, f"no answer within {_SECONDS_PER_PIECE} s: {self.output_file.read_text()[-2000:]}"
        return json.loads(answer)
