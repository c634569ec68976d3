"""What the job runner prints: progress by task and cell, and where the results are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.jobs import results
from helpers.tracking.servers.local import UI

if TYPE_CHECKING:
    from helpers.jobs.results import Summary, TaskResult

_WORDS = {
    results.SUCCESS: "done",
    results.SUCCESS_WITH_FAILURES: "done, although tasks failed",
    results.FAILED: "FAILED",
    results.TIMEDOUT: "TIMED OUT",
    results.CANCELED: "canceled",
    results.UPSTREAM_FAILED: "not run, because of an earlier failure",
    results.EXCLUDED: "excluded",
    results.NOT_RUN: "not run",
}


class CellProgress:
    """Shows which cell of a notebook is running: with a bar on a terminal, else with one line per cell.

    Parameters
    ----------
    task : str
        Name to print.
    notebook : nbformat.NotebookNode

    Attributes
    ----------
    where : str
        The cell that started last, for messages.
    """

    def __init__(self, task: str, notebook: Any) -> None:
        from tqdm import tqdm

        self._task = task
        self._headings = _headings(notebook)
        self._number = 0
        self._bar = tqdm(
            total=len(self._headings),
            desc=f"  {task}",
            unit="cell",
            leave=False,
            file=sys.stdout,
            disable=not sys.stdout.isatty(),
        )
        self.where = "before the first cell"

    def __enter__(self) -> CellProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def on_cell_start(self, cell: Any, cell_index: int) -> None:
        """Count a cell and print its heading, unless it is a skipped cell or a text cell."""
        if cell_index not in self._headings:
            return
        heading = self._headings[cell_index]
        self._bar.update(int(self._number > 0))
        self._number += 1
        self.where = f"cell {self._number} ({heading})"
        self._bar.set_postfix_str(heading)
        if self._bar.disable:
            print(f"  {self._task}: cell {self._number}/{len(self._headings)} {heading}", flush=True)


def _headings(notebook: Any) -> dict[int, str]:
    """Return, for each code cell that will run, the heading above it."""
    heading, headings = "start", {}
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            titles = [line.lstrip("# ") for line in cell.source.splitlines() if line.startswith("#")]
            heading = titles[-1] if titles else heading
        elif cell.cell_type == "code" and "skip-execution" not in cell.metadata.get("tags", []) and cell.source.strip():
            headings[index] = heading
    return headings


def print_task(key: str, result: TaskResult) -> None:
    """Print how a task ended."""
    attempts = f", {result.attempts} attempts" if result.attempts > 1 else ""
    outcome = f" ({result.outcome})" if result.outcome else ""
    duration = f" after {result.seconds:.0f} s" if result.attempts else ""
    print(f"  {key}: {_WORDS[result.state]}{outcome}{duration}{attempts}", flush=True)
    if result.error:
        print(f"    {result.error}", flush=True)


def print_retry(key: str, error: str | None, attempt: int, retries: int) -> None:
    """Print that a task will be tried again."""
    print(f"  {key}: attempt {attempt} failed, trying again ({attempt} of {retries})\n    {error}", flush=True)


def print_summary(summary: Summary, output: Path, rows: int = 5) -> None:
    """Print where the results are, and a few scored rows.

    Parameters
    ----------
    summary : helpers.jobs.results.Summary
    output : pathlib.Path
        Folder of the executed notebooks.
    rows : int, default 5
        Scored rows to print.
    """
    print()
    for key, job in summary.jobs.items():
        print(f"{key}: {_WORDS[job.state]}" + (f" after {job.seconds:.0f} s" if job.run_id else ""))
    print(f"\nExecuted notebooks: {output}")
    tasks = list(summary.all_tasks())
    for task in tasks:
        if task.html:
            print(f"  {task.html}")
    values = {key: value for task in tasks for key, value in task.task_values.items()}
    # A task that uses a model hands on its version, too; after a gate that failed that is another one.
    registrations = [task.task_values for task in tasks if "not_promoted_because" in task.task_values]
    registered = registrations[-1] if registrations else values
    if "model_version" in registered:
        version = f"{registered['model_name']} version {registered['model_version']}"
        print(f"Registered model:   {version} in {summary.model_registry}")
    if "run_page" in values:
        with_the_ui = ", after `make ui`" if values["run_page"].startswith(UI) else ""
        print(f"Run in MLflow:      {values['run_page']}{with_the_ui}")
    if "endpoint_name" in values:
        print(f"Endpoint:           {values['endpoint_name']} serves {values['deployment']} at {values['scoring_uri']}")
    if "prediction_table" in values:
        _print_predictions(values, Path(summary.spark_warehouse), rows)
    if values.get("shadow_model_version"):
        outcome = values["shadow_table"] or f"could not score: {values['shadow_problem']}"
        print(f"Challenger:         version {values['shadow_model_version']} in the shadow: {outcome}")
    for alert in values.get("alerts", []):
        print(f"Alert:              {alert}")
    if values.get("alerts"):
        print(f"Retraining:         {values['retraining_reason']}")
    print(f"Summary:            {output / 'summary.json'}")
    approved = [_version(task.task_values) for task in tasks if task.task_values.get("approved")]
    for result in registrations:
        if result["not_promoted_because"] and _version(result) not in approved:
            print(f"Not promoted:       version {result['model_version']}, because {result['not_promoted_because']}")


def _version(values: dict[str, Any]) -> tuple[str, str]:
    return values["model_name"], values["model_version"]


def _print_predictions(values: dict[str, Any], warehouse: Path, rows: int) -> None:
    import pyarrow as pa
    import pyarrow.dataset as ds

    from helpers.laptop.catalog import rows_folder
    from helpers.scoring.output_tables import BATCH_COLUMN, RESULT_COLUMNS

    folder = rows_folder(warehouse, values["prediction_table"])
    batches = values["batch_id"]
    print(
        f"Predictions:        {values['prediction_table']}, batch {batches or '–'}: {values['rows_scored']} rows in {folder}"
    )
    if not folder.is_dir() or not batches:
        return
    partitions = ds.partitioning(pa.schema([(BATCH_COLUMN, pa.string())]), flavor="hive")
    table = ds.dataset(folder, format="parquet", partitioning=partitions)
    of_batches = ds.field(BATCH_COLUMN).isin(batches.split(", "))
    # The id is first. The inputs of the model would make lines of hundreds of characters.
    columns = [table.schema.names[0], *RESULT_COLUMNS, BATCH_COLUMN]
    print(table.head(rows, columns=columns, filter=of_batches).to_pandas().to_string(index=False))
