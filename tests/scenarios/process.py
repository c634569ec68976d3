"""Run a function of a scenario in another Python process, and get what it returns.

    with ScenarioProcess.start(folder, environment) as process:
        answer = process.run(scenario.function, 1, name="value")

Clients of Azure read the cloud's addresses when they are imported, so the process that runs pytest cannot be such a
client. One process serves all tests of a module, because importing MLflow takes longer than most tests.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.scenarios import serve

# A limit for a scenario that hangs. Others take a small part of this time, even on a slow machine.
_SECONDS_PER_CALL = 1800


@dataclass(frozen=True)
class ScenarioProcess:
    """A running process.

    Attributes
    ----------
    environment : dict of str to str
        The environment of each call, unless the call changes it.
    output_file : pathlib.Path
        Everything that was printed, warned or logged, and the traceback of each call that failed.
    """

    environment: dict[str, str]
    output_file: Path
    _process: subprocess.Popen[str] = field(repr=False)

    @classmethod
    @contextmanager
    def start(cls, folder: Path, environment: Mapping[str, str]) -> Iterator[ScenarioProcess]:
        """Start a process whose working directory is ``folder``, and end it after the block."""
        folder.mkdir(parents=True, exist_ok=True)
        output_file = folder / "output.txt"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with output_file.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, serve.__file__],
                cwd=folder, env=dict(environment), stderr=output, start_new_session=True, **pipes,
            )  # fmt: skip
        with process:
            yield cls(dict(environment), output_file, process)

    def run(
        self,
        scenario: Callable[..., Any],
        *arguments: Any,
        environment: Mapping[str, str | None] | None = None,
        **named: Any,
    ) -> Any:
        """Call a function in the process; the test fails if the function raises.

        Parameters
        ----------
        scenario : callable
            A function of a module that the process can import.
        *arguments, **named
            Its arguments, which must be unchanged by JSON.
        environment : dict of str to (str or None), optional
            Changes of the environment for this call; None removes a variable.

        Returns
        -------
        object
            What the function returned, after a round trip through JSON.
        """
        variables = self.environment | dict(environment or {})
        call = {
            "module": scenario.__module__,
            "function": scenario.__name__,
            "arguments": arguments,
            "named": named,
            "environment": {name: value for name, value in variables.items() if value is not None},
        }
        # Kill the whole group, because forks of the process keep its output open.
        timer = threading.Timer(_SECONDS_PER_CALL, os.killpg, [self._process.pid, signal.SIGKILL])
        timer.start()
        try:
            print(json.dumps(call), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        assert line, f"no answer within {_SECONDS_PER_CALL} s, or the process died: {self._last_output()}"
        answer = json.loads(line)
        assert "raised" not in answer, f"{answer['raised']}\n{self._last_output()}"
        return answer["returned"]

    def _last_output(self) -> str:
        return self.output_file.read_text()[-4000:]
