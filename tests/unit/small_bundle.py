"""A small bundle for the job runner, with notebooks that need no Spark and tasks that need no kernel."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml

from helpers.jobs.__main__ import main
from helpers.jobs.definitions import Attempt, Job, TaskType
from helpers.jobs.results import SUCCESS, TIMEDOUT, TaskResult

ROOT = Path(__file__).parents[2]
PRELUDE = f"import os, sys\nsys.path.append({str(ROOT)!r})\nfrom helpers import runtime\n"


class SmallBundle:
    """A bundle whose jobs a test writes and runs.

    Parameters
    ----------
    folder : pathlib.Path
        The current folder of the test.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: dict[str, dict] = {}

    def job(self, key: str, *tasks: dict, **settings: Any) -> None:
        """Add a job."""
        self.jobs[key] = {"tasks": list(tasks)} | settings

    def run(self, *arguments: str) -> tuple[int, dict | None]:
        """Run the command line; return its exit status, and the summary if a job was started."""
        content = {"bundle": {"name": "small"}, "resources": {"jobs": self.jobs}}
        (self.folder / "databricks.yml").write_text(yaml.safe_dump(content))
        output = self.folder / "out"
        status = main([*arguments, "--output", str(output)])
        file = output / "summary.json"
        return status, json.loads(file.read_text()) if file.exists() else None

    def notebook(self, key: str, code: str, *before: str | tuple, parameters: dict | None = None, **settings: Any):
        """Make a notebook task whose notebook has one cell with the code."""
        cells = [nbformat.v4.new_markdown_cell(f"# Step {key}"), nbformat.v4.new_code_cell(PRELUDE + code)]
        skipped = nbformat.v4.new_code_cell("raise SystemError('skipped')", metadata={"tags": ["skip-execution"]})
        nbformat.write(nbformat.v4.new_notebook(cells=[skipped, *cells]), self.folder / f"{key}.ipynb")
        notebook = {"notebook_path": f"{key}.ipynb", "base_parameters": parameters or {}}
        return task(key, *before, notebook_task=notebook, **settings)


def task(key: str, *before: str | tuple[str, str], **settings: Any) -> dict:
    """Return a task that depends on others: on their keys, or on pairs of a key and an outcome."""
    pairs = [item if isinstance(item, tuple) else (item, None) for item in before]
    depends_on = [{"task_key": name} | ({"outcome": outcome} if outcome else {}) for name, outcome in pairs]
    return {"task_key": key, "depends_on": depends_on, **settings}


def condition(key: str, left: str, right: str, *before: str) -> dict:
    """Return a condition task that compares two texts."""
    return task(key, *before, condition_task={"op": "EQUAL_TO", "left": left, "right": right})


def runs(key: str, job: str, *before: str, parameters: dict | None = None, **settings: Any) -> dict:
    """Return a task that runs another job of the bundle."""
    run_job_task = {"job_id": f"${{resources.jobs.{job}.id}}", "job_parameters": parameters or {}}
    return task(key, *before, run_job_task=run_job_task, **settings)


@dataclass(frozen=True)
class ScriptedTask(TaskType):
    """A task type of the tests: each attempt takes some time and ends in the state that the job sets.

    Attributes
    ----------
    states : list of str
        One per attempt.
    seconds : float
        The time that an attempt takes.
    """

    states: list[str]
    seconds: float

    @classmethod
    def from_settings(cls, settings: dict[str, Any], root: Path, job: Callable[[str], Job]) -> ScriptedTask:
        """Read ``states`` and ``seconds``."""
        return cls(settings.get("states", [SUCCESS]), settings.get("seconds", 0))

    def run(self, attempt: Attempt) -> TaskResult:
        """Leave a file, and wait, at most until the time limit."""
        page = attempt.output / f"{attempt.task}.html"
        page.write_text(attempt.label)
        if attempt.seconds is not None and self.seconds > attempt.seconds:
            time.sleep(attempt.seconds)
            return TaskResult(TIMEDOUT, error="too slow")
        time.sleep(self.seconds)
        state = self.states[attempt.number - 1]
        return TaskResult(state, html=str(page), error=None if state == SUCCESS else f"attempt {attempt.number}")


def states(summary: dict, job: str = "j") -> dict[str, str]:
    """Return the state of each task of a job."""
    return {key: result["state"] for key, result in summary["jobs"][job]["tasks"].items()}
