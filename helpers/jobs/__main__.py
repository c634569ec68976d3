"""Run jobs of ``databricks.yml`` on this machine.

    python -m helpers.jobs JOB [JOB …] [--target dev] [--param NAME=VALUE …] [--output DIR]

Tasks run one after the other, each notebook in its own kernel. Clusters, schedules and
notifications have no meaning here. The executed notebooks, with an HTML copy of each, and
``summary.json`` are in the output folder.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

from helpers import parameters, runtime, tracking
from helpers.command_line import assignment
from helpers.jobs import report
from helpers.jobs.bundle import FILE, Bundle, BundleError
from helpers.jobs.definitions import Job
from helpers.jobs.results import RUNNING, SUCCEEDED, JobResult, Summary
from helpers.jobs.run import run_jobs
from helpers.jobs.task_types import RunJobTask
from helpers.laptop import jvm
from helpers.laptop.dbutils import PARAMETER_PREFIX


def main(arguments: list[str] | None = None) -> int:
    """Run the jobs that the command line names.

    Returns
    -------
    int
        Exit status: 0, 1 if a job did not succeed, 2 if nothing was started.
    """
    options = _parse_arguments(arguments)
    try:
        bundle = Bundle(_bundle_root(), options.target, dict(options.var))
        jobs = [bundle.job(key) for key in dict.fromkeys(options.jobs)]
        overrides = _parameter_overrides(jobs, dict(options.param))
        check_parameters(jobs, overrides)
        local_dir = runtime.make_local_dir()
        started = datetime.now(timezone.utc)
        output = options.output or new_folder(local_dir / "jobs", started.strftime("%Y%m%d-%H%M%S"))
        output.mkdir(parents=True, exist_ok=True)
    except (BundleError, parameters.ParameterError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2

    summary = Summary(
        bundle=bundle.name,
        target=bundle.target,
        state=RUNNING,
        started=started.isoformat(timespec="seconds"),
        **_servers(jobs, overrides),
        spark_warehouse=str(runtime.local_dir() / "warehouse"),
        jobs={job.key: JobResult() for job in jobs},
    )
    try:
        run_jobs(jobs, overrides, output, summary)
    except OSError as error:
        print(
            f"{output} cannot be written: {error}. Make room, or name another folder: --output for the executed notebooks, "
            "the environment variable BUNDLE_LOCAL_DIR for all local state. Then run the jobs again.",
            file=sys.stderr,
        )
        return 1
    finally:
        jvm.stop()
    report.print_summary(summary, output)
    return 0 if summary.state in SUCCEEDED else 1


def check_parameters(jobs: list[Job], overrides: dict[str, str]) -> None:
    """Refuse parameters that no job has, and values that the notebooks would refuse.

    Raises
    ------
    helpers.parameters.ParameterError
        For the first such parameter; nothing has been started then.
    """
    declared = {name for job in jobs for name in job.parameters}
    for name in overrides.keys() - declared:
        parameters.require_declared([name], "--param")
        keys = " and ".join(job.key for job in jobs)
        raise parameters.ParameterError(
            name,
            overrides[name],
            f"{keys} has no such parameter; there are: {', '.join(sorted(declared))}",
            "--param",
        )
    for job in jobs:
        _check_values(job, overrides, "--param")


def _check_values(job: Job, given: Mapping[str, str], source: str) -> None:
    """Refuse values that the notebooks of a job, or of the jobs that it runs, would refuse."""
    values = {
        name: given.get(name, default)
        for name, default in job.parameters.items()
        # The job checks a value that is known only when it runs.
        if name in parameters.FIELDS and "{{" not in given.get(name, default)
    }
    parameters.check(values, {name: source if name in given else f"{FILE}, job {job.key}" for name in values})
    for task in job.tasks:
        if isinstance(task.action, RunJobTask):
            _check_values(task.action.job, task.action.job_parameters, f"{FILE}, job {job.key}, task {task.key}")


def new_folder(parent: Path, name: str) -> Path:
    """Create a folder of that name, with a number after it if the name is taken, and return it."""
    folder, number = parent / name, 1
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
            folder = parent / f"{name}-{number}"


def _parameter_overrides(jobs: list[Job], requested: dict[str, str]) -> dict[str, str]:
    """Return the job parameters that the environment or the command line sets; the command line wins."""
    declared = {name for job in jobs for name in job.parameters}
    environment = {
        key.removeprefix(PARAMETER_PREFIX).lower(): value
        for key, value in os.environ.items()
        if key.startswith(PARAMETER_PREFIX)
    }
    parameters.require_declared(environment, f"environment variable {PARAMETER_PREFIX}…")
    overrides = {name: value for name, value in environment.items() if name in declared} | requested
    for name in parameters.PATHS & overrides.keys():
        # A path is relative to the current folder, but notebooks run in another one.
        path = Path(overrides[name])
        overrides[name] = str(path.resolve()) if path.exists() else overrides[name]
    return overrides


def _servers(jobs: list[Job], overrides: dict[str, str]) -> dict[str, str]:
    values = {name: overrides.get(name, default) for job in jobs for name, default in job.parameters.items()}
    known = {name: text for name, text in values.items() if name in parameters.fields_of(parameters.Tracking)}
    server, registry = tracking.open_servers(parameters.parse(parameters.Tracking, known))
    return {"tracking_server": server.place, "model_registry": registry.place}


def _bundle_root() -> Path:
    """Return the nearest folder with ``databricks.yml``, from the current folder upward."""
    here = Path.cwd()
    return next((folder for folder in [here, *here.parents] if (folder / FILE).is_file()), runtime.BUNDLE_ROOT)


def _parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m helpers.jobs", description="Run jobs of databricks.yml on this machine."
    )
    parser.add_argument("jobs", nargs="+", metavar="JOB", help="keys of the jobs, in the order to run them")
    parser.add_argument("--target", help="target of the bundle (default: the one that databricks.yml marks)")
    parser.add_argument(
        "--param", action="append", default=[], type=assignment, metavar="NAME=VALUE", help="a job parameter"
    )
    parser.add_argument(
        "--var", action="append", default=[], type=assignment, metavar="NAME=VALUE", help="a variable of the bundle"
    )
    parser.add_argument(
        "--output", type=lambda path: Path(path).resolve(), metavar="DIR", help="default: .local/jobs/<time>"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
