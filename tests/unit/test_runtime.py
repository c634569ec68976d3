"""The laptop's side of the runtime: parameters, task values, and imports that start nothing."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from helpers import output, parameters, runtime
from helpers.parameters import ParameterError

ROOT = Path(__file__).parents[2]


def test_a_parameter_has_its_default_until_the_environment_gives_another(monkeypatch):
    assert runtime.read_parameters(parameters.Train).epochs == 0
    monkeypatch.setenv("BUNDLE_PARAM_EPOCHS", "3")
    p = runtime.read_parameters(parameters.Train)
    assert (p.epochs, p.seed) == (3, 42)


def test_a_bad_value_names_the_environment_variable_it_came_from(monkeypatch):
    monkeypatch.setenv("BUNDLE_PARAM_EPOCHS", "many")
    with pytest.raises(ParameterError, match="environment variable BUNDLE_PARAM_EPOCHS"):
        runtime.read_parameters(parameters.Train)


def test_a_misspelt_environment_variable_is_refused(monkeypatch):
    monkeypatch.setenv("BUNDLE_PARAM_EPOCH", "3")
    with pytest.raises(ParameterError, match="did you mean 'epochs'"):
        runtime.read_parameters(parameters.Train)


def test_task_values_are_kept_together_in_the_file_that_the_runner_names(monkeypatch, tmp_path):
    monkeypatch.setenv("BUNDLE_TASK_VALUES", str(tmp_path / "values.json"))
    runtime.set_task_value("run_id", "abc")
    runtime.set_task_value("promoted", True)
    assert json.loads((tmp_path / "values.json").read_text()) == {"run_id": "abc", "promoted": True}


def test_a_task_value_that_json_cannot_hold_is_refused_outside_a_job_too(monkeypatch):
    monkeypatch.delenv("BUNDLE_TASK_VALUES", raising=False)
    with pytest.raises(TypeError):
        runtime.set_task_value("table", object())


@pytest.mark.parametrize("links", [True, False])
def test_addresses_in_a_table_are_links_only_where_they_are_our_own(monkeypatch, tmp_path, links):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setattr(InteractiveShell, "_instance", InteractiveShell())
    with capture_output() as shown:
        addresses = ["https://ml.azure.com/home", 'https://x/"onmouseover="alert(1)', "<script>"]
        output.display(pd.DataFrame({"open": addresses}), links=links)
    (page,) = (item.data["text/html"] for item in shown.outputs)
    assert ('<a href="https://ml.azure.com/home"' in page) == links and "https://ml.azure.com/home" in page
    assert "<script>" not in page and not re.search("<[^>]* onmouseover=", page.replace('"', " "))
    assert not links or "&quot;onmouseover=&quot;" in page


def test_importing_the_helpers_imports_neither_spark_nor_mlflow():
    # Modules that training imports when the flavor is chosen, or that run on Spark's workers.
    late = {"helpers/training/flavors/sklearn.py", "helpers/scoring/worker.py"}
    files = [file.relative_to(ROOT) for file in (ROOT / "helpers").rglob("*.py")]
    files = [file for file in files if str(file) not in late and file.stem not in ("__init__", "__main__")]
    assert Path("helpers/azureml/credentials.py") in files
    names = [".".join(file.with_suffix("").parts) for file in files]
    program = f"import sys, importlib\nfor n in {names!r}: importlib.import_module(n)\n"
    program += "print(sorted({'pyspark', 'mlflow'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_a_setting_that_the_platform_does_not_have_is_none_and_is_not_changed(spark):
    assert runtime.setting(spark, "spark.no.such.setting") is None
    with runtime.spark_setting(spark, "spark.no.such.setting", "1"):
        assert runtime.setting(spark, "spark.no.such.setting") is None


def test_a_setting_has_another_value_during_the_block_only(spark):
    name = "spark.sql.execution.arrow.maxRecordsPerBatch"
    before = runtime.setting(spark, name)
    with runtime.spark_setting(spark, name, "17"):
        assert runtime.setting(spark, name) == "17"
    assert before != "17" and runtime.setting(spark, name) == before
