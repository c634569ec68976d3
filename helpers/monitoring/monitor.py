"""Measure the windows of a model's predictions that are new or have changed."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from helpers import scoring, storage
from helpers.data import checks, names, tables
from helpers.data.names import quoted
from helpers.monitoring import measures, quality, table, windows
from helpers.monitoring.baseline import Baseline, load_baseline
from helpers.monitoring.bins import CategoryBins
from helpers.monitoring.collected import read_answered, read_collected, with_columns
from helpers.monitoring.counts import count_by_bin
from helpers.monitoring.measures import Measured
from helpers.monitoring.windows import Window
from helpers.parameters import ParameterError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from helpers.parameters import Monitor

_PREDICTION = "prediction"


@dataclass
class Predictions:
    """A table of predictions, and what is known of its windows.

    Attributes
    ----------
    rows : pyspark.sql.DataFrame
    windows : list of Window
    collected : bool
        Whether the rows are from `helpers.monitoring.collected`.
    """

    rows: DataFrame
    windows: list[Window] = field(default_factory=list)
    collected: bool = False


@dataclass(frozen=True)
class Monitored:
    """What `monitor` has done.

    Attributes
    ----------
    table : str
        Qualified name of the table of measures.
    version : int
        The version that scored last.
    measured : list of Window
        The windows that were measured.
    unchanged : int
        How many windows were measured before and have not changed.
    notes : list of str
        What the reader should know: how inputs were found, which labels do not count, which version has no baseline.
    """

    table: str
    version: int
    measured: list[Window]
    unchanged: int
    notes: list[str]

    def __str__(self) -> str:
        rows = sum(window.rows for window in self.measured)
        line = f"{len(self.measured)} windows with {rows} rows measured, {self.unchanged} have not changed since"
        return "\n".join([line, *self.notes])


def find_windows(spark: SparkSession, p: Monitor, model_name: str) -> list[Window]:
    """Return the windows of a model's predictions, oldest first.

    Raises
    ------
    helpers.parameters.ParameterError
        If there are no predictions of the model.
    """
    found = _found(spark, p, model_name)
    return sorted((window for each in found for window in each.windows), key=lambda window: window.start)


def _tables(p: Monitor) -> tuple[str, ...]:
    name = p.prediction_table or scoring.default_prediction_table(p.model_name)
    predictions = names.qualified_name(name, p.catalog, p.schema)
    return predictions, scoring.shadow_table(predictions)


def _found(spark: SparkSession, p: Monitor, model_name: str) -> list[Predictions]:
    from pyspark.sql import functions as F

    if p.collected_data:
        return [_collected(spark, p, model_name)]
    main, shadow = _tables(p)
    if not tables.exists(spark, main):
        raise ParameterError("prediction_table", main, "there are no predictions yet. Run 04_batch_score first")
    found: list[Predictions] = []
    for name in (main, shadow):
        if not tables.exists(spark, name):
            continue
        rows = spark.table(name)
        checks.find_column(rows, p.id_column, "id_column")
        own = rows.where(F.col("model_name") == model_name)
        each = Predictions(own, _windows_of(spark, p, own, name, model_name))
        if found:
            # A challenger that has become the champion: its predictions in the table of predictions count.
            known = {(window.version, window.key) for window in found[0].windows}
            each.windows[:] = [window for window in each.windows if (window.version, window.key) not in known]
        if each.windows:
            found.append(each)
    if not found:
        others = [row[0] for row in spark.table(main).select("model_name").distinct().limit(5).collect()]
        held = f"it has those of {', '.join(others)}" if others else "it is empty"
        raise ParameterError("prediction_table", main, f"has no predictions of {model_name}; {held}")
    return found


def _collected(spark: SparkSession, p: Monitor, model_name: str) -> Predictions:
    from pyspark.sql import functions as F

    rows = read_collected(spark, p.collected_data, p.id_column, model_name)
    of_answers = read_answered(spark, p.collected_data)
    counts = of_answers.groupBy("model_version", windows.column(p.window).alias("window")).agg(F.count(F.lit(1)))
    answered = {(version, key): count for version, key, count in counts.collect()}
    of_rows = _windows_of(spark, p, rows, None, model_name)
    found = Predictions(
        rows,
        [replace(window, answered=answered.get((window.version, window.key), 0)) for window in of_rows],
        collected=True,
    )
    if not found.windows:
        raise ParameterError(
            "collected_data",
            p.collected_data,
            "has no answered request of a deployment of this bundle. Azure ML writes requests after some minutes",
        )
    return found


def _windows_of(
    spark: SparkSession, p: Monitor, rows: DataFrame, prediction_table: str | None, model_name: str
) -> list[Window]:
    from pyspark.sql import functions as F

    window = windows.column(p.window).alias("window")
    seconds = [F.expr(f"unix_micros({name}(scored_at))") / 1e6 for name in ("min", "max")]
    refused: dict[tuple[int, Any], tuple[int, float, float]] = {}
    quarantine = prediction_table and scoring.quarantine_table(prediction_table)
    if quarantine and tables.exists(spark, quarantine):
        bad = spark.table(quarantine).where(F.col("model_name") == model_name)
        counts = bad.groupBy("model_version", window).agg(F.count(F.lit(1)), *seconds).collect()
        refused = {(version, key): (count, oldest, newest) for version, key, count, oldest, newest in counts}
    probability = (F.avg("probability"), F.stddev_samp("probability"), F.count("probability"))
    counted = rows.groupBy("model_version", window).agg(F.count(F.lit(1)), *seconds, *probability)
    found = [tuple(row) for row in counted.collect()]
    # A window whose rows are all in quarantine has no predictions.
    scored = {(version, key) for version, key, *_ in found}
    found += [
        (version, key, 0, oldest, newest, None, None, 0)
        for (version, key), (_, oldest, newest) in refused.items()
        if (version, key) not in scored
    ]
    return [
        Window(
            version=version,
            key=key,
            name=windows.name(p.window, key) + (" at the endpoint" if p.collected_data else ""),
            start=datetime.datetime.fromtimestamp(oldest, datetime.timezone.utc).replace(tzinfo=None),
            rows=count,
            refused=refused.get((version, key), (0,))[0],
            newest=newest,
            probability=(mean, deviation or 0.0, number) if number else None,
        )
        for version, key, count, oldest, newest, mean, deviation, number in found
    ]


def monitor(spark: SparkSession, p: Monitor, model_name: str) -> Monitored:
    """Measure each window of predictions whose rows or labels have changed since it was last measured.

    Which windows these are is seen in the tables: nothing else is remembered. A job that is killed and run again measures
    the windows that are left, and a window that is measured twice has the same rows in the table of measures.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    p : helpers.parameters.Monitor
    model_name : str
        Name in the registry.

    Raises
    ------
    helpers.parameters.ParameterError
        If there are no predictions of the model, or if labels or tables cannot be used. In that case, no measure is written.
    """
    from tqdm import tqdm

    _check(p)
    found = _found(spark, p, model_name)
    notes: list[str] = []
    labels = None
    if p.labels_table:
        name = names.qualified_name(p.labels_table, p.catalog, p.schema)
        labels, note = quality.read_labels(spark, name, p.id_column, p.label_column)
        notes += [note] if note else []
    into = table.monitoring_table(p)
    table.prepare(spark, into, model_name)
    recorded = table.states(spark, into, p.window)
    measured: list[Window] = []
    unchanged = 0
    with storage.one_writer(spark, into), tqdm(desc="windows", file=sys.stdout) as progress:
        for predictions in found:
            for version in sorted({window.version for window in predictions.windows}):
                baseline = load_baseline(spark, p, str(version))
                if baseline is None:
                    notes.append(f"version {version} has no baseline, so its predictions are not compared")
                    continue
                job = _Version(spark, p, predictions, version, baseline, labels)
                changed = [
                    window for window in job.windows() if not _is_recorded(window, recorded, p.labels_table != "")
                ]
                unchanged += len(job.of_version) - len(changed)
                for window, items in job.measure(changed):
                    table.write(spark, into, model_name, p.window, window, items)
                    measured.append(window)
                    notes += _sampling(window)
                    progress.update()
                notes += job.notes
    newest = max(found[0].windows, key=lambda window: window.newest)
    return Monitored(
        into, newest.version, sorted(measured, key=lambda window: window.start), unchanged, list(dict.fromkeys(notes))
    )


def _sampling(window: Window) -> list[str]:
    """Return a note if the inputs of some requests of an endpoint were not collected."""
    if window.answered <= window.rows:
        return []
    return [
        f"{window.name} is a sample: it has the inputs of {window.rows} of {window.answered} rows that version "
        f"{window.version} answered ({window.rows / window.answered:.1%}). collect_data_rate of 05_deploy_endpoint chooses how many"
    ]


def _check(p: Monitor) -> None:
    if p.alert_breaches > p.alert_windows:
        raise ParameterError(
            "alert_breaches", p.alert_breaches, f"must not be above alert_windows, which is {p.alert_windows}"
        )
    if p.collected_data and (p.labels_table or p.on_drift == "retrain"):
        raise ParameterError(
            "collected_data",
            p.collected_data,
            "cannot be used with labels_table or on_drift=retrain: requests to an endpoint have no id that labels have, too",
        )
    if p.on_drift == "retrain" and not p.labels_table:
        raise ParameterError(
            "on_drift", p.on_drift, "needs labels_table: a model is retrained on rows whose labels arrived"
        )


def _is_recorded(window: Window, recorded: dict[tuple[int, str], dict[str, float]], with_labels: bool) -> bool:
    before = recorded.get((window.version, window.name), {})
    # Without a table of labels, the quality that was measured with one stays.
    return all(
        before.get(name) == value
        for name, value in window.state.items()
        if with_labels or name not in ("labelled_rows", "labels_hash")
    )


class _Version:
    """The windows of one version in one table of predictions, and how they are measured."""

    def __init__(
        self,
        spark: SparkSession,
        p: Monitor,
        predictions: Predictions,
        version: int,
        baseline: Baseline,
        labels: DataFrame | None,
    ) -> None:
        from pyspark.sql import functions as F

        self._spark, self._p, self._baseline, self._labels = spark, p, baseline, labels
        self._window = windows.column(p.window)
        self.rows = predictions.rows.where(F.col("model_version") == version)
        if predictions.collected:
            bins = {name: counted.bins for name, counted in baseline.features.items()}
            self.rows = with_columns(self.rows, bins, baseline.predictions.bins if baseline.predictions else None)
        self.of_version = [window for window in predictions.windows if window.version == version]
        self.notes: list[str] = []

    def windows(self) -> list[Window]:
        """Return the version's windows, with the number of labels that they have now."""
        if self._labels is None:
            return self.of_version
        from pyspark.sql import functions as F

        id_name = quoted(self._p.id_column)
        scored = self.rows.select(self._window.alias("window"), id_name).distinct()
        # Decimal, because a sum of 64-bit hashes does not fit into 64 bits.
        hashes = F.sum(F.xxhash64(id_name, quality.LABEL).cast("decimal(38,0)")) % 2**52
        joined = scored.join(self._labels, self._p.id_column).groupBy("window")
        counts = {
            key: (count, float(hash_sum)) for key, count, hash_sum in joined.agg(F.count(F.lit(1)), hashes).collect()
        }
        if not counts:
            self.notes.append(f"{self._p.labels_table} has no label of a row that was scored")
        known = ((window, *counts.get(window.key, (0, 0.0))) for window in self.of_version)
        return [replace(window, labelled=count, labels_hash=hash_sum) for window, count, hash_sum in known]

    def measure(self, changed: list[Window]) -> Iterator[tuple[Window, list[Measured]]]:
        """Measure windows, all of them in one pass over the rows."""
        if not changed:
            return
        rows = self.rows
        if len(changed) < len(self.of_version):
            rows = rows.where(self._window.isin([window.key for window in changed]))
        counted = self._count(rows)
        qualities: dict[Any, quality.Quality] = {}
        if self._labels is not None:
            qualities = quality.by_window(
                rows, self._labels, self._window, self._p.id_column, self._baseline.model_type
            )
        for window in sorted(changed, key=lambda window: window.start):
            columns = counted.get(window.key, {})
            items = [Measured(name, "", value, None, None, None, window.rows) for name, value in window.state.items()]
            items += list(
                measures.of_predictions(
                    self._baseline, columns.pop(_PREDICTION, None), window.probability, window.rows, window.refused
                )
            )
            if any(now.rows > now.missing for now in columns.values()):
                for name, now in columns.items():
                    items += measures.of_feature(name, self._baseline.features[name], now)
            elif columns:
                self.notes.append(f"{window.name} has predictions without their inputs (keep_inputs=false)")
            if window.key in qualities:
                items += measures.of_quality(self._baseline, qualities[window.key])
            yield window, self._with_unseen(rows, window, items)

    def _count(self, rows: DataFrame) -> dict[Any, dict[str, Any]]:
        bins = {name: counted.bins for name, counted in self._baseline.features.items() if name in rows.columns}
        if self._baseline.features and not bins:
            rows, bins = self._with_inputs(rows)
        if self._baseline.predictions is not None:
            bins[_PREDICTION] = self._baseline.predictions.bins
        return count_by_bin(rows, bins, self._window)

    def _with_inputs(self, rows: DataFrame) -> tuple[DataFrame, dict[str, Any]]:
        """Find the inputs in the scoring table, for predictions that were made without ``keep_inputs``."""
        name = names.qualified_name(self._p.scoring_table, self._p.catalog, self._p.schema)
        if not tables.exists(self._spark, name) or self._p.id_column not in self._spark.table(name).columns:
            self.notes.append(
                f"the predictions have no inputs, and {name} does not have them: features are not compared"
            )
            return rows, {}
        inputs = self._spark.table(name)
        bins = {name: known.bins for name, known in self._baseline.features.items() if name in inputs.columns}
        self.notes.append(
            f"the predictions have no inputs (keep_inputs=false), so they are those that {name} has for the ids now"
        )
        joined = rows.join(inputs.select(quoted(self._p.id_column), *map(quoted, bins)), self._p.id_column, "left")
        return joined, bins

    def _with_unseen(self, rows: DataFrame, window: Window, items: list[Measured]) -> list[Measured]:
        """Name the categories that the training rows do not have; only where there are any."""
        from pyspark.sql import functions as F

        named = []
        for item in items:
            if item.measure == "unseen_share" and item.value > 0 and item.feature in rows.columns:
                bins = self._baseline.features[item.feature].bins
                known = bins.values if isinstance(bins, CategoryBins) else ()
                value = F.col(quoted(item.feature))
                unseen = rows.where((self._window == window.key) & value.isNotNull() & ~value.isin(list(known)))
                most = unseen.groupBy(value.alias("value")).count().orderBy(F.desc("count"), "value").limit(5).collect()
                item = replace(item, detail=", ".join(f"{row[0]} ({row[1]})" for row in most))
            named.append(item)
        return named


def versions_without_baseline(spark: SparkSession, p: Monitor, model_name: str) -> list[str]:
    """Return the versions with predictions that have no baseline, such as those that older releases registered."""
    versions = sorted({window.version for window in find_windows(spark, p, model_name)})
    return [str(version) for version in versions if load_baseline(spark, p, str(version)) is None]
