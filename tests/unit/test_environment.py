"""The check of the installed packages."""

from pathlib import Path

import pytest

from helpers import environment


def test_the_packages_installed_here_are_new_enough_and_spark_answers(spark):
    found = environment.check(spark).set_index("component")["found"]
    assert found["pyspark"] == spark.version
    assert found["Spark answers"].endswith("499500")


def test_all_packages_that_are_missing_or_too_old_are_named_at_once(spark, monkeypatch):
    monkeypatch.setitem(environment.MINIMUM_VERSIONS, "pandas", "99.1")
    monkeypatch.setitem(environment.MINIMUM_VERSIONS, "no-such-package", "1.0")
    with pytest.raises(environment.UnsupportedEnvironment) as caught:
        environment.check(spark)
    message = str(caught.value)
    assert "99.1 or newer is needed" in message
    assert "no-such-package is missing, 1.0 or newer is needed" in message
    assert "requirements.txt" in message


def test_the_packages_that_errors_name_are_those_of_the_requirements():
    pins = (Path(__file__).parents[2] / "requirements.txt").read_text().splitlines()
    assert set(environment.OPTIONAL_PACKAGES.values()) <= set(pins)


@pytest.mark.parametrize(
    ("installed", "minimum", "expected"),
    [
        ("1.10.0", "1.9", True),
        ("2.8", "2.8.0", True),
        ("4.0.0.dev2", "3.5.2", True),
        ("3.5.2+databricks", "3.5.2", True),
        ("2.21.2", "2.21.3", False),
        ("2.21.3rc1", "2.21.3", False),
        (None, "1.0", False),
    ],
)
def test_versions_are_compared_as_pip_compares_them(installed, minimum, expected):
    assert environment.is_new_enough(installed, minimum) is expected
