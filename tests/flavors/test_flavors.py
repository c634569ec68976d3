"""A model of each MLflow flavor in the guide's table: registered, scored, its probabilities, and its endpoint."""

import re

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers import data, tracking
from tests import guide_examples
from tests.model_checks import register_and_score, serve
from tests.unit.test_guide_examples import NEED_OTHER_PACKAGES

COLUMNS = ["mean radius", "mean texture", "mean smoothness", "mean symmetry"]


def sklearn_pipeline(x, y):
    from lightgbm import LGBMClassifier

    model = make_pipeline(StandardScaler(), LGBMClassifier(n_estimators=10, verbose=-1)).fit(x, y)
    return "sklearn", model, model.predict(x), model.predict_proba(x), {}


def lightgbm_classifier(x, y):
    from lightgbm import LGBMClassifier

    model = LGBMClassifier(n_estimators=10, verbose=-1).fit(x, y)
    return "lightgbm", model, model.predict(x), model.predict_proba(x), {}


def lightgbm_booster(x, y):
    import lightgbm

    model = lightgbm.train({"objective": "binary", "verbose": -1}, lightgbm.Dataset(x, y), 10)
    return "lightgbm", model, model.predict(x), two(model.predict(x)), {"classes": [0, 1]}


def xgboost_classifier(x, y):
    from xgboost import XGBClassifier

    model = XGBClassifier(n_estimators=10).fit(x, y)
    return "xgboost", model, model.predict(x), model.predict_proba(x), {}


def xgboost_booster(x, y):
    import xgboost

    model = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(x, y), 10)
    predicted = model.predict(xgboost.DMatrix(x))
    return "xgboost", model, predicted, two(predicted), {"classes": [0, 1]}


def catboost_classifier(x, y):
    from catboost import CatBoostClassifier

    model = CatBoostClassifier(iterations=10, verbose=False, allow_writing_files=False).fit(x, y)
    return "catboost", model, model.predict(x), model.predict_proba(x), {}


def statsmodels_glm(x, y):
    import statsmodels.api as sm

    model = sm.GLM(y, x, family=sm.families.Binomial()).fit()
    return "statsmodels", model, model.predict(x).to_numpy(), two(model.predict(x).to_numpy()), {"classes": [0, 1]}


def torch_network(x, y):
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.BatchNorm1d(len(COLUMNS)), torch.nn.Linear(len(COLUMNS), 2), torch.nn.Softmax(dim=1)
    )
    inputs, labels = torch.tensor(x.to_numpy(dtype="float32")), torch.tensor(y.to_numpy())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for step in range(100):
        loss = torch.nn.functional.nll_loss(model(inputs).log(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mlflow.log_metric("epoch_loss", loss.item(), step=step)
    model.eval()
    predicted = model(inputs).detach().numpy()
    # MLflow traces the model with these rows.
    options = {"input_example": x.to_numpy(dtype="float32")[:2], "columns": COLUMNS, "classes": [0, 1]}
    return "pytorch", model, predicted, predicted, options


def pickled_torch_network(x, y):
    flavor, model, predicted, expected, _ = torch_network(x, y)
    return flavor, model, predicted, expected, {"serialization_format": "pickle", "classes": [0, 1]}


def keras_network(x, y):
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input((len(COLUMNS),)), keras.layers.BatchNormalization(), keras.layers.Dense(1, activation="sigmoid")
    ])  # fmt: skip
    model.compile(optimizer=keras.optimizers.Adam(0.05), loss="binary_crossentropy")
    model.fit(x.to_numpy(dtype="float32"), y.to_numpy(), epochs=30, verbose=0)
    predicted = model.predict(x.to_numpy(dtype="float32"), verbose=0)
    return "keras", model, predicted, two(predicted[:, 0]), {"columns": COLUMNS, "classes": [0, 1]}


def onnx_pipeline(x, y):
    import onnxruntime
    from skl2onnx import to_onnx
    from skl2onnx.helpers.onnx_helper import select_model_inputs_outputs

    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(x.to_numpy(), y)
    everything = to_onnx(fitted, x.to_numpy(dtype="float32")[:1], options={"zipmap": False}, target_opset=18)
    model = select_model_inputs_outputs(everything, ["label"])
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (predicted,) = session.run(["label"], {"X": x.to_numpy(dtype="float32")})
    return "onnx", model, predicted, None, {}


# The names are those of the guide's table, docs/guide/your-own-model.md.
FLAVORS = {
    "scikit-learn, with a LightGBM step": sklearn_pipeline,
    "LightGBM, `LGBMClassifier`": lightgbm_classifier,
    "LightGBM, `Booster`": lightgbm_booster,
    "XGBoost, `XGBClassifier`": xgboost_classifier,
    "XGBoost, `Booster`": xgboost_booster,
    "CatBoost, `CatBoostClassifier`": catboost_classifier,
    "statsmodels, `GLM`": statsmodels_glm,
    "PyTorch": torch_network,
    "PyTorch, pickled": pickled_torch_network,
    "Keras": keras_network,
    "ONNX": onnx_pipeline,
}


def two(of_the_second):
    """The probabilities of both classes."""
    return np.column_stack([1 - of_the_second, of_the_second])


@pytest.fixture(scope="session", autouse=True)
def keras_on_torch():
    """Keras takes TensorFlow otherwise, which is not installed; set before Spark starts, whose workers need it, too."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("KERAS_BACKEND", "torch")
        yield


@pytest.fixture(scope="module")
def session(local_dir, tracking_parameters):
    return tracking.configure(tracking_parameters(experiment_name="flavors"))


@pytest.fixture(scope="module")
def split(spark):
    """Cells of two kinds, in a table."""
    frame = load_breast_cancer(as_frame=True).frame
    spark.sql("CREATE SCHEMA flavors")
    rows = frame[COLUMNS].assign(diagnosis=frame["target"], id=range(len(frame)))
    spark.createDataFrame(rows).write.saveAsTable("flavors.cells")
    return data.load_split(spark, "flavors.cells", label_column="diagnosis", id_column="id", test_fraction=0.2, seed=42)


@pytest.fixture(scope="module")
def rows(split):
    return split.rows.orderBy("id").toPandas()


@pytest.mark.parametrize("name", FLAVORS)
def test_a_model_of_the_flavor_is_registered_scored_and_served(session, spark, split, rows, schema, tmp_path, name):
    train = split.train.orderBy("id").toPandas()
    x = train[COLUMNS]
    with mlflow.start_run() as run:
        tracking.log_split(split)
        flavor, model, predicted, expected, options = FLAVORS[name](x, train["diagnosis"])
        output = pd.Series(predicted, name="prediction") if np.ndim(predicted) == 1 else predicted
        # PyTorch and Keras take one tensor, which has no names of columns.
        inputs = x.to_numpy(dtype="float32") if "columns" in options else x
        uri = tracking.log_model(model, flavor=flavor, signature=infer_signature(inputs, output), **options)
    model_name = re.sub(r"\W+", "_", name)
    outcome = register_and_score(session, spark, split, run, uri, model_name, f"{schema}.predictions")
    assert outcome.differing == 0
    # In the order of the ids, as the rows that the model was fitted to.
    of_training_rows = outcome.scored.set_index("id").loc[train["id"]]
    held_out = rows[~rows["id"].isin(train["id"])]
    of_held_out = outcome.scored.set_index("id").loc[held_out["id"]]
    assert outcome.metrics["accuracy_score"] == accuracy_score(held_out["diagnosis"], of_held_out["prediction"])
    if expected is None:
        assert outcome.scored["probability"].isna().all() and "roc_auc" not in outcome.metrics
    else:
        np.testing.assert_allclose(of_training_rows["probability"], expected.max(axis=1), rtol=1e-6)
        second = of_held_out["probability"].where(of_held_out["prediction"] == 1, 1 - of_held_out["probability"])
        assert outcome.metrics["roc_auc"] == pytest.approx(roc_auc_score(held_out["diagnosis"], second), abs=1e-9)
    answers = serve(session, outcome.version, rows.head(20), tmp_path)
    assert len(answers) == 20


@pytest.mark.parametrize("name", NEED_OTHER_PACKAGES)
def test_the_model_of_an_example_of_the_guide_is_scored_with_its_own_predictions(
    spark, schema, tracking_parameters, name
):
    outcome = guide_examples.run_and_register(name, spark, tracking_parameters, f"{schema}.predictions")
    assert len(outcome.scored) == 442 and outcome.differing == 0
    assert outcome.metrics["accuracy_score"] > 0.6 and outcome.metrics["roc_auc"] > 0.7
