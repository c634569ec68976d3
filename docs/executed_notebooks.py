"""Run the jobs here, from a clean state, and keep their notebooks as pages of the site.

python -m docs.executed_notebooks
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from helpers.jobs.__main__ import main as run_jobs
from helpers.jobs.bundle import Bundle
from helpers.jobs.task_types import NotebookTask
from helpers.serving.local_endpoint import LocalEndpoint

ROOT = Path(__file__).resolve().parent.parent
LOCAL = ROOT / ".local" / "docs"
NOTEBOOKS = ROOT / "notebooks"
PAGES = ROOT / "docs" / "notebooks"
# In the order of the notebooks' numbers; clean_up lists what the others made and, without dry_run=false, keeps it.
# The sample's scoring table has the rows of its training table, whose labels are those that have arrived.
JOBS = ("train_and_register", "batch_score", "deploy_endpoint", "monitor", "clean_up", "--param=labels_table=training")
# After that: a second model, with tuned hyperparameters, so that there is something to approve.
APPROVAL = (
    "train_and_register",
    "approve",
    "--param=promote=challenger",
    "--param=decision=approve",
    "--param=reason=better on the same rows",
    "--param=tuning_trials=20",
    "--param=tuning_parallel=1",
)
# Finally that model takes over from the first one, which the endpoint serves since the first run.
ROLLOUT = ("deploy_endpoint", "--param=mirror_percent=50", "--param=health_requests=100")


def main() -> int:
    """Run the jobs and write the pages.

    Returns
    -------
    int
        Exit status: that of the job runner, and no page is replaced unless all jobs succeeded.
    """
    # Versions start at 1 and nothing is found unchanged: the pages show what a newcomer's first run shows.
    _end_endpoints()
    shutil.rmtree(LOCAL, ignore_errors=True)
    os.environ["BUNDLE_LOCAL_DIR"] = str(LOCAL)
    status = 0
    try:
        for name, jobs in (("first", JOBS), ("approval", APPROVAL), ("rollout", ROLLOUT)):
            status = run_jobs([*jobs, "--output", str(LOCAL / "jobs" / name)])
            if status:
                break
    finally:
        _end_endpoints()
    if status == 0:
        shutil.rmtree(PAGES, ignore_errors=True)
        PAGES.mkdir()
        shutil.copytree(NOTEBOOKS / "images", PAGES / "images")
        # Later ones replace those of the same notebooks: the first run's show what a newcomer sees, and only the last run
        # has an old version to roll out from.
        for name in ("approval", "first", "rollout"):
            _write_pages(json.loads((LOCAL / "jobs" / name / "summary.json").read_text(encoding="utf-8")))
    return status


def _end_endpoints() -> None:
    """End the endpoints of this run or of one that was killed: they outlive the notebooks that made them."""
    for endpoint in LocalEndpoint.all(LOCAL / "endpoints"):
        endpoint.delete()


def _write_pages(summary: dict[str, Any]) -> None:
    bundle = Bundle(ROOT)
    for key, result in summary["jobs"].items():
        actions = {task.key: task.action for task in bundle.job(key).tasks}
        names = {task: action.path.name for task, action in actions.items() if isinstance(action, NotebookTask)}
        for task, done in result["tasks"].items():
            if done["executed_notebook"]:
                text = Path(done["executed_notebook"]).read_text(encoding="utf-8")
                # Where this clone is means nothing to a reader, and would differ in each build.
                (PAGES / names[task]).write_text(text.replace(str(ROOT), "…"), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
