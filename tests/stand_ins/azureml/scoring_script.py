"""What Azure ML's scoring script for MLflow models does with a model, so that the vendor's server can run it.

It runs in the environment of the model's own requirements, which has neither the tests nor the helpers. Each call is one
of the vendor's script, with the same arguments: azureml-assets, assets/inference/environments/mlflow-py312-inference/
context/mlflow_score_script.py, commit d258c7ca of 2025-11-20. Here are the calls for tables, not those for tensors and
language models.
"""

import json
import os
from pathlib import Path

import pandas as pd
from azureml.ai.monitoring import Collector
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.schema_decorators import input_schema, output_schema
from mlflow.models import Model
from mlflow.pyfunc import load_model
from mlflow.pyfunc.scoring_server import _get_jsonable_obj
from mlflow.types.utils import _infer_schema

# The deployment sets the two variables: the folder of the registered model, and its name in there.
folder = Path(os.environ["AZUREML_MODEL_DIR"], os.environ["MLFLOW_MODEL_FOLDER"])
description = Model.load(str(folder))


def empty_rows(schema):
    """Return a table without rows that has the columns of a signature."""
    return pd.DataFrame(columns=schema.input_names()).astype(
        dict(zip(schema.input_names(), schema.pandas_types(), strict=True))
    )


def example_rows():
    """Return the input example, or a table without rows if the model has none; requests get its column types."""
    example = description.saved_input_example_info
    if not example:
        return empty_rows(description.signature.inputs)
    loaded = json.loads((folder / example["artifact_path"]).read_text())
    orient = "split" if "columns" in loaded else "values"
    return pd.read_json(json.dumps(loaded), orient=orient, dtype=False)


rows = example_rows()
_infer_schema(rows)
model = load_model(str(folder))
collectors = {}


def init():
    """Prepare to collect inputs and outputs; a deployment without data collection goes on without."""
    try:
        collectors.update(inputs=Collector(name="model_inputs"), outputs=Collector(name="model_outputs"))
    except Exception as error:  # noqa: BLE001 - the collector raises no other
        print(f"Nothing is collected: {error}")


@input_schema("input_data", PandasParameterType(rows, enforce_shape=False, orient="split"))
@output_schema(PandasParameterType(empty_rows(description.signature.outputs), enforce_shape=False, orient="records"))
def run(input_data):
    """Score rows; collect them with their predictions, under one id."""
    context = collectors["inputs"].collect(input_data) if collectors else None
    result = model.predict(input_data, params=None)
    if collectors:
        collectors["outputs"].collect(pd.DataFrame(result), context)
    return _get_jsonable_obj(result, pandas_orient="records")
