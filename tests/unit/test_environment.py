"""The check of what is installed."""

import pytest

from helpers import environment


def test_what_is_installed_here_is_enough_and_spark_answers(spark):
    found = environment.check(spark).set_index("component")["found"]
    assert found["pyspark"] == spark.version
    assert found["Spark answers"].endswith("499500")


def test_all_that_is_missing_or_too_old_is_named_at_once(spark, monkeypatch):
    monkeypatch.setitem(environment.MINIMUM_VERSIONS, "pandas", "99.1")
    monkeypatch.setitem(environment.MINIMUM_VERSIONS, "no-such-package", "1.0")
    with pytest.raises(environment.UnsupportedEnvironment) as caught:
        environment.check(spark)
    message = str(caught.value)
    assert "99.1 or newer is needed" in message
    assert "no-such-package is missing, 1.0 or newer is needed" in message
    assert "requirements.txt" in message
