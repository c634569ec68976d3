"""Monitoring: what is counted, how far it is from the baseline, when that is an alert, and what is written."""

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from helpers import data, monitoring, parameters, registration, scoring, storage, tracking
from helpers.laptop import catalog
from helpers.monitoring import baseline, counts, windows
from helpers.monitoring.azureml import reference
from helpers.monitoring.bins import CategoryBins, NumberBins
from helpers.parameters import ParameterError
from helpers.serving.local_endpoint import LocalEndpoint

pytestmark = pytest.mark.slow
COLUMNS = ["size in cm", "flag", "city"]


def people(count, seed, shift=0.0):
    """Rows with a number, a flag and a text, and a class that depends on them."""
    random = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "size in cm": random.normal(170 + shift, 10, count),
            "flag": random.random(count) < 0.3,
            "city": random.choice(["Kyoto", "Bern", "Lagos"], count),
        }
    )
    rows["label"] = np.where(rows["size in cm"] - shift + 5 * rows["flag"] > 171, "tall", "small")
    return rows.assign(id=np.arange(count) + 100_000 * seed)


@pytest.fixture(scope="module")
def monitored(spark, local_dir, tracking_parameters):
    """A registered classifier with a baseline, four batches of which the last two have drifted, and labels of two."""
    import mlflow

    schema, name = "monitored", "people"
    spark.sql(f"CREATE SCHEMA {schema}")
    session = tracking.configure(tracking_parameters(experiment_name="monitored"))
    train = people(4_000, 1)
    storage.replace_table(spark.createDataFrame(train), f"{schema}.training")
    split = data.load_split(
        spark, f"{schema}.training", label_column="label", id_column="id", test_fraction=0.25, seed=1
    )
    seen = split.train.toPandas()
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["city"]), remainder="passthrough"),
        LogisticRegression(max_iter=2_000),
    ).fit(seen[COLUMNS], seen["label"])
    with mlflow.start_run() as active:
        tracking.log_split(split)
        signature = infer_signature(seen[COLUMNS], pd.Series(["tall"], name="prediction"))
        uri = tracking.log_model(model, flavor="sklearn", signature=signature)
    run = session.client().get_run(active.info.run_id)
    rows = data.evaluation_rows(spark, run, evaluation_table="", label_column="label", id_column="id")
    judged = registration.judge(session, uri, rows)
    version = tracking.create_version(session, run, uri, name, {})
    p = monitor_parameters(labels_table="labels")
    made = monitoring.make_baseline(spark, run, rows, judged, "accuracy_score")
    monitoring.save_baseline(spark, p, version, made)
    batches = {"d1": people(300, 2), "d2": people(300, 3), "d3": people(300, 4, 12), "d4": people(300, 5, 12)}
    batches["d4"].loc[::4, "city"] = "Oslo"
    batches["d4"].loc[1::4, "city"] = None
    for batch_id, batch in batches.items():
        score(spark, session, version, batch.drop(columns="label"), batch_id)
    labelled = pd.concat([batches["d1"], batches["d3"]])[["id", "label"]]
    contradicting = pd.DataFrame({"id": [200_000, 777], "label": ["nobody", "tall"]})
    # Each label twice, one id with two different ones, and one that was never scored.
    storage.replace_table(spark.createDataFrame(pd.concat([labelled, labelled, contradicting])), f"{schema}.labels")
    return session, p, version, made, batches


def monitor_parameters(**changes):
    settings = {"schema": "monitored", "model_name": "people", "window": "batch", "label_column": "label"}
    return parameters.parse(parameters.Monitor, settings | changes)


def score(spark, session, version, rows, batch_id, **options):
    storage.replace_table(spark.createDataFrame(rows), "monitored.scoring")
    scorer = scoring.Scorer(
        session, version, "monitored.scoring", "monitored.people_predictions", "id", **{"keep_inputs": True} | options
    )
    return scorer.score_batch(spark.table("monitored.scoring"), batch_id)


@pytest.fixture(scope="module")
def first(spark, monitored):
    """What the first call measured."""
    _, p, *_ = monitored
    return monitoring.monitor(spark, p, "people")


@pytest.fixture(scope="module")
def judged(spark, monitored, first):
    _, p, *_ = monitored
    return monitoring.judge(monitoring.read(spark, first.table, p.window), p)


def value(judged, window, measure, feature=""):
    (row,) = judged.query("window == @window and measure == @measure and feature == @feature").to_dict("records")
    return row


def test_values_are_counted_as_pandas_counts_them(spark):
    numbers = [float("nan"), None, float("inf"), -5.0, 0.0, 1.0, 1.5, 2.0, 3.0, 3.1]
    texts = ["a", "b'\\", None, "c", "a", "a", "z", "b'\\", "a", "a"]
    rows = spark.createDataFrame(list(zip(numbers, texts, range(10), strict=True)), "`x.y` double, `t` string, n int")
    bins = {
        "x.y": NumberBins((1.0, 2.0), 0.0, 3.0),
        "t": CategoryBins(("a", "b'\\", "c")),
        "n": NumberBins((5.0,), 0, 9),
    }
    from pyspark.sql import functions as F

    counted = counts.count_by_bin(rows, bins, F.expr("n % 2"))
    # Below, three bins (a value at a cut is above it, the highest in the last), above, missing.
    assert (np.add(counted[0]["x.y"].counts, counted[1]["x.y"].counts)).tolist() == [1, 1, 2, 2, 2, 2]
    assert counted[0]["t"].counts == [3, 0, 0, 1, 1] and counted[1]["t"].counts == [2, 2, 1, 0, 0]
    assert counted[0]["n"].counts == [0, 3, 2, 0, 0] and counted[1]["n"].rows == 5


@pytest.mark.parametrize("window", ["day", "CAST(day AS STRING)"])
def test_many_columns_are_counted_as_pandas_counts_them(spark, window):
    """More columns than one query counts, one with many categories, in windows that are numbers or texts."""
    from pyspark.sql import functions as F

    random = np.random.default_rng(0)
    rows = pd.DataFrame({f"c{number}": random.normal(size=2_000) for number in range(22)})
    rows["town"] = random.integers(300, size=2_000).astype(str)
    rows["day"] = random.integers(-2, 3, size=2_000)
    bins = {name: NumberBins((-0.5, 0.1, 0.7), -2.0, 2.0) for name in rows if name.startswith("c")}
    bins["town"] = CategoryBins(tuple(map(str, range(290))))
    counted = counts.count_by_bin(spark.createDataFrame(rows), bins, F.expr(window))
    assert set(counted) == {day if window == "day" else str(day) for day in range(-2, 3)}
    for key, columns in counted.items():
        own = rows[rows["day"] == int(key)]
        for name, each in columns.items():
            if name == "town":
                values = own["town"].astype(int).clip(upper=290)
                assert each.counts == np.bincount(values, minlength=292).tolist()
            else:
                ends = [-np.inf, -2.0, -0.5, 0.1, 0.7, 2.0, np.inf]
                assert each.counts == [*np.histogram(own[name], ends)[0], 0]


def test_bins_are_tenths_and_a_frequent_value_has_its_own(spark):
    random = np.random.default_rng(0)
    rows = pd.DataFrame(
        {"x": random.normal(size=1_000), "zeros": np.where(random.random(1_000) < 0.7, 0.0, random.random(1_000))}
    )
    rows["constant"], rows["flag"], rows["nothing"] = 1.0, random.random(1_000) < 0.2, np.nan
    counted = baseline.count_features(spark.createDataFrame(rows), list(rows), [])
    assert set(counted) == {"x", "zeros", "constant", "flag"}
    assert len(counted["x"].distribution) == 10 and set(counted["x"].distribution) <= {99, 100, 101}
    assert counted["zeros"].distribution[0] == (rows["zeros"] == 0).sum()
    assert counted["constant"].distribution == [1_000]
    assert counted["flag"].distribution == [(~rows["flag"]).sum(), rows["flag"].sum()]
    assert all(each.counts[0] == each.counts[each.bins.above] == 0 for each in counted.values())


def test_the_baseline_is_kept_and_has_the_training_rows_the_predictions_and_the_gate(spark, monitored):
    _session, p, version, made, _ = monitored
    kept = monitoring.load_baseline(spark, p, str(version.version))
    assert kept == made and monitoring.load_baseline(spark, p, "99") is None
    assert kept.description == "training rows of monitored.training"
    assert set(kept.features) == set(COLUMNS) and kept.features["city"].rows == kept.features["flag"].rows < 3_100
    assert (
        kept.predictions.bins.values == ("small", "tall")
        and kept.predictions.rows == kept.loss[2] == kept.probability[2]
    )
    assert kept.metrics["accuracy_score"] == pytest.approx(1 - kept.loss[0])


def test_the_training_rows_for_azure_mls_monitor_are_the_same_each_time_and_none_if_their_table_is_gone(
    spark, monitored, monkeypatch
):
    session, p, version, made, _ = monitored
    versions = monitoring.VersionsOnSpark(spark, session, p, "people")
    number = str(version.version)
    assert versions.baseline(number) == made and versions.baseline("99") is None and versions.baseline("") is None
    rows = versions.training_rows(number, COLUMNS)
    assert list(rows) == COLUMNS and len(rows) == made.features["city"].rows
    monkeypatch.setattr(reference, "MOST_ROWS", 200)
    few, again = (versions.training_rows(number, COLUMNS) for _ in range(2))
    assert len(few) == 200 and few.equals(again)
    # Not those that come first in the table.
    assert few["size in cm"].mean() == pytest.approx(rows["size in cm"].mean(), abs=3)
    kept = spark.table("monitored.training").toPandas()
    storage.drop_table(spark, "monitored.training")
    try:
        assert versions.training_rows(number, COLUMNS) is None
    finally:
        storage.replace_table(spark.createDataFrame(kept), "monitored.training")


def test_each_window_is_compared_with_the_training_rows(first, judged):
    assert [window.name for window in first.measured] == ["d1", "d2", "d3", "d4"] and first.version == 1
    for window, expected in {"d1": False, "d2": False, "d3": True, "d4": True}.items():
        assert value(judged, window, "psi", "size in cm")["breached"] is expected
        assert value(judged, window, "prediction_psi")["breached"] is expected
    unseen, nulls = value(judged, "d4", "unseen_share", "city"), value(judged, "d4", "null_share", "city")
    assert unseen["value"] == pytest.approx(75 / 225) and unseen["detail"] == "Oslo (75)"
    assert nulls["value"] == 0.25 and nulls["breached"] is True and value(judged, "d1", "rows")["value"] == 300


def test_quality_counts_each_label_once_and_says_which_do_not_count(first, judged, monitored):
    *_, made, _batches = monitored
    assert first.notes == ["1 ids of monitored.labels have several different labels, and are left out"]
    labelled = judged[judged["measure"] == "labelled_rows"].set_index("window")["value"]
    assert labelled.to_dict() == {"d1": 299, "d2": 0, "d3": 300, "d4": 0}
    good, bad = value(judged, "d1", "quality"), value(judged, "d3", "quality")
    assert good["baseline"] == bad["baseline"] == made.metrics["accuracy_score"]
    assert good["breached"] is False and bad["breached"] is True and bad["value"] < 0.8
    assert judged[judged["measure"] == "quality"]["window"].tolist() == ["d1", "d3"]


def test_an_alert_says_what_is_off_since_when_and_how_sure(judged, monitored):
    _, p, *_ = monitored
    found = {(alert.measure, alert.feature): alert for alert in monitoring.find_alerts(judged, p, 1)}
    size = found["psi", "size in cm"]
    assert (size.since, size.breaches, size.windows) == ("d3", 2, 3)
    assert str(size).startswith("size in cm: its distribution has shifted: PSI ")
    assert "threshold 0.2; since d3, in 2 of the last 3 windows; by chance in a window with probability below" in str(
        size
    )
    # One window only: no alert yet, with the first windows as history.
    assert ("unseen_share", "city") not in found
    sooner = dataclasses.replace(p, alert_breaches=1)
    unseen = next(a for a in monitoring.find_alerts(judged, sooner, 1) if a.measure == "unseen_share")
    assert "(Oslo (75))" in str(unseen) and unseen.since == "d4"
    assert monitoring.find_alerts(judged[judged["window"] <= "d2"], sooner, 1) == []
    with pytest.raises(monitoring.DriftFound, match="on_drift=notify, and .* size in cm"):
        monitoring.notify(list(found.values()), dataclasses.replace(p, on_drift="notify"))


def test_few_rows_are_shown_and_not_judged_and_thresholds_can_be_changed(spark, first, monitored):
    _, p, *_ = monitored
    history = monitoring.read(spark, first.table, p.window)
    few = monitoring.judge(history, dataclasses.replace(p, fewest_rows=301))
    assert few["breached"].isna().all() and few["value"].notna().all()
    changed = monitoring.judge(history, monitor_parameters(drift_thresholds="psi=9, null_share = 0.5"))
    assert not changed[changed["measure"].isin(["psi", "null_share"])]["breached"].any()
    for text, problem in {
        "psy=1": "'psy' is not one of psi",
        "psi": "a number from 0 on",
        "psi=-1": "psi=-1: a number",
    }.items():
        with pytest.raises(ParameterError, match=problem):
            monitor_parameters(drift_thresholds=text)
    with pytest.raises(ParameterError, match="must not be above alert_windows, which is 3"):
        monitoring.monitor(spark, monitor_parameters(alert_breaches=4), "people")
    # As the job runner passes it on.
    text = parameters.canonical_text("drift_thresholds", "psi=0.3,null_share = 0.1")
    assert text == "psi=0.3, null_share=0.1" and parameters.canonical_text("drift_thresholds", text) == text


def test_only_what_has_changed_is_measured_again_and_gives_the_same_rows(spark, first, monitored, judged):
    session, p, version, _, batches = monitored
    again = monitoring.monitor(spark, p, "people")
    assert again.measured == [] and again.unchanged == 4
    # As if it had been killed before it wrote the window.
    before = monitoring.read(spark, first.table, p.window)
    spark.sql(f"CREATE TABLE monitored.copy AS SELECT * FROM {first.table}")
    empty = spark.table(first.table).where("1 = 0").drop("window_key")
    storage.replace_rows(empty, first.table, "window_key", "1.batch.d3")
    assert [window.name for window in monitoring.monitor(spark, p, "people").measured] == ["d3"]
    pd.testing.assert_frame_equal(monitoring.read(spark, first.table, p.window), before)
    # A label arrives, and a batch is scored again.
    more = spark.createDataFrame([(300_000, "tall")], "id long, label string")
    more.write.insertInto("monitored.labels")
    score(spark, session, version, batches["d4"].drop(columns="label"), "d4")
    assert [window.name for window in monitoring.monitor(spark, p, "people").measured] == ["d2", "d4"]
    # A label is corrected, and a batch has only rows that cannot be scored.
    rows = spark.table("monitored.labels").toPandas()
    rows.loc[rows["id"] == 300_000, "label"] = "small"
    storage.replace_table(spark.createDataFrame(rows), "monitored.labels")
    bad = people(2, 9).drop(columns="label").assign(**{"size in cm": np.nan})
    assert score(spark, session, version, bad, "d5", keep_inputs=False).rows_quarantined == 2
    assert [window.name for window in monitoring.monitor(spark, p, "people").measured] == ["d2", "d5"]
    after = monitoring.judge(monitoring.read(spark, first.table, p.window), p)
    assert value(after, "d5", "quarantine_share")["value"] == 1 and value(after, "d5", "rows")["value"] == 0
    # Windows of another kind have a history of their own.
    (day,) = monitoring.monitor(spark, dataclasses.replace(p, window="day"), "people").measured
    assert day.rows == 1_200 and monitoring.read(spark, first.table, "day")["window"].unique().tolist() == [day.name]
    assert "d1" in set(monitoring.read(spark, first.table, "batch")["window"])


def test_each_window_has_one_run_with_its_measures(first, judged, monitored):
    session, _p, *_ = monitored
    assert monitoring.log_windows(session, "people", judged) == 4
    assert monitoring.log_windows(session, "people", judged) == 0
    found = session.client().search_runs(
        [session.experiment_id], f"tags.{tracking.MONITORING_TAG} = 'people'", order_by=["tags.window"]
    )
    assert [run.data.tags["window"] for run in found] == [f"version 1, d{day}" for day in (1, 2, 3, 4)]
    assert all(run.info.status == "FINISHED" for run in found)
    metrics = found[2].data.metrics
    assert metrics["psi.size_in_cm"] == value(judged, "d3", "psi", "size in cm")["value"] and metrics["rows"] == 300
    assert found[0].data.tags["off"] == "nothing" and "size in cm" in found[2].data.tags["off"]
    # Nobody takes one of them for the newest run of the model.
    with pytest.raises(ParameterError, match="no finished run of it"):
        tracking.find_run(session, "", "people")


def test_pictures_are_drawn(judged, monitored):
    *_, made, _ = monitored
    heat = monitoring.heat_map(judged)
    assert [label.get_text() for label in heat.axes[0].get_yticklabels()] == ["city", "size in cm", "flag"]
    assert len(heat.axes[0].patches) == judged.query("measure == 'psi'")["breached"].sum()
    assert {axes.get_title(loc="left") for axes in monitoring.histograms(judged, made).axes} == set(COLUMNS)
    labels = [text.get_text() for text in monitoring.quality_over_time(judged).axes[0].texts]
    assert labels.count("version 1") == labels.count("version 1 at the gate") == 1


def test_a_model_is_retrained_on_the_scored_rows_with_labels_and_not_again_within_the_cool_down(
    spark, monitored, judged
):
    session, p, version, _, batches = monitored
    p = dataclasses.replace(p, on_drift="retrain")
    found = monitoring.find_alerts(judged, p, 1)
    assert monitoring.decide(session, p, "people", []).reason == "nothing is off"
    assert monitoring.decide(session, p, "people", found).wanted
    table, new_rows = monitoring.make_retraining_table(spark, p, "people")
    rows = spark.table(table).toPandas()
    labelled = rows[rows["id"] >= 200_000]
    assert new_rows == len(labelled) >= 599 and len(rows) == 4_000 + new_rows and rows["id"].is_unique
    expected = batches["d3"].set_index("id")["size in cm"]
    assert labelled.set_index("id")["size in cm"].reindex(expected.index).equals(expected)
    # Set-up, the first task of the job that retrains, leaves it and the scoring table alone.
    made = data.make_tables(
        spark, training_table=table.split(".")[1], scoring_table="scoring", catalog="", schema="monitored", source_path="",
        label_column="label", id_column="id",
    )  # fmt: skip
    assert [each["action"] for each in made] == ["left as it is (not made by set-up)"] * 2
    client = session.client()
    client.set_model_version_tag("people", version.version, "training_table", table)
    client.set_model_version_tag("people", version.version, "check_champion", "failed: accuracy_score 0.8 < 0.9")
    decided = monitoring.decide(session, p, "people", found)
    assert not decided.wanted and "is not the champion (champion failed: accuracy_score 0.8 < 0.9)" in decided.reason
    assert monitoring.decide(session, dataclasses.replace(p, cool_down_days=0), "people", found).wanted
    with pytest.raises(ParameterError, match="on_drift='retrain': needs labels_table"):
        monitoring.monitor(spark, dataclasses.replace(p, labels_table=""), "people")


def test_what_cannot_be_monitored_is_said_before_anything_is_written(spark, monitored):
    _, p, *_ = monitored
    with pytest.raises(ParameterError, match="there are no predictions yet. Run 04_batch_score first"):
        monitoring.monitor(spark, monitor_parameters(model_name="nobody"), "nobody")
    other = monitor_parameters(model_name="nobody", prediction_table="people_predictions")
    with pytest.raises(ParameterError, match="has no predictions of nobody; it has those of people"):
        monitoring.monitor(spark, other, "nobody")
    assert not spark.catalog.tableExists("monitored.nobody_monitoring")
    spark.sql("CREATE TABLE IF NOT EXISTS monitored.numbers AS SELECT id, 1.5D AS label FROM monitored.labels")
    with pytest.raises(ParameterError, match="has type double, and the model predicts string"):
        score_again = dataclasses.replace(p, labels_table="numbers", window="day")
        monitoring.monitor(spark, score_again, "people")
    with pytest.raises(ParameterError, match="no such table"):
        monitoring.monitor(spark, dataclasses.replace(p, labels_table="nothing"), "people")
    with pytest.raises(ParameterError, match="id_column='key': no such column"):
        monitoring.monitor(spark, dataclasses.replace(p, id_column="key"), "people")


def test_predictions_without_inputs_take_them_from_the_scoring_table(spark, monitored):
    session, p, version, _, _ = monitored
    rows = people(200, 8, 12).drop(columns="label")
    storage.replace_table(spark.createDataFrame(rows), "monitored.scoring")
    scorer = scoring.Scorer(session, version, "monitored.scoring", "monitored.bare", "id")
    scorer.score_batch(spark.table("monitored.scoring"), "bare")
    changes = {"prediction_table": "bare", "labels_table": ""}
    found = monitoring.monitor(spark, dataclasses.replace(p, **changes), "people")
    assert "so they are those that monitored.scoring has for the ids now" in found.notes[0]
    judged = monitoring.judge(monitoring.read(spark, found.table, p.window), p)
    assert value(judged, "bare", "psi", "size in cm")["breached"] is True


def test_a_job_that_is_killed_between_two_windows_leaves_what_the_next_one_completes(spark, monitored, judged):
    _, p, *_ = monitored
    monitoring.monitor(spark, p, "people")
    table = monitoring.monitoring_table(p)
    before = monitoring.read(spark, table, p.window).query("window in ['d1', 'd2', 'd3', 'd4']").reset_index(drop=True)
    storage.drop_table(spark, table)
    settings = {name: getattr(p, name) for name in ("schema", "model_name", "window", "label_column", "labels_table")}
    command = [sys.executable, "-m", "tests.scenarios.spark.die_while_monitoring", json.dumps(settings), "people"]
    killed = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    catalog.register_tables(spark)
    assert set(monitoring.read(spark, table, p.window)["window"]) == {"d1", "d2"}
    again = monitoring.monitor(spark, p, "people")
    assert [window.name for window in again.measured][:2] == ["d3", "d4"] and again.unchanged == 2
    after = monitoring.read(spark, table, p.window).query("window in ['d1', 'd2', 'd3', 'd4']").reset_index(drop=True)
    pd.testing.assert_frame_equal(after, before)


def test_a_version_without_a_baseline_is_named_and_not_compared(spark, monitored):
    session, p, version, *_ = monitored
    run = session.client().get_run(tracking.run_id(version))
    other = tracking.create_version(session, run, version.tags["model_uri"], "people", {})
    storage.replace_table(spark.createDataFrame(people(60, 7).drop(columns="label")), "monitored.scoring")
    scorer = scoring.Scorer(session, other, "monitored.scoring", "monitored.newer", "id", keep_inputs=True)
    scorer.score_batch(spark.table("monitored.scoring"), "newer")
    p = dataclasses.replace(p, prediction_table="newer", labels_table="")
    assert monitoring.versions_without_baseline(spark, p, "people") == [str(other.version)]
    found = monitoring.monitor(spark, p, "people")
    assert found.measured == [] and found.notes == [
        f"version {other.version} has no baseline, so its predictions are not compared"
    ]


@pytest.mark.parametrize(("kind", "name"), [("day", "2026-11-28"), ("week", "2026-W48")])
def test_windows_are_days_and_weeks_of_utc_whatever_the_sessions_zone_is(spark, kind, name):
    from helpers import runtime

    rows = spark.sql("SELECT timestamp_seconds(1795910399) AS scored_at")  # 2026-11-28 23:59:59 UTC, a Saturday
    with runtime.spark_setting(spark, "spark.sql.session.timeZone", "Asia/Tokyo"):
        assert windows.name(kind, rows.select(windows.column(kind)).collect()[0][0]) == name


def test_numbers_are_measured_from_sums_as_scikit_learn_measures_them(spark):
    from helpers.monitoring import quality

    random = np.random.default_rng(0)
    labels = random.normal(10, 3, 500)
    rows = pd.DataFrame({"id": range(500), "prediction": labels + random.normal(0, 1, 500), "batch_id": "a"})
    rows["scored_at"] = pd.Timestamp("2026-11-28")
    known = spark.createDataFrame(pd.DataFrame({"id": range(500), quality.LABEL: labels}))
    measured = quality.by_window(spark.createDataFrame(rows), known, windows.column("batch"), "id", "regressor")["a"]
    expected = data.metrics.regression_metrics(labels, rows["prediction"])
    assert measured.metrics == pytest.approx({name: expected[name] for name in measured.metrics}, rel=1e-9)
    assert len(measured.metrics) == 5 and measured.loss[0] == pytest.approx(expected["mean_squared_error"])


def test_requests_to_an_endpoint_are_measured_as_the_same_rows_of_a_table(spark, monitored, judged, tmp_path):
    session, _, version, _, batches = monitored
    endpoint = LocalEndpoint("watched", tmp_path, session, collect_data=True)
    endpoint.create("people")
    try:
        # In two requests; the name of the deployment ends with the version.
        endpoint.deploy(f"people-{version.version}", version)
        for rows in (batches["d4"][:100], batches["d4"][100:]):
            endpoint.invoke(rows[COLUMNS], f"people-{version.version}")
        p = monitor_parameters(collected_data=endpoint.collected_data(), window="week")
        for file in Path(endpoint.collected_data()).rglob("*.jsonl"):
            # As if a collector had sent all events again, and had been killed in the middle of a line.
            file.write_text(2 * file.read_text() + '{"id": "half')
        done = monitoring.monitor(spark, p, "people")
        again = monitoring.monitor(spark, p, "people")
        # From now on, practically no request is drawn.
        sampling = LocalEndpoint("watched", tmp_path, session, collect_data=True, collect_data_rate=1e-12)
        sampling.deploy(f"people-{version.version}", version)
        sampling.invoke(batches["d4"][:100][COLUMNS], f"people-{version.version}")
        sampled = monitoring.monitor(spark, p, "people")
    finally:
        endpoint.delete()
    assert [window.rows for window in done.measured] == [300] and (again.measured, again.unchanged) == ([], 1)
    assert "sample" not in str(done)
    assert f"is a sample: it has the inputs of 300 of 400 rows that version {version.version} answered (75.0%)" in str(
        sampled
    )
    of_requests = monitoring.judge(monitoring.read(spark, done.table, "week"), p)
    assert set(of_requests["window"]) == {done.measured[0].name} and done.measured[0].name.endswith(" at the endpoint")
    for measure in ("psi", "js_distance", "null_share", "outside_range", "unseen_share", "prediction_psi"):
        same = [rows[rows["measure"] == measure] for rows in (judged[judged["window"] == "d4"], of_requests)]
        table, requests = (rows.set_index("feature")["value"].to_dict() for rows in same)
        assert requests == pytest.approx(table) and table
    assert any("Oslo (75)" in detail for detail in of_requests["detail"].dropna())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, "cannot be read"),
        ({"labels_table": "labels"}, "cannot be used with labels_table"),
        ({"on_drift": "retrain"}, "on_drift=retrain"),
    ],
)
def test_collected_data_that_cannot_be_used_stops_the_run(spark, monitored, tmp_path, changes, problem):
    p = monitor_parameters(collected_data=str(tmp_path / "missing"), **changes)
    with pytest.raises(parameters.ParameterError, match=problem):
        monitoring.monitor(spark, p, "people")
