"""What the demo simulates, what its page says when the loop does not close, and which folder it deletes."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from helpers import monitoring
from helpers.data import samples
from helpers.jobs import demo
from helpers.jobs.demo_page import Look, Outcome
from helpers.jobs.results import SUCCESS, TaskResult
from helpers.monitoring import Alert
from helpers.parameters import Monitor

SAMPLE = samples.diabetes()
DRIFT = Alert(1, "psi", "blood_pressure", 2.5, 0.0, 0.2, 1e-9, "day-02", 2, 3, 45, "")


def measure(day, version, measure, value, breached=None, feature=""):
    return {
        "window": day, "window_start": pd.Timestamp(f"2026-01-{day[-2:]}"), "model_version": version, "measure": measure,
        "feature": feature, "value": value, "rows": 45, "breached": breached, "detail": "accuracy_score",
    }  # fmt: skip


def outcome(after=0.95, champion=2, alert_day="day-03", retrained=True):
    days = [("day-01", 1, 0.97), ("day-02", 1, 0.5), ("day-03", 1, 0.6), ("day-04", 2, after)]
    measures = [measure(day, version, "rows", 45) for day, version, _ in days]
    measures += [measure(day, version, "quality", quality) for day, version, quality in days]
    measures.append(measure("day-02", 1, "psi", 2.5, True, "blood_pressure"))
    task = TaskResult(SUCCESS, html="06.html", task_values={"retraining_reason": "1 alerts"})
    looks = [Look("day-01", [], task, False)]
    if alert_day:
        looks.append(Look(alert_day, [DRIFT], task, retrained))
    tags = {"held_out_rows": "72", "judged_on": "held-out rows of t", "check_champion": "passed: 0.95 ≥ 0.8"}
    versions = [SimpleNamespace(version=1, tags={}), SimpleNamespace(version=2, tags=tags)]
    return Outcome("Each day brings rows.", "day-02", pd.DataFrame(measures), looks, versions, champion)


def test_each_row_is_scored_once_or_learned_from_and_two_units_change_with_the_hospital():
    history, arriving = demo.Story().divide(SAMPLE)
    assert sorted([*history["id"], *arriving["id"]]) == list(range(442))
    assert set(arriving.groupby("day").size()) == {30} and arriving["day"].nunique() == 10
    drifted = arriving["day"] >= "day-04"
    assert (arriving["hospital"].eq("C") == drifted).all() and set(history["hospital"]) == {"A", "B"}
    original = SAMPLE.set_index("id").loc[arriving["id"]].reset_index()
    pd.testing.assert_frame_equal(arriving[~drifted][SAMPLE.columns], original[~drifted])
    same = SAMPLE.columns.drop(["blood_pressure", "log_triglycerides"])
    pd.testing.assert_frame_equal(arriving[same], original[same])
    since, then = arriving[drifted], original[drifted]
    np.testing.assert_allclose(since["blood_pressure"] / 0.1333, then["blood_pressure"])
    np.testing.assert_allclose(np.exp(since["log_triglycerides"]) * 88.57, np.exp(then["log_triglycerides"]))
    pd.testing.assert_frame_equal(demo.Story().divide(SAMPLE)[1], arriving)


def test_the_page_of_a_loop_that_closed_has_each_day_the_alert_and_the_checks(tmp_path):
    page = outcome().page(tmp_path)
    assert outcome().problems() == [] and "The loop closed: version 2 is the champion.\n" in page
    assert page.startswith("Each day brings rows.\n\n")
    assert "day-02    45  version 1             1           0.500\n" in page
    assert "day-03    45  version 1             0           0.600  1 alerts, retrains\n" in page
    assert "blood_pressure: its distribution has shifted: PSI 2.5" in page and "champion   passed: 0.95 ≥ 0.8" in page
    assert "accuracy_score: 0.970 before day-02, since then 0.550 with version 1 and 0.950 with its successor\n" in page
    assert f"BUNDLE_LOCAL_DIR={tmp_path} make ui" in page and "  day-03  06.html\n" in page


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"alert_day": ""}, "monitoring did not find the drift; the model was not retrained"),
        ({"alert_day": "day-01"}, "there was an alert before day-02"),
        ({"retrained": False}, "the model was not retrained"),
        ({"champion": 1}, "the gate refused the new version"),
        ({"after": 0.5}, "the new champion is not better than the old one was"),
    ],
)
def test_the_page_says_why_the_loop_did_not_close(tmp_path, changes, problem):
    assert f"\nThe loop did not close: {problem}.\n" in outcome(**changes).page(tmp_path)


def test_a_retraining_waits_for_labels_of_the_rows_that_were_scored_since_something_is_off():
    p = Monitor(on_drift="retrain", labels_table="labels")
    # One measure has been off for long, by chance.
    waiting = [replace(DRIFT, labelled=number) for number in (500, p.fewest_rows - 1, p.fewest_rows - 1)]
    # It does not ask the registry.
    decided = monitoring.decide(None, p, "m", waiting)
    assert not decided.wanted
    assert (
        "3 alerts, but only 49 rows that were scored since day-02 have a label; a retraining waits for 50"
        in decided.reason
    )


def test_a_second_run_begins_again_and_a_folder_of_somebody_else_is_not_deleted(tmp_path, capsys, monkeypatch):
    folder = demo._new_folder(tmp_path / "demo")
    (folder / "mlflow.db").touch()
    demo._new_folder(folder)
    assert not (folder / "mlflow.db").exists() and f"without what it left in {folder}" in capsys.readouterr().out
    monkeypatch.setenv("BUNDLE_LOCAL_DIR", str(tmp_path / "other"))
    (tmp_path / "other" / "demo").mkdir(parents=True)
    assert demo.main([]) == 2
    assert "was not made by the demo" in capsys.readouterr().err and (tmp_path / "other" / "demo").is_dir()
