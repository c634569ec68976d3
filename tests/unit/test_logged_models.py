"""Which of a run's models registration finds: the one whose URI `log_model` returned, or the one that is named."""

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.dummy import DummyRegressor

from helpers import tracking
from helpers.parameters import ParameterError

ROWS = pd.DataFrame({"x": [0.0, 1.0]})
SIGNATURE = infer_signature(ROWS, pd.Series([0.0, 0.0], name="prediction"))


def constant(value):
    return DummyRegressor(strategy="constant", constant=value).fit(ROWS, [0.0, 1.0])


def log(value, **options):
    return tracking.log_model(constant(value), flavor="sklearn", signature=SIGNATURE, **options)


def answer(session, uri, tmp_path):
    folder = tracking.download_model(session, uri, tmp_path)
    return mlflow.pyfunc.load_model(str(folder)).predict(ROWS)[0]


def test_a_model_logged_again_under_its_name_is_the_one_that_registration_finds(session, tmp_path):
    with mlflow.start_run() as run:
        uris = [log(float(value)) for value in range(3)]
    found = tracking.logged_model_uri(session, mlflow.get_run(run.info.run_id))
    assert found == uris[-1]
    assert answer(session, found, tmp_path) == 2.0


def test_of_several_models_the_one_that_is_named_is_found_and_none_is_guessed(session, tmp_path):
    with mlflow.start_run() as run:
        uris = {name: log(value, name=name) for name, value in {"first": 1.0, "second": 2.0, "third": 3.0}.items()}
    run = mlflow.get_run(run.info.run_id)
    with pytest.raises(ParameterError, match="model_uri='': run .* has 3 models.*first.*second.*third"):
        tracking.logged_model_uri(session, run)
    assert tracking.logged_model_uri(session, run, uris["second"]) == uris["second"]
    assert answer(session, uris["second"], tmp_path) == 2.0
    with pytest.raises(ParameterError, match="has no such model; there are: .*third"):
        tracking.logged_model_uri(session, run, "models:/m-unknown")


def test_models_that_mlflow_logged_itself_are_found_by_their_names(session):
    # Without it, MLflow loads the model in another process to find its packages.
    options = {"signature": SIGNATURE, "pip_requirements": ["scikit-learn"]}
    with mlflow.start_run() as run:
        first = mlflow.sklearn.log_model(constant(1.0), name="first", **options)
    run = mlflow.get_run(run.info.run_id)
    assert tracking.logged_model_uri(session, run) == first.model_uri
    with mlflow.start_run(run_id=run.info.run_id):
        mlflow.sklearn.log_model(constant(2.0), name="second", **options)
    with pytest.raises(ParameterError, match="has 2 models.*first.*second"):
        tracking.logged_model_uri(session, mlflow.get_run(run.info.run_id))


def test_log_model_takes_a_model_of_any_flavor_with_nothing_but_its_signature(session, tmp_path):
    class Doubled(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return pd.Series(model_input["x"] * 2, name="prediction")

    with mlflow.start_run() as run:
        uri = tracking.log_model(
            Doubled(), flavor="pyfunc", signature=SIGNATURE, pip_requirements=[f"numpy=={np.__version__}"]
        )
    assert tracking.logged_model_uri(session, mlflow.get_run(run.info.run_id)) == uri
    assert answer(session, uri, tmp_path) == 0.0
