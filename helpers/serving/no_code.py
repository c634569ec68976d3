"""Models that Azure ML cannot serve with ``endpoint_environment=no_code``, without code of the model's owner.

The container makes its environment from the model's ``conda.yaml``, and a script of the vendor converts each request to
the types of the model's input example. A model with which that must fail is refused here. The container would fail after
5 to 15 minutes, and only its log would say why.

The image and the script: https://github.com/Azure/azureml-assets/tree/main/assets/inference/environments/mlflow-py312-inference
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.models import Model

# The kinds of NumPy types that keep the values of a type in a signature.
_KINDS = {"string": "O", "double": "fO", "float": "fO", "long": "iuO", "integer": "iuO"}


def problem_of(folder: Path) -> str:
    """Return why Azure ML cannot serve a model, and what to do; empty if nothing is known.

    Parameters
    ----------
    folder : pathlib.Path
        The model's files.
    """
    from mlflow.models import Model

    model = Model.load(folder)
    if "spark" in model.flavors and not _brings_java(folder):
        # The image's Dockerfile installs none on a base that is not published, and containers failed for that reason:
        # https://github.com/Azure/azure-sdk-for-python/issues/23158
        return (
            "a Spark ML model needs Java, which the container's image does not install. Set endpoint_environment=own, whose "
            "environment lists openjdk, train with another model_flavor, or set endpoint_target=local"
        )
    return _problem_of_example(folder, model)


def _brings_java(folder: Path) -> bool:
    """Return whether Java is among what conda installs for the model."""
    import yaml

    environment = folder / "conda.yaml"
    listed = yaml.safe_load(environment.read_text())["dependencies"] if environment.is_file() else []
    return any(isinstance(package, str) and "openjdk" in package for package in listed)


def _problem_of_example(folder: Path, model: Model) -> str:
    """Return which column the script converts to a type that the model does not accept."""
    import pandas as pd

    info = model.saved_input_example_info
    if model.signature is None or model.signature.inputs is None or not info or info["type"] != "dataframe":
        return ""
    text = (folder / info["artifact_path"]).read_text()
    if "columns" not in json.loads(text):
        return ""
    # With the arguments of the script.
    example = pd.read_json(io.StringIO(text), orient="split", dtype=False)
    for column in model.signature.inputs.inputs:
        kinds = _KINDS.get(getattr(column.type, "name", ""))
        if kinds and column.name in example and example[column.name].dtype.kind not in kinds:
            read_as, wanted = example[column.name].dtype, column.type.name
            if read_as.kind == "M":
                # https://pandas.pydata.org/docs/reference/api/pandas.read_json.html, keep_default_dates
                return (
                    f"its script takes the values of column {column.name} for times, because of the column's name, where "
                    f"the signature says {wanted}. Rename the column: no name may end in _at or _time, begin with "
                    "timestamp, or be date, datetime or modified"
                )
            return (
                f"its script converts column {column.name} to {read_as}, as it reads the model's input example, where the "
                f"signature says {wanted}. Log the model with an input_example that has a {wanted} in that column"
            )
    return ""
