"""The environment of ``endpoint_environment=own``, and its scoring script with a Spark ML model."""

import json

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.models import infer_signature
from pyspark.ml import Pipeline
from pyspark.ml.feature import SQLTransformer
from sklearn.dummy import DummyRegressor

from helpers import parameters, serving
from helpers.parameters import ParameterError
from helpers.serving import score
from helpers.serving.own_environment import conda_file

FOR_THE_SERVER = ["azureml-inference-server-http==1.5.1", "azureml-ai-monitoring==1.0.0"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model that was logged without this bundle."""
    folder = tmp_path_factory.mktemp("model") / "model"
    mlflow.sklearn.save_model(DummyRegressor().fit([[0]], [0]), folder, pip_requirements=["scikit-learn==1.6.1"])
    return folder


def parse(**changes):
    return parameters.parse(parameters.Deploy, {"endpoint_environment": "own", **changes})


def written(tmp_path, content):
    file = tmp_path / "conda.yml"
    file.write_text(content)
    return str(file)


def test_the_models_conda_file_gets_what_the_server_needs(model):
    own = yaml.safe_load((model / "conda.yaml").read_text())
    made = yaml.safe_load(conda_file(parse(), model))
    assert made.pop("dependencies")[-1] == {"pip": own.pop("dependencies")[-1]["pip"] + FOR_THE_SERVER}
    assert made == own


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (["python=3.12"], ["python=3.12", "pip", {"pip": FOR_THE_SERVER}]),
        (
            [{"pip": ["--index-url https://feed.example/simple", "azureml_inference_server_http>=1.4"]}],
            [{"pip": ["--index-url https://feed.example/simple", "azureml_inference_server_http>=1.4", FOR_THE_SERVER[1]]}],
        ),
        (
            ["conda-forge::openjdk", {"pip": [*FOR_THE_SERVER, "tool @ git+ssh://git@git.example/tool"]}],
            ["conda-forge::openjdk", {"pip": [*FOR_THE_SERVER, "tool @ git+ssh://git@git.example/tool"]}],
        ),
    ],
)  # fmt: skip
def test_a_conda_file_of_ones_own_replaces_it_and_keeps_what_it_lists(model, tmp_path, listed, expected):
    file = written(tmp_path, yaml.safe_dump({"channels": ["conda-forge"], "dependencies": listed}))
    made = yaml.safe_load(conda_file(parse(endpoint_conda_file=file), model))
    assert made == {"channels": ["conda-forge"], "dependencies": expected}


@pytest.mark.parametrize(
    "address",
    [
        "https://user:hidden@feed.example/simple", "https://hidden@feed.example/simple", "git+ssh://me:hidden@git.example/x",
        "https://store.example/x.whl?sv=1&sig=hidden", "https://conda.example/t/hidden/channel",
    ],
)  # fmt: skip
def test_an_address_with_a_credential_is_refused_and_not_shown(model, tmp_path, address):
    file = written(tmp_path, f"dependencies: [pip: ['--index-url {address}']]")
    with pytest.raises(ParameterError, match="an address with a credential.*connection of the workspace") as refused:
        conda_file(parse(endpoint_conda_file=file), model)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "cannot be read: .*No such file"), ("a: [", "is not YAML"), ("name: x", "has no list of dependencies")],
)
def test_a_file_that_is_not_a_conda_file_is_refused(model, tmp_path, content, problem):
    file = str(tmp_path / "missing.yml") if content is None else written(tmp_path, content)
    with pytest.raises(ParameterError, match=rf"endpoint_conda_file='.*': .*{problem}"):
        conda_file(parse(endpoint_conda_file=file), model)


def test_a_model_without_a_conda_file_needs_one(model, tmp_path):
    (tmp_path / "MLmodel").write_text((model / "MLmodel").read_text())
    with pytest.raises(ParameterError, match="endpoint_environment='own': .*name a file in endpoint_conda_file"):
        conda_file(parse(), tmp_path)


def test_the_environment_of_a_spark_ml_model_lists_java_and_the_script_scores_with_it(spark, tmp_path, monkeypatch):
    rows = pd.DataFrame({"size": [0.5, 1.0, 2.5]})
    double = SQLTransformer(statement="SELECT *, 2 * size AS prediction FROM __THIS__")
    model = Pipeline(stages=[double]).fit(spark.createDataFrame(rows))
    signature = infer_signature(rows, pd.Series([0.0], name="prediction"))
    mlflow.spark.save_model(model, tmp_path / "mounted" / "any name", signature=signature, pip_requirements=["pyspark"])
    made = yaml.safe_load(conda_file(parse(), tmp_path / "mounted" / "any name"))
    assert made["dependencies"][0] == "openjdk=17"

    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path / "mounted"))
    monkeypatch.setattr(score, "_loaded", {})
    score.init(collectors=[])
    answer = score.run(serving.payload(rows))
    assert answer == [1.0, 2.0, 5.0]


def test_a_folder_without_one_model_is_an_error(model, tmp_path, monkeypatch):
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path))
    for number in range(3):
        if number != 1:
            with pytest.raises(FileNotFoundError, match=f"has to have one MLflow model, and has {number}"):
                score._model_folder()
        (tmp_path / f"m{number}" / "inner").mkdir(parents=True)
        # A model may have another among its files.
        for place in ("MLmodel", "inner/MLmodel"):
            (tmp_path / f"m{number}" / place).write_text((model / "MLmodel").read_text())
        if number == 0:
            assert score._model_folder() == tmp_path / "m0"


class TwoOutputs(mlflow.pyfunc.PythonModel):
    """The sum and the first value of each row of a tensor."""

    def predict(self, context, model_input, params=None):
        return {"total": model_input.sum(axis=1), "first": model_input[:, 0]}


def test_a_tensor_without_columns_and_several_outputs_are_answered_as_mlflow_does(tmp_path, monkeypatch):
    options = {"signature": infer_signature(np.ones((2, 2))), "pip_requirements": []}
    mlflow.pyfunc.save_model(tmp_path / "model", python_model=TwoOutputs(), **options)
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path))
    monkeypatch.setattr(score, "_loaded", {})
    score.init(collectors=[])
    answer = score.run(json.dumps({"input_data": [[1.0, 2.0], [3.0, 4.0]]}))
    assert answer == {"total": [3.0, 7.0], "first": [1.0, 3.0]}
