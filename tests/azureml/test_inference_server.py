"""Models of each flavor in the vendor's own inference server, as Azure ML's no-code deployment serves them."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import mlflow
import pytest
import yaml

from helpers import parameters, serving, tracking, training
from helpers.data import split
from helpers.ownership import MARK
from helpers.serving.health import is_equal
from tests.stand_ins.azureml import inference_server
from tests.stand_ins.azureml.inference_server import InferenceServer

pytestmark = pytest.mark.slow

# Spark ML models need Java, which that container does not have.
FLAVORS = ["sklearn", "xgboost"]


@pytest.fixture(scope="module")
def module_session(local_dir, tracking_parameters):
    return tracking.configure(tracking_parameters(experiment_name="inference server"))


@pytest.fixture(scope="module")
def table(spark):
    """Numbers and texts, some of them missing; the first rows have no ``note`` and no ``weight``."""
    spark.sql("CREATE SCHEMA inference_server")
    rows = spark.range(200).selectExpr(
        "id",
        "IF(id % 11 = 0, NULL, id % 3 + (id * 7919) % 100 / 400) AS `size.in cm`",
        "int(id % 7) AS count",
        "IF(id < 40, NULL, id / 10) AS weight",
        "IF(id % 7 = 0, NULL, concat('shop é ', id % 3)) AS `Shop Name`",
        "IF(id < 40, NULL, 'rare') AS note",
        "element_at(array('low', 'mid', 'high'), int(id % 3) + 1) AS label",
    )
    rows.coalesce(1).write.saveAsTable("inference_server.rows")
    return "inference_server.rows"


@pytest.fixture(scope="module")
def models(module_session, spark, table, tmp_path_factory):
    """By flavor: the folder of a model, and rows with its predictions."""
    rows = split.load_split(spark, table, label_column="label", id_column="id", test_fraction=0.3, seed=1)
    made = {}
    for flavor in FLAVORS:
        p = parameters.parse(parameters.Fit, {"model_flavor": flavor, "epochs": 3, "seed": 3})
        with mlflow.start_run():
            trained = training.fit(rows, p)
            uri = tracking.log_model(
                trained.model,
                flavor=trained.flavor,
                signature=trained.signature,
                input_example=trained.input_example,
                classes=trained.classes,
            )
        version = mlflow.register_model(uri, f"inference_{flavor}", tags={MARK: f"inference_{flavor}"})
        folder = tracking.download_model(module_session, uri, tmp_path_factory.mktemp("download"))
        made[flavor] = folder, serving.examples(module_session, version, rows.held_out.toPandas())
    return made


@pytest.fixture(scope="module")
def environment(models):
    """One environment of the requirements of all models, which `make` keeps."""
    requirements = [(folder / "requirements.txt").read_text().splitlines() for folder, _ in models.values()]
    started = time.perf_counter()
    folder = inference_server.environment(Path(sys.prefix, "inference-server"), sum(requirements, []))
    print(f"environment after {time.perf_counter() - started:.1f} s")
    return folder


@pytest.mark.parametrize("flavor", FLAVORS)
def test_the_vendors_server_gives_the_models_own_predictions(models, environment, tmp_path, flavor):
    model, known = models[flavor]
    started = time.perf_counter()
    with InferenceServer.start(environment, model, tmp_path / "server.log") as server:
        server.wait()
        print(f"{flavor}: ready after {time.perf_counter() - started:.1f} s")
        status, answer = server.score(serving.payload(known.rows))
        assert status == 200, server.log_file.read_text()
    assert is_equal(json.loads(answer), known.predictions)
