"""The page at the end of `helpers.jobs.demo`. What it says is from the table of measures, the registry and the jobs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import tracking

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion

    from helpers.jobs.results import TaskResult
    from helpers.monitoring import Alert

PAGE = "page.txt"
_WIDTH = 118
_ROW = "{:6}  {:>4}  {:>9}  {:>12}  {:>14}  {}"


@dataclass(frozen=True)
class Look:
    """What a run of the job ``monitor`` said.

    Attributes
    ----------
    day : str
    alerts : list of helpers.monitoring.Alert
    task : helpers.jobs.results.TaskResult
        Of notebook 06.
    retrained : bool
        Whether the job retrained.
    """

    day: str
    alerts: list[Alert]
    task: TaskResult
    retrained: bool

    def __str__(self) -> str:
        if not self.alerts:
            return "no alert"
        return f"{len(self.alerts)} alerts, {'retrains' if self.retrained else 'does not retrain'}"


@dataclass(frozen=True)
class Outcome:
    """What a story has led to.

    Attributes
    ----------
    story : str
        What was simulated.
    drifts_on : str
        The first day with drift.
    judged : pandas.DataFrame
        The measures of all days, from `helpers.monitoring.judge`.
    looks : list of Look
        In the order of the runs. At the last one, all labels had arrived.
    versions : list of mlflow.entities.model_registry.ModelVersion
        Oldest first.
    champion : int
        Its version.
    """

    story: str
    drifts_on: str
    judged: pd.DataFrame
    looks: Sequence[Look]
    versions: Sequence[ModelVersion]
    champion: int

    @property
    def _quality(self) -> pd.DataFrame:
        return self.judged[self.judged["measure"] == "quality"]

    @property
    def _metric(self) -> str:
        return self._quality["detail"].iloc[0]

    def qualities(self) -> tuple[float, float, float]:
        """Return the quality of version 1 before the drift, of version 1 since then, and of all later versions.

        Each is the mean over all rows of these days. NaN where there are none.
        """
        rows = self._quality
        first, drifted = rows["model_version"] == 1, rows["window"] >= self.drifts_on
        before, since, after = (rows[which] for which in (first & ~drifted, first & drifted, ~first))
        return _mean(before), _mean(since), _mean(after)

    def problems(self) -> list[str]:
        """Return where the story did not go as it should; an empty list if the loop closed."""
        alert = next((look for look in self.looks if look.alerts), None)
        _, since, after = self.qualities()
        expected = {
            "monitoring did not find the drift": alert is not None,
            f"there was an alert before {self.drifts_on}": alert is None or alert.day >= self.drifts_on,
            "the model was not retrained": any(look.retrained for look in self.looks),
            "the gate refused the new version": self.champion > 1,
            "the new champion is not better than the old one was": self.champion == 1 or after > since,
        }
        return [problem for problem, is_well in expected.items() if not is_well]

    def page(self, folder: Path) -> str:
        """Return the page.

        Parameters
        ----------
        folder : pathlib.Path
            Where the demo ran.
        """
        parts = [[self.story], self._days(), self._alerts(), self._versions(), self._end(), self._places(folder)]
        return "\n\n".join("\n".join(part) for part in parts) + "\n"

    def _days(self) -> Iterator[str]:
        yield _ROW.format("", "rows", "champion", "features off", self._metric, "the job monitor")
        said = {look.day: str(look) for look in self.looks}
        days = self.judged.sort_values("window_start").groupby(["window", "model_version"], sort=False)
        for (day, version), measures in days:
            off = measures[measures["breached"].eq(True) & (measures["feature"] != "")]["feature"].nunique()
            values = measures[measures["feature"] == ""].set_index("measure")["value"]
            quality = f"{values['quality']:.3f}" if "quality" in values else ""
            line = _ROW.format(day, f"{values['rows']:.0f}", f"version {version}", off, quality, said.pop(day, ""))
            yield line.rstrip()
        for day, text in said.items():
            yield _ROW.format(day, "", "", "", "", text)

    def _alerts(self) -> Iterator[str]:
        described = False
        for look in self.looks:
            if look.alerts:
                reason = look.task.task_values["retraining_reason"]
                yield from _wrapped(f"{look.day}  {'retrains' if look.retrained else 'does not retrain'}: {reason}")
                if not described:
                    for alert in _examples(look.alerts):
                        yield from _wrapped(f"        such as {alert}")
                described = True

    def _versions(self) -> Iterator[str]:
        for version in self.versions[1:]:
            tags = version.tags
            yield f"Version {version.version} at the gate, with {tags['held_out_rows']} {tags['judged_on']}:"
            for name, value in sorted(tags.items()):
                if name.startswith(tracking.CHECK_TAG):
                    yield f"  {name.removeprefix(tracking.CHECK_TAG):9}  {value}"

    def _end(self) -> Iterator[str]:
        before, since, after = self.qualities()
        yield f"{self._metric}: {before:.3f} before {self.drifts_on}, since then {since:.3f} with version 1 and {after:.3f} with its successor"
        problems = self.problems()
        if problems:
            yield f"The loop did not close: {'; '.join(problems)}."
        else:
            yield f"The loop closed: version {self.champion} is the champion."

    def _places(self, folder: Path) -> Iterator[str]:
        yield "Pictures and tables:"
        yield from (f"  {look.day}  {look.task.html}" for look in self.looks if look.alerts)
        yield f"Runs and versions:  BUNDLE_LOCAL_DIR={folder} make ui"
        yield f"This page:          {folder / PAGE}"


def _mean(quality: pd.DataFrame) -> float:
    return float((quality["value"] * quality["rows"]).sum() / quality["rows"].sum()) if len(quality) else float("nan")


def _examples(alerts: Sequence[Alert]) -> list[Alert]:
    """Return the alert of the number whose distribution has shifted most, and one of unseen categories."""
    unseen = [alert for alert in alerts if alert.measure == "unseen_share"]
    texts = {alert.feature for alert in unseen}
    shifted = [alert for alert in alerts if alert.measure == "psi" and alert.feature not in texts]
    return [max(own, key=lambda alert: alert.value) for own in (shifted, unseen) if own]


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, _WIDTH, subsequent_indent=" " * 8)
