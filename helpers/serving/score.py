"""The scoring script of ``endpoint_environment=own`` and of local endpoints. In a container it runs without the rest of the bundle.

Azure ML's server calls `init` when it starts, and `run` with the body of each request. Requests and answers are those of
the script that Azure ML brings itself; but a request that does not fit the model is answered with 400 and a reason.
https://learn.microsoft.com/azure/machine-learning/how-to-deploy-online-endpoints
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_loaded: dict[str, Any] = {}


def init(collectors: Sequence[Any] | None = None) -> None:
    """Load the model, and prepare to collect requests if the deployment does that.

    Parameters
    ----------
    collectors : sequence, optional
        Two in place of Azure ML's, for inputs and for outputs; or none, to collect nothing. Azure ML's server gives nothing.
    """
    import mlflow.pyfunc

    _loaded["model"] = mlflow.pyfunc.load_model(str(_model_folder()))
    _loaded["collectors"] = _azureml_collectors() if collectors is None else collectors


def _azureml_collectors() -> list[Any]:
    from azureml.ai.monitoring import Collector

    try:
        return [Collector(name=name) for name in ("model_inputs", "model_outputs")]
    # The package raises nothing more specific where a deployment does not collect.
    except Exception as error:  # noqa: BLE001
        print(f"Requests are not collected: {error}")
        return []


def _model_folder() -> Path:
    """Return the folder of the registered model; its name below the folder that Azure ML mounts is the user's choice."""
    mounted = Path(os.environ["AZUREML_MODEL_DIR"])
    found = [file.parent for file in mounted.rglob("MLmodel")]
    # A model may have others among its files.
    outermost = [folder for folder in found if not any(other in folder.parents for other in found)]
    if len(outermost) != 1:
        raise FileNotFoundError(
            f"{mounted} has to have one MLflow model, and has {len(outermost)}: the file MLmodel marks it"
        )
    return outermost[0]


def run(body: str) -> Any:
    """Score the rows of a request.

    Parameters
    ----------
    body : str
        JSON: ``input_data`` with the rows, either ``{"columns": …, "index": …, "data": …}`` or a tensor; ``params`` is
        optional.

    Returns
    -------
    list, dict or flask.Response
        The predictions, or an answer that says what is wrong with the request.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc import scoring_server

    model = _loaded["model"]
    try:
        content = json.loads(body)
        if not isinstance(content, dict) or "input_data" not in content:
            return _refused("the body has to be a JSON object with input_data")
        rows, params = content["input_data"], content.get("params")
        is_split = isinstance(rows, dict) and {"columns", "data"} <= rows.keys()
        sent = {"dataframe_split": rows} if is_split else {"inputs": rows}
        data = scoring_server.infer_and_parse_data(sent, model.metadata.get_input_schema())
    # Whatever the parser meets in the caller's JSON; the model has not been called yet.
    except Exception as error:  # noqa: BLE001
        return _refused(f"the body cannot be read: {error}")
    try:
        result = model.predict(data, params=params)
    except MlflowException as error:
        # Of the comparison with the signature. Errors of the model itself are answered with 500.
        if error.get_http_status_code() != 400:
            raise
        return _refused(str(error))
    # As MLflow's own server writes it.
    answer = io.StringIO()
    scoring_server.predictions_to_json(result, answer)
    predictions = json.loads(answer.getvalue())["predictions"]
    _collect(data, result)
    return predictions


def _collect(data: Any, result: Any) -> None:
    """Hand inputs and predictions to the collectors; the caller gets the answer even if that fails."""
    if not _loaded["collectors"]:
        return
    try:
        inputs, outputs = _loaded["collectors"]
        outputs.collect(_table(result), inputs.collect(_table(data)))
    # The package raises nothing more specific.
    except Exception as error:  # noqa: BLE001
        print(f"A request was answered, but not collected: {error}")


def _table(values: Any) -> Any:
    """Return values as a table, as Azure ML's own script does."""
    import pandas as pd

    if isinstance(values, dict):
        # Of several tensors, each may have more than one dimension.
        values = {name: list(value) for name, value in values.items()}
    return values if isinstance(values, pd.DataFrame) else pd.DataFrame(values)


def _refused(reason: str) -> Any:
    from flask import Response

    return Response(json.dumps({"message": reason}), 400, mimetype="application/json")
