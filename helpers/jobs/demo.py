"""See the loop close on this machine: ``python -m helpers.jobs.demo``.

A champion scores ten simulated days of real rows. From the fourth day on they come from another hospital, which measures in
other units. The job ``monitor`` finds it, waits for labels, and retrains; the gate decides, and scoring goes on with the new
champion. At the end there is a page that says what happened; see `helpers.jobs.demo_page`.

Everything is in a folder of its own: ``demo`` in the one that `helpers.runtime.local_dir` returns.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import monitoring, parameters, runtime, scoring, storage, tracking
from helpers.data import qualified_name, tables
from helpers.data.source import sample_name, sample_rows
from helpers.jobs.bundle import Bundle
from helpers.jobs.demo_page import PAGE, Look, Outcome
from helpers.jobs.results import SUCCEEDED, SUCCESS, TaskResult
from helpers.jobs.run import run_job

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

_NOTE = "about_this_folder.txt"
_ARRIVALS, _LABELS, _DAY = "arrivals", "labels", "day"
_HOSPITAL, _KNOWN, _NEW = "hospital", ("A", "B"), "C"
# Of the new hospital's blood pressure: 1 mmHg is 133.3 Pa. Of its triglycerides: 1 mmol/L is 88.57 mg/dL.
_KPA_PER_MMHG, _MG_PER_MMOL = 0.1333, 88.57
# They have their defaults, whatever the environment sets for the variables of databricks.yml.
_DEFAULTS = ("experiment_name", "catalog", "schema", "model_name", "id_column", "label_column")


class DemoFailed(RuntimeError):
    """A part of the demo did not work, so there is nothing to tell."""


@dataclass(frozen=True)
class Story:
    """What is simulated. The seed is fixed, so that each run tells the same story.

    Attributes
    ----------
    days : int
        How many days are scored.
    drifts_on : int
        The first day with rows of the new hospital.
    label_delay : int
        How many days after a row its label arrives.
    monitored_on : tuple of int
        The days on which the job ``monitor`` runs, after scoring. When all labels have arrived, it runs once more.
    rows_per_day : int
        Each row arrives once. Those that no day needs are the history that version 1 is trained on.
    seed : int
        Of the order of the rows.
    """

    days: int = 10
    drifts_on: int = 4
    label_delay: int = 2
    monitored_on: tuple[int, ...] = (5, 8)
    rows_per_day: int = 30
    seed: int = 6

    def __str__(self) -> str:
        return (
            f"Each day brings {self.rows_per_day} rows of {sample_name()}, which version 1 has not learned from.\n"
            f"From {self.day(self.drifts_on)} on, all rows come from hospital {_NEW}, which version 1 does not know. Its "
            "blood pressure is in kPa, and its\ntriglycerides in mmol/L, so that its patients all seem to do well. "
            f"Labels arrive {self.label_delay} days late."
        )

    def day(self, number: int) -> str:
        """Return the name of a day, which is also the id of its batch."""
        return f"day-{number:02}"

    def divide(self, sample: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Divide the sample into the history and the rows that arrive, which have the name of their day.

        Parameters
        ----------
        sample : pandas.DataFrame
        """
        import numpy as np

        random = np.random.default_rng(self.seed)
        order = random.permutation(len(sample))
        sample = sample.assign(**{_HOSPITAL: random.choice(_KNOWN, len(sample))})
        first = len(sample) - self.days * self.rows_per_day
        arriving = sample.iloc[order[first:]].reset_index(drop=True)
        arriving[_DAY] = np.repeat([self.day(number) for number in range(1, self.days + 1)], self.rows_per_day)
        drifted = arriving[_DAY] >= self.day(self.drifts_on)
        arriving.loc[drifted, _HOSPITAL] = _NEW
        arriving.loc[drifted, "blood_pressure"] *= _KPA_PER_MMHG
        arriving.loc[drifted, "log_triglycerides"] -= np.log(_MG_PER_MMOL)
        return sample.iloc[order[:first]], arriving


@dataclass
class Demo:
    """A run of a story.

    Attributes
    ----------
    story : Story
    folder : pathlib.Path
        The folder of all local state during the run.
    looks : list of helpers.jobs.demo_page.Look
        What the job ``monitor`` said so far.
    """

    story: Story
    folder: Path
    looks: list[Look] = field(default_factory=list)

    def run(self) -> Outcome:
        """Run the story.

        Raises
        ------
        DemoFailed
            If a job does not succeed.
        """
        story = self.story
        p = self._p
        history, arriving = story.divide(sample_rows(self.spark).toPandas())
        source = str(self.folder / "history")
        self.spark.createDataFrame(history).write.parquet(source)
        self._run_job("train_and_register", "day-00", source_path=source, scoring_table="scoring")
        self._replace(_ARRIVALS, arriving.drop(columns=p.label_column))
        for number in range(1, story.days):
            self._score(number)
            if number in story.monitored_on:
                self._monitor(number, arriving)
        last = story.day(story.days)
        self._run_job("batch_score", last, batch_id=last, scoring_filter=f"{_DAY} = '{last}'")
        self._monitor(story.days + story.label_delay, arriving)
        champion = tracking.resolve_version(self._session, p.model_name, "")
        return Outcome(
            story=str(story),
            drifts_on=story.day(story.drifts_on),
            judged=self._judged(),
            looks=self.looks,
            versions=tracking.versions(self._session, p.model_name),
            champion=int(champion.version),
        )

    @cached_property
    def spark(self) -> SparkSession:
        """The Spark session of this process. Each notebook of a job has its own."""
        return runtime.spark()

    @cached_property
    def _p(self) -> parameters.Monitor:
        return self._parameters(parameters.Monitor)

    @cached_property
    def _session(self) -> tracking.Session:
        return tracking.configure(self._p)

    def _values(self, changes: dict[str, str]) -> dict[str, str]:
        return {
            **{name: parameters.default_text(name) for name in _DEFAULTS},
            "tracking_mode": "local",
            "model_registry": "local",
            "scoring_table": _ARRIVALS,
            "labels_table": _LABELS,
            "window": "batch",
            "fewest_rows": str(self.story.rows_per_day),
            "on_drift": "retrain",
            **changes,
        }

    def _parameters(self, group: type, **changes: str) -> Any:
        values, declared = self._values(changes), parameters.fields_of(group)
        return parameters.parse(group, {name: values[name] for name in values.keys() & declared.keys()})

    def _run_job(self, key: str, day: str, **changes: str) -> dict[str, TaskResult]:
        """Run a job of ``databricks.yml``; return the results of its tasks by key."""
        job, values = Bundle(runtime.BUNDLE_ROOT).job(key), self._values(changes)
        output = self.folder / "jobs" / f"{day}-{key}"
        output.mkdir(parents=True)
        given = {name: values[name] for name in values.keys() & job.parameters.keys()}
        result = run_job(job, given, output, lambda _: None)
        if result.state not in SUCCEEDED:
            raise DemoFailed(f"{day}: the job {key} ended with {result.state}: {result.error}. See {output}")
        return result.tasks

    def _replace(self, table: str, rows: pd.DataFrame) -> None:
        tables.create_schema(self.spark, self._p.catalog, self._p.schema)
        name = qualified_name(table, self._p.catalog, self._p.schema)
        storage.replace_table(self.spark.createDataFrame(rows), name)

    def _score(self, number: int) -> None:
        """Score a day with the calls of 04_batch_score, without a kernel and a Spark session of its own."""
        day = self.story.day(number)
        p = self._parameters(parameters.Score, batch_id=day, scoring_filter=f"{_DAY} = '{day}'")
        version = tracking.resolve_version(self._session, p.model_name, p.model_version)
        scorer = scoring.Scorer.of(self._session, version, p)
        rows = scoring.rows_to_score(self.spark, scorer.scoring_table, p.scoring_filter, p.id_column)
        print(f"{scorer.score_batch(rows, p.batch_id)} (version {version.version})", flush=True)

    def _monitor(self, number: int, arriving: pd.DataFrame) -> None:
        """Run the job ``monitor`` with the labels that have arrived by then."""
        day, p = self.story.day(number), self._p
        labelled = arriving[arriving[_DAY] <= self.story.day(number - self.story.label_delay)]
        self._replace(_LABELS, labelled[[p.id_column, p.label_column]])
        tasks = self._run_job("monitor", day)
        judged = self._judged()
        version = int(judged.loc[judged["window_start"].idxmax(), "model_version"])
        alerts = monitoring.find_alerts(judged, p, version)
        self.looks.append(Look(day, alerts, tasks["monitor"], tasks["retrain"].state == SUCCESS))

    def _judged(self) -> pd.DataFrame:
        table = monitoring.monitoring_table(self._p)
        storage.refresh(self.spark, table)
        return monitoring.judge(monitoring.read(self.spark, table, self._p.window), self._p)


def main(arguments: list[str] | None = None) -> int:
    """Run the demo from the beginning, in a folder of its own.

    Parameters
    ----------
    arguments : list of str, optional
        Of the command line. There are none but ``--help``.

    Returns
    -------
    int
        Exit status: 0; 1 if the loop did not close; 2 if nothing was started.
    """
    argparse.ArgumentParser(
        prog="python -m helpers.jobs.demo", description="See drift found, a model retrained, and the champion replaced."
    ).parse_args(arguments)
    try:
        folder = _new_folder(runtime.make_local_dir() / "demo")
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    with runtime.environment_variable("BUNDLE_LOCAL_DIR", str(folder)):
        return tell(Story(), folder)


def tell(story: Story, folder: Path) -> int:
    """Run a story, print the page, and keep it in the folder.

    Parameters
    ----------
    story : Story
    folder : pathlib.Path
        The folder of all local state, in which nothing has run yet.

    Returns
    -------
    int
        Exit status: 0, or 1 if the loop did not close.
    """
    print(story)
    try:
        outcome = Demo(story, folder).run()
    except DemoFailed as error:
        print(f"\nThe loop did not close: {error}")
        return 1
    page = outcome.page(folder)
    (folder / PAGE).write_text(page, encoding="utf-8")
    print(f"\n{page}", end="")
    return 1 if outcome.problems() else 0


def _new_folder(folder: Path) -> Path:
    """Create the folder of the demo, and delete the one of an earlier run.

    Raises
    ------
    OSError
        If a folder of that name has no note that the demo made it, or cannot be deleted or written.
    """
    note = folder / _NOTE
    if folder.exists():
        if not note.exists():
            raise FileExistsError(f"{folder} was not made by the demo, which would delete it. Move it to another place")
        print(f"The demo begins again, without what it left in {folder}")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    note.write_text("`make demo` made this folder. It deletes it when it runs again.\n")
    return folder


if __name__ == "__main__":
    sys.exit(main())
