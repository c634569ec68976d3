"""The demo with a story of four days: what it prints, and what is in the registry and the tables after it."""

import re

import pytest

from tests.notebooks.machine import Machine

SHORT = "days=4, rows_per_day=85, drifts_on=2, monitored_on=(3,), label_delay=1, seed=8"
TELL = f"""
import sys
from helpers import runtime
from helpers.jobs import demo

sys.exit(demo.tell(demo.Story({SHORT}), runtime.local_dir()))
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory, quick_jvm, connect_server):
    with Machine(tmp_path_factory.mktemp("machine"), quick_jvm).on_spark_connect(connect_server) as machine:
        yield machine


@pytest.fixture(scope="module")
def page(machine):
    """The page of the story."""
    printed, page = machine.run("-c", TELL), (machine.folder / "page.txt").read_text()
    assert page in printed
    return page


def test_drift_is_found_the_model_retrained_and_the_new_version_scores_the_last_day(page, machine):
    client = machine.client
    champion = client.get_model_version_by_alias("diabetes", "champion")
    checks = {name: value for name, value in champion.tags.items() if name.startswith("check_")}
    assert int(champion.version) == 2 and champion.tags["training_table"].endswith("diabetes_retraining")
    assert len(checks) == 3 and all(value.startswith("passed") for value in checks.values())
    scored = machine.table("diabetes_predictions").groupby("batch_id")["model_version"].agg(["min", "max", "size"])
    assert scored.to_dict("index") == {
        f"day-{day:02}": {"min": 1 + (day == 4), "max": 1 + (day == 4), "size": 85} for day in range(1, 5)
    }
    # The gate has judged the new version by rows of both periods, which it has not learned from.
    learned_from = machine.table("diabetes_retraining")
    assert set(learned_from.merge(machine.table("arrivals"), on="id")["day"]) == {"day-01", "day-02"}


def test_the_page_says_so_with_the_numbers_of_the_tables(page, machine):
    measures = machine.table("diabetes_monitoring")
    quality = measures[measures["measure"] == "quality"].set_index("window")["value"]
    days = {line[:6]: line.split() for line in page.splitlines() if re.match(r"day-\d\d +85 ", line)}
    assert {day: float(words[5]) for day, words in days.items()} == quality.round(3).to_dict()
    off = {day: int(words[4]) for day, words in days.items()}
    assert off["day-01"] == 0 and min(off["day-02"], off["day-03"]) >= 3
    assert re.search(r"^day-03 .* \d+ alerts, retrains$", page, re.M)
    assert "hospital: it has categories that the training rows do not have: share 1 (C (85))" in page
    assert re.search(r"^day-05 +no alert$", page, re.M)
    before, since, after = map(float, re.search(r"(\S+) before day-02, .* (\S+) with .* (\S+) with its", page).groups())
    assert since < after and since < before
    version = machine.client.get_model_version("diabetes", "2")
    assert all(value in page for name, value in version.tags.items() if name.startswith("check_"))
    assert "The loop closed: version 2 is the champion.\n" in page
